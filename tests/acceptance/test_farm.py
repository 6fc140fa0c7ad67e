"""Real programs in real namespaces, on the farm of `make run`, by the `nvi` command."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from itertools import pairwise
from pathlib import Path

import pytest

from .capture import capturing, read, sent
from .farm import Farm, mac_of
from .reader import connections, delete, mentions_port

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

UNDERLAY = IPv4Network("172.16.0.0/16")
ACROSS, WITHIN = ("acme-web1", "acme-web2", "10.0.1.2"), ("acme-web1", "acme-web3", "10.0.1.3")
WAYS = pytest.mark.parametrize(("client", "server", "address"), [ACROSS, WITHIN], ids=["across", "within"])
MEGABYTES = {"bmv2": 100, "embedded": 20}


@pytest.fixture(scope="module")
def document(farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to be fetched, of the size that the target is asked to carry."""
    path = tmp_path_factory.mktemp("site") / "document"
    path.write_bytes(random.Random(1).randbytes(MEGABYTES[farm.target] << 20))
    return path


@WAYS
def test_ping(farm: Farm, client: str, server: str, address: str):  # noqa: ARG001
    assert " 0% packet loss" in farm.exec(client, "ping", "-c", "5", "-i", "0.2", address)


@WAYS
def test_a_packet_as_large_as_the_underlays_mtu(farm: Farm, client: str, server: str, address: str):  # noqa: ARG001
    printed = farm.exec(client, "ping", "-c", "3", "-i", "0.2", "-s", "1472", "-M", "do", address)
    assert " 0% packet loss" in printed
    assert "1480 bytes from" in printed


@WAYS
def test_a_file_by_http(farm: Farm, document: Path, client: str, server: str, address: str):
    expected = hashlib.sha256(document.read_bytes()).hexdigest()
    with farm.serving(server, "serve_http", 8000, str(document.parent)):
        url = f"http://{address}:8000/{document.name}"
        printed = farm.exec(client, "sh", "-c", f"curl -sS --max-time 240 {url} | sha256sum", timeout=260)
    assert printed.split()[0] == expected


@WAYS
def test_udp_both_ways(farm: Farm, client: str, server: str, address: str):
    with farm.serving(server, "serve_udp", 5353):
        assert "200 datagrams" in farm.workload(client, "say_udp", address, "5353", "200")
        assert "20 datagrams" in farm.workload(client, "say_udp", address, "5353", "20", "1472")


@WAYS
def test_five_hundred_connections_at_once(farm: Farm, client: str, server: str, address: str):
    with farm.serving(server, "serve_tcp", 7000):
        assert "500 connections at once" in farm.workload(client, "many_tcp", address, "7000", "500")


@WAYS
def test_iperf3(farm: Farm, client: str, server: str, address: str):
    with iperf3_server(farm, server):
        result = json.loads(farm.exec(client, "iperf3", "-c", address, "-t", "3", "-J"))
    assert result["end"]["sum_received"]["bits_per_second"] > 1e6


class iperf3_server:
    """An iperf3 server that runs meanwhile."""

    def __init__(self, farm: Farm, where: str) -> None:
        self._farm, self._where = farm, where
        self._running = farm.running(where, "iperf3", "-s")

    def __enter__(self) -> None:
        self._running.__enter__()
        self._farm.wait_for(lambda: ":5201 " in self._farm.exec(self._where, "ss", "-lnt"), "iperf3 server")

    def __exit__(self, *error: object) -> None:
        self._running.__exit__(*error)


