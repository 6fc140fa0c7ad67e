"""Overlay and underlay of either family, in all combinations, within a site and between two."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from nvi.model import (
    Endpoint,
    External,
    Host,
    Network,
    Subnet,
    Tenant,
    derive_mac,
    read_address,
    show_address,
    show_mac,
)
from nvi.simulation import Farm, VirtualClockLoop
from nvi.switch import PORT_EXTERNAL, PORT_UNDERLAY

WEB = Network(
    "web",
    (
        Subnet(read_address("10.0.1.0"), 24, read_address("10.0.1.254")),
        Subnet(read_address("fd01::"), 64, read_address("fd01::fe")),
    ),
)
ACME = Tenant("acme", {"web": WEB})
ADDRESSES = {
    "one": (read_address("10.0.1.1"), read_address("fd01::1")),
    "other": (read_address("10.0.1.2"), read_address("fd01::2")),
}
UNDERLAY = {4: ("172.16.1.{}",), 6: ("fd99::{}",), 46: ("172.16.1.{}", "fd99::{}")}
OUTSIDE = {4: "198.51.100.{}", 6: "2001:db8::{}"}


def host(name: str, site: str, number: int, underlay: int, outside: int | None = None) -> Host:
    public = None if outside is None else read_address(OUTSIDE[outside].format(number))
    external = None if public is None else External(public, public)
    return Host(name, site, tuple(read_address(each.format(number)) for each in UNDERLAY[underlay]), external=external)


class World:
    """Two endpoints with addresses of both families on two hosts, and what has left each switch."""

    def __init__(self, hosts: list[Host]) -> None:
        self.seen: list[tuple[int, bytes]] = []
        self.loop = VirtualClockLoop()
        self.ends = {
            name: Endpoint(name, "acme", "web", derive_mac("endpoint", name), ADDRESSES[name], where)
            for name, where in (("one", hosts[0].name), ("other", hosts[1].name))
        }
        self.farm: Farm = self.loop.run_until_complete(self._start(hosts))

    async def _start(self, hosts: list[Host]) -> Farm:
        farm = Farm(capture=lambda _, port, packet: self.seen.append((port, packet)))
        await farm.start([ACME], hosts)
        for endpoint in self.ends.values():
            await farm.add_endpoint(endpoint, 16)
        return farm

    def exchange(self, sender: str, receiver: str, packet: Packet) -> tuple[bytes, dict[str, list[bytes]]]:
        """(the frame that was sent, what each of them received)."""
        one, other = self.ends[sender], self.ends[receiver]
        frame = bytes(Ether(src=show_mac(one.mac), dst=show_mac(other.mac)) / packet)
        return frame, self.loop.run_until_complete(self._exchange(sender, frame))

    async def _exchange(self, sender: str, frame: bytes) -> dict[str, list[bytes]]:
        self.farm.emit(sender, frame)
        await asyncio.sleep(0.01)
        return {name: got for name in self.ends if (got := self.farm.delivered(name))}

    def entries(self) -> list[int]:
        return [len(self.loop.run_until_complete(each.switch.read_connections())) for each in self.farm.hosts.values()]

    def close(self) -> None:
        self.loop.run_until_complete(self.farm.stop())
        self.loop.close()


@pytest.fixture
def worlds() -> Iterator[list[World]]:
    made: list[World] = []
    yield made
    for world in made:
        world.close()


def packet(family: int, kind: str, sender: str, receiver: str, back: bool) -> Packet:
    which = 0 if family == 4 else 1
    source, destination = show_address(ADDRESSES[sender][which]), show_address(ADDRESSES[receiver][which])
    if family == 4:
        header = IP(src=source, dst=destination, flags="DF", ttl=33, tos=0xB8, id=0)
    else:
        header = IPv6(src=source, dst=destination, hlim=33, tc=0xB8, fl=0x12345)
    ports = {"sport": 80, "dport": 1000} if back else {"sport": 1000, "dport": 80}
    echo = ICMP(type=0 if back else 8, id=7, seq=3)
    if family == 6:
        echo = (ICMPv6EchoReply if back else ICMPv6EchoRequest)(id=7, seq=3)
    layers = {"tcp": TCP(flags="SA" if back else "S", **ports), "udp": UDP(**ports), "echo": echo}
    return header / layers[kind] / b"some payload"


def talk(world: World, overlay: int, kind: str) -> None:
    """There, back and there again; what arrives is what was sent."""
    for sender, receiver, back in (("one", "other", False), ("other", "one", True), ("one", "other", False)):
        frame, received = world.exchange(sender, receiver, packet(overlay, kind, sender, receiver, back))
        assert received == {receiver: [frame]}


@pytest.mark.parametrize("kind", ["tcp", "udp", "echo"])
@pytest.mark.parametrize("overlay", [4, 6])
@pytest.mark.parametrize("underlay", [4, 6, 46])
def test_within_a_site(worlds: list[World], overlay: int, underlay: int, kind: str) -> None:
    world = World([host("a1", "a", 1, underlay), host("a2", "a", 2, underlay)])
    worlds.append(world)
    talk(world, overlay, kind)
    used = overlay if underlay == 46 else underlay
    for port, seen in world.seen:
        if port == PORT_UNDERLAY:
            assert seen[12:14] == (b"\x08\0" if used == 4 else b"\x86\xdd"), "the overlay's family, if both have it"
            for address in (*ADDRESSES["one"], *ADDRESSES["other"]):
                assert address not in seen
    world.loop.run_until_complete(asyncio.sleep(35))
    assert world.entries() == [0, 0]


@pytest.mark.parametrize("kind", ["tcp", "udp", "echo"])
@pytest.mark.parametrize("overlay", [4, 6])
@pytest.mark.parametrize("families", [(4, 6, 4), (6, 4, 6), (4, 4, 6), (6, 6, 6)], ids=str)
def test_between_sites(worlds: list[World], overlay: int, families: tuple[int, int, int], kind: str) -> None:
    near, outside, far = families
    world = World([
        host("a1", "a", 1, near), host("b1", "b", 1, far),
        host("a9", "a", 9, near, outside), host("b9", "b", 8, far, outside),
    ])  # fmt: skip
    worlds.append(world)
    talk(world, overlay, kind)
    assert world.entries() == [2, 2, 2, 2]
    for port, seen in world.seen:
        if port == PORT_EXTERNAL:
            assert seen[12:14] == (b"\x08\0" if outside == 4 else b"\x86\xdd")


def test_hosts_without_a_common_family_are_refused_and_the_reason_is_named(worlds: list[World]) -> None:
    world = World([host("a1", "a", 1, 4), host("a2", "a", 2, 6)])
    worlds.append(world)
    frame, received = world.exchange("one", "other", packet(4, "udp", "one", "other", back=False))
    assert list(received) == ["one"]
    (reply,) = received["one"]
    assert Ether(reply)[ICMP].type == 3
    assert frame[14:34] in reply


@pytest.mark.parametrize("overlay", [4, 6])
@pytest.mark.parametrize("restarted", ["a1", "a2"])
def test_a_restarted_agent_adopts_a_connection_across_families(
    worlds: list[World], overlay: int, restarted: str
) -> None:
    underlay = 10 - overlay
    world = World([host("a1", "a", 1, underlay), host("a2", "a", 2, underlay)])
    worlds.append(world)
    talk(world, overlay, "udp")
    held = world.loop.run_until_complete(world.farm.hosts[restarted].switch.read_connections())
    world.loop.run_until_complete(world.farm.restart_agent(restarted))
    assert world.loop.run_until_complete(world.farm.hosts[restarted].switch.read_connections()) == held
    talk(world, overlay, "udp")
    agent = world.farm.hosts[restarted].agent
    (adopted,) = agent._local.connections
    assert (adopted.first.ttl, adopted.first.dont_fragment) == (33, True)
    if restarted == "a2" and overlay == 6:
        assert adopted.first.flow_label == 0x12345
