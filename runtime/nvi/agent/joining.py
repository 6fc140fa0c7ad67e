"""The two entries of a connection: written, kept, mended, and gone without a trace.

Whichever way a connection comes about (a first packet, a peer's offer, a stray), it ends up here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from ..directory import DirectoryError
from ..formulation import endpoint_side, join, tag, underlay_side
from ..keys import Pair
from ..model import Address, ConnectionId, End, Endpoint, Flow, Tenant
from ..offers import VERSION, NoAnswer, Release, Released
from ..policy import Verdict, judge
from ..switch import (
    NO_MAC,
    PORT_UNDERLAY,
    ConnectionEntry,
    ConnectionKey,
    DropReason,
    Operation,
    Rewrite,
    SwitchError,
    Update,
)
from .connections import Attachment, Connection, Link
from .local import CONNECTIONS_SIZE, Local, Refused
from .refusals import Refusals
from .underlay import NextHop

PER_ENDPOINT = CONNECTIONS_SIZE // 4
"""Entries that one endpoint's connections may take up."""


SUPERSEDED_SECONDS = 1.0
"""How long to wait for a later state of the same connection."""


class Denied(Refused):
    """A connection that is refused, and how the switch is to count its packets."""

    def __init__(self, reason: DropReason, text: str) -> None:
        """`text`: why, for people."""
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Call:
    """A connection about to be joined, as the host of one of its ends sees it."""

    identity: ConnectionId
    tenant: Tenant
    near: Attachment
    far: Endpoint
    flow: Flow
    """Of the packets that `near` sends."""
    initiator: End
    first_ttl: int
    resumes: bool
    """The packet at hand could not have opened it."""

    @property
    def opened_here(self) -> bool:
        """Whether `near` is the initiator."""
        return self.initiator == End(self.flow.source, self.flow.l4_source)


@dataclass(slots=True, eq=False)
class Waiting:
    """A connection in the making, and the packets that wait for it."""

    frames: list[tuple[Attachment, bytes]]
    """(who sent it, frame), in the order of their arrival."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the connection is there, by whoever's offer."""


def ingress_key(flow: Flow) -> ConnectionKey:
    """The key of what comes from the underlay with this 5-tuple."""
    return ConnectionKey(PORT_UNDERLAY, NO_MAC, flow)


