"""The two entries of a connection: written, kept, mended, and gone without a trace.

Whichever way a connection comes about (a first packet, a peer's offer, a stray), it ends up here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from msgspec import Struct

from ..directory import DirectoryError
from ..formulation import Side, endpoint_side, join, link_side, outside_side, redirected, tag
from ..keys import Pair
from ..model import Address, ConnectionId, End, Endpoint, FirstPacket, Flow, Tenant
from ..offers import VERSION, NoAnswer, Release, Released
from ..policy import Verdict
from ..switch import ConnectionKey, DropReason, Operation, Rewrite, SwitchError, Update
from .connections import Attachment, Connection, Link, Outlet, ingress_key
from .local import CONNECTIONS_SIZE, Local, Refused
from .refusals import Refusals
from .underlay import NextHop

PER_ENDPOINT = CONNECTIONS_SIZE // 4
"""Entries that one endpoint's connections may take up."""

SUPERSEDED_SECONDS = 1.0
"""How long to wait for a later state of the same connection."""

LINGER_SECONDS = 1.0
"""For how long packets still come in along a segment that the connection has just left."""


class Denied(Refused):
    """A connection that is refused, and how the switch is to count its packets."""

    def __init__(self, reason: DropReason, text: str) -> None:
        """`text`: why, for people."""
        super().__init__(text)
        self.reason = reason


class Call(Struct, frozen=True, gc=False):
    """A connection about to be joined, as the host of one of its ends sees it."""

    identity: ConnectionId
    tenant: Tenant
    near: Attachment
    far: Endpoint
    flow: Flow
    """Of the packets that `near` sends."""
    initiator: End
    first: FirstPacket
    resumes: bool
    """The packet at hand could not have opened it, and nothing is remembered of who did."""
    allowed_by: Tenant | None = None
    """The tenant as it was when its policy allowed that initiator to open it; None if it has yet to be judged."""

    @property
    def exit(self) -> str:
        """The gateway at whose external side one of the ends is; empty if both are endpoints."""
        if self.far.is_outside:
            return self.far.host
        return self.near.endpoint.host if self.near.endpoint.is_outside else ""

    @property
    def opened_here(self) -> bool:
        """Whether `near` is the initiator."""
        return self.initiator == End(self.flow.source, self.flow.l4_source)


@dataclass(slots=True, eq=False)
class Waiting:
    """A connection in the making, and the packets that wait for it."""

    frames: list[tuple[Attachment, bytes]]
    """(who sent it, frame), in the order of their arrival."""
    offering: bool
    """Whether our own offer is under way, or will be: it is not just that entries have vanished."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the connection is there, by whoever's offer."""


