"""The connections that one host holds, and how to find them. No I/O."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from ..keys import Pair
from ..model import Address, ConnectionId, End, Endpoint, SegmentEnd
from ..offers import Stamp
from ..switch import ConnectionEntry, ConnectionKey

NEVER = Stamp(0, 0)
"""Earlier than every stamp."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """An endpoint of this host, and the port of the switch where it is."""

    endpoint: Endpoint
    port: int


@dataclass(frozen=True, slots=True)
class Link:
    """The segment towards the host of the connection's far endpoint."""

    peer: str
    """Name of that host."""
    mine: SegmentEnd
    yours: SegmentEnd
    pair: Pair


@dataclass(slots=True, eq=False)
class Connection:
    """A connection as this host holds it: two entries of its switch."""

    id: ConnectionId
    initiator: End
    first_ttl: int
    near: tuple[Attachment, ...]
    """Its endpoints on this host: one, or both."""
    link: Link | None
    """None if both its endpoints are on this host."""
    entries: tuple[ConnectionEntry, ConnectionEntry]
    """The first matches what the endpoint `near[0]` sends."""
    stamp: Stamp = NEVER
    """Of the peer's offer that it came from, if it came from one."""
    due: float = 0.0
    """When to look next whether it is idle: seconds on the loop's clock."""

    @property
    def keys(self) -> tuple[ConnectionKey, ConnectionKey]:
        """The keys of its entries."""
        return self.entries[0].key, self.entries[1].key


class Connections:
    """All connections of a host, by identity, by the keys of their entries, by endpoint and by peer."""

    def __init__(self) -> None:
        """Start empty."""
        self._by_id: dict[ConnectionId, Connection] = {}
        self._by_key: dict[ConnectionKey, Connection] = {}
        self._by_port: dict[int, dict[Connection, None]] = {}
        self._by_peer: dict[Address, dict[Connection, None]] = {}
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

    def towards(self, peer: Address) -> Collection[Connection]:
        """The connections whose segment leads to this underlay address. Not to be changed."""
        return self._by_peer.get(peer, ())

    def add(self, connection: Connection) -> None:
        """Hold a connection, in place of the one with the same identity."""
        self.remove(connection)
        self._by_id[connection.id] = connection
        for key in connection.keys:
            self._by_key[key] = connection
        for attachment in connection.near:
            self._by_port.setdefault(attachment.port, {})[connection] = None
        if connection.link is not None:
            self._by_peer.setdefault(connection.link.yours.seen_address, {})[connection] = None
        self.look_again(connection, connection.due)

    def remove(self, connection: Connection) -> None:
        """Forget the connection with this one's identity, if held."""
        held = self._by_id.pop(connection.id, None)
        if held is None:
            return
        for key in held.keys:
            self._by_key.pop(key, None)
        for attachment in held.near:
            _discard(self._by_port, attachment.port, held)
        if held.link is not None:
            _discard(self._by_peer, held.link.yours.seen_address, held)

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


def _discard(index: dict[Any, dict[Connection, None]], key: object, connection: Connection) -> None:
    members = index.get(key)
    if members is not None:
        members.pop(connection, None)
        if not members:
            del index[key]
