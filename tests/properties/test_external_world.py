"""Random farms with an outside, random traffic, restarts and moves, against a model of what NAT promises.

Every packet carries a serial number, so whatever comes out anywhere is known to be of what was sent. Design section 8,
invariant 3: no packet reaches another tenant, except through a published service, as from the Internet.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from nvi.keys import KEY_FIRST, KEY_LAST
from nvi.model import Endpoint, External, Host, Network, Service, Subnet, Tenant, derive_mac, read_address, show_mac
from nvi.model import show_address as show
from nvi.simulation import Farm, VirtualClockLoop

PEERS = ("203.0.113.7", "203.0.113.8")
REMEMBERED = 200.0
"""Seconds after its last use for which every mapping is there: the shortest lifetime of those used here is longer."""


def host(name: str, site: str, address: str, external: str = "", public: str = "") -> Host:
    outside = External(read_address(external), read_address(public or external)) if external else None
    return Host(name, site, (read_address(address),), external=outside)


HOSTS = [
    host("e1", "east", "172.16.1.1"),
    host("e8", "east", "172.16.1.8", "198.51.100.8"),
    host("e9", "east", "172.16.1.9", "198.51.100.9"),
    host("w1", "west", "172.16.1.1"),
    host("w9", "west", "172.16.1.9", "10.99.0.2", "198.51.100.2"),
]
PUBLIC = {each.name: show(each.external.public) for each in HOSTS if each.external is not None}
WEB = Network("web", (Subnet(read_address("10.0.1.0"), 24, read_address("10.0.1.254")),), internet=True)
TENANTS = {name: Tenant(name, {"web": WEB}) for name in ("acme", "globex")}
ENDPOINTS = {
    f"{tenant}{number}": (
        Endpoint(
            f"{tenant}{number}",
            tenant,
            "web",
            derive_mac("endpoint", tenant, str(number)),
            (read_address(f"10.0.1.{number}"),),
            where,
        ),
        16 + 4 * number + (tenant == "globex"),
    )
    for tenant, number, where in (
        ("acme", 1, "e1"), ("globex", 1, "e1"), ("acme", 2, "e8"), ("globex", 2, "w9"), ("acme", 3, "w1"),
    )
}  # fmt: skip
SERVED = 80


@dataclass
class Sent:
    """A packet, by whom, and who may receive it with what on it."""

    kind: str
    to_outside: tuple[str, int] | None = None
    """(address, port) outside where it is to arrive."""
    to_endpoint: str = ""
    """Name of the endpoint that is to receive it; empty for none."""
    source: tuple[str, int] | None = None
    """What its receiver must see as its source; None for an external address and port that the model learns."""
    port: int = 0
    """Its destination port at the endpoint."""
    key: tuple[str, int, int] | None = None
    """Of a packet that leaves by a mapping: (endpoint, protocol, port)."""
    arrived: bool = False


@dataclass
class Seen:
    """A packet that somebody may answer: from and to whom, as it looked where it arrived."""

    protocol: int
    source: tuple[str, int]
    destination: tuple[str, int]
    at: float
    endpoint: str = ""
    """Who received it; empty for somebody outside."""
    key: tuple[str, int, int] | None = None
    via: tuple[str, int] | None = None
    """The public address and port of the service that it came to."""
    client: tuple[str, int] | None = None
    """Of a hairpin: the endpoint that called, and its port."""


@dataclass
class World:
    """The farm and the model."""

    farm: Farm
    sent: list[Sent] = field(default_factory=list)
    outside: list[Seen] = field(default_factory=list)
    calls: list[Seen] = field(default_factory=list)
    services: dict[tuple[str, int, int], str] = field(default_factory=dict)
    """(gateway, protocol, external port) -> endpoint."""
    mapped: dict[tuple[str, int, int], tuple[str, int]] = field(default_factory=dict)
    owners: dict[tuple[int, str, int], tuple[str, int, int]] = field(default_factory=dict)
    used: dict[tuple[str, int, int], float] = field(default_factory=dict)
    hairpins: dict[int, tuple[tuple[str, int], tuple[str, int]]] = field(default_factory=dict)
    """By serial: (client, its port), (public address, port) that it called."""

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def record(self, sent: Sent) -> bytes:
        self.sent.append(sent)
        return b"%06d" % (len(self.sent) - 1)

    def layer(self, protocol: int, sport: int, dport: int, payload: bytes, flags: str = "S") -> Packet:
        if protocol == 6:
            return TCP(sport=sport, dport=dport, flags=flags) / payload
        return UDP(sport=sport, dport=dport) / payload

    def emit(self, name: str, to: str, layer: Packet) -> None:
        endpoint = ENDPOINTS[name][0]
        router = TENANTS[endpoint.tenant].gateway_mac("web")
        packet = IP(src=show(endpoint.address), dst=to) / layer
        self.farm.emit(name, bytes(Ether(src=show_mac(endpoint.mac), dst=show_mac(router)) / packet))

    def emit_outside(self, source: str, to: str, layer: Packet) -> None:
        self.farm.emit_outside(bytes(Ether() / IP(src=source, dst=to) / layer))

    # ---- what happens ---------------------------------------------------------------------------------------------

    async def out(self, name: str, protocol: int, sport: int, peer: int, dport: int) -> None:
        key = (name, protocol, sport)
        payload = self.record(Sent("out", to_outside=(PEERS[peer], dport), key=key))
        self.emit(name, PEERS[peer], self.layer(protocol, sport, dport, payload))
        await self.look(must=True)

    async def answer(self, number: int) -> None:
        if not self.outside:
            return
        seen = self.outside[number % len(self.outside)]
        key = seen.key
        live = key is not None and self.owners.get((seen.protocol, *seen.source)) == key
        sent = Sent("answer", source=seen.destination)
        if key is not None and live:
            sent.to_endpoint, sent.port = key[0], key[2]
        elif key is None:
            return  # a service's reply: its client calls again by itself
        payload = self.record(sent)
        layer = self.layer(seen.protocol, seen.destination[1], seen.source[1], payload, "SA")
        self.emit_outside(seen.destination[0], seen.source[0], layer)
        await self.look(must=live)

    async def noise(self, number: int, peer: int, port: int) -> None:
        """Somebody who was not asked sends to a mapping's port."""
        if not self.outside:
            return
        seen = self.outside[number % len(self.outside)]
        payload = self.record(Sent("noise"))
        self.emit_outside(PEERS[peer], seen.source[0], self.layer(seen.protocol, port, seen.source[1], payload, "SA"))
        await self.look(must=False)

    async def publish(self, name: str, protocol: int, via: str, external_port: int) -> None:
        endpoint = ENDPOINTS[name][0]
        key = (via, protocol, external_port)
        if key in self.services or name in self.services.values():
            return
        service = Service(endpoint.tenant, endpoint.address, SERVED, protocol, via, external_port)
        try:
            await self.farm.hosts[via].agent.publish_service(service)
        except ValueError as refusal:
            assert "stands for an endpoint's" in str(refusal) and external_port >= KEY_FIRST
            return
        self.services[key] = name
        await self.look(must=False)

    async def unpublish(self, number: int) -> None:
        if not self.services:
            return
        via, protocol, external_port = key = sorted(self.services)[number % len(self.services)]
        await self.farm.hosts[via].agent.unpublish_service(protocol, external_port)
        name = self.services.pop(key)
        self.calls = [each for each in self.calls if each.endpoint != name]
        await asyncio.sleep(1.0)
        await self.look(must=False)

    async def call(self, number: int, peer: int, sport: int) -> None:
        if not self.services:
            return
        via, protocol, port = key = sorted(self.services)[number % len(self.services)]
        sent = Sent("call", to_endpoint=self.services[key], source=(PEERS[peer], sport), port=SERVED)
        payload = self.record(sent)
        self.emit_outside(PEERS[peer], PUBLIC[via], self.layer(protocol, sport, port, payload))
        await self.look(must=True)
        via_seen = (PUBLIC[via], port)
        here = (show(ENDPOINTS[sent.to_endpoint][0].address), SERVED)
        self.calls.append(Seen(protocol, (PEERS[peer], sport), here, self.now, sent.to_endpoint, via=via_seen))

    async def reply(self, number: int) -> None:
        """A service answers a call."""
        if not self.calls:
            return
        call = self.calls[number % len(self.calls)]
        if call.client is None:
            sent = Sent("reply", to_outside=call.source, source=call.via)
        else:
            sent = Sent("reply", to_endpoint=call.client[0], source=call.via, port=call.client[1])
        payload = self.record(sent)
        self.emit(call.endpoint, call.source[0], self.layer(call.protocol, SERVED, call.source[1], payload, "SA"))
        # What was idle is made again from a hairpin's client's side only.
        await self.look(must=call.client is None and self.now - call.at < REMEMBERED)

    async def hairpin(self, name: str, sport: int, number: int) -> None:
        if not self.services:
            return
        via, protocol, port = key = sorted(self.services)[number % len(self.services)]
        sent = Sent("hairpin", to_endpoint=self.services[key], port=SERVED, key=(name, protocol, sport))
        payload = self.record(sent)
        self.hairpins[len(self.sent) - 1] = (name, sport), (PUBLIC[via], port)
        self.emit(name, PUBLIC[via], self.layer(protocol, sport, port, payload))
        await self.look(must=True)

    async def restart(self, name: str, switch: bool) -> None:
        await self.farm.stop_agent(name)
        if switch:
            self.farm.hosts[name].switch.restart()
        await self.farm.start_agent(name)
        await self.look(must=False)

    async def move(self, name: str, to: str) -> None:
        if self.farm.endpoints[name][0].host == to:
            return
        await self.farm.move_endpoint(name, to, ENDPOINTS[name][1])
        # New connections may leave by a gateway of where it is now.
        for key in [key for key in self.mapped if key[0] == name]:
            del self.mapped[key]
        await asyncio.sleep(3.0)
        await self.look(must=False)

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        for key in [key for key, at in self.used.items() if self.now - at > REMEMBERED]:
            del self.used[key]
            self.mapped.pop(key, None)
            self.owners = {external: owner for external, owner in self.owners.items() if owner != key}
        await self.look(must=False)

    # ---- what comes out -------------------------------------------------------------------------------------------

    async def look(self, must: bool) -> None:
        """Check all that has come out. `must`: what was sent last is among it."""
        await asyncio.sleep(2.0)
        for address, packets in list(self.farm.outside.items()):
            for frame in packets:
                self._came_outside(show(address), Ether(frame)[IP])
        self.farm.outside.clear()
        for name, (endpoint, _) in ENDPOINTS.items():
            for frame in self.farm.delivered(name):
                packet = Ether(frame)[IP]
                if UDP in packet or (TCP in packet and "R" not in packet[TCP].flags):
                    self._came_to(name, endpoint, packet)
        last = self.sent[-1] if self.sent else None
        assert not must or last is None or last.arrived, f"lost: {last}"

    def _came_outside(self, address: str, packet: Packet) -> None:
        l4 = packet.payload
        sent = self.sent[int(bytes(l4.payload))]
        sent.arrived = True
        assert sent.to_outside == (address, l4.dport), sent
        assert packet.src in PUBLIC.values(), "no address of the inside is shown"
        source = (packet.src, l4.sport)
        if sent.source is not None:
            assert source == sent.source, f"a service's reply came by another way: {source}, {sent}"
            self.outside.append(Seen(packet.proto, source, (address, l4.dport), self.now))
            return
        assert sent.key is not None
        self._mapped(packet.proto, source, sent.key)
        self.outside.append(Seen(packet.proto, source, (address, l4.dport), self.now, key=sent.key))

    def _mapped(self, protocol: int, source: tuple[str, int], key: tuple[str, int, int]) -> None:
        """A packet of this endpoint's port has been seen from this external address and port."""
        assert KEY_FIRST <= source[1] <= KEY_LAST
        assert self.owners.setdefault((protocol, *source), key) == key, "two endpoints have one external port"
        assert self.mapped.setdefault(key, source) == source, "one port of an endpoint has two external ones"
        self.used[key] = self.now

    def _came_to(self, name: str, endpoint: Endpoint, packet: Packet) -> None:
        l4 = packet.payload
        serial = int(bytes(l4.payload))
        sent = self.sent[serial]
        sent.arrived = True
        assert sent.to_endpoint == name, f"{name} received {sent}"
        assert (packet.dst, l4.dport) == (show(endpoint.address), sent.port)
        source = (packet.src, l4.sport)
        if sent.kind == "hairpin":
            assert sent.key is not None
            assert source[0] in PUBLIC.values(), "no address of the inside is shown"
            self._mapped(packet.proto, source, sent.key)
            client, via = self.hairpins[serial]
            here = (packet.dst, l4.dport)
            self.calls.append(Seen(packet.proto, source, here, self.now, name, via=via, client=client))
        else:
            assert source == sent.source, f"{name} sees {source} instead of {sent.source}"
            if sent.kind == "answer":
                self.used[name, packet.proto, l4.dport] = self.now


