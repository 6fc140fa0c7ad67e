"""An underlay with a link of 1400 bytes."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from .farm import Farm

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


@pytest.mark.parametrize("address", ["10.0.0.2", "[fd00:10::2]"], ids=["IPv4", "IPv6"])
def test_a_narrow_link_is_found_out(narrow: Farm, tmp_path: Path, address: str):
    """Nobody clamps anything: TCP learns of the link from the errors that its router sends, through the switches."""
    megabytes = 10 if narrow.target == "bmv2" else 4
    (tmp_path / "file").write_bytes(random.Random(4).randbytes(megabytes << 20))
    with narrow.serving("red-b", "serve_http", 8000, str(tmp_path)):
        command = f"curl -gsS --max-time 200 'http://{address}:8000/file' | sha256sum"
        printed = narrow.exec("red-a", "sh", "-c", command, timeout=240)
    assert printed.split()[0] == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()
    plain = address.strip("[]")
    assert "mtu 1400" in narrow.exec("red-b", "ip", "route", "get", plain[:-1] + "1")
    assert "pmtu 1400" in narrow.exec("red-a", "tracepath", "-n", plain)