class Joiner:
    """Writes and deletes the entries of one host's connections."""

    def __init__(self, local: Local, refusals: Refusals) -> None:
        """Start with none."""
        self._local = local
        self._refusals = refusals
        self.waiting: dict[ConnectionId, Waiting] = {}
        """Connections that our endpoints' packets wait for."""
        self.answering: dict[ConnectionId, str] = {}
        """Connections that are being joined on behalf of peers, and from which host's endpoint their offers came."""

    def check_room(self, endpoint: Endpoint | None) -> None:
        """Raises Denied if the endpoint's share of the switch is used up, or all of it."""
        local = self._local
        if endpoint is not None and local.endpoint_entries(endpoint) >= PER_ENDPOINT:
            raise Denied(
                DropReason.QUOTA,
                f"endpoint {endpoint.name} has {PER_ENDPOINT // 2} connections, as many as it may; wait until some end",
            )
        if 2 * len(local.connections) + len(self._refusals) + 2 * len(self.waiting) > CONNECTIONS_SIZE:
            raise Denied(DropReason.EXHAUSTED, f"the table of host {local.host.name} is full; move endpoints away")

    # ---- coming about ---------------------------------------------------------------------------------------------

    async def join_here(self, call: Call, there: Attachment) -> None:
        """Join two endpoints of this host. Raises SwitchError, Refused."""
        one = await self._end_side(call, call.near)
        other = await self._end_side(call, there)
        await self._establish(self._connection(call, there, other, one), call.allowed_by)

    async def join_across(self, call: Call, link: Link, hop: NextHop) -> Connection:
        """Join an endpoint's segment and the one towards the next host, whose pair of keys is taken already.

        Raises SwitchError or Refused; then the pair is given back, and the peer is told.
        """
        one = await self._end_side(call, call.near)
        other = link_side(link.wire, link.outgoing, hop.source_mac, hop.destination_mac, hop.mtu, call.first)
        connection = self._connection(call, link, other, one)
        connection.far_host = call.far.host
        await self._establish(connection, call.allowed_by)
        return connection

    async def _end_side(self, call: Call, there: Attachment) -> Side:
        """The side of our switch where one of the ends is. Raises NoRoute."""
        if isinstance(there, Outlet):
            hop = await self._local.next_hop(there.pair.path.wire, there.pair.path.peer)
            opened_outside = call.initiator.address in there.endpoint.addresses
            return outside_side(
                there.outgoing, hop.source_mac, hop.destination_mac, hop.mtu, call.first, opened_outside
            )
        flow, far = call.flow, call.far
        if there is not call.near:
            flow, far = flow.reversed(), call.near.endpoint
        return endpoint_side(call.tenant, there.endpoint, there.port, far, flow, call.first)

    def _connection(self, call: Call, other_side: Attachment | Link, other: Side, one: Side) -> Connection:
        opened_here, told = call.opened_here, (call.first.ttl, call.identity.tenant, call.far.host)
        tags = tag(opened_here, *told), tag(not opened_here, *told)
        entries = join(one, other, self._local.idle_timeout, tags)
        sides = (call.near, other_side)
        return Connection(call.identity, call.initiator, call.first, sides, entries, exit=call.exit)

    async def join_relay(
        self,
        identity: ConnectionId,
        initiator: End,
        first: FirstPacket,
        links: tuple[Link, Link],
        hops: tuple[NextHop, NextHop],
        exit: str,
    ) -> Connection:
        """Join two segments at a gateway on the way: the initiator's side, the responder's.

        Their pairs of keys are taken already. Raises as `join_across` does.
        """
        one, other = (
            link_side(link.wire, link.outgoing, hop.source_mac, hop.destination_mac, hop.mtu, first)
            for link, hop in zip(links, hops, strict=True)
        )
        entries = join(one, other, self._local.idle_timeout, (0, 0))
        connection = Connection(identity, initiator, first, links, entries, exit=exit)
        await self._establish(connection)
        return connection

    async def join_turned(self, connection: Connection) -> None:
        """Join the two sides of a hairpin. Raises as `join_across` does."""
        await self._establish(connection)

    async def _establish(self, connection: Connection, allowed_by: Tenant | None = None) -> None:
        """Have the connection in the switch and hold it, in place of an earlier state of the same connection.

        `allowed_by`: see Call.
        """
        local = self._local
        old = local.connections.get(connection.id)
        for near in connection.near:
            if not local.is_here(near):
                for link in connection.links:
                    if old is None or link not in old.sides:
                        local.spawn(self.release(connection.id, link))
                raise Refused(f"endpoint {near.endpoint.name} is gone")
        for key in connection.keys:
            self._refusals.forget(key)
        connection.due = asyncio.get_running_loop().time() + local.idle_timeout
        if old is not None:
            was_on = (*old.lingering, *old.links)
            connection.lingering = tuple(each for each in was_on if each not in connection.sides)
        # Held before it is written, and the switch does things in order: whoever ends it meanwhile really ends it.
        local.connections.add(connection)
        first, second = connection.entries
        try:
            if old is not None and len(old.links) < len(connection.links):  # an endpoint has moved away
                await local.take_away([key for key in old.keys if key not in connection.keys])
            # Judged by the policy that holds now that whoever enforces a change of it would find the connection.
            if allowed_by is None or allowed_by is not await local.directory.tenant(allowed_by.name):
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
        if local.connections.get(connection.id) is None:
            raise Refused("ended while it was being written")
        for link in connection.lingering:
            local.spawn(self._linger(connection.id, link))
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

    async def _linger(self, identity: ConnectionId, link: Link) -> None:
        """Leave a segment on which packets of the connection may still be under way."""
        local = self._local
        await asyncio.sleep(LINGER_SECONDS)
        held = local.connections.get(identity)
        if held is None or link not in held.lingering:
            return
        held.lingering = tuple(each for each in held.lingering if each != link)
        key = ingress_key(link.pair)
        if local.connections.at(key) is None:
            with suppress(SwitchError):  # then it is deleted as an orphan when the switch is taken over
                await local.take_away([key])
        await self.release(identity, link)

    # ---- being kept -----------------------------------------------------------------------------------------------

    async def restore(self, connection: Connection) -> None:
        """Write again what has vanished from the switch. Raises SwitchError."""
        self._local.events["restored"] += 1
        await self._local.put(connection.entries)
        if self._local.connections.get(connection.id) is not connection:  # it has ended meanwhile
            await self._local.take_away([key for key in connection.keys if self._local.connections.at(key) is None])

    async def redirect(self, wire: int, peer: Address) -> None:
        """The next hop towards an address of a wire may have changed: send what is live its new way.

        Raises SwitchError, NoRoute.
        """
        local = self._local
        affected = list(local.connections.towards(wire, peer))
        if not affected:
            return
        hop = await local.next_hop(wire, peer)
        updates = []
        for connection in affected:
            entries = list(connection.entries)
            for place, entry in enumerate(entries):
                action = entry.action
                assert isinstance(action, Rewrite)
                if action.egress_port == wire and action.flow.destination == peer:
                    entries[place] = redirected(entry, hop.source_mac, hop.destination_mac, hop.mtu)
                    if entries[place] != entry:
                        updates.append(Update(Operation.MODIFY, entries[place]))
            connection.entries = (entries[0], entries[1])
        if updates:
            await local.switch.write(updates)

    async def enforce(self, tenant: str) -> None:
        """The tenant's policy has changed: end what it no longer allows. Raises SwitchError."""
        held = [each for each in self._local.connections if tenant in each.tenants]
        ended = [each for each in held if not (await self._verdict(each)).allowed]
        if ended:
            self._local.events["ended by policy"] += len(ended)
            await self.close(ended)

    async def _verdict(self, connection: Connection) -> Verdict:
        """What the policy says now of a connection that is held."""
        if (turn := connection.turn) is not None:
            verdict = await self._judge(turn.identity, turn.initiator, connection.exit)
            if not verdict.allowed:
                return verdict
        elif not connection.near:
            return Verdict(True, "the policy is enforced at both ends, and not on the way")
        return await self._judge(connection.id, connection.initiator, connection.exit)

    async def _judge(self, identity: ConnectionId, initiator: End, exit: str) -> Verdict:
        local = self._local
        tenant = await local.directory.tenant(identity.tenant)
        responder = identity.other(initiator)
        opener = await local.party(identity.tenant, initiator.address, exit)
        opened = await local.party(identity.tenant, responder.address, exit)
        if tenant is None or opener is None or opened is None:
            return Verdict(True, "an end that the directory has lost is not the policy's matter")
        return await local.verdict(tenant, opener, opened, identity.protocol, responder.port)

    # ---- the end --------------------------------------------------------------------------------------------------

    async def close(self, connections: list[Connection]) -> None:
        """Leave nothing of these connections behind: here at once, at their peers as soon as they hear of it."""
        local = self._local
        links: dict[tuple[ConnectionId, Link], None] = {}
        for connection in connections:
            if local.connections.get(connection.id) is connection:
                local.connections.remove(connection)
            for link in (*connection.links, *connection.lingering):
                if local.connections.at(ingress_key(link.pair)) is None:
                    links[connection.id, link] = None
        keys = [key for connection in connections for key in _all_keys(connection)]
        try:
            await local.take_away([key for key in keys if local.connections.at(key) is None])
        finally:
            for identity, link in links:
                local.spawn(self.release(identity, link))

    async def end_forgotten(self, pair: Pair) -> None:
        """The peer takes a pair of keys to be free, so it has forgotten the connection that has it here: that ends.

        Its next packet makes it anew. Raises SwitchError.
        """
        held = self._local.connections.at(ingress_key(pair))
        if held is not None:
            await self.close([held])

    async def abandon(self, connections: list[Connection]) -> None:
        """Leave nothing of these connections behind here. Their peers go on with somebody else, and are not told.

        Raises SwitchError.
        """
        local = self._local
        for connection in connections:
            if local.connections.get(connection.id) is connection:
                local.connections.remove(connection)
        try:
            await local.take_away([key for connection in connections for key in _all_keys(connection)])
        finally:
            for connection in connections:
                for link in (*connection.links, *connection.lingering):
                    self._forget_unused(link)
                    self.give_back(link.pair, False)

    async def release(self, identity: ConnectionId, link: Link) -> None:
        """Tell the peer that we do not use a segment any more; without its word the pair of keys rests for a while."""
        local = self._local
        release = Release(VERSION, identity, link.yours, link.mine, local.stamp())
        try:
            reply = await local.offers.request(local.host.name, link.peer, release)
        except NoAnswer:
            reply = None
        self._forget_unused(link)
        self.give_back(link.pair, isinstance(reply, Released))

    async def released(self, sender: str, identity: ConnectionId, pair: Pair) -> None:
        """The peer does not use a segment any more: neither do we, nor what it is joined to. Raises SwitchError."""
        local = self._local
        held = local.connections.get(identity) or local.connections.at(ingress_key(pair))
        if held is not None:
            link = next((each for each in held.links if each.peer == sender and each.pair == pair), None)
            if link is not None:
                local.connections.remove(held)
                try:
                    await self._take_away(pair, _all_keys(held))
                finally:
                    self._forget_unused(link)
                    for other in (*held.links, *held.lingering):
                        if other is not link:
                            local.spawn(self.release(identity, other))
                local.events["released by peer"] += 1
            elif left := [each for each in held.lingering if each.pair == pair]:
                held.lingering = tuple(each for each in held.lingering if each not in left)
                await self._take_away(pair, [ingress_key(pair)])
        self.give_back(pair, True)

    async def _take_away(self, pair: Pair, keys: list[ConnectionKey]) -> None:
        """Have no entries with these keys; as long as the switch may still have some, `pair` is not free."""
        try:
            await self._local.take_away(keys)
        except SwitchError:
            self.give_back(pair, False)
            raise

    def give_back(self, pair: Pair, acknowledged: bool) -> None:
        """Let others use a pair, at once or after its quarantine; unless a connection, perhaps another one, has it."""
        local = self._local
        key = ingress_key(pair)
        if local.connections.at(key) is not None or key in local.unknown:
            return
        if acknowledged:
            local.keys.free(pair)
        else:
            local.keys.rest(pair, asyncio.get_running_loop().time())

    def _forget_unused(self, link: Link) -> None:
        local, peer = self._local, link.yours.seen_address
        if not local.connections.towards(link.wire, peer) and (underlay := local.wires.get(link.wire)) is not None:
            underlay.forget(peer)

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
            connection.answered = all(usage is None or usage.packets for usage in used)
            if idle >= local.idle_timeout:
                idle_ones.append(connection)
            else:
                local.connections.look_again(connection, now + local.idle_timeout - idle)
        if idle_ones:
            local.events["expired"] += len(idle_ones)
            await self.close(idle_ones)


def _all_keys(connection: Connection) -> list[ConnectionKey]:
    return [*connection.keys, *(ingress_key(link.pair) for link in connection.lingering)]
