"""Random farms of both families: overlay and underlay, fragments, networks, a policy that changes, against a model.

`test_farm` knows more of what may happen to a farm; this world knows more of what a packet may be.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from nvi.model import (
    ConnectionId,
    End,
    Endpoint,
    External,
    FirstPacket,
    Flow,
    Host,
    Network,
    SegmentEnd,
    Subnet,
    Tenant,
    derive_mac,
    pair_of,
    read_address,
    show_address,
    show_mac,
)
from nvi.offers import VERSION, Offer, Refuse, Reply, Request, Stamp
from nvi.offers.memory import MemoryOffers
from nvi.simulation import Farm, VirtualClockLoop, addresses_of
from nvi.switch import PORT_EXTERNAL, PORT_UNDERLAY

TENANTS = ("acme", "globex")
NETWORKS = ("web", "db")
PLACES = ((0, "web", 0), (1, "web", 1), (2, "web", 2), (3, "db", 1), (4, "db", 0))
"""Number of an endpoint, its network, its host: the same in both tenants, with the same addresses."""
KINDS = ("tcp", "udp", "echo", "fragments")
MARK = b"\xabNVI"


def networks() -> dict[str, Network]:
    return {
        name: Network(
            name,
            (
                Subnet(read_address(f"10.0.{n}.0"), 24, read_address(f"10.0.{n}.254")),
                Subnet(read_address(f"fd0{n}::"), 64, read_address(f"fd0{n}::fe")),
            ),
        )
        for n, name in enumerate(NETWORKS, 1)
    }


class Messages(MemoryOffers):
    """Counts who offers."""

    def __init__(self) -> None:
        super().__init__()
        self.offers: Counter[str] = Counter()

    async def request(self, sender: str, receiver: str, message: Request) -> Reply:
        self.offers[sender] += isinstance(message, Offer)
        return await super().request(sender, receiver, message)


class World:
    """The farm, what was sent in it, and who may talk to whom."""

    def __init__(self, underlay: str, outside: int, sites: int, seed: int) -> None:
        self.underlay, self.outside, self.sites = underlay, outside, sites
        self.rng = random.Random(seed)
        self.tenants = {name: Tenant(name, networks()) for name in TENANTS}
        self.offers = Messages()
        self.sent: dict[int, tuple[Endpoint, Endpoint | None, list[bytes]]] = {}
        """By serial number: from whom, to whom (None: nobody is to get it), the frames."""
        self.flows: list[tuple[Endpoint, Endpoint, int, str, int]] = []
        """What was said: from whom, to whom, family, kind, source port."""
        self.arrived: Counter[int] = Counter()
        self.told: Counter[int] = Counter()
        self.broken: list[str] = []

    async def start(self) -> None:
        self.farm = Farm(offers=self.offers, capture=self.see)
        self.hosts = [self._host(number) for number in range(3)]
        await self.farm.start(self.tenants.values(), self.hosts)
        self.endpoints: dict[tuple[str, int], Endpoint] = {}
        for t, tenant in enumerate(TENANTS):
            for number, network, host in PLACES:
                n = NETWORKS.index(network) + 1
                addresses = read_address(f"10.0.{n}.{number + 1}"), read_address(f"fd0{n}::{number + 1}")
                mac = derive_mac("endpoint", network, str(number))  # the same in both tenants, too
                endpoint = Endpoint(f"{tenant}{number}", tenant, network, mac, addresses, f"h{host}")
                await self.farm.add_endpoint(endpoint, 16 + t * len(PLACES) + number)
                self.endpoints[tenant, number] = endpoint

    def _host(self, number: int) -> Host:
        site = number % self.sites
        texts = {"4": ["172.16.1.{}"], "6": ["fd99::{}"], "46": ["172.16.1.{}", "fd99::{}"]}[self.underlay]
        public = read_address(("198.51.100.{}" if self.outside == 4 else "2001:db8::{}").format(1 + number))
        external = External(public, public) if self.sites > 1 and number < self.sites else None
        addresses = tuple(read_address(text.format(number + 1)) for text in texts)
        return Host(f"h{number}", f"s{site}", addresses, external=external)

    # ---- the model --------------------------------------------------------------------------------------------------

    def allowed(self, one: Endpoint, other: Endpoint) -> bool:
        connected = self.tenants[one.tenant].pairs.get(pair_of(one.name, other.name))
        return one.network == other.network if connected is None else connected

    # ---- what is seen -----------------------------------------------------------------------------------------------

    def see(self, host: str, port: int, packet: bytes) -> None:
        """Invariant 2: nothing of the overlay is on a wire."""
        if port in (PORT_UNDERLAY, PORT_EXTERNAL):
            known = {a for each in self.hosts for a in each.addresses}
            known |= {each.external.public for each in self.hosts if each.external is not None}
            if not set(addresses_of(packet)) <= known:
                self.broken.append(f"an overlay address at port {port} of {host}: {packet.hex()}")

    async def look(self) -> None:
        """What has arrived must have been meant to."""
        await asyncio.sleep(0.3)
        for endpoint in self.endpoints.values():
            for frame in self.farm.delivered(endpoint.name):
                self._check(endpoint, frame)
        assert not self.broken, self.broken

    def _check(self, receiver: Endpoint, frame: bytes) -> None:
        at = frame.find(MARK)
        if at < 0:
            return  # neighbours, and the router's own
        serial = int.from_bytes(frame[at + 4 : at + 8])
        sender, to, frames = self.sent[serial]
        assert sender.tenant == receiver.tenant, f"{receiver.name} got what {sender.name} has sent"
        if frame[at - 8 : at] and self._is_error(frame):
            assert receiver is sender, f"{receiver.name} was told of a packet of {sender.name}"
            self.told[serial] += 1
            return
        assert to is receiver, f"{receiver.name} got what was for {to.name if to else 'nobody'}"
        assert self.allowed(sender, receiver), f"{sender.name} may not talk to {receiver.name}"
        routed = sender.network != receiver.network
        got = normal(frame)
        assert got in [normal(each) for each in frames], f"{got.hex()} is not what was sent"
        assert hops(frame) == 64 - routed
        self.arrived[serial] += 1

    def _is_error(self, frame: bytes) -> bool:
        packet = Ether(frame)
        return bool(
            (packet.haslayer(ICMP) and packet[ICMP].type == 3)
            or (IPv6 in packet and frame[20] == 58 and frame[54] == 1)
        )

    # ---- what happens -----------------------------------------------------------------------------------------------

    def _emit(self, sender: Endpoint, to: Endpoint | None, make: Any) -> int:
        serial = len(self.sent) + 1
        frames = make(MARK + serial.to_bytes(4))
        self.sent[serial] = (sender, to, frames)
        for each in frames:
            self.farm.emit(sender.name, each)
        return serial

    async def say(self, tenant: str, i: int, j: int, family: int, kind: str) -> None:
        """Somebody says something to somebody else: it arrives whole if that is allowed, else its sender is told."""
        one, other = self.endpoints[tenant, i], self.endpoints[tenant, j]
        before = self.offers.offers[one.host]
        port = 1024 + len(self.sent)
        self.flows.append((one, other, family, kind, port))
        serial = self._emit(one, other, lambda mark: self._frames(one, other, one.addresses, family, kind, port, mark))
        await self.look()
        if self.allowed(one, other):
            assert self.arrived[serial] == len(self.sent[serial][2]), (one.name, other.name, family, kind)
        else:
            assert not self.arrived[serial]
            assert self.told[serial], "who is denied is told"
            assert self.offers.offers[one.host] == before, "what our own policy denies is not offered"

    async def again(self, _: str, i: int, j: int, *__: object) -> None:
        """Somebody goes on with what was said before: it arrives if that is allowed now, whatever was before."""
        if not self.flows:
            return
        one, other, family, kind, port = self.flows[(i * len(PLACES) + j) % len(self.flows)]
        serial = self._emit(one, other, lambda mark: self._frames(one, other, one.addresses, family, kind, port, mark))
        await self.look()
        assert self.arrived[serial] == (len(self.sent[serial][2]) if self.allowed(one, other) else 0)

    def _frames(
        self,
        one: Endpoint,
        other: Endpoint,
        addresses: tuple[bytes, ...],
        family: int,
        kind: str,
        port: int,
        mark: bytes,
    ) -> list[bytes]:
        which = 0 if family == 4 else 1
        ends = show_address(addresses[which]), show_address(other.addresses[which])
        mac = other.mac if one.network == other.network else self.tenants[one.tenant].gateway_mac(one.network)
        ether = Ether(src=show_mac(one.mac), dst=show_mac(mac))
        ports = {"sport": port, "dport": 80}
        header: Packet = (
            IP(src=ends[0], dst=ends[1], flags="DF", id=7, tos=0x28)
            if family == 4
            else IPv6(src=ends[0], dst=ends[1], hlim=64, tc=0x28, fl=0x12345)
        )
        match kind:
            case "tcp":
                return [bytes(ether / header / TCP(**ports, flags="S") / Raw(mark))]
            case "udp":
                return [bytes(ether / header / UDP(**ports) / Raw(mark))]
            case "echo" if family == 4:
                return [bytes(ether / header / ICMP(type=8, id=ports["sport"], seq=1) / Raw(mark))]
            case "echo":
                return [bytes(ether / header / ICMPv6EchoRequest(id=ports["sport"], seq=1, data=mark))]
        body = UDP(**ports) / Raw(mark * (1 + 600 // len(mark)) * 3)
        if family == 4:
            header.flags = 0
            pieces = fragment(header / body, 600)
        else:
            pieces = fragment6(header / IPv6ExtHdrFragment(id=self.rng.getrandbits(32)) / body, 648)
        frames = [bytes(ether / piece) for piece in pieces]
        self.rng.shuffle(frames)
        return frames

    async def pretend(self, tenant: str, i: int, j: int, family: int, kind: str) -> None:
        """Somebody sends with somebody else's address: nobody gets that."""
        one, victim = self.endpoints[tenant, i], self.endpoints[tenant, j]
        other = self.endpoints[tenant, next(n for n, *_ in PLACES if n not in (i, j))]
        self._emit(one, None, lambda mark: self._frames(one, other, victim.addresses, family, kind, 1023, mark))
        await self.look()

    async def lie(self, tenant: str, i: int, j: int, family: int, kind: str) -> None:
        """An agent that does not ask its policy offers: the other end has the same one."""
        one, other = self.endpoints[tenant, i], self.endpoints[tenant, j]
        sender, receiver = self.farm.hosts[one.host].host, self.farm.hosts[other.host].host
        if sender is receiver or sender.site != receiver.site or self.allowed(one, other):
            return
        which, protocol = (0 if family == 4 else 1), 6 if kind == "tcp" else 17
        port = 1024 + len(self.sent)
        flow = Flow(one.addresses[which], other.addresses[which], protocol, port, 80)
        end = SegmentEnd(sender.name, sender.site, sender.addresses[0], sender.addresses[0], 20000 + port % 1000)
        identity, stamp = ConnectionId.of(tenant, flow), Stamp(99, len(self.sent))
        offer = Offer(VERSION, stamp, identity, End(flow.source, port), FirstPacket(64), end)
        reply = await self.farm.offers.request(sender.name, receiver.name, offer)
        assert isinstance(reply, Refuse), "the policy is the receiver's as well"

    async def revoke(self, tenant: str, i: int, j: int, family: int, kind: str) -> None:
        """What is live is not allowed any more: its next packet already goes nowhere."""
        await self.say(tenant, i, j, family, kind)
        await self.judge(tenant, i, j, 6, "tcp")
        self.flows = self.flows[-1:]
        await self.again(tenant, 0, 0)

    async def judge(self, tenant: str, i: int, j: int, family: int, kind: str) -> None:
        """The policy changes."""
        pair = pair_of(self.endpoints[tenant, i].name, self.endpoints[tenant, j].name)
        pairs = dict(self.tenants[tenant].pairs)
        pairs[pair] = family == 4 if kind != "echo" else not pairs.get(pair, True)
        self.tenants[tenant] = Tenant(tenant, networks(), pairs=pairs)
        await self.farm.directory.publish_tenant(self.tenants[tenant])
        await self.look()

    async def restart(self, tenant: str, i: int, _: int, family: int, __: str) -> None:
        """An agent, or a switch, begins anew."""
        name = self.endpoints[tenant, i].host
        await (self.farm.restart_agent(name) if family == 4 else self.farm.restart_switch(name))
        await self.look()

    async def rest(self, *_: object) -> None:
        """Nobody sends for a while: nothing is left."""
        await asyncio.sleep(100)
        for host in self.farm.hosts.values():
            assert not await host.switch.read_connections()
            assert not len(host.agent._local.connections)


