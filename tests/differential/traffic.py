"""Random tables, and random packets of which a good part hits them.

All values come from small sets, so that packets and entries meet; then some packets are spoilt in every way.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random

from nvi.model import Flow, Protocol
from nvi.p4rt.codec import checksum_deltas
from nvi.packets import echo_port
from nvi.switch import (
    NO_MAC,
    PORT_CPU,
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
)

PORTS = (PORT_UNDERLAY, PORT_HOST_STACK, 3, 16, 17, 18, 300)
DROP_PORT = 511
MACS = [bytes([2, 0, 0, 0, 0, n]) for n in range(3)] + [b"\xff" * 6, b"\x01\x00\x5e\x00\x00\x01", NO_MAC]
ADDRESSES = [bytes([10, 0, 0, n]) for n in range(4)] + [bytes(4), bytes([224, 0, 0, 1]), b"\xff" * 4]
NETWORKS = (0, 1, 2)
NUMBERS = (0, 7, 0x07FF, 0x0800, 0x0801, 0x0802, 19999, 20000, 32767, 32768, 0xFFFF)
WORDS = (0, 1, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
LIES = (*(0,) * 10, -1, 1, 2, 1000)
"""By how much a total length is wrong."""
LENGTHS = (0, 0, 1, 2, 3, 9, 18, 26, 100, 1400)


def tables(random: Random) -> list[Entry]:
    """Entries for all three tables."""
    flows = [(port, random.choice(MACS), flow(random)) for port in PORTS for _ in range(60)]
    keys = {ConnectionKey(port, NO_MAC if port == PORT_UNDERLAY else mac, one) for port, mac, one in flows}
    ordered = sorted(keys, key=repr)  # a set's order is another in each run
    random.shuffle(ordered)
    # The first ones refuse, each for another reason.
    refused = list(DropReason) * 4
    entries: list[Entry] = [ConnectionEntry(key, Drop(reason)) for key, reason in zip(ordered, refused, strict=False)]
    entries += [ConnectionEntry(key, rewrite(random, key)) for key in ordered[len(refused) :]]
    entries += [
        GuardEntry(port, mac, address, random.choice(NETWORKS))
        for port in PORTS
        for mac in MACS
        for address in ADDRESSES
        if random.random() < 0.5
    ]
    entries += [
        NeighbourEntry(network, address, random.choice(MACS))
        for network in NETWORKS
        for address in ADDRESSES
        if random.random() < 0.5
    ]
    return entries


def rewrite(random: Random, key: ConnectionKey) -> Rewrite:
    """To anywhere, also to the drop port."""
    new = flow(random, key.flow)
    macs = random.choice(MACS), random.choice(MACS)
    return Rewrite(*macs, new, random.choice((0, 1, 64, 255)), random.choice((*PORTS, *PORTS, DROP_PORT)))


def flow(random: Random, like: Flow | None = None) -> Flow:
    """A 5-tuple; of the same protocol, and the same kind of echo, as another."""
    protocol = random.choice(list(Protocol)) if like is None else like.protocol
    ends = random.choice(NUMBERS), random.choice(NUMBERS)
    if protocol == Protocol.ICMP:
        ends = (ends[0], echo_port(ends[0]))
        is_request = random.random() < 0.5 if like is None else like.l4_destination == echo_port(like.l4_source)
        ends = ends if is_request else ends[::-1]
    return Flow(random.choice(ADDRESSES), random.choice(ADDRESSES), protocol, *ends)


def packets(random: Random, entries: Sequence[Entry], count: int) -> list[tuple[int, bytes]]:
    """(port, frame) of so many packets."""
    connections = [entry for entry in entries if isinstance(entry, ConnectionEntry)]
    return [packet(random, connections) for _ in range(count)]


def packet(random: Random, connections: Sequence[ConnectionEntry]) -> tuple[int, bytes]:
    """One that hits, or at random; sound, or spoilt; from outside, or from the agent."""
    port, mac = random.choice(PORTS), random.choice(MACS)
    chance = random.random()
    if chance < 0.5:
        entry = random.choice(connections)
        port = entry.key.scope
        mac = mac if port == PORT_UNDERLAY else entry.key.source_mac
        frame = ethernet(random, mac, 0x0800) + ipv4(random, entry.key.flow, becomes_zero(entry))
    elif chance < 0.75:
        frame = ethernet(random, mac, 0x0800) + ipv4(random, flow(random))
    elif chance < 0.9:
        frame = ethernet(random, mac, 0x0806) + arp(random, mac)
    else:
        frame = ethernet(random, mac, random.choice((0x0801, 0x86DD, 0x8100, 0x0000, 0xFFFF))) + data(random)
    if random.random() < 0.3:
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


def ipv4(random: Random, carried: Flow, special: int = 0) -> bytes:
    """An IPv4 packet of a flow, perhaps with a trailer behind it. `special`: a transport checksum worth trying."""
    checksum = random.choice((*WORDS, special, random.randrange(0x10000)))
    if carried.protocol == Protocol.TCP:
        body = struct.pack("!HH", carried.l4_source, carried.l4_destination) + random.randbytes(12)
        body += struct.pack("!HH", checksum, random.choice(WORDS))
    elif carried.protocol == Protocol.UDP:
        body = struct.pack("!HHHH", carried.l4_source, carried.l4_destination, random.choice(WORDS), checksum)
    else:
        is_request = carried.l4_destination == echo_port(carried.l4_source)
        identifier = carried.l4_source if is_request else carried.l4_destination
        body = struct.pack("!BBHHH", 8 if is_request else 0, 0, checksum, identifier, random.choice(WORDS))
    body += data(random)
    return (
        struct.pack(
            "!BBHHHBBH",
            0x45,
            random.randrange(0x100),
            max(0, 20 + len(body) + random.choice(LIES)),
            random.choice(WORDS),
            random.choice((0, 0x4000, 0x8000, 0xC000, 1 << random.randrange(16))),
            random.choice((0, 1, 63, 64, 255, 64, 64)),
            carried.protocol,
            random.choice((*WORDS, random.randrange(0x10000))),
        )
        + carried.source
        + carried.destination
        + body
        + (data(random) if random.random() < 0.2 else b"")
    )


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


def spoil(random: Random, frame: bytes) -> bytes:
    """Cut it short, or change bytes: anywhere, or in the headers, where it tells."""
    if random.random() < 0.4:
        return frame[: random.randrange(1, min(len(frame), 60))]
    spoilt = bytearray(frame)
    # Version and header length; total length; fragment flags and offset; TTL; protocol; ICMP type and code.
    for _ in range(random.randrange(1, 4)):
        place = random.choice((14, 16, 17, 20, 21, 22, 23, 34, 35, random.randrange(len(frame)), random.randrange(14)))
        if place < len(spoilt):
            spoilt[place] = random.choice(
                (0, 6, 17, 0x44, 0x46, 0x4F, 0xFF, 1 << random.randrange(8), random.randrange(0x100))
            )
    return bytes(spoilt)
