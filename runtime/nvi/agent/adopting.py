"""Taking over a switch that holds connections: adopt what can be known again, delete the rest.

An entry and its tag say enough of a connection to the agent of one of its ends. A gateway on the way has but two
segments, so it asks its neighbours on them what they are of. Until one of them has said, the entries stay, and their
keys are nobody else's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from msgspec.structs import replace

from ..directory import DirectoryError
from ..formulation import mark, pair_up, untag
from ..keys import Pair, Path
from ..model import Address, ConnectionId, End, Endpoint, FirstPacket, Flow, Host
from ..offers import VERSION, Ask, NoAnswer, Offer, Reason, Refuse
from ..route import own_end
from ..switch import (
    PORT_EXTERNAL,
    PORT_FIRST_ENDPOINT,
    PORT_UNDERLAY,
    ConnectionEntry,
    Operation,
    Rewrite,
    SwitchError,
    Update,
)
from .connections import Connection, Link, Unknown
from .joining import Joiner
from .local import Local
from .outlets import Outlets
from .relaying import Relay

ASK_AGAIN = 1.0
"""Seconds between questions about what a gateway's entries are of, while nobody can answer them."""

AT_A_TIME = 256
"""Connections that are adopted without a pause."""

QUESTIONS = 64
"""Of such questions at a time."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of the entries in a switch."""

    adopted: int
    """Connections."""
    rewritten: int
    """Entries that were missing, or not as they should be."""
    deleted: int


