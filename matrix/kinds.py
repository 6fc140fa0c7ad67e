"""What is said: packets of every kind, and what they have to be when they arrive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrFragment,
    fragment6,
)
from scapy.packet import Packet, Raw

from .ways import EXTERNAL_PORT, Family

PORTLESS = 253
"""An experimental protocol (RFC 3692): nobody has a reason to look into it."""
TTL = 57
CLIENT_PORT = 45678


@dataclass(frozen=True)
class Peer:
    """Where an initiator sends to."""

    own: str
    other: str
    port: int
    """Of the service, as the initiator knows it."""


Reply = Callable[[Packet], Packet]
"""What the responder answers to what it got."""


@dataclass(frozen=True)
class Kind:
    """One kind of traffic: what the initiator says, and what the responder answers to it, turn by turn."""

    name: str
    turns: Callable[[Family, Peer], list[tuple[Packet, Reply]]]
    """Packets of the initiator, IP and above, each with what the responder makes of it."""
    datagram: bool = False
    """Whether the packets are cut into fragments."""


def ip(family: Family, source: str, destination: str, **fields: int) -> Packet:
    """A header whose every field could be told from a default."""
    if family == 4:
        return IP(src=source, dst=destination, ttl=TTL, tos=0x28, flags="DF", id=fields.get("id", 4711))
    return IPv6(src=source, dst=destination, hlim=TTL, tc=0x28, fl=0x12345)


def back(got: Packet) -> Packet:
    """The header of an answer."""
    return ip(6 if IPv6 in got else 4, got[0].dst, got[0].src, id=4712)


def _tcp(family: Family, peer: Peer) -> list[tuple[Packet, Reply]]:
    to, ports = ip(family, peer.own, peer.other), {"sport": CLIENT_PORT, "dport": peer.port}

    def answer(flags: str, load: bytes) -> Reply:
        return lambda got: (
            back(got)
            / TCP(sport=got[TCP].dport, dport=got[TCP].sport, flags=flags, seq=70, ack=11, options=[("MSS", 1460)])
            / Raw(load)
        )  # fmt: skip

    return [
        (to / TCP(**ports, flags="S", seq=10, options=[("MSS", 1460), ("Timestamp", (1, 0))]), answer("SA", b"")),
        (to / TCP(**ports, flags="PA", seq=11, ack=71) / Raw(bytes(range(256)) * 5), answer("PA", b"answer" * 200)),
        (to / TCP(**ports, flags="FA", seq=1291, ack=1271), answer("FA", b"")),
    ]


def _udp(family: Family, peer: Peer) -> list[tuple[Packet, Reply]]:
    def answer(got: Packet) -> Packet:
        return back(got) / UDP(sport=got[UDP].dport, dport=got[UDP].sport) / Raw(b"answer" * 21)

    say = ip(family, peer.own, peer.other) / UDP(sport=CLIENT_PORT, dport=peer.port)
    return [(say / Raw(b"odd"), answer), (say / Raw(b"even" * 300), answer)]


def _echo(family: Family, peer: Peer) -> list[tuple[Packet, Reply]]:
    request = (
        ICMP(type=8, id=0x77, seq=3) if family == 4 else ICMPv6EchoRequest(id=0x77, seq=3, data=b"")
    ) / Raw(b"ping" * 14)  # fmt: skip

    def answer(got: Packet) -> Packet:
        if family == 4:
            return back(got) / ICMP(type=0, id=got[ICMP].id, seq=got[ICMP].seq) / got[ICMP].payload
        asked = got[ICMPv6EchoRequest]
        return back(got) / ICMPv6EchoReply(id=asked.id, seq=asked.seq, data=asked.data)

    return [(ip(family, peer.own, peer.other) / request, answer)] * 2


def _error(family: Family, peer: Peer) -> list[tuple[Packet, Reply]]:
    """A datagram to a port that nobody listens at, and the error that says so."""

    def unreachable(got: Packet) -> Packet:
        quoted = Raw(bytes(got)[:576])
        if family == 4:
            return back(got) / ICMP(type=3, code=3) / quoted
        return back(got) / ICMPv6DestUnreach(code=4) / quoted

    say = ip(family, peer.own, peer.other) / UDP(sport=CLIENT_PORT, dport=peer.port) / Raw(b"nobody there?" * 3)
    return [(say, unreachable)]


def _fragments(family: Family, peer: Peer) -> list[tuple[Packet, Reply]]:
    def answer(got: Packet) -> Packet:
        return _cuttable(back(got)) / UDP(sport=got[UDP].dport, dport=got[UDP].sport) / Raw(b"answer" * 700)

    say = _cuttable(ip(family, peer.own, peer.other)) / UDP(sport=CLIENT_PORT, dport=peer.port) / Raw(b"long" * 1000)
    return [(say, answer)]


def _cuttable(header: Packet) -> Packet:
    if IP in header:
        header.flags = 0
        return header
    return header / IPv6ExtHdrFragment(id=0x4711)


def _portless(family: Family, peer: Peer) -> list[tuple[Packet, Reply]]:
    def with_protocol(header: Packet) -> Packet:
        if family == 4:
            header.proto = PORTLESS
        else:
            header.nh = PORTLESS
        return header

    def answer(got: Packet) -> Packet:
        return with_protocol(back(got)) / Raw(b"answer" * 20)

    return [(with_protocol(ip(family, peer.own, peer.other)) / Raw(b"\0\0\x08\0" + b"inner" * 20), answer)] * 2


KINDS = [
    Kind("TCP", _tcp),
    Kind("UDP", _udp),
    Kind("ICMP echo", _echo),
    Kind("ICMP error", _error),
    Kind("fragments", _fragments, datagram=True),
    Kind("no ports", _portless),
]


def cut(packet: Packet, mtu: int) -> list[Packet]:
    """The fragments of a datagram."""
    if IP in packet:
        return list(fragment(packet, (mtu - 20) // 8 * 8))
    return list(fragment6(packet, mtu))


__all__ = ["CLIENT_PORT", "EXTERNAL_PORT", "KINDS", "PORTLESS", "TTL", "Kind", "Peer", "cut"]
