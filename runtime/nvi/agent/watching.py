"""Watching what is in use: connections are plugged anew when their far endpoint moves, or a gateway on the way dies.

Each end watches where its far endpoint is, and every agent on a route the gateways that are its neighbours there. Who
sees a change offers the connection along the route as it is now; what is still right of it stays as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from itertools import chain, repeat
from typing import Any

from ..directory import LEASE, DirectoryError
from ..keys import Exhausted
from ..model import End, Host
from ..offers import NoAnswer
from ..route import NoWay, is_end_of
from ..switch import DropReason, SwitchError
from .connecting import Connector
from .connections import Attachment, Connection, Link, Turn, Watched
from .joining import Call, Denied, Joiner, Waiting
from .local import Local, Refused
from .offering import Crossed, Proposal
from .relaying import Relay
from .underlay import NoRoute

PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between the attempts to plug a connection anew: others may hear of the change later than we do."""

HEAD_START = 1.0
"""Seconds that the side of the lower host name has, where both sides of a gateway see that it has died."""

AGAIN = 1.0
"""Seconds after which it is tried again what the directory or the switch has prevented."""

AT_A_TIME = 64
"""Connections that are plugged anew at the same time."""


class Watching:
    """Follows what the connections of one host depend on."""

    def __init__(self, local: Local, joiner: Joiner, connector: Connector, relay: Relay) -> None:
        """Start with nothing to follow."""
        self._local = local
        self._joiner = joiner
        self._connector = connector
        self._relay = relay
        self._turns = asyncio.Semaphore(AT_A_TIME)
        self._unwatch: dict[Watched, Callable[[], None]] = {}
        self._replugging: set[Connection] = set()
        local.connections.on_first = self._follow
        local.connections.on_last = self._leave

    def stop(self) -> None:
        """Follow nothing any more."""
        for unwatch in self._unwatch.values():
            unwatch()
        self._unwatch.clear()

    def _follow(self, watched: Watched) -> None:
        def changed() -> None:
            self.look_at(self._local.connections.depending_on(watched))

        match watched:
            case ("endpoint", str(tenant), bytes(address)):
                self._unwatch[watched] = self._local.directory.watch_endpoint(tenant, address, changed)
            case ("host", str(name)):
                self._unwatch[watched] = self._local.directory.watch_host(name, changed)
            case ("peer", str(name)):
                # So that its agent can be asked, and heard, though the directory be away.
                self._unwatch[watched] = self._local.directory.watch_host(name, lambda: None)

    def _leave(self, watched: Watched) -> None:
        unwatch = self._unwatch.pop(watched, None)
        if unwatch is not None:
            unwatch()

    def look_at(self, connections: Iterable[Connection]) -> None:
        """Plug anew those of these connections whose route is not what it was."""
        if not self._local.ready:
            return  # all are looked at when the switch is taken over
        for connection in list(connections):
            if connection not in self._replugging:
                self._replugging.add(connection)
                self._local.spawn(self._look_at(connection))

    async def _look_at(self, connection: Connection) -> None:
        local, again = self._local, False
        try:
            if await self._exit_is_dead(connection):
                local.events["lost"] += 1
                await self._joiner.close([connection])
                return
            if connection.turn is not None:
                if await self._turn_is_wrong(connection, connection.turn):
                    await self._joiner.close([connection])  # its client's next packet makes it again
                return
            dead = await self._dead_link(connection)
            if dead is None and not await self._moved(connection):
                return
            if dead is not None:
                await asyncio.sleep(await self._head_start(connection, dead))
            for pause in chain(PAUSES, repeat(LEASE)):
                if local.connections.get(connection.id) is not connection or not local.ready:
                    return  # the other side was quicker, or it is over
                async with self._turns:
                    if await self._plugged(connection):
                        return
                await asyncio.sleep(pause)
                moved = await self._moved(connection)
                if not moved and await self._dead_link(connection) is None:
                    return
                # Without an agent a gateway's switch goes on. Without an endpoint there is nowhere to go.
                if moved and pause == PAUSES[-1]:
                    break
            if local.connections.get(connection.id) is connection:
                local.events["lost"] += 1
                await self._joiner.close([connection])
        except (SwitchError, DirectoryError) as error:
            local.log.warning("connection not plugged anew yet", connection=connection.id.short(), error=str(error))
            # It would not become idle either, if it leads nowhere and its endpoint goes on.
            await asyncio.sleep(AGAIN)
            again = local.connections.get(connection.id) is connection
        finally:
            self._replugging.discard(connection)
        if again:
            self.look_at([connection])

    def follow(self, connections: Iterable[Connection], gone: Attachment) -> None:
        """An endpoint that was here is elsewhere now: those of its connections whose other end is here follow it.

        They are to be taken from the switch by the caller. Those with other hosts, the other hosts plug anew.
        """
        for connection in connections:
            stays = [each for each in connection.near if each != gone]
            if stays and connection.turn is None and connection.id not in self._joiner.waiting:
                # Packets wait from now on.
                self._joiner.waiting[connection.id] = waiting = Waiting([], offering=True)
                self._local.spawn(self._follow_away(connection, stays[0], waiting))

    async def _follow_away(self, connection: Connection, near: Attachment, waiting: Waiting) -> None:
        far_end = connection.end_beyond(near)
        try:
            for pause in (*PAUSES, 0.0):
                if await self._tried(self._plug_end(connection, near, far_end, waiting, None)):
                    break
                await asyncio.sleep(pause)
        except (SwitchError, DirectoryError) as error:
            self._local.log.warning("connection lost", connection=connection.id.short(), error=str(error))
        finally:
            del self._joiner.waiting[connection.id]
        self._connector.reinject(waiting)

    async def _dead_link(self, connection: Connection) -> Link | None:
        """Its segment towards a gateway that is not there any more, or not as it was."""
        for link in connection.links:
            if link.passes_on:
                host = await self._local.directory.host(link.peer)
                if host is None or not is_end_of(link.yours, host, link.wire):
                    return link
        return None

    async def _exit_is_dead(self, connection: Connection) -> bool:
        """Whether the gateway by which it leaves for the outside is no more: its mappings have died with it."""
        exit = connection.exit
        return bool(exit) and connection.outlet is None and await self._local.directory.host(exit) is None

    async def _turn_is_wrong(self, connection: Connection, turn: Turn) -> bool:
        """Whether one of the ends of a hairpin is not where it was."""
        inside = connection.initiator, turn.identity.other(turn.initiator)
        for tenant, end, host in zip((connection.id.tenant, turn.identity.tenant), inside, turn.hosts, strict=True):
            endpoint = await self._local.directory.endpoint(tenant, end.address)
            if endpoint is None or endpoint.host != host:
                return True
        return False

    async def _moved(self, connection: Connection) -> bool:
        """Whether its far endpoint is not where it was."""
        end = connection.far_end
        if end is None:
            return False
        far = await self._local.party(connection.id.tenant, end.address, connection.exit)
        return far is None or far.host != connection.far_host

    async def _host_of(self, connection: Connection, end: End) -> Host:
        """Where one of its ends is. Raises Refused if nobody knows."""
        directory = self._local.directory
        endpoint = await self._local.party(connection.id.tenant, end.address, connection.exit)
        host = None if endpoint is None else await directory.host(endpoint.host)
        if host is None:
            raise Refused("an end of the connection is nowhere")
        return host

    async def _head_start(self, connection: Connection, dead: Link) -> float:
        """Seconds to wait for whoever sees the same from the other side of a gateway."""
        try:
            ours, beyond = await self._sides(connection, dead)
        except Refused:
            return HEAD_START
        return 0.0 if ours.name < beyond.name else HEAD_START

    async def _sides(self, connection: Connection, dead: Link) -> tuple[Host, Host]:
        """The hosts of its ends: on our side of a segment, and beyond it. Raises Refused."""
        far_end = connection.far_end
        if far_end is None:
            far_end = connection.initiator
            if connection.sides[1] is dead:
                far_end = connection.id.other(far_end)
        near_end = connection.id.other(far_end)
        return await self._host_of(connection, near_end), await self._host_of(connection, far_end)

    async def _plugged(self, connection: Connection) -> bool:
        """Offer it along the route as it is now. False if that did not succeed, and may be tried again."""
        near, link = connection.sides
        if isinstance(near, Attachment):
            identity, far_end = connection.id, connection.far_end
            if far_end is None or identity in self._joiner.waiting:
                return False  # it is being connected already
            waiting = self._joiner.waiting[identity] = Waiting([], offering=True)
            try:
                done = await self._tried(self._plug_end(connection, near, far_end, waiting, connection))
            finally:
                del self._joiner.waiting[identity]
            self._connector.reinject(waiting)
            return done
        if isinstance(link, Link):
            return await self._tried(self._plug_passing(connection, near, link))
        return True

    async def _tried(self, attempt: Coroutine[Any, Any, None]) -> bool:
        """False if an attempt did not succeed, and another one may."""
        try:
            await attempt
        except Denied as denied:
            return denied.reason is DropReason.DENIED  # then there is nothing left to be tried
        except (Refused, Crossed, NoAnswer, NoRoute, NoWay, Exhausted):
            return False
        return True

    async def _plug_end(
        self, connection: Connection, near: Attachment, far_end: End, waiting: Waiting, before: Connection | None
    ) -> None:
        """At the host of one of its ends. Packets of that endpoint that miss meanwhile wait."""
        local, identity = self._local, connection.id
        tenant = await local.tenant(identity.tenant)
        far = await local.party(tenant.name, far_end.address, connection.exit)
        if far is None:
            raise Refused("its far endpoint is nowhere")
        flow = identity.flow_from(identity.other(far_end))
        call = Call(identity, tenant, near, far, flow, connection.initiator, connection.first, resumes=False)
        await self._connector.plug(call, waiting, before)

    async def _plug_passing(self, connection: Connection, one: Link, other: Link) -> None:
        """At a gateway on the way: the segment that is dead is replaced, the other one stays."""
        local, joiner, identity = self._local, self._joiner, connection.id
        dead = await self._dead_link(connection)
        if dead is None or identity in joiner.answering:
            raise Refused("it is being connected already")
        alive = other if dead is one else one
        origin, target = await self._sides(connection, dead)
        opened_here = dead is other
        proposal = Proposal(identity, connection.initiator, connection.first, False, opened_here, exit=connection.exit)
        joiner.answering[identity] = origin.name
        try:
            hop = await local.next_hop(alive.wire, alive.yours.seen_address)
            await self._relay.pass_on(proposal, alive, hop, origin, target)
        finally:
            if joiner.answering.get(identity) == origin.name:
                del joiner.answering[identity]
