"""The external side of a gateway: as whom connections leave there, and for whom packets come in.

A connection with somebody outside ends in an outlet: the segment from the gateway's external address, at the port of a
mapping or of a published service, to theirs. Mappings outlive connections (`nvi.mappings`) and the agent (`journal`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ..directory import DirectoryError
from ..keys import Pair, Path
from ..mappings import TRANSLATED, Change, Inside, Mapping, Mappings
from ..model import Address, ConnectionId, End, Endpoint, Protocol, show_address
from ..outside import not_reached
from ..packets import ECHO_PORT, echo_port
from ..switch import PORT_EXTERNAL, DropReason
from .connections import Connection, Outlet
from .joining import Denied
from .journal import Journal, JournalError
from .local import Local, Refused
from .services import Services

GONE_SECONDS = 10.0
"""For how long an endpoint may be nowhere, such as while it moves, before its mappings end."""


class Outlets:
    """Those of one host; a host that is no gateway has none."""

    def __init__(self, local: Local, mappings: Mappings, journal: Journal[Change], services: Services) -> None:
        """`mappings`: without those of the agent's earlier lives, which `journal` has kept."""
        self._local = local
        self._journal = journal
        self.mappings = mappings
        self.services = services
        self._unwatch: dict[tuple[str, Address], Callable[[], None]] = {}
        """By endpoint with mappings: what ends the watch of where it is."""

    async def start(self) -> None:
        """Take back the mappings. Raises JournalError."""
        local = self._local
        if local.host.external is None:
            return
        self.stop()  # if it was begun before, and not finished
        left_out = self.mappings.restore(self._journal.read(), asyncio.get_running_loop().time())
        if left_out:
            local.log.warning("changes of mappings made no sense and are left out", changes=left_out)
        await self._journal.begin(self.mappings.changes)
        for mapping in self.mappings:
            self._watch(mapping)

    def stop(self) -> None:
        """Follow nothing any more. The journal has what the next life needs."""
        for unwatch in self._unwatch.values():
            unwatch()
        self._unwatch.clear()

    # ---- outlets --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def towards(self, identity: ConnectionId, outside: End, opened_outside: bool) -> AsyncIterator[Outlet]:
        """The outlet of a connection, to join it with. What does not come about leaves only what must rest.

        Raises Denied, Refused, Exhausted, DirectoryError.
        """
        held = self._local.connections.get(identity)
        outlet = None if held is None else held.outlet
        if outlet is None:
            outlet = await self._obtain(identity, outside, opened_outside)
        try:
            yield outlet
        finally:
            now_held = self._local.connections.get(identity)
            if now_held is None or now_held.outlet != outlet:
                self.give_back(outlet, answered=False)

    async def _obtain(self, identity: ConnectionId, outside: End, opened_outside: bool) -> Outlet:
        local, protocol, inside = self._local, identity.protocol, identity.other(outside)
        external = local.host.external
        if external is None:
            raise Denied(DropReason.UNREACHABLE, f"host {local.host.name} has no external side")
        if protocol not in TRANSLATED:
            text = f"protocol {protocol} has no ports by which its answers could be told apart, and stays inside"
            raise Denied(DropReason.UNREACHABLE, text)
        mapping: Mapping | None = None
        turns = outside.address == external.public and (
            opened_outside or (protocol, outside.port) in self.services.by_port
        )
        if opened_outside and turns:
            raise Denied(DropReason.UNREACHABLE, "a hairpin is made, and made again, only from its client's side")
        if opened_outside:
            ours = self._published_as(identity, inside)
        else:
            if not turns:
                await self._check_reach(identity.protocol, outside)
            mapping = await self._map(Inside(identity.tenant, inside.address, protocol, inside.port), outside)
            ours = mapping.port
        pair = Pair(
            Path(PORT_EXTERNAL, external.address, outside.address, protocol), ours, outside_port(protocol, outside)
        )
        if not local.keys.take(pair):
            raise Refused("the connection is being joined already")
        whoever = Endpoint.outside(identity.tenant, outside.address, local.host.name)
        return Outlet(whoever, PORT_EXTERNAL, pair, mapping, turns)

    def _published_as(self, identity: ConnectionId, inside: End) -> int:
        wanted = (identity.tenant, inside.address, inside.port, identity.protocol)
        for (_, external_port), each in self.services.by_port.items():
            if (each.tenant, each.endpoint, each.port, each.protocol) == wanted:
                return external_port
        raise Denied(DropReason.DENIED, f"{show_address(inside.address)} is not published at {self._local.host.name}")

    async def _check_reach(self, protocol: int, outside: End) -> None:
        local, external = self._local, self._local.host.external
        assert external is not None, "only a gateway has outlets"
        host = await local.directory.host_at(local.host.site, outside.address)
        gateway = await local.directory.gateway_at(outside.address)
        if gateway is not None and gateway.name != local.host.name:
            services = await local.directory.services(gateway.name)
            if any((each.protocol, each.external_port) == (protocol, outside.port) for each in services):
                gateway = None  # reached as anybody outside would reach it
        reason = not_reached(outside.address, external, host, gateway)
        if reason is not None:
            raise Denied(DropReason.UNREACHABLE, reason)

    async def _map(self, inside: Inside, outside: End) -> Mapping:
        """The endpoint's mapping, on the disk before anything leaves by it."""
        peer = End(outside.address, outside_port(inside.protocol, outside))
        mapping = self.mappings.open(inside, peer)
        self._watch(mapping)
        try:
            await self._journal.sync()
        except JournalError as error:
            self._local.events["journal failed"] += 1
            self._local.log.error("mapping not kept", error=str(error))
            self.mappings.leave(mapping, peer, asyncio.get_running_loop().time(), answered=False)
            raise Refused(str(error)) from None
        return mapping

    def forgotten(self, connection: Connection, successor: Connection | None) -> None:
        """A connection is not held any more, or held otherwise: its mapping's lifetime begins."""
        outlet = connection.outlet
        if outlet is not None and (successor is None or successor.outlet != outlet):
            self.give_back(outlet, connection.answered)

    def give_back(self, outlet: Outlet, answered: bool) -> None:
        """No connection has an outlet any more. `answered`: whether packets have gone both ways."""
        local, pair = self._local, outlet.pair
        local.keys.free(pair)
        if outlet.mapping is not None:
            peer = End(pair.path.peer, pair.peer)
            self.mappings.leave(outlet.mapping, peer, asyncio.get_running_loop().time(), answered)

    def age(self) -> None:
        """End what has outlived itself."""
        self.mappings.expire(asyncio.get_running_loop().time())
        for key in [key for key in self._unwatch if not self.mappings.has(*key)]:
            self._unwatch.pop(key)()

    # ---- who comes in ---------------------------------------------------------------------------------------------

    def admit(self, pair: Pair) -> tuple[ConnectionId, End] | None:
        """What a packet of this segment is of: the connection, and its end outside; None if it is not to pass."""
        path = pair.path
        mapping = self.mappings.admit(path.protocol, pair.local, End(path.peer, pair.peer))
        if mapping is None:
            return None
        inside = mapping.inside
        port = inside_port(path.protocol, pair.peer, inside.port)
        return connection_of(inside.tenant, inside.protocol, End(inside.address, inside.port), End(path.peer, port))

    def serve(self, pair: Pair) -> tuple[ConnectionId, End] | None:
        """The same for a packet to a published service."""
        path = pair.path
        service = self.services.by_port.get((path.protocol, pair.local))
        if service is None:
            return None
        inside, outside = End(service.endpoint, service.port), End(path.peer, pair.peer)
        return connection_of(service.tenant, service.protocol, inside, outside)

    def recognise(self, pair: Pair, tenant: str | None = None) -> tuple[Outlet, ConnectionId, End] | None:
        """What a segment found in the switch is: its outlet, its connection, and the end outside.

        It is in use from now on. None if it is nobody's, or another tenant's than `tenant`.
        """
        mapped = self.admit(pair)
        found = mapped or self.serve(pair)
        if found is None or tenant not in (None, found[0].tenant) or not self._local.keys.take(pair):
            return None
        identity, outside = found
        mapping = None
        if mapped is not None:
            inside = identity.other(outside)
            mapping = self.mappings.open(
                Inside(identity.tenant, inside.address, identity.protocol, inside.port), End(pair.path.peer, pair.peer)
            )
        whoever = Endpoint.outside(identity.tenant, outside.address, self._local.host.name)
        return Outlet(whoever, PORT_EXTERNAL, pair, mapping), identity, outside

    # ---- endpoints with mappings ----------------------------------------------------------------------------------

    def _watch(self, mapping: Mapping) -> None:
        key = (mapping.inside.tenant, mapping.inside.address)
        if key not in self._unwatch:
            self._unwatch[key] = self._local.directory.watch_endpoint(
                *key, lambda: self._local.spawn(self._look_for(*key))
            )

    async def _look_for(self, tenant: str, address: Address) -> None:
        """An endpoint with mappings has moved, or has gone; then whoever gets its address does not get its mappings."""
        local = self._local
        for pause in (0.0, GONE_SECONDS):
            await asyncio.sleep(pause)
            try:
                if await local.directory.endpoint(tenant, address) is not None:
                    return
            except DirectoryError as error:
                local.log.warning("endpoint with mappings not looked up", error=str(error))
                return
        self.mappings.end(tenant, address, asyncio.get_running_loop().time())


_ECHO = (Protocol.ICMP, Protocol.ICMPV6)


def outside_port(protocol: int, outside: End) -> int:
    """The port of a connection's end outside, as the external segment has it: an echo's stand-in may be another one."""
    return ECHO_PORT if protocol in _ECHO else outside.port


def inside_port(protocol: int, port: int, identifier: int) -> int:
    """The opposite: as the connection has it, given the endpoint's own identifier of the echo."""
    return echo_port(identifier) if protocol in _ECHO else port


def connection_of(tenant: str, protocol: int, inside: End, outside: End) -> tuple[ConnectionId, End]:
    """The connection between an endpoint and somebody outside, and which end of it is outside."""
    low, high = (inside, outside) if inside < outside else (outside, inside)
    return ConnectionId(tenant, protocol, low, high), outside