class Adopter:
    """Reads back what a switch holds, for one host."""

    def __init__(self, local: Local, joiner: Joiner, relay: Relay, outlets: Outlets) -> None:
        """Start with nothing to find out."""
        self._outlets = outlets
        self._local = local
        self._joiner = joiner
        self._relay = relay
        self._turns = asyncio.Semaphore(QUESTIONS)

    async def take_over(self) -> Taken:
        """Make the switch hold the connections that we know, adopt those we do not, delete the rest.

        Raises SwitchError, DirectoryError.
        """
        local = self._local
        for unknown in set(local.unknown.values()):
            self._forget(unknown)
        there = {entry.key: entry for entry in await local.switch.read_connections()}
        missing: list[tuple[Operation, ConnectionEntry]] = []
        for connection in local.connections:
            for entry in connection.entries:
                held = there.pop(entry.key, None)
                if held is None:
                    missing.append((Operation.INSERT, entry))
                elif held.action != entry.action:
                    missing.append((Operation.MODIFY, entry))
        pairs, orphans = pair_up(there.values())
        known = _Known(local)
        before = len(local.connections)
        now = asyncio.get_running_loop().time()
        for out, back in pairs:
            passes = out.key.scope < PORT_FIRST_ENDPOINT
            recognise = self._recognise_passing if passes else self._recognise
            adopted = await recognise(out, back, known)
            if adopted is not None and not all(local.is_here(each) for each in adopted.near):
                # Its endpoint has gone while the directory was asked, and with all its connections that were known.
                for link in adopted.links:
                    self._joiner.give_back(link.pair, acknowledged=False)
                if adopted.outlet is not None:
                    self._outlets.give_back(adopted.outlet, answered=True)
                adopted = None
            if adopted is None and passes and await self._keep(out, back, known):
                continue
            if adopted is None:
                orphans.extend((out, back))
            else:
                adopted.due = now + local.idle_timeout
                local.connections.add(adopted)
                if len(local.connections) % AT_A_TIME == 0:
                    await asyncio.sleep(0)  # the stream of punts must be drained meanwhile, others be answered
        updates = [Update(*each) for each in (*missing, *((Operation.DELETE, entry) for entry in orphans))]
        if updates:
            await local.switch.write(updates)
            # What has ended meanwhile must not come back with it.
            await local.take_away([entry.key for _, entry in missing if local.connections.at(entry.key) is None])
        return Taken(len(local.connections) - before, len(missing), len(orphans))

    async def _recognise(self, out: ConnectionEntry, back: ConnectionEntry, known: _Known) -> Connection | None:
        """The connection of an endpoint here that two joined entries are of, if it is one that it may have."""
        local, flow = self._local, out.key.flow
        near = local.by_port.get(out.key.scope)
        if near is None or near.endpoint.mac != out.key.source_mac or flow.source not in near.endpoint.addresses:
            return None
        tenant = near.endpoint.tenant
        told = untag(out.tag, tenant)
        if told is None:
            return None
        assert isinstance(out.action, Rewrite) and isinstance(back.action, Rewrite), "what is joined is rewritten"
        opener = flow if told.from_initiator else flow.reversed()
        identity, initiator = ConnectionId.of(tenant, flow), End(opener.source, opener.l4_source)
        first = FirstPacket(told.ttl, back.action.flow_label, back.action.dont_fragment)
        if out.action.egress_port >= PORT_FIRST_ENDPOINT:
            there = local.by_port.get(out.action.egress_port)
            if there is None or there.endpoint.tenant != tenant or flow.destination not in there.endpoint.addresses:
                return None
            return Connection(identity, initiator, first, (near, there), (out, back))
        leaves = await known.leaves(tenant, flow.destination)
        if out.action.egress_port == PORT_EXTERNAL and leaves:
            found = self._outlets.recognise(_pair(PORT_EXTERNAL, out.action.flow), tenant)
            if found is None:
                return None
            outlet, identity, _ = found
            return Connection(identity, initiator, first, (near, outlet), (out, back), exit=local.host.name)
        absent = "" if leaves else await self._absent(tenant, flow.destination, told.far_host, known)
        link = await self._recognise_link(out.action, known, absent)
        if link is None:
            return None
        far = await known.party(tenant, flow.destination, link.peer if leaves else "")
        far_host = far.host if far is not None and mark(far.host) == told.far_host else ""
        if (leaves and not far_host) or not local.keys.take(link.pair):
            return None  # the way to the gateway has more segments than tell its name: its next packet mends it
        link = replace(link, passes_on=link.peer != far_host)
        exit = far_host if leaves else ""
        return Connection(identity, initiator, first, (near, link), (out, back), far_host, exit)

    async def _recognise_passing(
        self, one: ConnectionEntry, other: ConnectionEntry, known: _Known
    ) -> Connection | None:
        """The connection of an endpoint elsewhere that leaves for the outside here, by two joined entries."""
        local = self._local
        out, back = (one, other) if other.key.scope == PORT_EXTERNAL else (other, one)
        assert isinstance(out.action, Rewrite) and isinstance(back.action, Rewrite), "what is joined is rewritten"
        leaves = back.key.scope == out.action.egress_port == PORT_EXTERNAL
        found = self._outlets.recognise(_pair(PORT_EXTERNAL, out.action.flow)) if leaves else None
        if found is None:
            return None
        outlet, identity, outside = found
        inside = identity.other(outside)
        endpoint = await known.party(identity.tenant, inside.address, "")
        link = await self._recognise_link(back.action, known)
        told = untag(back.tag, identity.tenant)
        if endpoint is None or link is None or told is None or not local.keys.take(link.pair):
            self._outlets.give_back(outlet, answered=True)
            return None
        link = replace(link, passes_on=link.peer != endpoint.host)
        initiator, first = outside if told.from_initiator else inside, FirstPacket(told.ttl)
        sides = (outlet, link)
        return Connection(identity, initiator, first, sides, (back, out), endpoint.host, local.host.name)

    async def _absent(self, tenant: str, address: Address, told: int, known: _Known) -> str:
        """The host of a far endpoint, if its lease has run out: an agent that is dead says nothing about its switch.

        `told`: the mark of where the endpoint was. Empty if that host is there, or the endpoint elsewhere by now.
        """
        far = await known.party(tenant, address, "")
        if far is None or mark(far.host) != told or await self._local.directory.host(far.host) is not None:
            return ""
        return far.host

    async def _recognise_link(self, out: Rewrite, known: _Known, absent: str = "") -> Link | None:
        """The segment along which an entry sends, if both its ends are what the directory says of them.

        `absent`: the host that a segment leads to across our site whose peer the directory does not know.
        """
        local, wire, flow = self._local, out.egress_port, out.flow
        me = local.host
        peer = await known.peer(wire, flow.destination)
        if wire == PORT_EXTERNAL:
            ours = me.external is not None and me.external.address == flow.source
        else:
            ours = flow.source in me.addresses or flow.source in me.pool
        if peer is None and absent and wire == PORT_UNDERLAY:
            peer = Host(absent, me.site, (flow.destination,))
        if peer is None or not ours:
            return None
        mine = own_end(me, wire, flow.source, flow.l4_source)
        yours = own_end(peer, wire, flow.destination, flow.l4_destination)
        path = Path(wire, flow.source, flow.destination, flow.protocol)
        return Link(peer.name, mine, yours, Pair(path, flow.l4_source, flow.l4_destination))

    # ---- a gateway's entries --------------------------------------------------------------------------------------

    async def _keep(self, one: ConnectionEntry, other: ConnectionEntry, known: _Known) -> bool:
        """Keep two entries that join two segments while it is found out what they are of. False if they cannot be."""
        local = self._local
        assert isinstance(one.action, Rewrite) and isinstance(other.action, Rewrite), "what is joined is rewritten"
        links = await self._recognise_link(other.action, known), await self._recognise_link(one.action, known)
        if links[0] is None or links[1] is None or links[0].pair in local.keys or links[1].pair in local.keys:
            return False
        unknown = Unknown((one, other), (links[0], links[1]))
        for entry, link in zip(unknown.entries, unknown.links, strict=True):
            local.keys.take(link.pair)
            local.unknown[entry.key] = unknown
        local.spawn(self._find_out(unknown))
        return True

    def _forget(self, unknown: Unknown) -> None:
        for entry, link in zip(unknown.entries, unknown.links, strict=True):
            if self._local.unknown.pop(entry.key, None) is not None:
                self._local.keys.free(link.pair)

    async def _find_out(self, unknown: Unknown) -> None:
        local, keys = self._local, [entry.key for entry in unknown.entries]
        while local.unknown.get(keys[0]) is unknown:
            try:
                async with self._turns:
                    answers = [await self._ask(unknown, side) for side in (0, 1)]
                if local.unknown.get(keys[0]) is not unknown:
                    return  # the switch is being taken over anew
                found = next((each for each in answers if isinstance(each, Connection)), None)
                usages = await local.switch.usage(keys)
                idle = min((usage.idle for usage in usages if usage is not None), default=local.idle_timeout)
                if found is not None and local.connections.get(found.id) is None:
                    self._forget(unknown)
                    for link in found.links:
                        local.keys.take(link.pair)
                    found.due = asyncio.get_running_loop().time() + local.idle_timeout - idle
                    local.connections.add(found)
                    local.events["adopted late"] += 1
                    return
                if found is not None or Reason.UNKNOWN in answers or idle >= local.idle_timeout:
                    await local.take_away(keys)
                    self._forget(unknown)
                    for link in unknown.links:
                        if local.keys.take(link.pair):
                            self._joiner.give_back(link.pair, acknowledged=False)
                    return
            except (SwitchError, DirectoryError) as error:
                local.log.debug("entries not known yet", error=str(error))
            await asyncio.sleep(ASK_AGAIN)

    async def _ask(self, unknown: Unknown, side: int) -> Connection | Reason | None:
        """What one of the two neighbours says: what the entries are of; or why it does not say, if it answers."""
        local, link, other = self._local, unknown.links[side], unknown.links[1 - side]
        try:
            ask = Ask(VERSION, link.pair.path.protocol, link.yours, link.mine)
            reply = await local.offers.request(local.host.name, link.peer, ask)
        except NoAnswer:
            return None
        if isinstance(reply, Refuse):
            return reply.reason
        if not isinstance(reply, Offer) or (reply.end, reply.peer_port) != (link.yours, link.mine.port):
            return None
        peer = await local.directory.host(link.peer)
        place = None if peer is None else await self._relay.place(peer, reply.connection, reply.exit)
        if place is None or reply.initiator not in (reply.connection.low, reply.connection.high):
            return Reason.UNKNOWN
        links = (
            replace(link, passes_on=link.peer != place.origin.name),
            replace(other, passes_on=other.peer != place.target.name),
        )
        entries = unknown.entries[side], unknown.entries[1 - side]
        if reply.initiator != place.far_end:
            links, entries = links[::-1], entries[::-1]
        return Connection(reply.connection, reply.initiator, reply.first, links, entries, exit=reply.exit)