class Joiner:
    """Writes and deletes the entries of one host's connections."""

    def __init__(self, local: Local, refusals: Refusals) -> None:
        """Start with none."""
        self._local = local
        self._refusals = refusals
        self.waiting: dict[ConnectionId, Waiting] = {}
        """Connections that our endpoints' packets wait for."""

    def check_room(self, endpoint: Endpoint) -> None:
        """Raises Denied if the endpoint's share of the switch is used up, or all of it."""
        local = self._local
        if local.endpoint_entries(endpoint) >= PER_ENDPOINT:
            raise Denied(DropReason.EXHAUSTED, f"endpoint {endpoint.name} has as many connections as it may")
        if 2 * len(local.connections) + len(self._refusals) + 2 * len(self.waiting) > CONNECTIONS_SIZE:
            raise Denied(DropReason.EXHAUSTED, f"the table of host {local.host.name} is full")

    async def join_here(self, call: Call, there: Attachment) -> None:
        """Join two endpoints of this host. Raises SwitchError."""
        one = endpoint_side(call.tenant, call.near.endpoint, call.near.port, call.far, call.flow, call.first_ttl)
        back = call.flow.reversed()
        other = endpoint_side(call.tenant, call.far, there.port, call.near.endpoint, back, call.first_ttl)
        entries = join(one, other, self._local.idle_timeout, _tags(call))
        near = (call.near, there)
        await self._establish(Connection(call.identity, call.initiator, call.first_ttl, near, None, entries))

    async def join_across(self, call: Call, link: Link, hop: NextHop) -> Connection:
        """Join an endpoint's segment and the one towards the peer, whose pair of keys is taken already.

        Raises SwitchError or Refused; then the pair is given back, and the peer is told.
        """
        path, pair = link.pair.path, link.pair
        out = Flow(path.local, path.peer, path.protocol, pair.local, pair.peer)
        one = endpoint_side(call.tenant, call.near.endpoint, call.near.port, call.far, call.flow, call.first_ttl)
        other = underlay_side(out, hop.source_mac, hop.destination_mac)
        entries = join(one, other, self._local.idle_timeout, _tags(call))
        connection = Connection(call.identity, call.initiator, call.first_ttl, (call.near,), link, entries)
        try:
            await self._establish(connection)
        except Refused:
            self._local.spawn(self.release(call.identity, link))
            raise
        return connection

    async def _establish(self, connection: Connection) -> None:
        """Have the connection in the switch and hold it, in place of an earlier state of the same connection."""
        local = self._local
        for near in connection.near:
            if not local.is_here(near):
                raise Refused(f"endpoint {near.endpoint.name} is gone")
        for key in connection.keys:
            self._refusals.forget(key)
        old = local.connections.get(connection.id)
        connection.due = asyncio.get_running_loop().time() + local.idle_timeout
        # Held before it is written, and the switch does things in order: whoever ends it meanwhile really ends it.
        local.connections.add(connection)
        first, second = connection.entries
        try:
            # Judged once more, now that whoever enforces a change of the policy would find it.
            verdict = await self._verdict(connection)
            if not verdict.allowed:
                raise Denied(DropReason.DENIED, verdict.rule)
            current = local.connections.get(connection.id)
            if current is None:
                raise Refused("ended before it was written")
            if current is not connection:
                await self._superseded(connection)
                return
            # The way in before the way out: no packet leaves whose answer could not come back.
            await local.put((second, first))
        except (Refused, SwitchError, DirectoryError):
            with suppress(SwitchError):
                await self.close([each for each in (connection, old) if each is not None])
            raise
        local.events["connections"] += 1
        if old is not None:
            await local.take_away([key for key in old.keys if key not in connection.keys])
            if old.link is not None:
                self._give_back(old.link.pair, False)
        if local.connections.get(connection.id) is None:
            raise Refused("ended while it was being written")
        waiting = self.waiting.get(connection.id)
        if waiting is not None:
            waiting.settled.set()

    async def _superseded(self, connection: Connection) -> None:
        """Wait until the later state of the same connection is written, by whoever heard of it."""
        waiting = self.waiting.get(connection.id)
        if waiting is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(SUPERSEDED_SECONDS):
                    await waiting.settled.wait()

    async def restore(self, connection: Connection) -> None:
        """Write again what has vanished from the switch. Raises SwitchError."""
        self._local.events["restored"] += 1
        await self._local.put(connection.entries)

    async def redirect(self, peer: Address) -> None:
        """The next hop towards an underlay address may have changed: send what is live its new way.

        Raises SwitchError, NoRoute.
        """
        local = self._local
        affected = list(local.connections.towards(peer))
        if not affected:
            return
        hop = await local.underlay.next_hop(peer)
        updates = []
        for connection in affected:
            out, back = connection.entries
            assert isinstance(out.action, Rewrite)
            old = out.action
            action = Rewrite(hop.source_mac, hop.destination_mac, old.flow, old.ttl, old.egress_port)
            if action == old:
                continue
            connection.entries = (ConnectionEntry(out.key, action, out.idle_timeout, out.tag), back)
            updates.append(Update(Operation.MODIFY, connection.entries[0]))
        if updates:
            await local.switch.write(updates)

    async def close(self, connections: list[Connection]) -> None:
        """Leave nothing of these connections behind: here at once, at their peers as soon as they hear of it."""
        local = self._local
        for connection in connections:
            if local.connections.get(connection.id) is connection:
                local.connections.remove(connection)
        keys = [key for connection in connections for key in connection.keys]
        try:
            await local.take_away([key for key in keys if local.connections.at(key) is None])
        finally:
            for connection in connections:
                if connection.link is not None:
                    local.spawn(self.release(connection.id, connection.link))

    async def release(self, identity: ConnectionId, link: Link) -> None:
        """Tell the peer that we do not use a segment any more; without its word the pair of keys rests for a while."""
        local = self._local
        release = Release(VERSION, identity, link.yours, link.mine)
        try:
            reply = await local.offers.request(local.host.name, link.peer, release)
        except NoAnswer:
            reply = None
        self._forget_unused(link.pair.path.peer)
        self._give_back(link.pair, isinstance(reply, Released))

    async def released(self, sender: str, identity: ConnectionId, pair: Pair) -> None:
        """The peer does not use a segment any more: neither do we. Raises SwitchError."""
        local = self._local
        held = local.connections.get(identity)
        if held is not None and held.link is not None and held.link.peer == sender and held.link.pair == pair:
            local.connections.remove(held)
            await local.take_away(held.keys)
            local.events["released by peer"] += 1
            self._forget_unused(pair.path.peer)
        self._give_back(pair, True)

    def _give_back(self, pair: Pair, acknowledged: bool) -> None:
        """Let others use a pair, at once or after its quarantine; unless a connection, perhaps another one, has it."""
        local, path = self._local, pair.path
        flow = Flow(path.peer, path.local, path.protocol, pair.peer, pair.local)
        if local.connections.at(ingress_key(flow)) is not None:
            return
        if acknowledged:
            local.keys.free(pair)
        else:
            local.keys.rest(pair, asyncio.get_running_loop().time())

    def _forget_unused(self, peer: Address) -> None:
        if not self._local.connections.towards(peer):
            self._local.underlay.forget(peer)

    async def enforce(self, tenant: str) -> None:
        """The tenant's policy has changed: end what it no longer allows. Raises SwitchError."""
        held = [each for each in self._local.connections if each.id.tenant == tenant]
        ended = [each for each in held if not (await self._verdict(each)).allowed]
        if ended:
            self._local.events["ended by policy"] += len(ended)
            await self.close(ended)

    async def _verdict(self, connection: Connection) -> Verdict:
        """What the policy says now of a connection that is held."""
        local, identity = self._local, connection.id
        tenant = await local.directory.tenant(identity.tenant)
        responder = identity.other(connection.initiator)
        ends = [
            await local.directory.endpoint(identity.tenant, end.address) for end in (connection.initiator, responder)
        ]
        if tenant is None or ends[0] is None or ends[1] is None:
            return Verdict(True, "an end that the directory has lost is not the policy's matter")
        return judge(tenant, ends[0], ends[1], identity.protocol, responder.port)

    async def age(self) -> None:
        """Close the connections that have been idle for long enough. Raises SwitchError."""
        local = self._local
        now = asyncio.get_running_loop().time()
        local.keys.wake(now)
        due = local.connections.pop_due(now)
        if not due:
            return
        try:
            usages = await local.switch.usage([key for connection in due for key in connection.keys])
        except SwitchError:
            for connection in due:
                local.connections.look_again(connection, now + 1.0)
            raise
        idle_ones = []
        for connection, *used in zip(due, usages[::2], usages[1::2], strict=True):
            if local.connections.get(connection.id) is not connection:
                continue
            # An entry that is not there has not been missed: its next packet would have been punted.
            idle = min((usage.idle for usage in used if usage is not None), default=local.idle_timeout)
            if idle >= local.idle_timeout:
                idle_ones.append(connection)
            else:
                local.connections.look_again(connection, now + local.idle_timeout - idle)
        if idle_ones:
            local.events["expired"] += len(idle_ones)
            await self.close(idle_ones)


def _tags(call: Call) -> tuple[int, int]:
    opened_here, first_ttl, tenant = call.opened_here, call.first_ttl, call.identity.tenant
    return tag(opened_here, first_ttl, tenant), tag(not opened_here, first_ttl, tenant)
