"""A farm in one process: real agents, the real pipeline, and nothing in between but function calls.

For tests and benchmarks that need many hosts, or every packet. The wires deliver by destination address: the underlay
of a site within the site, the external side between gateways, whose 1:1 NATs translate. On a `VirtualClockLoop`, an
hour without packets is over at once.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol as Interface

from msgspec.structs import replace

from .agent.agent import Agent
from .agent.journal import Journal
from .agent.state import StateFile
from .agent.underlay import NextHop, NoRoute
from .checksum import change, fold
from .config import AgentConfig
from .directory import Directory
from .directory.memory import MemoryDirectory
from .embedded.memory import MemorySwitch, nvi_program
from .mappings import Change
from .model import Address, Endpoint, Host, Protocol, Tenant, derive_mac, show_address
from .offers import Offers
from .offers.memory import MemoryOffers
from .packets import ETHERNET_LENGTH, IPV4_LENGTH, IPV6_LENGTH
from .switch import PORT_EXTERNAL, PORT_UNDERLAY, Switch

Capture = Callable[[str, int, bytes], None]
"""(host, port, packet) of a packet that leaves a switch."""


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time: its clock jumps to whatever comes next."""

    def __init__(self) -> None:
        """It is the hour zero."""
        self._now = 0.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


class _Jump(selectors.SelectSelector):
    """Never waits. Nothing comes from outside, so nothing is missed."""

    def __init__(self, loop: VirtualClockLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("whatever is waited for will never happen")
        self._loop.jump(timeout)
        return []


class _Underlay:
    """Every host of a site is a neighbour of every other there."""

    def __init__(self, farm: Farm, host: Host) -> None:
        self._farm = farm
        self._host = host
        self._sources = {len(address): address for address in reversed(host.addresses)}
        self.on_change: Callable[[Address], None] = lambda _: None

    async def next_hop(self, destination: Address) -> NextHop:
        peer = self._farm.by_address.get((self._host.site, destination))
        source = self._sources.get(len(destination))
        if peer is None or source is None:
            raise NoRoute(f"no route to {show_address(destination)}")
        return NextHop(source, host_mac(self._host.name), host_mac(peer.host.name), self._farm.mtu)

    def forget(self, destination: Address) -> None:
        """Nothing is remembered."""


class _Outside:
    """Whatever is outside is behind one router."""

    def __init__(self, host: Host, address: Address) -> None:
        self._hop = NextHop(address, external_mac(host.name), ROUTER_MAC)
        self.on_change: Callable[[Address], None] = lambda _: None

    async def next_hop(self, destination: Address) -> NextHop:
        if len(destination) != len(self._hop.source):
            raise NoRoute(f"no route to {show_address(destination)}: the external side is of the other family")
        return self._hop

    def forget(self, destination: Address) -> None:
        """Nothing is remembered."""


def _ignore(_: object) -> None:
    """What a dead agent does."""


def host_mac(host: str) -> bytes:
    """The MAC of a host's underlay interface."""
    return derive_mac("host", host)


def external_mac(host: str) -> bytes:
    """The MAC of a gateway's external interface."""
    return derive_mac("external", host)


ROUTER_MAC = derive_mac("router", "outside")
"""The MAC of the router that gateways are connected to."""


def addresses_of(packet: bytes) -> tuple[Address, Address]:
    """Source and destination of the IP packet in a frame."""
    if packet[12:14] == b"\x86\xdd":
        return packet[22:38], packet[38:54]
    return packet[26:30], packet[30:34]


def translate(packet: bytes, source: Address, destination: Address) -> bytes:
    """What a 1:1 NAT makes of a frame: other addresses of the same family, and checksums that follow (RFC 1624).

    An ICMP error quotes the packet as its sender would know it (RFC 5508 section 4.2).
    """
    old = b"".join(addresses_of(packet))
    new = source + destination
    if old == new:
        return packet
    at = packet.index(old, ETHERNET_LENGTH)
    translated = bytearray(packet)
    translated[at : at + len(old)] = new
    delta = change(int.from_bytes(new), int.from_bytes(old))
    if len(source) == 4:
        _adjust(translated, ETHERNET_LENGTH + 10, delta)
        protocol, l4 = packet[ETHERNET_LENGTH + 9], ETHERNET_LENGTH + IPV4_LENGTH
    else:
        protocol, l4 = packet[ETHERNET_LENGTH + 6], ETHERNET_LENGTH + IPV6_LENGTH
    if len(source) == 4 and int.from_bytes(packet[ETHERNET_LENGTH + 6 : ETHERNET_LENGTH + 8]) & _OFFSET:
        return bytes(translated)  # a later fragment has no transport header
    match protocol:
        case Protocol.TCP if l4 + 18 <= len(packet):  # else it is a quotation that was cut short
            _adjust(translated, l4 + 16, delta)
        case Protocol.UDP if translated[l4 + 6 : l4 + 8] != b"\0\0":
            _adjust(translated, l4 + 6, delta)
            if translated[l4 + 6 : l4 + 8] == b"\0\0":
                translated[l4 + 6 : l4 + 8] = b"\xff\xff"
        case Protocol.ICMPV6:
            _adjust(translated, l4 + 2, delta)
    if (protocol, packet[l4]) in _ERRORS:
        quoted = packet[:ETHERNET_LENGTH] + packet[l4 + 8 :]
        before, after = addresses_of(quoted), dict(zip(addresses_of(packet), (source, destination), strict=True))
        changed = translate(quoted, *(after.get(address, address) for address in before))[ETHERNET_LENGTH:]
        padding = bytes(len(changed) % 2)
        delta = change(int.from_bytes(changed + padding), int.from_bytes(packet[l4 + 8 :] + padding))
        translated[l4 + 8 :] = changed
        _adjust(translated, l4 + 2, delta)
    return bytes(translated)


_OFFSET = 0x1FFF
_ERRORS = {(int(Protocol.ICMP), kind) for kind in (3, 11, 12)} | {(int(Protocol.ICMPV6), kind) for kind in (1, 2, 3, 4)}
"""Protocol and type of what quotes a packet."""


def _adjust(packet: bytearray, at: int, delta: int) -> None:
    old = int.from_bytes(packet[at : at + 2])
    packet[at : at + 2] = (0xFFFF - fold(0xFFFF - old + delta)).to_bytes(2)


class FarmSwitch(Switch, Interface):
    """A switch to whose ports packets can be given."""

    async def start(self) -> object:
        """Have the agent become the primary, which hears of it by `on_primary`."""

    def receive(self, port: int, packet: bytes) -> None:
        """A packet arrives at a port."""


@dataclass(eq=False)
class SimulatedHost:
    """One host: its switch, its agent, and what has come out at its endpoints' ports."""

    host: Host
    switch: FarmSwitch
    agent: Agent
    state: StateFile
    journal: Journal[Change]
    delivered: dict[int, list[bytes]] = field(default_factory=dict)
    """Packets by port, in the order in which they left."""


class Farm:
    """Hosts that do not know each other, in one process."""

    def __init__(
        self,
        *,
        idle_timeout: float = 30.0,
        punt_rate: int = 5000,
        mtu: int = 1500,
        capture: Capture | None = None,
        directory: Directory | None = None,
        offers: Offers | None = None,
    ) -> None:
        """`mtu`: of the underlay, in bytes; `capture` is shown every packet that leaves a switch.

        `directory`, `offers`: others than those in memory.
        """
        self.directory = directory or MemoryDirectory()
        self.offers = offers or MemoryOffers()
        self.hosts: dict[str, SimulatedHost] = {}
        self.by_address: dict[tuple[str, Address], SimulatedHost] = {}
        """By site and underlay address."""
        self.by_public: dict[Address, SimulatedHost] = {}
        """Gateways by their public addresses."""
        self.outside: dict[Address, list[bytes]] = {}
        """What has been sent to public addresses that no gateway has, by address."""
        self.endpoints: dict[str, tuple[Endpoint, int]] = {}
        self.mtu = mtu
        self._program = nvi_program()
        self._idle_timeout = idle_timeout
        self._punt_rate = punt_rate
        self._capture = capture
        self._loop = asyncio.get_running_loop()

    async def start(self, tenants: Iterable[Tenant], hosts: Iterable[Host]) -> None:
        """Publish tenants, start hosts: all at once."""
        for tenant in tenants:
            await self.directory.publish_tenant(tenant)
        await asyncio.gather(*[self._start(self._new_host(host)) for host in hosts])
        await self.settle()

    async def add_host(self, host: Host) -> SimulatedHost:
        """A new host, with a switch that holds nothing."""
        simulated = self._new_host(host)
        await self._start(simulated)
        await self.settle()
        return simulated

    def _new_host(self, host: Host) -> SimulatedHost:
        def transmit(port: int, packet: bytes) -> None:
            self._transmit(host.name, port, packet)

        switch = self.make_switch(host.name, transmit)
        return self._new_agent(host, switch, StateFile(None), Journal(None, Change))

    def make_switch(self, name: str, transmit: Callable[[int, bytes], None]) -> FarmSwitch:  # noqa: ARG002
        """The switch of the host `name`. `transmit(port, packet)` takes what leaves it."""
        return MemorySwitch(self._program, lambda: int(self._loop.time() * 1e9), transmit)

    def _new_agent(self, host: Host, switch: FarmSwitch, state: StateFile, journal: Journal[Change]) -> SimulatedHost:
        config = AgentConfig(host, p4runtime="", device_id=1, api="", state="")
        external = None if host.external is None else _Outside(host, host.external.address)
        agent = Agent(
            config,
            *self.reach(host, switch),
            _Underlay(self, host),
            state,
            external=external,
            journal=journal,
            idle_timeout=self._idle_timeout,
            punt_rate=self._punt_rate,
        )
        simulated = SimulatedHost(host, switch, agent, state, journal)
        self.hosts[host.name] = simulated
        self.by_address.update(((host.site, address), simulated) for address in (*host.addresses, *host.pool))
        if host.external is not None:
            self.by_public[host.external.public] = simulated
        return simulated

    def reach(self, host: Host, switch: FarmSwitch) -> tuple[Switch, Directory, Offers]:  # noqa: ARG002
        """By what an agent reaches the world, in one of its lives. For farms in which that is not the same for all."""
        return switch, self.directory, self.offers

    async def _start(self, host: SimulatedHost) -> None:
        await host.agent.start()
        await host.switch.start()

    async def restart_agent(self, name: str) -> SimulatedHost:
        """The agent dies without a word, and a new one finds what it has left: switch, state file and journal."""
        await self.stop_agent(name)
        return await self.start_agent(name)

    async def stop_agent(self, name: str) -> None:
        """The agent dies without a word. Its switch goes on; what it punts is lost."""
        host = self.hosts[name]
        await host.agent.stop()
        host.switch.on_punt = _ignore
        host.switch.on_primary = _ignore

    async def start_agent(self, name: str) -> SimulatedHost:
        """An agent finds what the last one left: the switch, the state file and the journal."""
        old = self.hosts[name]
        old.state.epoch += 1
        new = self._new_agent(old.host, old.switch, old.state, old.journal)
        new.delivered = old.delivered
        await self._start(new)
        await self.settle()
        return new

    async def restart_switch(self, name: str) -> None:
        """The switch dies and comes back empty; its agent, if it has one, takes it over again."""
        switch = self.hosts[name].switch
        assert isinstance(switch, MemorySwitch), "another one is a process, and restarted as such"
        switch.on_primary(False)
        switch.restart()
        switch.on_primary(True)
        await self.settle()

    async def stop(self) -> None:
        """Stop every agent."""
        for host in self.hosts.values():
            await host.agent.stop()

    async def add_endpoint(self, endpoint: Endpoint, port: int) -> None:
        """Tell an agent of an endpoint."""
        await self.hosts[endpoint.host].agent.add_endpoint(endpoint, port)
        self.endpoints[endpoint.name] = (endpoint, port)

    async def remove_endpoint(self, name: str) -> None:
        """Tell an agent that an endpoint is no more."""
        endpoint, _ = self.endpoints.pop(name)
        await self.hosts[endpoint.host].agent.remove_endpoint(name)

    async def move_endpoint(self, name: str, host: str, port: int) -> None:
        """An endpoint is at another host from now on: its new agent is told first, so its connections go on there."""
        before, _ = self.endpoints[name]
        await self.add_endpoint(replace(before, host=host), port)
        await self.hosts[before.host].agent.remove_endpoint(name)

    def emit(self, endpoint: str, packet: bytes) -> None:
        """An endpoint sends a packet."""
        where, port = self.endpoints[endpoint]
        self.hosts[where.host].switch.receive(port, packet)

    def delivered(self, endpoint: str) -> list[bytes]:
        """The packets that an endpoint has received since the last call."""
        where, port = self.endpoints[endpoint]
        return self.hosts[where.host].delivered.pop(port, [])

    async def settle(self) -> None:
        """Let everything happen that happens at once."""
        for _ in range(60):
            await asyncio.sleep(0)

    def emit_outside(self, packet: bytes) -> None:
        """Somebody outside sends a packet to a public address."""
        source, destination = addresses_of(packet)
        gateway = self.by_public.get(destination)
        if gateway is None or gateway.host.external is None:
            self.outside.setdefault(destination, []).append(packet)
        else:
            arriving = translate(packet, source, gateway.host.external.address)
            self._loop.call_soon(gateway.switch.receive, PORT_EXTERNAL, arriving)

    def _transmit(self, name: str, port: int, packet: bytes) -> None:
        if self._capture is not None:
            self._capture(name, port, packet)
        here = self.hosts[name]
        if port == PORT_EXTERNAL and here.host.external is not None:
            source, destination = addresses_of(packet)
            if source == here.host.external.address:
                source = here.host.external.public
            self.emit_outside(translate(packet, source, destination))
        elif port != PORT_UNDERLAY:
            here.delivered.setdefault(port, []).append(packet)
        elif (peer := self.by_address.get((here.host.site, addresses_of(packet)[1]))) is not None:
            self._loop.call_soon(peer.switch.receive, PORT_UNDERLAY, packet)
