"""The connections that one host holds, and how to find them. No I/O."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from ..keys import Pair
from ..mappings import Mapping
from ..model import Address, ConnectionId, End, Endpoint, FirstPacket, Flow, SegmentEnd
from ..offers import NEVER, Stamp
from ..switch import NO_MAC, ConnectionEntry, ConnectionKey


class Attachment(Struct, frozen=True, gc=False):
    """An endpoint of this host, and the port of the switch where it is."""

    endpoint: Endpoint
    port: int


class Link(Struct, frozen=True, gc=False):
    """A segment towards another host: the next one on the connection's route."""

    peer: str
    """Name of that host."""
    mine: SegmentEnd
    yours: SegmentEnd
    pair: Pair
    passes_on: bool = False
    """Whether the peer is a gateway, with the connection's end somewhere beyond."""

    @property
    def wire(self) -> int:
        """The port of the switch at which the peer is."""
        return self.pair.path.wire

    @property
    def outgoing(self) -> Flow:
        """5-tuple of the packets that we send."""
        path = self.pair.path
        return Flow(path.local, path.peer, path.protocol, self.pair.local, self.pair.peer)


class Outlet(Attachment, frozen=True, gc=False):
    """The segment between a gateway and somebody outside, who is no host: the last one of the connection's route."""

    pair: Pair
    """Our port: that of a mapping, or of a published service; and theirs."""
    mapping: Mapping | None
    """None for a published service."""
    turns: bool = False
    """Whether it leads back to a service that this gateway has published itself."""

    @property
    def outgoing(self) -> Flow:
        """5-tuple of the packets that we send."""
        path = self.pair.path
        return Flow(path.local, path.peer, path.protocol, self.pair.local, self.pair.peer)


def ingress_key(pair: Pair) -> ConnectionKey:
    """The key of what comes in along a segment."""
    path = pair.path
    return ConnectionKey(path.wire, NO_MAC, Flow(path.peer, path.local, path.protocol, pair.peer, pair.local))


class Turn(Struct, frozen=True, gc=False):
    """What is beyond a hairpin: the same packets are another connection, of the service that they are for."""

    identity: ConnectionId
    """Of that connection, which has the second side of the hairpin."""
    initiator: End
    """The client, as the service sees it."""
    outlet: Outlet
    """By which the client would leave; it is in use, but carries nothing."""
    hosts: tuple[str, str]
    """Where the client is, and the service."""


