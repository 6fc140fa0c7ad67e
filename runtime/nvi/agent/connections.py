"""The connections that one host holds, and how to find them. No I/O."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from ..keys import Pair
from ..model import Address, ConnectionId, End, Endpoint, FirstPacket, Flow, SegmentEnd
from ..offers import Stamp
from ..switch import NO_MAC, ConnectionEntry, ConnectionKey

NEVER = Stamp(0, 0)
"""Earlier than every stamp."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """An endpoint of this host, and the port of the switch where it is."""

    endpoint: Endpoint
    port: int


@dataclass(frozen=True, slots=True)
class Link:
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


def ingress_key(pair: Pair) -> ConnectionKey:
    """The key of what comes in along a segment."""
    path = pair.path
    return ConnectionKey(path.wire, NO_MAC, Flow(path.peer, path.local, path.protocol, pair.peer, pair.local))


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
    stamp: Stamp = NEVER
    """Of the offer that it came from, if it came from one."""
    offered_by: str = ""
    """The host that made it."""
    due: float = 0.0
    """When to look next whether it is idle: seconds on the loop's clock."""
    lingering: tuple[Link, ...] = ()
    """Segments that it was on until just now, for packets still under way there."""

    @property
    def keys(self) -> tuple[ConnectionKey, ConnectionKey]:
        """The keys of its entries."""
        return self.entries[0].key, self.entries[1].key

    @property
    def near(self) -> list[Attachment]:
        """Its endpoints on this host."""
        return [side for side in self.sides if isinstance(side, Attachment)]

    @property
    def links(self) -> list[Link]:
        """Its segments towards other hosts."""
        return [side for side in self.sides if isinstance(side, Link)]

    def link_to(self, peer: str) -> Link | None:
        """Its segment towards this host, if it has one."""
        return next((side for side in self.sides if isinstance(side, Link) and side.peer == peer), None)

    @property
    def far_end(self) -> End | None:
        """The end that its one link leads to; None if both ends are here, or neither."""
        attachment, link = self.sides
        if not isinstance(attachment, Attachment) or not isinstance(link, Link):
            return None
        low = self.id.low
        return self.id.high if low.address in attachment.endpoint.addresses else low


@dataclass(frozen=True, slots=True, eq=False)
class Unknown:
    """Two entries found in a gateway's switch, of a connection that nobody has named yet."""

    entries: tuple[ConnectionEntry, ConnectionEntry]
    """Each matches what comes in along the segment of the same place."""
    links: tuple[Link, Link]


Watched = tuple[str | Address, ...]
"""What a connection depends on elsewhere: ("host", name) of a gateway, ("endpoint", tenant, address) of its far end."""


class Connections:
    """All connections of a host, by identity, by the keys of their entries, by endpoint, by peer, and by dependence."""

    on_first: Callable[[Watched], None]
    """Called with what a connection depends on, if no other one has before."""
    on_last: Callable[[Watched], None]
    """Called with what no connection depends on any more."""

    def __init__(self) -> None:
        """Start empty."""
        self.on_first = self.on_last = lambda _: None
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
        for side in connection.sides:
            if isinstance(side, Attachment):
                self._by_port.setdefault(side.port, {})[connection] = None
            else:
                self._by_peer.setdefault((side.wire, side.yours.seen_address), {})[connection] = None
        for watched in _watched(connection):
            depending = self._by_watched.get(watched)
            if depending is None:
                depending = self._by_watched[watched] = {}
                self.on_first(watched)
            depending[connection] = None
        if old is not None:
            self._forget(old)
        for entry in connection.entries:
            self._by_key[entry.key] = connection
        self.look_again(connection, connection.due)

    def remove(self, connection: Connection) -> None:
        """Forget the connection with this one's identity, if held."""
        held = self._by_id.pop(connection.id, None)
        if held is not None:
            self._forget(held)

    def _forget(self, held: Connection) -> None:
        for side, entry in zip(held.sides, held.entries, strict=True):
            self._by_key.pop(entry.key, None)
            if isinstance(side, Attachment):
                _discard(self._by_port, side.port, held)
            else:
                _discard(self._by_peer, (side.wire, side.yours.seen_address), held)
        for watched in _watched(held):
            if _discard(self._by_watched, watched, held):
                self.on_last(watched)

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


def _watched(connection: Connection) -> list[Watched]:
    watched: list[Watched] = [("host", side.peer) for side in connection.links if side.passes_on]
    far = connection.far_end
    if far is not None:
        watched.append(("endpoint", connection.id.tenant, far.address))
    return watched


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
