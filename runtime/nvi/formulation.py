"""The forwarding formulation: (connection, where its ends are) -> table entries. No I/O.

A packet of a connection carries, on each segment, that segment's 5-tuple; a switch joins two neighbouring segments
with one entry for each direction. `join` is that sentence; everything else here says what the segments are.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from hashlib import blake2s

from msgspec import Struct
from msgspec.structs import replace

from .model import Address, Endpoint, FirstPacket, Flow, Mac, Protocol, Tenant
from .packets import GROWTH
from .switch import NO_MAC, PORT_EXTERNAL, PORT_FIRST_ENDPOINT, ConnectionEntry, ConnectionKey, Rewrite

LONGEST = 1500
"""No port takes longer IP packets in. Where those may go on, the switch need not look at each: docs/performance.md."""
UNDERLAY_TTL = 64
"""With what TTL packets start on each underlay segment (RFC 1122's default has been 64 since RFC 1700)."""


def segment_protocol(protocol: int, address: Address) -> int:
    """The protocol of a connection on a segment between addresses of this family: each family has its own ICMP."""
    if protocol == Protocol.ICMP and len(address) == 16:
        return Protocol.ICMPV6
    if protocol == Protocol.ICMPV6 and len(address) == 4:
        return Protocol.ICMP
    return protocol


class Side(Struct, frozen=True, gc=False):
    """One side of a switch, as a connection uses it."""

    port: int
    key_mac: Mac
    """Source MAC in the key of packets that come in here: the endpoint's, or NO_MAC for a wire."""
    flow: Flow
    """5-tuple of the packets that come in here."""
    source_mac: Mac
    """Source MAC of packets that go out here."""
    destination_mac: Mac
    first: FirstPacket
    """What packets that go out here carry: TTL always, the rest where the other side is of the other family."""
    router: Address | None = None
    """Who tells of errors here, unless the far end itself does; None on a wire, where it is the peer's address."""
    routed: bool = False
    """Whether a router lies between this side and the other."""
    mtu: int = 0
    """The longest IP packet that may go out here; 0 if the switch need not look."""


def join(one: Side, other: Side, idle_timeout: float, tags: tuple[int, int]) -> tuple[ConnectionEntry, ConnectionEntry]:
    """The two entries that join two segments: what comes in at one side leaves by the other, with its 5-tuple."""
    return _towards(one, other, idle_timeout, tags[0]), _towards(other, one, idle_timeout, tags[1])


def _towards(come: Side, go: Side, idle_timeout: float, tag: int) -> ConnectionEntry:
    flow, first, limit = go.flow.reversed(), go.first, _limit(come.flow, go.flow, go.mtu)
    changes = (go.source_mac, go.destination_mac, flow, first.ttl, go.port, go.router, come.routed, limit)
    if len(flow.source) == len(come.flow.source):
        rewrite = Rewrite(*changes)
    else:
        rewrite = Rewrite(*changes, first.flow_label, first.dont_fragment)
    return ConnectionEntry(ConnectionKey(come.port, come.key_mac, come.flow), rewrite, idle_timeout, tag)


def _limit(come: Flow, go: Flow, mtu: int) -> int:
    """The length of the packets that come in and may go out, which may grow or shrink on the way; 0 for any."""
    limit = mtu
    if mtu and len(come.source) != len(go.source):
        limit += GROWTH if len(come.source) == 16 else -GROWTH
    return 0 if limit >= LONGEST else limit


def redirected(entry: ConnectionEntry, source_mac: Mac, next_hop: Mac, mtu: int) -> ConnectionEntry:
    """An entry that leads out of a wire, along another way there."""
    old = entry.action
    assert isinstance(old, Rewrite), "only what is rewritten leads anywhere"
    limit = _limit(entry.key.flow, old.flow, mtu)
    action = replace(old, ethernet_source=source_mac, ethernet_destination=next_hop, max_length=limit)
    return replace(entry, action=action)


def endpoint_side(tenant: Tenant, near: Endpoint, port: int, far: Endpoint, flow: Flow, first: FirstPacket) -> Side:
    """The side of a switch where the endpoint `near` is, in a connection with `far`.

    `flow` is that of the packets that `near` sends. Within a network the peers see each other; between networks a
    router shows: its MAC, and one hop less.
    """
    router = tenant.networks[near.network].gateway_for(flow.source)
    if near.network == far.network:
        return Side(port, near.mac, flow, far.mac, near.mac, first, router)
    seen = FirstPacket(first.ttl - 1, first.flow_label, first.dont_fragment)
    return Side(port, near.mac, flow, tenant.gateway_mac(near.network), near.mac, seen, router, routed=True)


def link_side(wire: int, outgoing: Flow, source_mac: Mac, next_hop: Mac, mtu: int, first: FirstPacket) -> Side:
    """The side of a switch towards another host. `outgoing`: the segment's 5-tuple of the packets that we send.

    Underlay hops do not show, so each segment has a TTL of its own. The rest of what the first packet carried is needed
    where a packet gets back into its family.
    """
    fresh = FirstPacket(UNDERLAY_TTL, first.flow_label, first.dont_fragment)
    return Side(wire, NO_MAC, outgoing.reversed(), source_mac, next_hop, fresh, mtu=mtu)


def outside_side(
    outgoing: Flow, source_mac: Mac, next_hop: Mac, mtu: int, first: FirstPacket, opened_outside: bool
) -> Side:
    """The side of a gateway's switch towards somebody outside, who sees that a router lies between.

    `outgoing`: the 5-tuple of the packets that we send there. The first packet's TTL says nothing of answers to it, so
    those start with one of their own.
    """
    ttl = UNDERLAY_TTL if opened_outside else first.ttl - 1
    shown = FirstPacket(ttl, first.flow_label, first.dont_fragment)
    return Side(PORT_EXTERNAL, NO_MAC, outgoing.reversed(), source_mac, next_hop, shown, mtu=mtu)


_FROM_INITIATOR = 1


class Told(Struct, frozen=True):
    """What an entry does not say but a restarted agent needs."""

    from_initiator: bool
    """Whether its flow is the initiator's."""
    ttl: int
    """The first packet's."""
    far_host: int
    """`mark` of the host where the far endpoint was."""


def tag(from_initiator: bool, ttl: int, tenant: str, far_host: str) -> int:
    """`Told` in 64 bits, with a mark of the tenant, for its ports and addresses may have become another one's."""
    flags = _FROM_INITIATOR if from_initiator else 0
    return _hash(tenant) << 32 | mark(far_host) << 16 | ttl << 8 | flags


def untag(tag: int, tenant: str) -> Told | None:
    """The opposite of `tag`; None if the entry is another tenant's."""
    if tag >> 32 != _hash(tenant):
        return None
    return Told(bool(tag & _FROM_INITIATOR), tag >> 8 & 0xFF, tag >> 16 & 0xFFFF)


def mark(host: str) -> int:
    """Sixteen bits that tell whether a host is still the same one."""
    return _hash(host) & 0xFFFF


@cache
def _hash(name: str) -> int:
    return int.from_bytes(blake2s(name.encode(), digest_size=4).digest())


def pair_up(
    entries: Iterable[ConnectionEntry],
) -> tuple[list[tuple[ConnectionEntry, ConnectionEntry]], list[ConnectionEntry]]:
    """What a switch holds, as joined pairs, an endpoint's side before a wire's; and the entries that belong to no pair.

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
        pairs.append((other, entry) if key.scope < PORT_FIRST_ENDPOINT else (entry, other))
    paired = {entry.key for pair in pairs for entry in pair}
    return pairs, [entry for entry in entries if entry.key not in paired]


def _partner(entry: ConnectionEntry, by_key: dict[ConnectionKey, ConnectionEntry]) -> ConnectionEntry | None:
    if not isinstance(entry.action, Rewrite):
        return None
    port = entry.action.egress_port
    # Towards an endpoint, the packet's destination MAC is the one with which that endpoint sends.
    mac = NO_MAC if port < PORT_FIRST_ENDPOINT else entry.action.ethernet_destination
    other = by_key.get(ConnectionKey(port, mac, entry.action.flow.reversed()))
    if other is None or not isinstance(other.action, Rewrite):
        return None
    back = other.action.egress_port == entry.key.scope and other.action.flow == entry.key.flow.reversed()
    return other if back else None
