"""A farm whose every packet is checked, and a small model of who may talk to whom to check it against.

The packets carry serial numbers, so whatever comes out of a switch, anywhere, is known to be of what was sent.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import msgspec

from fuzz import wire
from fuzz.audit import left_over
from fuzz.model import TENANTS, allows, make_host, make_networks
from fuzz.wire import Ports
from fuzz.witness import check_arrived, check_carried
from nvi.directory.memory import MemoryDirectory
from nvi.embedded.memory import MemorySwitch
from nvi.model import Address, Endpoint, Tenant, derive_mac
from nvi.offers import NoAnswer, Reply, Request
from nvi.offers.memory import MemoryOffers
from nvi.simulation import ROUTER_MAC, Farm, VirtualClockLoop, external_mac, host_mac
from nvi.switch import (
    PORT_EXTERNAL,
    PORT_FIRST_ENDPOINT,
    PORT_UNDERLAY,
    ConnectionEntry,
    ConnectionKey,
    Operation,
    Rewrite,
    Update,
    WriteFailed,
)

IDLE = 30.0
QUARANTINE = 60.0
SLACK = 5.0
"""Seconds that ageing, and the messages it takes, may add."""

NETWORKS = ("web", "db", "lab")
SETTLED = 0.5
"""Virtual seconds in which everything that happens at once has happened."""

Result = TypeVar("Result")


class Messages(MemoryOffers):
    """Offers that take their time, and get lost when told so: the question, or the answer to it."""

    def __init__(self, latency: float, rng: random.Random) -> None:
        super().__init__()
        self.latency, self._rng = latency, rng
        self.to_lose: list[str] = []
        self.lost = 0
        self.requests: Counter[tuple[str, str]] = Counter()
        """How many of each kind each host has sent."""
        self.answered: Counter[str] = Counter()
        """How many each host was asked."""

    async def request(self, sender: str, receiver: str, message: Request) -> Reply:
        self.requests[sender, type(message).__name__] += 1
        self.answered[receiver] += 1
        lose = self.to_lose.pop() if self.to_lose else None
        if lose != "question":
            await self._travel()
            reply = await super().request(sender, receiver, message)
            if lose is None:
                await self._travel()
                return reply
        self.lost += 1
        await asyncio.sleep(2.0)
        raise NoAnswer("lost")

    async def _travel(self) -> None:
        if self.latency:
            await asyncio.sleep(self._rng.random() * self.latency)


class Places(MemoryDirectory):
    """A directory that takes its time, and counts who is looked up."""

    def __init__(self, latency: float, rng: random.Random) -> None:
        super().__init__()
        self.latency, self._rng = latency, rng
        self.asked: Counter[tuple[str, Address]] = Counter()

    async def endpoint(self, tenant: str, address: Address) -> Endpoint | None:
        self.asked[tenant, address] += 1
        found = await super().endpoint(tenant, address)
        if self.latency:
            await asyncio.sleep(self._rng.random() * self.latency)
        return found


@dataclass(frozen=True)
class Sent:
    """A packet that somebody sent."""

    sender: Endpoint
    frame: bytes
    honest: bool
    """Whether its MAC and address are the sender's."""


@dataclass
class Conversation:
    """A connection of two endpoints, as they see it."""

    one: Endpoint
    other: Endpoint
    ports: Ports
    """As `one`, who opened it, sends them."""