names = st.sampled_from(sorted(ENDPOINTS))
hosts = st.sampled_from([each.name for each in HOSTS])
numbers = st.integers(0, 30)
protocols = st.sampled_from([6, 17])
peers = st.sampled_from([0, 1])
sports = st.sampled_from([1000, 1001, 25000])
STEPS = st.one_of(
    st.tuples(st.just("out"), names, protocols, sports, peers, st.sampled_from([53, 443])),
    st.tuples(st.just("answer"), numbers),
    st.tuples(st.just("noise"), numbers, peers, st.just(9)),
    st.tuples(st.just("publish"), names, protocols, st.sampled_from(sorted(PUBLIC)), st.sampled_from([8080, 25000])),
    st.tuples(st.just("unpublish"), numbers),
    st.tuples(st.just("call"), numbers, peers, st.sampled_from([40000, 25000])),
    st.tuples(st.just("reply"), numbers),
    st.tuples(st.just("hairpin"), names, sports, numbers),
    st.tuples(st.just("restart"), hosts, st.booleans()),
    st.tuples(st.just("move"), names, hosts),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 40.0, 150.0])),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, min_size=5, max_size=30))
@example([("out", "acme1", 17, 25000, 0, 53), ("out", "globex1", 17, 25000, 0, 53), ("answer", 0), ("answer", 1)])
def test_nothing_crosses_tenants_and_nat_is_as_promised(steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        farm = Farm()
        await farm.start(TENANTS.values(), HOSTS)
        for endpoint, port in ENDPOINTS.values():
            await farm.add_endpoint(endpoint, port)
        world = World(farm)
        for step, *arguments in steps:
            await getattr(world, step)(*arguments)
        assert not any(each.agent._local.events["failures"] for each in farm.hosts.values())
        await asyncio.sleep(100)
        assert not any(len(each.agent._local.connections) for each in farm.hosts.values()), "something is left"
        await farm.stop()

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(run())
