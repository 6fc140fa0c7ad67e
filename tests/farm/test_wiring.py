"""The emulated world by itself: with plain bridges in place of the switches, every stack reaches what it should."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvi.emulation.nodes import Nodes
from nvi.emulation.plan import make_plan
from nvi.topology import loads

pytestmark = pytest.mark.root

CLOUDS = """
name: clouds
sites: {east: {mtu: 1400}, west: {}}
hosts:
  e1: {site: east, underlay: [172.16.1.1/24, "fd00:1::1/64"]}
  e2: {site: east, underlay: [172.16.2.1/24, "fd00:2::1/64"], pool: [172.16.2.64/31, "fd00:2::40/127"]}
  e9: {site: east, underlay: 172.16.1.9/24, external: {address: 198.51.100.1/24}}
  w1: {site: west, underlay: 172.16.1.1/24}
  w8: {site: west, underlay: 172.16.1.8/24, external: {address: 10.99.0.8/24, public: 198.51.100.8}}
  w9: {site: west, underlay: 172.16.1.9/24, external: {address: 10.99.0.9/24, public: 192.0.2.9}}
  w6: {site: west, underlay: 172.16.1.6/24, external: {address: "2001:db8:1::6/64"}}
internet: {outside: [203.0.113.7, "2001:db8:f::7"], other: 198.51.100.77}
tenants:
  red:
    networks:
      net: {cidr: 10.0.0.0/24, gateway: 10.0.0.254, cidr6: "fd00:10::/64", gateway6: "fd00:10::fe"}
endpoints:
  red-a: {tenant: red, network: net, ip: 10.0.0.1, ip6: "fd00:10::1", host: e1}
"""


class World:
    """Namespaces, and what runs in them."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def run(self, where: str, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["mnexec", "-a", str(self._nodes.pid(where)), *command], capture_output=True, text=True, timeout=30
        )

    def reaches(self, where: str, address: str, *options: str) -> bool:
        """Whether one echo is answered; a first one may be lost while neighbours are found."""
        return any(
            self.run(where, "ping", "-n", "-c", "1", "-W", "2", *options, address).returncode == 0 for _ in range(3)
        )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    plan = make_plan(loads(CLOUDS, Path("clouds.yaml")))
    nodes = Nodes()

    async def build() -> None:
        for node in plan.nodes:
            nodes.create(node)
        await nodes.wire(plan.cables)
        await nodes.configure(node.name for node in plan.nodes)
        for node in plan.nodes:
            if node.kind == "host":
                for wire, stack in (("underlay0", "nvi0p"), ("external0", "nvi1p")):
                    join = f"ip link add name x{wire} type bridge forward_delay 0; ip link set x{wire} arp off up"
                    ports = f"ip link set {wire} master x{wire}; ip link set {stack} master x{wire}"
                    await nodes.run(node.name, f"if [ -e /sys/class/net/{wire} ]; then {join}; {ports}; fi")

    try:
        asyncio.run(build())
        yield World(nodes)
    finally:
        nodes.close()


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("e1", "172.16.2.1"),
        ("e1", "172.16.1.9"),
        ("e9", "172.16.2.1"),
        ("e1", "fd00:2::1"),
        ("e1", "172.16.2.65"),
        ("e1", "fd00:2::41"),
        ("e9", "203.0.113.7"),
        ("e9", "198.51.100.77"),
        ("e9", "198.51.100.8"),
        ("w8", "198.51.100.1"),
        ("w8", "203.0.113.7"),
        ("w9", "198.51.100.8"),
        ("w8", "192.0.2.9"),
        ("w8", "10.99.0.9"),
        ("w6", "2001:db8:f::7"),
        ("outside", "2001:db8:1::6"),
        ("outside", "198.51.100.1"),
        ("outside", "198.51.100.8"),
        ("outside", "198.51.100.77"),
    ],
)
def test_whoever_should_reaches_whom(world: World, source: str, destination: str) -> None:
    assert world.reaches(source, destination)


@pytest.mark.parametrize(
    ("source", "destination"),
    [("e1", "203.0.113.7"), ("w1", "198.51.100.1"), ("outside", "10.99.0.8"), ("outside", "172.16.1.9")],
)
def test_nobody_else_does(world: World, source: str, destination: str) -> None:
    assert world.run(source, "ping", "-n", "-c", "1", "-W", "1", destination).returncode != 0


def test_sites_that_use_the_same_addresses_stay_apart(world: World) -> None:
    """Both w1 and e1 are 172.16.1.1, and both see another 172.16.1.9."""
    macs = set()
    for host in ("e1", "w1"):
        assert world.reaches(host, "172.16.1.9")
        macs.add(world.run(host, "ip", "neigh", "show", "172.16.1.9").stdout.split("lladdr ")[1].split()[0])
    assert len(macs) == 2


def test_the_outside_sees_only_the_public_address_of_a_translated_gateway(world: World) -> None:
    server = "import socket; s = socket.create_server(('', 80)); print('up', flush=True); print(s.accept()[1][0])"
    client = "import socket; socket.create_connection(('203.0.113.7', 80), 10).close()"
    pid = world._nodes.pid("outside")
    with subprocess.Popen(
        ["mnexec", "-a", str(pid), "python3", "-c", server], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert world.run("w8", "python3", "-c", client).returncode == 0
        assert process.communicate(timeout=10)[0] == "198.51.100.8\n"


def test_the_links_between_the_routers_of_a_site_have_its_mtu(world: World) -> None:
    """And the router says so, in both families."""
    for address, version in (("172.16.2.1", 4), ("fd00:2::1", 6)):
        headers = 28 if version == 4 else 48
        assert world.reaches("e1", address, "-M", "do", "-s", str(1400 - headers))
        assert not world.reaches("e1", address, "-M", "do", "-s", str(1401 - headers))
        assert "mtu 1400" in world.run("e1", "ip", "route", "get", address).stdout


def test_a_stack_never_speaks_under_an_address_of_its_pool(world: World) -> None:
    for address in ("172.16.1.1", "fd00:1::1"):
        chosen = world.run("e2", "ip", "route", "get", address).stdout
        assert " src 172.16.2.1 " in chosen or " src fd00:2::1 " in chosen


def test_endpoints_have_both_families_and_no_address_of_their_own_making(world: World) -> None:
    addresses = world.run("red-a", "ip", "-br", "addr", "show", "eth0").stdout.split()[2:]
    assert [each for each in addresses if not each.startswith("fe80::")] == ["10.0.0.1/24", "fd00:10::1/64"]
    assert "default via 10.0.0.254" in world.run("red-a", "ip", "route").stdout
    assert "default via fd00:10::fe" in world.run("red-a", "ip", "-6", "route").stdout


def test_switch_ports_have_no_ipv6(world: World) -> None:
    for line in world.run("e1", "ip", "-6", "-br", "addr").stdout.splitlines():
        assert line.split()[0].partition("@")[0] in ("lo", "nvi0"), line