def test_the_underlay_sees_only_itself_and_nothing_is_changed_on_the_way(farm: Farm, tmp_path: Path):
    """Invariants 1 and 2, on captures of every packet at both endpoints and both wires."""
    (tmp_path / "document").write_bytes(random.Random(2).randbytes(1 << 20))
    hosts = list(farm.json("hosts")["hosts"])
    names = [host["name"] for host in hosts]
    places = [(name, "underlay0") for name in names] + [("acme-web1", "eth0"), ("acme-web2", "eth0")]
    with (
        farm.serving("acme-web2", "serve_http", 8001, str(tmp_path)),
        farm.serving("acme-web2", "serve_udp", 5354),
        farm.serving("acme-web2", "serve_tcp", 7001),
        capturing(farm, tmp_path, *places) as files,
    ):
        farm.exec("acme-web1", "ping", "-c", "3", "-i", "0.2", "10.0.1.2")
        farm.exec("acme-web1", "ping", "-c", "3", "-i", "0.2", "-s", "1472", "-M", "do", "10.0.1.2")
        farm.exec("acme-web1", "curl", "-sS", "-o", "/dev/null", "http://10.0.1.2:8001/document")
        farm.workload("acme-web1", "say_udp", "10.0.1.2", "5354", "50", "1001")
        farm.workload("acme-web1", "many_tcp", "10.0.1.2", "7001", "50")
    captured = {place: read(path) for place, path in files.items()}
    wires = {name: captured[name, "underlay0"] for name in names}
    for name, packets in wires.items():
        for seen in packets:
            assert seen.source in UNDERLAY and seen.destination in UNDERLAY, (name, seen)
            assert seen.wrong_checksum() is None, (name, seen)
    wire1, wire2 = ([seen for seen in wires[name] if seen.is_nvi] for name in ("bj1", "bj2"))
    client, server = captured["acme-web1", "eth0"], captured["acme-web2", "eth0"]
    for way in (
        [sent(client, "10.0.1.1"), sent(wire1, "172.16.1.1"), sent(wire2, "172.16.1.1"), sent(server, "10.0.1.1")],
        [sent(server, "10.0.1.2"), sent(wire2, "172.16.2.1"), sent(wire1, "172.16.2.1"), sent(client, "10.0.1.2")],
    ):
        # A switch under load may lose a packet of TCP's. None may be changed, made up or doubled, at any stage.
        assert way[0].total() > 300
        for stage, (before, after) in enumerate(pairwise(way), 1):
            assert not after - before, f"not what came before, at stage {stage}: {list((after - before).items())[:5]}"
            assert after.total() > 0.5 * before.total()
    assert not any(seen.is_nvi for name in ("bj3", "bj4") for seen in wires[name])


def test_tenants_with_the_same_addresses_each_reach_only_their_own(farm: Farm, tmp_path: Path):
    for tenant in ("acme", "globex"):
        (tmp_path / tenant).mkdir()
        (tmp_path / tenant / "whoami").write_text(tenant * 100_000)
    with (
        farm.serving("acme-web2", "serve_http", 8002, str(tmp_path / "acme")),
        farm.serving("globex-web2", "serve_http", 8002, str(tmp_path / "globex")),
        ThreadPoolExecutor() as pool,
    ):
        fetched = {
            tenant: [
                pool.submit(farm.exec, f"{tenant}-web1", "curl", "-sS", "http://10.0.1.2:8002/whoami") for _ in range(4)
            ]
            for tenant in ("acme", "globex")
        }
        for tenant, answers in fetched.items():
            assert {answer.result() for answer in answers} == {tenant * 100_000}


def test_groups_connect_networks_and_nothing_else_does(farm: Farm):
    printed = farm.exec("acme-web1", "ping", "-c", "2", "-i", "0.2", "10.0.2.1")
    assert " 0% packet loss" in printed
    assert "ttl=63" in printed, "a router lies between two networks"
    with pytest.raises(AssertionError, match="100% packet loss"):
        farm.exec("globex-web1", "ping", "-c", "1", "-W", "1", "10.0.2.1")


def test_connections_are_shown_and_leave_nothing_behind(farm: Farm):
    with farm.serving("acme-web2", "serve_tcp", 7002), farm.serving("acme-web3", "serve_tcp", 7002):
        for address in ("10.0.1.2", "10.0.1.3"):
            farm.workload("acme-web1", "connect_tcp", address, "7002")
        farm.exec("acme-db1", "ping", "-c", "2", "-i", "0.2", "10.0.1.4")
        connections = farm.json("connections")["connections"]
    mine = {(each["protocol"], each["responder"]["port"], each["responder"]["endpoint"]): each for each in connections}
    across = mine["tcp", 7002, "acme-web2"]
    assert across["tenant"] == "acme"
    assert across["initiator"]["endpoint"] == "acme-web1"
    (segment,) = across["segments"]
    assert (segment["from"]["address"], segment["to"]["address"]) == ("172.16.1.1", "172.16.2.1")
    assert set(across["hosts"]) == {"bj1", "bj2"}
    for usage in across["hosts"].values():
        assert usage["packets"] >= 6
        assert usage["bytes"] > 6 * 54
        assert 0 <= usage["idle_seconds"] < farm.idle_timeout + 5
    within = mine["tcp", 7002, "acme-web3"]
    assert (within["segments"], set(within["hosts"])) == ([], {"bj1"})
    assert any(each["protocol"] == "icmp" and each["initiator"]["endpoint"] == "acme-db1" for each in connections)
    time.sleep(farm.idle_timeout + 5)
    assert set(farm.held().values()) == {0}
    assert farm.json("connections")["connections"] == []


