"""The forwarding formulation: (connection, where its ends are) -> table entries. No I/O.

A packet of a connection carries, on each segment, that segment's 5-tuple; a switch joins two neighbouring segments
with one entry for each direction. `join` is that sentence; everything else here says what the segments are.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from hashlib import blake2s

from msgspec import Struct

from .model import Endpoint, Flow, Mac, Tenant
from .switch import NO_MAC, PORT_UNDERLAY, ConnectionEntry, ConnectionKey, Rewrite

UNDERLAY_TTL = 64
"""With what TTL packets start on each underlay segment (RFC 1122's default has been 64 since RFC 1700)."""


class Side(Struct, frozen=True):
    """One side of a switch, as a connection uses it."""

    port: int
    key_mac: Mac
    """Source MAC in the key of packets that come in here: the endpoint's, or NO_MAC for the underlay."""
    flow: Flow
    """5-tuple of the packets that come in here."""
    source_mac: Mac
    """Source MAC of packets that go out here."""
    destination_mac: Mac
    ttl: int
    """TTL of packets that go out here."""


def join(one: Side, other: Side, idle_timeout: float, tags: tuple[int, int]) -> tuple[ConnectionEntry, ConnectionEntry]:
    """The two entries that join two segments: what comes in at one side leaves by the other, with its 5-tuple."""
    return _towards(one, other, idle_timeout, tags[0]), _towards(other, one, idle_timeout, tags[1])


def _towards(come: Side, go: Side, idle_timeout: float, tag: int) -> ConnectionEntry:
    rewrite = Rewrite(go.source_mac, go.destination_mac, go.flow.reversed(), go.ttl, go.port)
    return ConnectionEntry(ConnectionKey(come.port, come.key_mac, come.flow), rewrite, idle_timeout, tag)


def endpoint_side(tenant: Tenant, near: Endpoint, port: int, far: Endpoint, flow: Flow, first_ttl: int) -> Side:
    """The side of a switch where the endpoint `near` is, in a connection with `far`.

    `flow` is that of the packets that `near` sends; `first_ttl` the TTL that the connection's first packet carried.
    Within a network the peers see each other; between networks a router shows: its MAC, and one hop less.
    """
    if near.network == far.network:
        return Side(port, near.mac, flow, far.mac, near.mac, first_ttl)
    return Side(port, near.mac, flow, tenant.gateway_mac(near.network), near.mac, first_ttl - 1)


def underlay_side(outgoing: Flow, source_mac: Mac, next_hop: Mac) -> Side:
    """The side of a switch towards the underlay. `outgoing`: the segment's 5-tuple of the packets that we send."""
    return Side(PORT_UNDERLAY, NO_MAC, outgoing.reversed(), source_mac, next_hop, UNDERLAY_TTL)


_TAG_FROM_INITIATOR = 1


def tag(from_initiator: bool, first_ttl: int, tenant: str) -> int:
    """What an entry does not say but a restarted agent needs, in 64 bits.

    Is its flow the initiator's; the first packet's TTL; and a mark of the tenant, for its ports and addresses may have
    become another one's.
    """
    return _mark(tenant) << 32 | first_ttl << 8 | (_TAG_FROM_INITIATOR if from_initiator else 0)


def untag(tag: int, tenant: str) -> tuple[bool, int] | None:
    """The opposite of `tag`: (from_initiator, first_ttl); None if the entry is another tenant's."""
    if tag >> 32 != _mark(tenant):
        return None
    return bool(tag & _TAG_FROM_INITIATOR), tag >> 8 & 0xFF


@cache
def _mark(tenant: str) -> int:
    return int.from_bytes(blake2s(tenant.encode(), digest_size=4).digest())


def pair_up(
    entries: Iterable[ConnectionEntry],
) -> tuple[list[tuple[ConnectionEntry, ConnectionEntry]], list[ConnectionEntry]]:
    """What a switch holds, as joined pairs, the side of an endpoint first; and the entries that belong to no pair.

    A pair is two rewrites each of which leads to where the other comes from.
    """
    by_key = {entry.key: entry for entry in entries}
    pairs = []
    while by_key:
        key, entry = by_key.popitem()
        other = _partner(entry, by_key)
        if other is None:
            continue
        del by_key[other.key]
        pairs.append((other, entry) if key.scope == PORT_UNDERLAY else (entry, other))
    paired = {entry.key for pair in pairs for entry in pair}
    return pairs, [entry for entry in entries if entry.key not in paired]


def _partner(entry: ConnectionEntry, by_key: dict[ConnectionKey, ConnectionEntry]) -> ConnectionEntry | None:
    if not isinstance(entry.action, Rewrite):
        return None
    port = entry.action.egress_port
    # Towards an endpoint, the packet's destination MAC is the one with which that endpoint sends.
    mac = NO_MAC if port == PORT_UNDERLAY else entry.action.ethernet_destination
    other = by_key.get(ConnectionKey(port, mac, entry.action.flow.reversed()))
    if other is None or not isinstance(other.action, Rewrite):
        return None
    back = other.action.egress_port == entry.key.scope and other.action.flow == entry.key.flow.reversed()
    return other if back else None
