"""Random tables, and random packets of which a good part hits them.

All values come from small sets, so that packets and entries meet; then some packets are spoilt in every way. Fragments
come in groups, first one first or not, with identifications of their own: what a switch remembers of one group does not
matter to the next, so nothing depends on the time.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random

from nvi.checksum import internet_checksum
from nvi.deltas import checksum_deltas
from nvi.model import Flow, Protocol
from nvi.packets import echo_port
from nvi.switch import (
    NO_MAC,
    PORT_CPU,
    PORT_EXTERNAL,
    PORT_EXTERNAL_STACK,
    PORT_HOST_STACK,
    PORT_UNDERLAY,
    ConnectionEntry,
    ConnectionKey,
    Drop,
    DropReason,
    Entry,
    GuardEntry,
    NeighbourEntry,
    Rewrite,
    ServiceEntry,
)

WIRES = (PORT_UNDERLAY, PORT_EXTERNAL)
STACKS = (PORT_HOST_STACK, PORT_EXTERNAL_STACK)
PORTS = (*WIRES, *STACKS, 5, 16, 17, 18, 300)
DROP_PORT = 511
MACS = [bytes([2, 0, 0, 0, 0, n]) for n in range(3)] + [b"\xff" * 6, b"\x01\x00\x5e\x00\x00\x01", NO_MAC]
ADDRESSES = [bytes([10, 0, 0, n]) for n in range(4)] + [bytes(4), bytes([224, 0, 0, 1]), b"\xff" * 4]
ADDRESSES6 = [bytes.fromhex("fd00") + bytes(13) + bytes([n]) for n in range(4)]
ADDRESSES6 += [bytes(16), bytes.fromhex("ff02") + bytes(13) + b"\1", b"\xff" * 16, bytes(10) + b"\xff\xff\x0a\0\0\1"]
PROTOCOLS = (*Protocol, *Protocol, 0, 2, 43, 44, 47, 60, 132, 255)
NETWORKS = (0, 1, 2)
NUMBERS = (0, 7, 0x07FF, 0x0800, 0x0801, 0x0802, 19999, 20000, 32767, 32768, 0xFFFF)
WORDS = (0, 1, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
LIES = (*(0,) * 10, -1, 1, 2, 1000)
"""By how much a total length is wrong."""
LENGTHS = (0, 0, 1, 2, 3, 9, 18, 26, 100, 1400)


def tables(random: Random) -> list[Entry]:
    """Entries for all tables."""
    flows = [(port, random.choice(MACS), flow(random)) for port in PORTS for _ in range(120)]
    keys = {ConnectionKey(port, NO_MAC if port in WIRES else mac, one) for port, mac, one in flows}
    ordered = sorted(keys, key=repr)  # a set's order is another in each run
    random.shuffle(ordered)
    # The first ones refuse, each for another reason. Nothing of the stacks is looked up, so those come last.
    ordered.sort(key=lambda key: key.scope in STACKS)
    refused = list(DropReason) * 4
    entries: list[Entry] = [ConnectionEntry(key, Drop(reason)) for key, reason in zip(ordered, refused, strict=False)]
    entries += [ConnectionEntry(key, rewrite(random, key)) for key in ordered[len(refused) :]]
    # One that looks like an IPv4 address would be that in the tables of both families.
    addresses = [*ADDRESSES, *ADDRESSES6[:-1]]
    entries += [
        GuardEntry(port, mac, address, random.choice(NETWORKS))
        for port in PORTS
        for mac in MACS
        for address in addresses
        if random.random() < 0.5
    ]
    entries += [
        NeighbourEntry(network, address, random.choice(MACS), random.random() < 0.5)
        for network in NETWORKS
        for address in addresses
        if random.random() < 0.5
    ]
    entries += [
        ServiceEntry(address, protocol, number)
        for address in addresses
        for protocol in (Protocol.TCP, Protocol.UDP, 47)
        for number in NUMBERS
        if random.random() < 0.1
    ]
    return entries


def rewrite(random: Random, key: ConnectionKey) -> Rewrite:
    """To anywhere, also to the drop port, and to the other family; with limits or without."""
    across = random.random() < 0.25
    new = flow(random, key.flow, len(key.flow.source) if not across else 20 - len(key.flow.source))
    macs = random.choice(MACS), random.choice(MACS)
    to = random.choice((*PORTS, *PORTS, DROP_PORT))
    return Rewrite(
        *macs,
        new,
        random.choice((0, 1, 64, 255)),
        to,
        random.choice(ADDRESSES if len(new.source) == 4 else ADDRESSES6) if random.random() < 0.5 else None,
        random.random() < 0.3,
        random.choice((0, 0, 0, 100, 1000)),
        random.choice((0, 0x12345)),
        random.random() < 0.5,
    )


def flow(random: Random, like: Flow | None = None, size: int | None = None) -> Flow:
    """A 5-tuple; of the same protocol, and the same kind of echo, as another. `size`: of its addresses."""
    size = size or random.choice((4, 16))
    protocol = random.choice(PROTOCOLS) if like is None else like.protocol
    ends = random.choice(NUMBERS), random.choice(NUMBERS)
    if protocol in ECHOES.values():
        protocol = ECHOES[size]
        ends = (ends[0], echo_port(ends[0]))
        is_request = random.random() < 0.5 if like is None else like.l4_destination == echo_port(like.l4_source)
        ends = ends if is_request else ends[::-1]
    elif protocol not in (Protocol.TCP, Protocol.UDP):
        ends = 0, 0
    addresses = ADDRESSES if size == 4 else ADDRESSES6
    return Flow(random.choice(addresses), random.choice(addresses), protocol, *ends)


ECHOES = {4: Protocol.ICMP, 16: Protocol.ICMPV6}
"""By the size of addresses."""


def packets(random: Random, entries: Sequence[Entry], count: int) -> list[list[tuple[int, bytes]]]:
    """So many groups of (port, frame), each of one packet or the fragments of one."""
    connections = [entry for entry in entries if isinstance(entry, ConnectionEntry)]
    return [group(random, connections, number) for number in range(count)]


def group(random: Random, connections: Sequence[ConnectionEntry], number: int) -> list[tuple[int, bytes]]:
    """What hits, or is random; sound, or spoilt; from outside, or from the agent."""
    port, mac = random.choice(PORTS), random.choice(MACS)
    chance = random.random()
    if chance < 0.6:
        entry = random.choice(connections)
        port, carried, special = entry.key.scope, entry.key.flow, becomes_zero(entry)
        mac = mac if port in WIRES else entry.key.source_mac
    else:
        carried, special = flow(random), 0
    kind = 0x0800 if len(carried.source) == 4 else 0x86DD
    header = ethernet(random, mac, kind)
    chance = random.random()
    if chance < 0.6:
        frames = [header + ip(random, carried, transport(random, carried, special))]
    elif chance < 0.7:
        frames = [header + ip(random, carried, error(random, carried.reversed()), ECHOES[len(carried.source)])]
    elif chance < 0.8:
        frames = [header + part for part in fragments(random, carried, transport(random, carried, special), number)]
    elif chance < 0.87:
        frames = [ethernet(random, mac, 0x86DD) + discovery(random, mac)]
    elif chance < 0.95:
        frames = [ethernet(random, mac, 0x0806) + arp(random, mac)]
    else:
        frames = [ethernet(random, mac, random.choice((0x0801, 0x8100, 0x0000, 0xFFFF))) + data(random)]
    return [arrival(random, port, frame) for frame in frames]


def arrival(random: Random, port: int, frame: bytes) -> tuple[int, bytes]:
    """Where a frame comes in: sometimes spoilt, sometimes from the agent."""
    if random.random() < 0.2:
        frame = spoil(random, frame)
    if random.random() < 0.15:
        order = random.choice((0, 0, 0, 1, 2, 127))
        return PORT_CPU, (random.choice((port, port, *PORTS, DROP_PORT)) << 7 | order).to_bytes(2) + frame
    return port, frame


def ethernet(random: Random, source: bytes, kind: int) -> bytes:
    """An Ethernet header."""
    return random.choice(MACS) + source + kind.to_bytes(2)


def becomes_zero(entry: ConnectionEntry) -> int:
    """The transport checksum of which the entry makes 0: ~(~checksum + delta) where the sum is 0xffff."""
    new = entry.action
    return checksum_deltas(entry.key.flow, new.flow, new.ttl)[1] if isinstance(new, Rewrite) else 0


def transport(random: Random, carried: Flow, special: int = 0) -> bytes:
    """What an IP packet of a flow carries. `special`: a transport checksum worth trying."""
    checksum = random.choice((*WORDS, special, random.randrange(0x10000)))
    if carried.protocol == Protocol.TCP:
        body = struct.pack("!HH", carried.l4_source, carried.l4_destination) + random.randbytes(12)
        body += struct.pack("!HH", checksum, random.choice(WORDS))
    elif carried.protocol == Protocol.UDP:
        body = struct.pack("!HHHH", carried.l4_source, carried.l4_destination, random.choice(WORDS), checksum)
    elif carried.protocol in ECHOES.values():
        is_request = carried.l4_destination == echo_port(carried.l4_source)
        identifier = carried.l4_source if is_request else carried.l4_destination
        kinds = (8, 0) if carried.protocol == Protocol.ICMP else (128, 129)
        body = struct.pack("!BBHHH", kinds[not is_request], 0, checksum, identifier, random.choice(WORDS))
    else:
        body = b""
    return body + data(random)


def error(random: Random, about: Flow) -> bytes:
    """An ICMP error about a packet of the flow, which may be quoted in full or not."""
    kinds = (3, 11, 12, 3, 5, 4) if len(about.source) == 4 else (1, 2, 3, 4, 2, 5)
    quoted = ip(random, about, transport(random, about))
    quoted = quoted[: random.choice((8, 20, 24, 28, 40, 46, 48, 60, 66, 2000))]
    return struct.pack("!BBHI", random.choice(kinds), random.randrange(5), random.choice(WORDS), 1400) + quoted


def fragments(random: Random, carried: Flow, body: bytes, number: int) -> list[bytes]:
    """The datagram in some pieces, usually in order. `number`: what tells it from all others."""
    at = 0
    pieces = []
    while at < max(len(body), 1):
        size = 8 * random.choice((1, 2, 3, 10, 100, 1000))
        pieces.append((at // 8, at + size < len(body), body[at : at + size]))
        at += size
    pieces = pieces[:4]
    if random.random() < 0.3:
        random.shuffle(pieces)
    return [ip(random, carried, piece, fragment=(offset, more, number)) for offset, more, piece in pieces]


def ip(
    random: Random,
    carried: Flow,
    body: bytes,
    protocol: int | None = None,
    fragment: tuple[int, bool, int] | None = None,
) -> bytes:
    """An IP packet of a flow, perhaps with a trailer behind it. `fragment`: offset, whether more follow, datagram."""
    protocol = carried.protocol if protocol is None else protocol
    trailer = data(random) if random.random() < 0.2 else b""
    lie = random.choice(LIES)
    ttl = random.choice((0, 1, 63, 64, 255, 64, 64))
    ends = carried.source + carried.destination
    if len(carried.source) == 4:
        identification, flags = random.choice(WORDS), random.choice((0, 0x4000, 0x4000, 0x8000, 0xC000))
        if fragment is not None:
            offset, more, identification = fragment
            flags = offset | (0x2000 if more else 0)
        head = struct.pack(
            "!BBHHHBBH",
            0x45,
            random.randrange(0x100),
            max(0, 20 + len(body) + lie),
            identification,
            flags,
            ttl,
            protocol,
            random.choice((*WORDS, random.randrange(0x10000))),
        )
        return head + ends + body + trailer
    if fragment is not None:
        offset, more, identification = fragment
        body = struct.pack("!BBHI", protocol, 0, offset << 3 | more, identification) + body
        protocol = 44
    first = 6 << 28 | random.choice((0, 0x0B954321, 0x0FFFFFFF))
    return struct.pack("!IHBB", first, max(0, len(body) + lie), protocol, ttl) + ends + body + trailer


def discovery(random: Random, sender: bytes) -> bytes:
    """Neighbour discovery, mostly a sound solicitation."""
    source, destination, target = (random.choice(ADDRESSES6) for _ in range(3))
    kind = random.choice((135, 135, 135, 135, 133, 133, 133, 134, 136, 137, 138))
    message = struct.pack("!BBHI", kind, 0, 0, 0) + target
    if random.random() < 0.7:
        mac = random.choice((sender, sender, sender, random.choice(MACS)))
        message += bytes([random.choice((1, 1, 2, 14)), 1]) + mac
    if random.random() < 0.1:
        message += bytes([14, 1]) + bytes(6)
    checksum = internet_checksum(source + destination + struct.pack("!II", len(message), 58) + message)
    if random.random() < 0.1:
        checksum ^= 1
    message = message[:2] + checksum.to_bytes(2) + message[4:]
    head = struct.pack("!IHBB", 6 << 28, len(message), 58, random.choice((255, 255, 255, 254, 64)))
    return head + source + destination + message


def arp(random: Random, sender: bytes) -> bytes:
    """Mostly a request, mostly with the sender's own MAC."""
    operation = random.choice((1, 1, 1, 1, 2, 0))
    mac = random.choice((sender, sender, sender, random.choice(MACS)))
    ends = random.choice(ADDRESSES), random.choice(ADDRESSES)
    kind = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return kind + mac + ends[0] + random.choice(MACS) + ends[1] + random.choice((b"", bytes(18)))


def data(random: Random) -> bytes:
    """Payload or trailer."""
    return random.randbytes(random.choice(LENGTHS))


PLACES = (14, 16, 17, 20, 21, 22, 23, 34, 35, 18, 19, 54, 55, 56, 57)


def spoil(random: Random, frame: bytes) -> bytes:
    """Cut it short, or change bytes: anywhere, or in the headers, where it tells."""
    if random.random() < 0.4:
        return frame[: random.randrange(1, min(len(frame), 60))]
    spoilt = bytearray(frame)
    # Of IPv4: version and header length; total length; flags and offset; TTL; protocol; ICMP type and code. Of IPv6:
    # version, length, next header, hop limit, what follows the header.
    for _ in range(random.randrange(1, 4)):
        place = random.choice((*PLACES, random.randrange(len(frame)), random.randrange(14)))
        if place < len(spoilt):
            spoilt[place] = random.choice(
                (0, 6, 17, 0x44, 0x46, 0x4F, 0xFF, 1 << random.randrange(8), random.randrange(0x100))
            )
    return bytes(spoilt)