@dataclass(slots=True, eq=False)
class Connection:
    """A connection as this host holds it: two entries of its switch, which join two of its segments."""

    id: ConnectionId
    initiator: End
    first: FirstPacket
    sides: tuple[Attachment | Link, Attachment | Link]
    """Both endpoints, if they are here; an endpoint, and the link towards the other; or, at a gateway on the way, the
    link towards the initiator, and the one towards the responder."""
    entries: tuple[ConnectionEntry, ConnectionEntry]
    """Each matches what comes in at the side of the same place."""
    far_host: str = ""
    """Where the endpoint is that `sides` only leads to; empty if both are here, or neither."""
    exit: str = ""
    """The gateway at whose external side one of its ends is; empty if both are endpoints."""
    turn: Turn | None = None
    """At the gateway of a hairpin."""
    answered: bool = True
    """Whether packets have gone both ways, as far as is known."""
    stamp: Stamp = NEVER
    """Of what a peer has said of it last, an offer or the acceptance of one, as far as that is known."""
    said_by: str = ""
    """The host of that peer."""
    due: float = 0.0
    """When to look next whether it is idle: seconds on the loop's clock."""
    lingering: tuple[Link, ...] = ()
    """Segments that it was on until just now, for packets still under way there."""
    near: tuple[Attachment, ...] = field(init=False)
    """Its ends on this host: endpoints, or at a gateway whoever is outside."""
    links: tuple[Link, ...] = field(init=False)
    """Its segments towards other hosts."""

    def __post_init__(self) -> None:
        """Tell the sides apart."""
        one, other = self.sides
        if isinstance(one, Attachment):
            self.near, self.links = ((one, other), ()) if isinstance(other, Attachment) else ((one,), (other,))
        else:
            self.near, self.links = ((other,), (one,)) if isinstance(other, Attachment) else ((), (one, other))

    @property
    def keys(self) -> tuple[ConnectionKey, ConnectionKey]:
        """The keys of its entries."""
        return self.entries[0].key, self.entries[1].key

    @property
    def tenants(self) -> set[str]:
        """Whose it is; those of both sides, if it is a hairpin."""
        return {self.id.tenant} | ({self.turn.identity.tenant} if self.turn is not None else set())

    @property
    def outlet(self) -> Outlet | None:
        """At a gateway: its segment towards whoever is outside, if it leaves here."""
        if self.turn is not None:
            return self.turn.outlet
        return next((side for side in self.near if isinstance(side, Outlet)), None)

    def link_to(self, peer: str) -> Link | None:
        """Its segment towards this host, if it has one."""
        return next((link for link in self.links if link.peer == peer), None)

    @property
    def far_end(self) -> End | None:
        """The end that its one link leads to; None if both ends are here, or neither."""
        attachment, link = self.sides
        if not isinstance(attachment, Attachment) or not isinstance(link, Link):
            return None
        return self.end_beyond(attachment)

    def end_beyond(self, near: Attachment) -> End:
        """The end that is not the one at `near`."""
        low, high = self.id.low, self.id.high
        return high if low.address in near.endpoint.addresses else low


@dataclass(frozen=True, slots=True, eq=False)
class Unknown:
    """Two entries found in a gateway's switch, of a connection that nobody has named yet."""

    entries: tuple[ConnectionEntry, ConnectionEntry]
    """Each matches what comes in along the segment of the same place."""
    links: tuple[Link, Link]


Watched = tuple[str | Address, ...]
"""What a connection depends on elsewhere: ("host", name) of a gateway, ("endpoint", tenant, address) of its far end.

And ("peer", name) of another host at the far end of a segment: nothing of it has to change, but it must stay known."""