class Stream:
    """An iperf3 run between two hosts that must not break, whatever happens meanwhile."""

    def __init__(self, farm: Farm, seconds: int) -> None:
        self._farm, self._seconds = farm, seconds
        self._server = iperf3_server(farm, "acme-web2")

    def __enter__(self) -> None:
        self._server.__enter__()
        seconds = str(self._seconds)
        self._client = self._farm.running(
            "acme-web1", "iperf3", "-c", "10.0.1.2", "-t", seconds, "-i", "1", "--forceflush"
        )
        self._process = self._client.__enter__()
        time.sleep(3)

    def __exit__(self, kind: object, *error: object) -> None:
        try:
            if kind is None:
                printed, _ = self._process.communicate(timeout=self._seconds + 20)
                assert self._process.returncode == 0, printed
                rates = [float(rate) for rate in re.findall(r"([\d.]+) [KMG]bits/sec", printed)]
                assert len(rates) >= self._seconds, printed
                assert rates[self._seconds - 2] > 0, f"nothing flows any more\n{printed}"
        finally:
            self._client.__exit__(kind, *error)
            self._server.__exit__(kind, *error)


def test_a_stream_runs_through_the_death_of_the_agents(farm: Farm):
    with farm.serving("acme-web4", "serve_tcp", 7003), Stream(farm, 12):
        held = {each["id"]: each for each in farm.json("connections")["connections"] if each["protocol"] == "tcp"}
        # iperf3's other connection is idle, and may end and come back at any time.
        busy = max(held.values(), key=lambda each: each["hosts"]["bj2"]["packets"] if "bj2" in each["hosts"] else 0)
        pids = farm.agent_pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        farm.wait_for(lambda: ready(farm) and not farm.agent_pids() & pids, "agents back")
        assert float(farm.workload("acme-web1", "connect_tcp", "10.0.1.4", "7003")) < 3
        after = farm.json("connections")["connections"]
        assert busy["id"] in {each["id"] for each in after}, "a connection was not adopted"
        assert len({each["id"] for each in after}) == len(after)
        entries = connections("bj2", farm.device_id("bj2"))
        its = [entry for entry in entries if mentions_port(entry, busy["initiator"]["port"])]
        assert len(its) == 2, "an adopted entry was written twice"


def ready(farm: Farm) -> bool:
    """Whether every agent is its switch's primary."""
    return all(host["agent"]["state"] == "primary" for host in farm.json("status")["hosts"].values())


@pytest.mark.parametrize("victim", ["bj1", "bj2"])
def test_a_stream_runs_through_an_intruder_that_deletes_everything(farm: Farm, victim: str):
    device_id = farm.device_id(victim)
    with Stream(farm, 10):
        assert delete(victim, device_id) >= 2
        farm.wait_for(lambda: ready(farm), "the agent is primary again")
        time.sleep(1)
        assert farm.held()[victim] >= 2


@pytest.mark.parametrize("victim", ["bj1", "bj2"])
def test_a_stream_runs_through_the_loss_of_its_entries_at_one_host(farm: Farm, victim: str):
    with Stream(farm, 8):
        assert delete(victim, farm.device_id(victim), lambda entry: mentions_port(entry, 5201)) >= 4
        farm.wait_for(lambda: ready(farm), "the agent is primary again")