class _Known:
    """What the directory says while one switch is taken over. Many entries ask for the same."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._peers: dict[tuple[int, Address], Host | None] = {}
        self._leaves: dict[tuple[str, Address], bool] = {}
        self._parties: dict[tuple[str, Address, str], Endpoint | None] = {}

    async def peer(self, wire: int, address: Address) -> Host | None:
        """The host at the other end of a segment."""
        if (wire, address) not in self._peers:
            directory = self._local.directory
            self._peers[wire, address] = await (
                directory.gateway_at(address)
                if wire == PORT_EXTERNAL
                else directory.host_at(self._local.host.site, address)
            )
        return self._peers[wire, address]

    async def leaves(self, tenant: str, address: Address) -> bool:
        """Whether an address is one of the outside, seen from a tenant."""
        if (tenant, address) not in self._leaves:
            known = await self._local.directory.tenant(tenant)
            self._leaves[tenant, address] = known is not None and not known.holds(address)
        return self._leaves[tenant, address]

    async def party(self, tenant: str, address: Address, exit: str) -> Endpoint | None:
        """See Local.party."""
        who = tenant, address, exit
        if who not in self._parties:
            self._parties[who] = await self._local.party(*who)
        return self._parties[who]


def _pair(wire: int, outgoing: Flow) -> Pair:
    path = Path(wire, outgoing.source, outgoing.destination, outgoing.protocol)
    return Pair(path, outgoing.l4_source, outgoing.l4_destination)