class Connections:
    """All connections of a host, by identity, by the keys of their entries, by endpoint, by peer, and by dependence."""

    on_first: Callable[[Watched], None]
    """Called with what a connection depends on, if no other one has before."""
    on_last: Callable[[Watched], None]
    """Called with what no connection depends on any more."""
    on_held: Callable[[Connection], None]
    """Called with a connection that is held from now on."""
    on_forgotten: Callable[[Connection, Connection | None], None]
    """Called with a connection that is not held any more, and the state of it that is held in its place, if any."""

    def __init__(self) -> None:
        """Start empty."""
        self.on_first = self.on_last = lambda _: None
        self.on_held = lambda _: None
        self.on_forgotten = lambda _, __: None
        self._by_id: dict[ConnectionId, Connection] = {}
        self._by_key: dict[ConnectionKey, Connection] = {}
        self._by_port: dict[int, dict[Connection, None]] = {}
        self._by_peer: dict[tuple[int, Address], dict[Connection, None]] = {}
        self._by_watched: dict[Watched, dict[Connection, None]] = {}
        self._agenda: list[tuple[float, int, Connection]] = []
        self._serial = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._by_id)

    def __iter__(self) -> Iterator[Connection]:
        """All of them, as they are now."""
        return iter(list(self._by_id.values()))

    def get(self, identity: ConnectionId) -> Connection | None:
        """The connection with this identity, if held."""
        return self._by_id.get(identity)

    def at(self, key: ConnectionKey) -> Connection | None:
        """The connection one of whose entries has this key, if held."""
        return self._by_key.get(key)

    def of_port(self, port: int) -> Collection[Connection]:
        """The connections of the endpoint at this port, in the order in which they came. Not to be changed."""
        return self._by_port.get(port, ())

    def towards(self, wire: int, peer: Address) -> Collection[Connection]:
        """The connections with a segment that leads to this address on this wire. Not to be changed."""
        return self._by_peer.get((wire, peer), ())

    def peers(self) -> list[tuple[int, Address]]:
        """Every (wire, address) that a segment leads to."""
        return list(self._by_peer)

    def depending_on(self, watched: Watched) -> Collection[Connection]:
        """The connections that depend on this. Not to be changed."""
        return self._by_watched.get(watched, ())

    def add(self, connection: Connection) -> None:
        """Hold a connection, in place of the one with the same identity."""
        old = self._by_id.get(connection.id)
        self._by_id[connection.id] = connection
        # The new before the old, so that what both depend on stays watched.
        for near in connection.near:
            self._by_port.setdefault(near.port, {})[connection] = None
        for towards in _towards(connection):
            self._by_peer.setdefault(towards, {})[connection] = None
        for watched in _watched(connection):
            depending = self._by_watched.get(watched)
            if depending is None:
                depending = self._by_watched[watched] = {}
                self.on_first(watched)
            depending[connection] = None
        if old is not None:
            self._forget(old, connection)
        for entry in connection.entries:
            self._by_key[entry.key] = connection
        self.look_again(connection, connection.due)
        self.on_held(connection)

    def remove(self, connection: Connection) -> None:
        """Forget the connection with this one's identity, if held."""
        held = self._by_id.pop(connection.id, None)
        if held is not None:
            self._forget(held, None)

    def _forget(self, held: Connection, successor: Connection | None) -> None:
        for entry in held.entries:
            self._by_key.pop(entry.key, None)
        for near in held.near:
            _discard(self._by_port, near.port, held)
        for towards in _towards(held):
            _discard(self._by_peer, towards, held)
        for watched in _watched(held):
            if _discard(self._by_watched, watched, held):
                self.on_last(watched)
        self.on_forgotten(held, successor)

    def look_again(self, connection: Connection, due: float) -> None:
        """Have `pop_due` return the connection once `due` has come."""
        connection.due = due
        self._serial += 1
        heapq.heappush(self._agenda, (due, self._serial, connection))

    def pop_due(self, now: float) -> list[Connection]:
        """The held connections whose time to be looked at has come, each once."""
        due = []
        while self._agenda and self._agenda[0][0] <= now:
            at, _, connection = heapq.heappop(self._agenda)
            if at == connection.due and self._by_id.get(connection.id) is connection:
                due.append(connection)
        return due


def _towards(connection: Connection) -> list[tuple[int, Address]]:
    """The (wire, address) that each of its segments leads to."""
    leads = [(link.pair.path.wire, link.yours.seen_address) for link in connection.links]
    for near in connection.near:
        if isinstance(near, Outlet):
            leads.append((near.pair.path.wire, near.pair.path.peer))
    return leads


def _watched(connection: Connection) -> list[Watched]:
    if (turn := connection.turn) is not None:
        inside = connection.initiator, turn.identity.other(turn.initiator)
        tenants = connection.id.tenant, turn.identity.tenant
        return [("endpoint", tenant, end.address) for tenant, end in zip(tenants, inside, strict=True)]
    watched: list[Watched] = [("host" if side.passes_on else "peer", side.peer) for side in connection.links]
    if connection.exit and connection.outlet is None:
        watched.append(("host", connection.exit))
    elif (far := connection.far_end) is not None:
        watched.append(("endpoint", connection.id.tenant, far.address))
    return watched if len(watched) < 2 else list(dict.fromkeys(watched))


def _discard(index: dict[Any, dict[Connection, None]], key: object, connection: Connection) -> bool:
    """Returns whether that was the last of its kind."""
    members = index.get(key)
    if members is None:
        return False
    members.pop(connection, None)
    if members:
        return False
    del index[key]
    return True