@dataclass
class World:
    """The farm, and what is known of it."""

    hosts: int = 2
    latency: float = 0.0
    seed: int = 0
    groups: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    sites: int = 1
    """With the same underlay addresses. If there are several, the first host of each is its gateway."""

    def __post_init__(self) -> None:
        self.loop = VirtualClockLoop()
        self.rng = random.Random(self.seed)
        self.offers = Messages(self.latency, self.rng)
        self.directory = Places(self.latency, self.rng)
        self.tenants = {name: Tenant(name, make_networks(NETWORKS), self.groups.get(name, {})) for name in TENANTS}
        self._policies = [(0.0, dict(self.tenants))]
        """With the time since when each has held, the present one last."""
        self.here: dict[str, Endpoint] = {}
        self.at: dict[tuple[str, int], Endpoint] = {}
        """Who is at which port, at this moment."""
        self.port_of: dict[str, int] = {}
        self.sent: dict[int, Sent] = {}
        self.arrived: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()
        self.conversations: list[Conversation] = []
        self.dead: set[str] = set()
        """Hosts without an agent."""
        self._watched_since: dict[str, float] = {}
        """By host whose agent has been dead: until when nobody there can have heard of a change of the policy."""
        self.calm = True
        """Whether nothing has been lost that a sender may have to make up for by sending again."""
        self.talked: dict[frozenset[str], float] = {}
        """When two hosts last had to do with each other, on behalf of their endpoints."""
        self.taken_over: dict[str, float] = {}
        self.broken: list[str] = []
        """What was seen that must not be."""
        self.farm: Farm = self.run(self._start())

    async def _start(self) -> Farm:
        farm = Farm(idle_timeout=IDLE, capture=self._see, directory=self.directory, offers=self.offers)
        hosts = [make_host(n, self.sites) for n in range(self.hosts)]
        self.host = {host.name: host for host in hosts}
        self.name_at = {(host.site, each): host.name for host in hosts for each in (*host.addresses, *host.pool)}
        self.gateway = {host.site: host for host in hosts if host.external is not None}
        self.name_outside = {each.external.public: each.name for each in self.gateway.values() if each.external}
        await farm.start(self.tenants.values(), hosts)
        if self.latency:
            for host in farm.hosts.values():
                _slow_down(host.switch, self.latency, self.rng)
        return farm

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do something asynchronous, and look at what could be seen."""
        result = self.loop.run_until_complete(work)
        assert not self.broken, self.broken
        return result

    def settle(self, seconds: float = SETTLED) -> None:
        """Let time pass."""
        self.run(asyncio.sleep(seconds))

    def close(self) -> None:
        """No more."""
        self.loop.run_until_complete(self.farm.stop())
        tasks = asyncio.all_tasks(self.loop)
        self.loop.close()
        assert not tasks, f"left running: {tasks}"

    # ---- endpoints ------------------------------------------------------------------------------------------------

    def endpoint(self, tenant: str, network: str, number: int, host: str, suffix: str = "") -> Endpoint:
        """MACs and addresses are the same in every tenant."""
        address = self.tenants[tenant].networks[network].subnets[0].prefix[:3] + bytes([number])
        mac = derive_mac("endpoint", network, str(number))
        return Endpoint(f"{tenant}-{network}{number}{suffix}", tenant, network, mac, (address,), host)

    def can_add(self, endpoint: Endpoint) -> bool:
        """Whether its agent is there, and neither name nor address are taken."""
        taken = {(each.tenant, each.address) for each in self.here.values()}
        free = endpoint.name not in self.here and (endpoint.tenant, endpoint.address) not in taken
        return free and endpoint.host not in self.dead

    def add(self, endpoint: Endpoint) -> Endpoint:
        """At the lowest free port, so that ports are recycled as well."""
        port = self._place(endpoint)
        self.run(self.farm.add_endpoint(endpoint, port))
        return endpoint

    def move(self, endpoint: Endpoint, host: str) -> None:
        """To another host, with all its connections."""
        del self.at[endpoint.host, self.port_of[endpoint.name]]
        moved = msgspec.structs.replace(endpoint, host=host)
        port = self._place(moved)
        for talk in self.conversations:
            talk.one, talk.other = (moved if end == endpoint else end for end in (talk.one, talk.other))
        self.run(self.farm.move_endpoint(endpoint.name, host, port))

    def _place(self, endpoint: Endpoint) -> int:
        ports = {port for host, port in self.at if host == endpoint.host}
        port = next(port for port in range(PORT_FIRST_ENDPOINT, 500) if port not in ports)
        self.here[endpoint.name], self.at[endpoint.host, port] = endpoint, endpoint
        self.port_of[endpoint.name] = port
        for name in self.farm.hosts:
            # Connections with its address follow it from wherever that was before.
            for connection in self.farm.hosts[name].agent._local.connections:
                ends = connection.id.low.address, connection.id.high.address
                if connection.id.tenant == endpoint.tenant and endpoint.address in ends:
                    self._talk(name, endpoint.host)
        return port

    def remove(self, endpoint: Endpoint) -> None:
        """What still comes out at its port until its agent has said that it is gone, nobody hears."""
        del self.here[endpoint.name], self.at[endpoint.host, self.port_of.pop(endpoint.name)]
        self.conversations = [each for each in self.conversations if endpoint not in (each.one, each.other)]
        self.run(self.farm.remove_endpoint(endpoint.name))
        if self.dead:
            self.calm = False

    def allowed(self, one: Endpoint, other: Endpoint) -> bool:
        """Whether the policy allows connections of two endpoints, whoever opens them."""
        tenant = self.tenants[one.tenant]
        return allows(tenant, one, other) and allows(tenant, other, one)

    def _lately_allowed(self, one: Endpoint, other: Endpoint) -> bool:
        """Whether a packet could pass either way, by the policy as the hosts of both can have known it last."""
        since = self.loop.time() - SETTLED
        if one.host == other.host:
            # Nobody else judges, and a dead agent hears of nothing.
            since = min(since, self._watched_since.get(one.host, since))
        starts = [start for start, _ in self._policies[1:]] + [float("inf")]
        lately = [tenants for (_, tenants), until in zip(self._policies, starts, strict=True) if until > since]
        return any(allows(tenants[one.tenant], *ends) for tenants in lately for ends in ((one, other), (other, one)))

    def change_policy(self, tenant: Tenant) -> None:
        """It holds at once, for what is live, too."""
        self.tenants[tenant.name] = tenant
        self._policies.append((self.loop.time(), dict(self.tenants)))
        self.run(self.directory.publish_tenant(tenant))
        ended = [each for each in self.conversations if not self.allowed(each.one, each.other)]
        self.conversations = [each for each in self.conversations if each not in ended]
        self.settle(2 * SETTLED)
        for talk in ended:  # and say on
            kind = wire.ECHO_REQUEST if talk.ports.protocol == wire.ICMP else wire.ACK
            self.send(talk.one, talk.other, talk.ports, kind)
            self.send(talk.other, talk.one, talk.ports.reversed(), kind)
        self.settle()

    def way(self, one: str, other: str) -> list[str]:
        """The hosts that packets between endpoints of two hosts pass."""
        here, there = self.host[one], self.host[other]
        if here.site == there.site:
            return [one, other]
        hosts = [one, self.gateway[here.site].name, self.gateway[there.site].name, other]
        return list(dict.fromkeys(hosts))

    # ---- packets --------------------------------------------------------------------------------------------------

    def packet(
        self,
        sender: Endpoint,
        to: Endpoint,
        ports: Ports,
        kind: int,
        *,
        size: int = 20,
        pretend_mac: Endpoint | None = None,
        pretend_address: Endpoint | None = None,
        **options: Any,
    ) -> tuple[int, bytes]:
        """A packet of `sender`, perhaps in somebody else's name, with its serial number; not sent yet."""
        serial = len(self.sent) + 1
        source_mac, source = (pretend_mac or sender).mac, (pretend_address or sender).address
        mac = to.mac if to.network == sender.network else self.tenants[sender.tenant].gateway_mac(sender.network)
        frame = wire.frame((source_mac, mac), (source, to.address), ports, kind, wire.payload(serial, size), **options)
        honest = (source_mac, source) == (sender.mac, sender.address)
        self.sent[serial] = Sent(sender, frame, honest)
        return serial, frame

    def emit(self, sender: Endpoint, serial: int, frame: bytes) -> None:
        """Send it, as it is or spoilt on its way to the switch."""
        self.sent[serial] = Sent(sender, frame, self.sent[serial].honest)
        for each in list(self.here.values()):
            if each.address == frame[30:34] and each.tenant == sender.tenant:
                self._talk(sender.host, each.host)
        self.put_in(sender, frame)

    def put_in(self, sender: Endpoint, frame: bytes) -> None:
        """Any bytes, at the sender's port."""

        async def emit() -> None:
            self.farm.emit(sender.name, frame)

        self.run(emit())

    def send(self, sender: Endpoint, to: Endpoint, ports: Ports, kind: int, **options: Any) -> int:
        """Send a packet. Returns its serial number."""
        serial, frame = self.packet(sender, to, ports, kind, **options)
        self.emit(sender, serial, frame)
        return serial

    def deliver(self, sender: Endpoint, to: Endpoint, ports: Ports, kind: int) -> None:
        """A packet that must arrive: at once in calm times, else after some of the repetitions that TCP would make."""
        for wait in (SETTLED,) if self.calm else (SETTLED, 1, 2, 4, 8, 16, 32, 64, 128):
            serial = self.send(sender, to, ports, kind)
            self.settle()
            if self.arrived[serial]:
                return
            self.settle(wait)
        seen = {name: dict(self.farm.hosts[name].agent._local.events) for name in (sender.host, to.host)}
        raise AssertionError(f"{sender.name} to {to.name}, {ports}: nothing arrived (calm: {self.calm}; {seen})")

    def converse(self, talk: Conversation, opening: bool, backwards: bool = False) -> None:
        """There and back again."""
        there, back = (talk.one, talk.other, talk.ports), (talk.other, talk.one, talk.ports.reversed())
        match talk.ports.protocol:
            case wire.ICMP:
                back = (*back[:2], talk.ports)
                turns = (*there, wire.ECHO_REQUEST), (*back, wire.ECHO_REPLY)
            case wire.TCP if opening:
                turns = (*there, wire.SYN), (*back, wire.SYN_ACK), (*there, wire.ACK)
            case _:
                turns = (*there, wire.ACK), (*back, wire.ACK)
                turns = turns[::-1] if backwards else turns
        for turn in turns:
            self.deliver(*turn)

    def open(self, one: Endpoint, other: Endpoint, protocol: int) -> Conversation:
        """A new connection that the policy allows."""
        port = 1024 + len(self.sent) % 60000
        talk = Conversation(one, other, Ports(protocol, port, port if protocol == wire.ICMP else 80))
        self.converse(talk, opening=True)
        self.conversations.append(talk)
        return talk

    def _talk(self, one: str, other: str) -> None:
        for here, there in pairwise(self.way(one, other)):
            self.talked[frozenset((here, there))] = self.loop.time()

    # ---- what is seen ---------------------------------------------------------------------------------------------

    def _see(self, host: str, port: int, packet: bytes) -> None:
        """Called for everything that leaves a switch. Notes what must not be, for `run` to complain about."""
        try:
            if port in (PORT_UNDERLAY, PORT_EXTERNAL):
                self._check_wire(host, port, packet)
            elif port >= PORT_FIRST_ENDPOINT and (receiver := self.at.get((host, port))) is not None:
                self._check_arrival(receiver, packet)
            elif port < PORT_FIRST_ENDPOINT:
                raise AssertionError(f"came out at port {port}")
        except AssertionError as error:
            self.broken.append(f"{error} [{host} port {port}: {packet.hex()}]")

    def _peer(self, host: str, wire: int, address: Address) -> str | None:
        """Which host has an address, seen from the wire of another one."""
        if wire == PORT_EXTERNAL:
            return self.name_outside.get(address)
        return self.name_at.get((self.host[host].site, address))

    def _check_wire(self, host: str, wire_port: int, packet: bytes) -> None:
        serial = wire.serial_of(packet)
        assert serial is not None, "nobody sent that"
        sent, here = self.sent[serial], self.host[host]
        assert sent.honest, "spoofed"
        assert sent.sender.host == host or here.external is not None, "sent from another host"
        peer = self._peer(host, wire_port, packet[30:34])
        assert peer is not None and peer != host, "its destination is no other host's address"
        if wire_port == PORT_UNDERLAY:
            ours, macs = (*here.addresses, *here.pool), host_mac(peer) + host_mac(host)
        else:
            assert here.external is not None, "a host without an external side"
            ours, macs = (here.external.address,), ROUTER_MAC + external_mac(host)
        assert packet[26:30] in ours, "its source is not this host's address"
        assert packet[:12] == macs, "the MACs are not the segment's"
        if not wire.is_later_fragment(packet):
            keys = wire.keys_of(packet)
            assert all(20000 <= key <= 32767 for key in keys), f"its ports {keys} are no keys"
        assert packet[22] == 64, "the TTL is not the segment's"
        check_carried(packet, sent.frame)
        self._talk(host, peer)

    def _check_reset(self, receiver: Endpoint, packet: bytes) -> None:
        """A segment of a connection that the policy forbids is answered with a reset that its sender believes."""
        answered = [
            sent
            for sent in self.sent.values()
            if sent.sender.name == receiver.name
            and sent.frame[23] == wire.TCP
            and wire.is_answer_of(packet, sent.frame)
            and packet[38:46] == wire.numbers_of_reset(sent.frame)
        ]
        assert answered, "a reset that answers nothing that was sent"
        assert packet[:12] == answered[0].frame[6:12] + answered[0].frame[:6], "MACs"
        assert wire.checksum_errors(packet) == (0, 0)

    def _check_arrival(self, receiver: Endpoint, packet: bytes) -> None:
        serial = wire.serial_of(packet)
        if serial is None and packet[23] == wire.TCP and packet[47] & wire.RST:
            self._check_reset(receiver, packet)
            return
        assert serial is not None, "nobody sent that"
        sent = self.sent[serial]
        assert sent.sender.tenant == receiver.tenant, f"{receiver.name} got a packet of {sent.sender.name}: tenants"
        if packet[23] == wire.ICMP and packet[34] in (wire.DESTINATION_UNREACHABLE, wire.TIME_EXCEEDED):
            assert sent.sender.name == receiver.name, f"{receiver.name} was told of a packet of {sent.sender.name}"
            assert packet[26:30] == self.tenants[receiver.tenant].networks[receiver.network].subnets[0].gateway
            assert packet[42:] == sent.frame[14:][: len(packet) - 42], "the quotation is not what was sent"
            assert wire.checksum_errors(packet) == (0, 0)
            self.refused[serial] += 1
            return
        assert sent.honest, "spoofed"
        assert self._lately_allowed(sent.sender, receiver), f"{sent.sender.name} to {receiver.name} is not allowed"
        assert receiver.address == sent.frame[30:34], "it was sent to another address"
        routed = receiver.network != sent.sender.network
        router = self.tenants[receiver.tenant].gateway_mac(receiver.network) if routed else None
        check_arrived(packet, sent.frame, receiver.mac, router)
        self.arrived[serial] += 1
        assert self.arrived[serial] == 1, "it came twice"

    # ---- state ----------------------------------------------------------------------------------------------------

    def entries(self, host: str) -> list[ConnectionEntry]:
        """All that the switch holds."""
        return self.run(self.farm.hosts[host].switch.read_connections())

    def take_from_switch(self, host: str, keys: list[ConnectionKey]) -> None:
        """Entries vanish."""
        updates = [Update(Operation.DELETE, ConnectionEntry(key)) for key in keys]
        with suppress(WriteFailed):  # of those that have just gone by themselves
            self.run(self.farm.hosts[host].switch.write(updates))

    def check_names(self) -> None:
        """A switch names only hosts that it has had to do with for its endpoints' sake, lately.

        And it admits its endpoints and nobody else; the keys of each connection are its own.
        """
        now = self.loop.time()
        for name in self.farm.hosts:
            if name in self.dead:
                continue
            local = self.farm.hosts[name].agent._local
            pairs = [link.pair for each in local.connections for link in each.links]
            assert len(pairs) == len(set(pairs)), f"two connections of {name} have the same keys"
            assert local.keys._busy.issuperset(pairs), f"the keys of a connection of {name} may be given away"
            guard = {(each.port, each.mac) for each in self.run(self.farm.hosts[name].switch.read_guard())}
            here = {(self.port_of[each.name], each.mac) for each in self.here.values() if each.host == name}
            assert guard == here, f"{name} admits {guard - here}, and not {here - guard}"
            for entry in self.entries(name):
                if not isinstance(entry.action, Rewrite):
                    continue
                for scope, address in (
                    (entry.key.scope, entry.key.flow.source),
                    (entry.action.egress_port, entry.action.flow.destination),
                ):
                    if scope in (PORT_UNDERLAY, PORT_EXTERNAL):
                        peer = self._peer(name, scope, address)
                        assert peer is not None, f"{name} names nobody: {entry}"
                        talked = self.talked.get(frozenset((name, peer)))
                        assert talked is not None, f"{name} names a host that it has never had to do with: {entry}"
                        last = max(talked, self.taken_over.get(name, 0.0))
                        assert now - last <= IDLE + SLACK, f"{name} remembers a host for too long: {entry}"

    def rest(self) -> None:
        """With no traffic, nothing is left: entries first, then the keys' quarantine."""
        self.settle(IDLE + SLACK + 2.0 * (not self.calm))
        for name in self.farm.hosts.keys() - self.dead:
            assert not (left := self.entries(name)), f"{name} holds {left}"
        self.settle(QUARANTINE + SLACK)
        for name in self.farm.hosts.keys() - self.dead:
            left = self.left_over(name)
            assert not left, f"the agent of {name} holds {left}"
            assert self.run(self.farm.hosts[name].switch.read_neighbours()) == []
        if not self.dead:
            self.calm = True

    def left_over(self, name: str) -> dict[str, Any]:
        """What an agent holds beyond its endpoints."""
        return left_over(self.farm.hosts[name].agent)

    # ---- mishaps --------------------------------------------------------------------------------------------------

    def kill_agent(self, host: str) -> None:
        self.run(self.farm.stop_agent(host))
        self.dead.add(host)
        self._watched_since[host] = self.loop.time() - SETTLED
        self.calm = False

    def revive_agent(self, host: str) -> None:
        self.dead.discard(host)
        self.run(self.farm.start_agent(host))
        self.settle()
        self.taken_over[host] = self.loop.time()
        self._watched_since.pop(host, None)

    def empty_switch(self, host: str) -> None:
        self.run(self.farm.restart_switch(host))
        self.settle()
        self.taken_over[host] = self.loop.time()


def _slow_down(switch: MemorySwitch, latency: float, rng: random.Random) -> None:
    """Let writes take their time, one after the other, as a session with a switch elsewhere does."""
    write, in_order = switch.write, asyncio.Lock()

    async def slow(updates: Sequence[Update]) -> None:
        async with in_order:
            await asyncio.sleep(rng.random() * latency / 4)
            await write(updates)

    switch.write = slow  # type: ignore[method-assign]