def normal(frame: bytes) -> bytes:
    """What must not differ: all beyond the MACs but TTL, its checksum, and the identification of what may be cut."""
    packet = bytearray(frame[14:])
    if frame[12:14] == b"\x08\0":
        packet[8], packet[10:12] = 0, bytes(2)
        packet[4:6] = bytes(2)
    else:
        packet[7] = 0
        if packet[6] == 44:
            packet[44:48] = bytes(4)
    return bytes(packet)


def hops(frame: bytes) -> int:
    return frame[22] if frame[12:14] == b"\x08\0" else frame[21]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["say", "say", "say", "again", "again", "judge", "revoke", "pretend", "lie", "restart", "rest"]
        ),
        st.sampled_from(TENANTS),
        st.permutations(range(len(PLACES))),
        st.sampled_from([4, 6]),
        st.sampled_from(KINDS),
    ),
    min_size=6,
    max_size=16,
)


@pytest.mark.timeout(900)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    underlay=st.sampled_from(["4", "6", "46"]),
    outside=st.sampled_from([4, 6]),
    sites=st.sampled_from([1, 2]),
    seed=st.integers(0, 1 << 16),
    steps=STEPS,
)
def test_both_families_arrive_as_they_were_sent_and_nowhere_else(
    underlay: str, outside: int, sites: int, seed: int, steps: list[tuple[str, str, list[int], int, str]]
) -> None:
    async def run() -> None:
        world = World(underlay, outside, sites, seed)
        await world.start()
        try:
            for what, tenant, numbers, family, kind in steps:
                await getattr(world, what)(tenant, numbers[0], numbers[1], family, kind)
        finally:
            await world.farm.stop()

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(run())