def test_a_flood_of_new_flows_leaves_the_others_working(farm: Farm):
    mac = mac_of(farm, "acme-web2")

    def flood() -> str:
        return farm.workload("acme-web1", "flood", "10.0.1.1", "10.0.1.2", mac, "20000", "50000")

    def metered() -> bool:
        return farm.drops("bj1", "acme-web1").get("punt_limit", 0) > 0

    with farm.serving("globex-web2", "serve_tcp", 7004), ThreadPoolExecutor() as pool:
        farm.workload("globex-web1", "connect_tcp", "10.0.1.2", "7004")
        flooding = pool.submit(flood)
        took = []
        while not flooding.done() or len(took) < 5:
            took.append(float(farm.workload("globex-web1", "connect_tcp", "10.0.1.2", "7004")))
        flooding.result()
    assert max(took) < 10, f"a SYN lost thrice is a connection late, not refused: {took}"
    assert sorted(took)[len(took) // 2] < 2, took
    # A machine too slow to exceed the limit with one flood gets another.
    farm.wait_for(lambda: metered() or (flood() and metered()), "the flood is metered", 60)
    assert farm.drops("bj1", "globex-web1").get("punt_limit", 0) == 0


def test_what_is_spoofed_never_leaves_its_port(farm: Farm, tmp_path: Path):
    before = farm.drops("bj1", "acme-web1").get("spoofed", 0)
    entries = farm.held()["bj1"]
    with capturing(farm, tmp_path, ("bj1", "underlay0"), ("acme-web3", "eth0"), ("acme-web2", "eth0")) as files:
        mac = mac_of(farm, "acme-web2")
        farm.workload("acme-web1", "spoof", "10.0.1.1", "10.0.1.99", "10.0.1.2", mac, "50")
    assert farm.drops("bj1", "acme-web1")["spoofed"] == before + 100
    for path in files.values():
        assert not [seen for seen in read(path) if b"flooding" in seen.frame]
    assert farm.held()["bj1"] <= entries


def test_a_hundred_thousand_malformed_packets_install_nothing(farm: Farm):
    farm.wait_for(lambda: farm.held()["bj1"] == 0, "idle", farm.idle_timeout + 10)
    pids = [host["switch"]["pid"] for host in farm.json("status")["hosts"].values()]
    mac = mac_of(farm, "acme-web2")
    farm.workload("acme-web1", "malformed", "10.0.1.1", "10.0.1.2", mac, "100000", "7", timeout=240)
    time.sleep(1)
    assert farm.held()["bj1"] == 0
    drops = farm.drops("bj1", "acme-web1")
    assert drops["malformed"] > 1000
    assert drops["unsupported"] > 1000
    assert [host["switch"]["pid"] for host in farm.json("status")["hosts"].values()] == pids
    assert ready(farm)
    assert " 0% packet loss" in farm.exec("acme-web1", "ping", "-c", "2", "-i", "0.2", "10.0.1.2")


def test_a_disconnected_pair_is_cut_at_once_and_a_connected_one_talks(farm: Farm, tmp_path: Path):
    """Also a stream that runs, at both ends; what was refused meanwhile is not remembered."""
    with (
        iperf3_server(farm, "acme-web2"),
        farm.running("acme-web1", "iperf3", "-c", "10.0.1.2", "-t", "30", "-i", "1"),
    ):
        time.sleep(3)
        farm.nvi("disconnect", "acme-web1", "acme-web2")
        time.sleep(1)
        with capturing(farm, tmp_path, ("acme-web2", "eth0"), ("acme-web1", "eth0")) as files:
            time.sleep(3)
        at_web2, at_web1 = (read(path) for path in files.values())
        assert not [seen for seen in at_web2 if str(seen.source) == "10.0.1.1"]
        assert not [seen for seen in at_web1 if str(seen.source) == "10.0.1.2"]
    with pytest.raises(AssertionError, match="100% packet loss"):
        farm.exec("acme-web1", "ping", "-c", "1", "-W", "1", "10.0.1.2")
    farm.nvi("connect", "acme-web1", "acme-web2")
    assert " 0% packet loss" in farm.exec("acme-web1", "ping", "-c", "1", "-W", "2", "10.0.1.2")
    farm.nvi("clear", "acme-web1", "acme-web2")
    assert farm.json("policies")["tenants"]["acme"]["pairs"] == []


def test_a_rule_holds_at_once_and_the_restarted_agents_know_it(farm: Farm):
    with farm.serving("acme-db1", "serve_tcp", 7010), farm.serving("acme-db1", "serve_tcp", 7011):
        farm.workload("acme-web1", "connect_tcp", "10.0.2.1", "7010")
        rule = ["--from", "web", "--to", "acme-db1", "--action", "deny", "--protocol", "tcp", "--ports", "7010"]
        farm.nvi("policy", "add", "--tenant", "acme", *rule)
        for pid in farm.agent_pids():
            os.kill(pid, signal.SIGKILL)
        farm.wait_for(lambda: ready(farm), "agents back")
        with pytest.raises(AssertionError, match=r"No route to host|refused|Permission"):
            farm.workload("acme-web1", "connect_tcp", "10.0.2.1", "7010")
        farm.workload("acme-web1", "connect_tcp", "10.0.2.1", "7011")
        farm.nvi("policy", "remove", "acme", "1")
        farm.workload("acme-web1", "connect_tcp", "10.0.2.1", "7010")
