"""IPv4 and IPv6, over and under: every combination that the farm has."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from .farm import Farm

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

# What the underlay between their hosts is, if any; b and e have both families, and prefer that of the packet.
ACROSS = [
    ("red-a", "red-b", "2"),  # IPv4 below
    ("red-b", "red-c", "3"),  # IPv6 below
    ("red-b", "red-e", "5"),  # both
    ("red-c", "red-d", "4"),  # IPv6 below, in one subnet
]


@pytest.mark.parametrize(("source", "destination", "number"), ACROSS)
@pytest.mark.parametrize("pattern", ["10.0.0.{}", "fd00:10::{}"], ids=["IPv4", "IPv6"])
def test_everything_over_everything(
    dual: Farm, tmp_path: Path, source: str, destination: str, number: str, pattern: str
):
    address = pattern.format(number)
    largest = 1472 - (28 if "." in address else 48)
    for options in ((), ("-s", str(largest), "-M", "do")):
        printed = dual.exec(source, "ping", "-c", "2", "-i", "0.3", "-W", "5", *options, address)
        assert " 0% packet loss" in printed
    with dual.serving(destination, "serve_udp", 5300):
        assert "10 datagrams" in dual.workload(source, "say_udp", address, "5300", "10", "4000")
    (tmp_path / "file").write_bytes(random.Random(3).randbytes(300_000))
    url = f"http://[{address}]" if ":" in address else f"http://{address}"
    with dual.serving(destination, "serve_http", 8000, str(tmp_path)):
        printed = dual.exec(source, "sh", "-c", f"curl -gsS --max-time 60 '{url}:8000/file' | sha256sum")
    assert printed.split()[0] == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()


def test_hosts_without_a_family_in_common_say_so(dual: Farm):
    printed = dual.exec("red-a", "sh", "-c", "ping -c 1 -W 3 10.0.0.3 || :")
    assert "Unreachable" in printed


def test_a_router_lies_between_networks(dual: Farm):
    assert "ttl=63" in dual.exec("red-d", "ping", "-c", "1", "-W", "5", "fd00:20::6")


def test_an_endpoints_neighbours_and_gateway_answer(dual: Farm):
    for address in ("10.0.0.254", "fd00:10::fe"):
        assert " 0% packet loss" in dual.exec("red-a", "ping", "-c", "1", "-W", "5", address)
