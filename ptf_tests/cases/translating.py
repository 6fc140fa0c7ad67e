"""Between the families: an IPv4 packet becomes an IPv6 packet, and back. What arrives is what was sent."""

from __future__ import annotations

from scapy.packet import Packet, Raw

from nvi.switch import DropReason
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import (
    ACME,
    DATA,
    FROM_ACME,
    FROM_ACME6,
    FROM_WIRE,
    FROM_WIRE6,
    TO_ACME,
    TO_ACME6,
    TO_WIRE,
    TO_WIRE6,
    WIRE,
    cut,
    echo,
    echo6,
    entry,
    join,
    tcp,
    udp,
)

OUT, BACK = (20001, 32001), (32001, 20001)
LABEL = 0x54321
"""Of `packets.ip6`."""
IN_IPV6 = 1200 + 48
"""Length of an IPv6 fragment that holds what an IPv4 fragment with 1200 bytes of data does."""


def transports(echoes: tuple[Packet, Packet]) -> list[tuple[Packet, Packet]]:
    """What is sent, and what becomes of it; with odd and even lengths."""
    pairs = [(make(data=data), make(OUT, data)) for make in (tcp, udp) for data in (b"", b"odd", b"even")]
    return [*pairs, (udp(chksum=0), udp(OUT, chksum=0)), echoes]


class Ipv4OverIpv6(PipelineTest):
    """Out and back. The traffic class is the DSCP, the flow label the entry's."""

    def runTest(self) -> None:
        for request in (True, False):
            echoes = echo(7, request), echo6(20007, request)
            for before, after in transports(echoes):
                with self.subTest(protocol=before.name, request=request):
                    self.insert(join(FROM_ACME, before, TO_WIRE6, after, flow_label=LABEL))
                    self.check_forwarded(ACME, FROM_ACME.frame(before), WIRE, TO_WIRE6.frame(after))
                    self.doCleanups()
            for after, before in transports((echo(7, request), echo6(20007, request))):
                with self.subTest(back=before.name, request=request):
                    self.insert(join(FROM_WIRE6, before, TO_ACME, after))
                    frames = FROM_WIRE6.frame(before), TO_ACME.frame(after, id=0)
                    self.check_forwarded(WIRE, frames[0], ACME, frames[1])
                    self.doCleanups()


class Ipv6OverIpv4(PipelineTest):
    """Out and back."""

    def runTest(self) -> None:
        for request in (True, False):
            for before, after in transports((echo6(7, request), echo(20007, request))):
                with self.subTest(protocol=before.name, request=request):
                    self.insert(join(FROM_ACME6, before, TO_WIRE, after))
                    self.check_forwarded(ACME, FROM_ACME6.frame(before), WIRE, TO_WIRE.frame(after, id=0))
                    self.doCleanups()
            for after, before in transports((echo6(7, request), echo(20007, request))):
                with self.subTest(back=before.name, request=request):
                    self.insert(join(FROM_WIRE, before, TO_ACME6, after, flow_label=LABEL))
                    self.check_forwarded(WIRE, FROM_WIRE.frame(before), ACME, TO_ACME6.frame(after))
                    self.doCleanups()


class Portless(PipelineTest):
    """A protocol without ports keeps its number."""

    def runTest(self) -> None:
        body = Raw(bytes(range(30)))
        self.insert(
            entry(FROM_ACME, FROM_ACME.portless(47), TO_WIRE6, TO_WIRE6.portless(47), flow_label=LABEL),
            entry(FROM_WIRE6, FROM_WIRE6.portless(47), TO_ACME, TO_ACME.portless(47)),
        )
        self.check_forwarded(ACME, FROM_ACME.frame(body, proto=47), WIRE, TO_WIRE6.frame(body, nh=47))
        self.check_forwarded(WIRE, FROM_WIRE6.frame(body, nh=47), ACME, TO_ACME.frame(body, proto=47, id=0))


class MayBeCut(PipelineTest):
    """IPv4 without DF has an identification."""

    def runTest(self) -> None:
        self.insert(join(FROM_WIRE6, udp(BACK), TO_ACME, udp((53, 40000)), dont_fragment=False))
        seen = set()
        for _ in range(3):
            self.send(WIRE, FROM_WIRE6.frame(udp(BACK)))
            packet = self.take(ACME)
            seen.add(packet[18:20])
            expected = TO_ACME.frame(udp((53, 40000)), flags=0, id=int.from_bytes(packet[18:20]))
            self.assertEqual(packet, bytes(expected))
        self.assertEqual(len(seen), 3)


class Corrupted(PipelineTest):
    """A wrong checksum of the transport stays as wrong."""

    def runTest(self) -> None:
        for before, after in ((tcp(), tcp(OUT)), (udp(), udp(OUT)), (echo(7), echo6(20007))):
            self.insert(join(FROM_ACME, before, TO_WIRE6, after, flow_label=LABEL))
            came, went = bytearray(bytes(FROM_ACME.frame(before))), bytearray(bytes(TO_WIRE6.frame(after)))
            came[-1] ^= 0x10
            went[-1] ^= 0x10
            self.check_forwarded(ACME, bytes(came), WIRE, bytes(went))


class Fragments(PipelineTest):
    """Of TCP and UDP, both ways; not of an echo, whose checksum in ICMPv6 covers the length of the whole."""

    def runTest(self) -> None:
        self.insert(join(FROM_ACME, udp(data=DATA), TO_WIRE6, udp(OUT, DATA), flow_label=LABEL))
        self.insert(join(FROM_WIRE6, tcp(BACK, DATA), TO_ACME, tcp((80, 40000), DATA)))
        self.insert(join(FROM_ACME, echo(7, data=DATA), TO_WIRE6, echo6(20007, data=DATA)))
        parts = cut(FROM_ACME, udp(data=DATA), 5)
        self.send(ACME, parts[0])
        first = self.take(WIRE)
        identification = int.from_bytes(first[58:62])
        expected = cut(TO_WIRE6, udp(OUT, DATA), identification, IN_IPV6)
        self.assertEqual(first, expected[0])
        for part, becomes in zip(parts[1:], expected[1:], strict=True):
            self.check_forwarded(ACME, part, WIRE, becomes)
        parts = cut(FROM_WIRE6, tcp(BACK, DATA), 6, IN_IPV6)
        self.send(WIRE, parts[0])
        first = self.take(ACME)
        expected = cut(TO_ACME, tcp((80, 40000), DATA), int.from_bytes(first[18:20]))
        self.assertEqual(first, expected[0])
        for part, becomes in zip(parts[1:], expected[1:], strict=True):
            self.check_forwarded(WIRE, part, ACME, becomes)
        self.check_dropped(ACME, cut(FROM_ACME, echo(7, data=DATA), 7), DropReason.FAMILY)
