"""Real programs across sites, to and from the Internet, on the farm of `make run`."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import sys
import time
from pathlib import Path

import pytest

from .capture import capturing, read
from .farm import Farm
from .sshd import Sshd

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

MEGABYTES = {"bmv2": 20, "embedded": 5}
OUTSIDE, BEIJING, VIRGINIA = "203.0.113.7", "198.51.100.1", "198.51.100.2"
FETCH = "curl -sS --max-time 150 --connect-timeout 20"


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of files to be fetched."""
    directory = tmp_path_factory.mktemp("site")
    (directory / "small").write_bytes(random.Random(1).randbytes(100_000))
    (directory / "large").write_bytes(random.Random(2).randbytes(max(MEGABYTES.values()) << 20))
    return directory


def fetched(farm: Farm, where: str, url: str, size: int | None = None) -> str:
    """SHA-256 of what an endpoint fetches, or of its first bytes."""
    part = f"-r 0-{size - 1}" if size else ""
    return farm.exec(where, "sh", "-c", f"{FETCH} {part} {url} | sha256sum", timeout=200).split()[0]


def digest(path: Path, size: int | None = None) -> str:
    return hashlib.sha256(path.read_bytes()[:size]).hexdigest()


@pytest.mark.parametrize(
    ("source", "destination"),
    [("acme-web1", "10.0.1.3"), ("acme-web1", "10.0.1.4"), ("acme-web4", "10.0.1.3"), ("globex-web1", "10.0.1.3")],
)
def test_endpoints_of_other_sites_answer(sites: Farm, source: str, destination: str):
    """Also packets as large as the underlay's MTU, in which an encapsulation would find no room."""
    for options in ((), ("-s", "1472", "-M", "do")):
        printed = sites.exec(source, "ping", "-c", "3", "-i", "0.3", "-W", "5", *options, destination)
        assert " 0% packet loss" in printed
        assert "ttl=64" in printed, "no router shows within a network"
    # A later fragment waits a tenth of a second for its first, which a busy machine may take to open the connection.
    printed = sites.exec(source, "ping", "-c", "4", "-i", "0.3", "-W", "5", "-s", "4000", destination)
    assert int(re.search(r"(\d) received", printed)[1]) >= 3, printed


def test_a_file_across_two_gateways(sites: Farm, documents: Path):
    size = MEGABYTES[sites.target] << 20
    with sites.serving("acme-web3", "serve_http", 8000, str(documents)):
        url = "http://10.0.1.3:8000/large"
        # http.server knows no ranges: the whole file is sent, unless it is small.
        got = sites.exec("acme-web1", "sh", "-c", f"{FETCH} {url} | head -c {size} | sha256sum", timeout=200).split()[0]
    assert got == digest(documents / "large", size)


def test_the_wires_of_a_gateway_carry_only_addresses_of_their_segments(sites: Farm, documents: Path, tmp_path: Path):
    places = [("bj9", "underlay0"), ("bj9", "external0"), ("va9", "external0"), ("acme-web1", "eth0")]
    with (
        sites.serving("acme-web3", "serve_http", 8001, str(documents)),
        capturing(sites, tmp_path, *places) as files,
    ):
        assert fetched(sites, "acme-web1", "http://10.0.1.3:8001/small") == digest(documents / "small")
        sites.exec("acme-web1", "ping", "-c", "3", "-i", "0.2", "-s", "1472", "-M", "do", "10.0.1.3")
    own = {
        ("bj9", "underlay0"): {"172.16.1.1", "172.16.1.9", "172.16.1.254"},
        ("bj9", "external0"): {BEIJING, VIRGINIA},
        ("va9", "external0"): {BEIJING, "10.99.0.2"},
    }
    lengths = {}
    for place, path in files.items():
        packets = read(path)
        lengths[place] = {seen.length for seen in packets}
        if place not in own:
            continue
        assert sum(seen.is_nvi for seen in packets) > 50, place
        for seen in packets:
            assert {str(seen.source), str(seen.destination)} <= own[place], (place, seen)
            assert seen.wrong_checksum() is None, (place, seen)
    for place in own:
        assert lengths[place] <= lengths["acme-web1", "eth0"], place


def test_tenants_with_the_same_addresses_reach_their_own(sites: Farm, tmp_path: Path):
    for tenant in ("acme", "globex"):
        (tmp_path / tenant).mkdir()
        (tmp_path / tenant / "whoami").write_text(tenant)
    with (
        sites.serving("acme-web3", "serve_http", 8002, str(tmp_path / "acme")),
        sites.serving("globex-web3", "serve_http", 8002, str(tmp_path / "globex")),
    ):
        for tenant in ("acme", "globex"):
            assert sites.exec(f"{tenant}-web1", *FETCH.split(), "http://10.0.1.3:8002/whoami") == tenant


@pytest.mark.parametrize(
    ("client", "seen"), [("acme-web1", BEIJING), ("acme-web3", VIRGINIA), ("acme-web4", "192.0.2.1")]
)
def test_an_endpoint_fetches_from_the_internet(sites: Farm, documents: Path, tmp_path: Path, client: str, seen: str):
    log = tmp_path / "log"
    with sites.serving("outside", "serve_http", 8003, str(documents), str(log)):
        assert fetched(sites, client, f"http://{OUTSIDE}:8003/small") == digest(documents / "small")
    assert log.read_text().splitlines() == [seen]


def test_who_may_not_reach_the_internet_does_not(sites: Farm):
    with pytest.raises(AssertionError, match="100% packet loss"):
        sites.exec("globex-web1", "ping", "-c", "1", "-W", "2", OUTSIDE)


@pytest.mark.parametrize(("server", "port"), [("acme-web1", 8081), ("acme-web3", 8080)], ids=["here", "other site"])
def test_a_published_service_knows_its_clients(sites: Farm, documents: Path, tmp_path: Path, server: str, port: int):
    log = tmp_path / "log"
    with sites.serving(server, "serve_http", 80, str(documents), str(log)):
        assert fetched(sites, "outside", f"http://{BEIJING}:{port}/small") == digest(documents / "small")
    assert log.read_text().splitlines() == [OUTSIDE]


def test_what_is_published_can_be_taken_back(sites: Farm, documents: Path):
    url = f"http://{BEIJING}:9090/small"
    with sites.serving("acme-web2", "serve_http", 8004, str(documents)):
        sites.nvi("publish", "acme-web2:8004", "--via", "bj9:9090")
        listed = [(each["endpoint"], each["external_port"]) for each in sites.json("services")["services"]]
        assert ("acme-web2", 9090) in listed
        assert fetched(sites, "outside", url) == digest(documents / "small")
        sites.nvi("unpublish", "acme-web2:8004", "--via", "bj9:9090")
        with pytest.raises(AssertionError, match="exit"):
            sites.exec("outside", "curl", "-sS", "--connect-timeout", "2", url)


def test_traceroute_and_tracepath_show_the_overlay(sites: Farm):
    """The network's router, where there is one; and never a host or router of the underlay."""
    hops = sites.exec("acme-web1", "traceroute", "-n", "-q", "1", "-w", "3", "-m", "6", OUTSIDE).splitlines()[1:]
    shown = [hop.split()[1] for hop in hops]
    assert shown[0] == "10.0.1.254"
    assert shown.index(OUTSIDE) == len(shown) - 1, "routers outside are not taken for whom they lead to"
    assert not any("172.16." in hop for hop in hops)
    within = sites.exec("acme-web1", "traceroute", "-n", "-q", "1", "-w", "3", "-m", "6", "10.0.1.3").splitlines()[1:]
    assert [hop.split()[1] for hop in within] == ["10.0.1.3"]
    path = sites.exec("acme-web1", "tracepath", "-n", "-m", "6", "10.0.1.3")
    assert "pmtu 1500" in path
    assert "172.16." not in path


def test_disconnect_stops_a_stream_across_sites_at_both_ends(sites: Farm, tmp_path: Path):
    with (
        sites.running("acme-web3", "iperf3", "-s"),
        sites.running("acme-web1", "sh", "-c", "sleep 1; exec iperf3 -c 10.0.1.3 -t 40"),
    ):

        def flows() -> bool:
            running = [each for each in sites.json("connections")["connections"] if each["protocol"] == "tcp"]
            return any(use["packets"] > 200 for each in running for use in each["hosts"].values())

        sites.wait_for(flows, "the stream flows", 30)
        sites.nvi("disconnect", "acme-web1", "acme-web3")
        time.sleep(1)
        with capturing(sites, tmp_path, ("acme-web1", "eth0"), ("acme-web3", "eth0")) as files:
            time.sleep(2)
        at_web1, at_web3 = (read(path) for path in files.values())
        assert not [seen for seen in at_web3 if str(seen.source) == "10.0.1.1"]
        assert not [seen for seen in at_web1 if str(seen.source) == "10.0.1.3"]
    sites.nvi("connect", "acme-web1", "acme-web3")
    assert " 0% packet loss" in sites.exec("acme-web1", "ping", "-c", "1", "-W", "5", "10.0.1.3")
    sites.nvi("clear", "acme-web1", "acme-web3")


def test_ssh_stays_alive_while_its_server_moves_to_another_site(sites: Farm):
    if shutil.which("sshd", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("no sshd: make setup gets it")
    with Sshd(sites, "acme-web3") as sshd, sshd.session("acme-web1", "10.0.1.3") as say:
        assert say("echo one") == "one"
        for host in ("sh1", "bj2", "va1"):
            sites.nvi("move", "acme-web3", host)
            assert say(f"echo on {host}") == f"on {host}"
        assert say("hostname; echo $SSH_CONNECTION").startswith("")
    assert " 0% packet loss" in sites.exec("acme-web1", "ping", "-c", "1", "-W", "5", "10.0.1.3")


def test_everybody_reaches_whom_the_policy_lets_them_reach(sites: Farm):
    assert "all is well" in sites.nvi("check")


def test_idle_connections_leave_nothing_behind(sites: Farm):
    sites.exec("acme-web1", "ping", "-c", "1", "-W", "5", "10.0.1.3")
    sites.wait_for(lambda: set(sites.held().values()) == {0}, "every table is empty", sites.idle_timeout + 25)
