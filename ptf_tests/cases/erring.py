"""ICMP errors: they are translated with the packet that they quote, or nobody but the host's own stack gets them."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.packet import Packet, Raw

from nvi.model import read_address
from nvi.switch import ConnectionEntry, Drop, DropReason, PuntReason
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import (
    ACME,
    ACME_GUARD,
    ACME_GUARD6,
    FROM_ACME,
    FROM_ACME6,
    FROM_OUTSIDE,
    FROM_WIRE,
    FROM_WIRE6,
    OUTSIDE,
    STACK,
    STRANGER6,
    TO_ACME,
    TO_ACME6,
    TO_WIRE,
    TO_WIRE6,
    WIRE,
    Segment,
    echo,
    echo6,
    entry,
    join,
    key,
    tcp,
    udp,
)

OUT, BACK = (20001, 32001), (32001, 20001)
UNDERLAY_ROUTER, UNDERLAY_ROUTER6 = "172.16.9.9", "fd00:e9::9"
GATEWAY, GATEWAY6 = "10.0.1.254", "fd00:1::fe"
FULL = 4096
"""Longer than any quotation."""

ERRORS = (
    ICMP(type=3, code=4, nexthopmtu=1400),
    ICMP(type=3, code=3),
    ICMP(type=11, code=0),
    ICMP(type=12, code=0, ptr=20),
)
ERRORS6 = (
    ICMPv6PacketTooBig(mtu=1400),
    ICMPv6DestUnreach(code=4),
    ICMPv6TimeExceeded(),
    ICMPv6ParamProblem(ptr=6),
)


def error(segment: Segment, kind: Packet, sender: str, quoted: Packet, length: int = FULL) -> Packet:
    """An error by `sender` that arrives on the segment, about a packet that was sent the other way."""
    other = Segment(segment.port, segment.destination_mac, segment.source_mac, segment.destination, segment.source, 62)
    about = bytes(other.header() / quoted)
    reporting = Segment(segment.port, segment.source_mac, segment.destination_mac, sender, segment.destination)
    reporting.ttl = segment.ttl
    return reporting.frame(kind / Raw(about[:length]))


class Ipv4Errors(PipelineTest):
    """From an underlay router, the far host or an endpoint, about TCP, UDP and echoes, quoted in full or only just."""

    def runTest(self) -> None:
        pairs = (
            (tcp(), tcp(OUT), tcp((80, 40000)), tcp(BACK)),
            (udp(), udp(OUT), udp((53, 40000)), udp(BACK)),
            (udp((1, 2), chksum=0), udp((20005, 32001), chksum=0), udp((2, 1)), udp((32001, 20005))),
            (echo(7), echo(20007), echo(7, False), echo(20007, False)),
        )
        for sent, on_wire, answer, answer_on_wire in pairs:
            self.insert(join(FROM_WIRE, answer_on_wire, TO_ACME, answer, router=read_address(GATEWAY)))
            for kind in ERRORS:
                for length in (28, 40, 46, FULL):
                    for sender, shown in ((UNDERLAY_ROUTER, GATEWAY), (FROM_WIRE.source, TO_ACME.source)):
                        with self.subTest(about=sent.summary(), kind=kind.type, length=length, sender=sender):
                            before = error(FROM_WIRE, kind, sender, on_wire, length)
                            after = error(TO_ACME, kind, shown, sent, length)
                            self.check_forwarded(WIRE, before, ACME, with_quoted_ttl(after, TO_ACME.ttl))


def with_quoted_ttl(frame: Packet, ttl: int) -> Packet:
    """The quoted header has the TTL of the entry, like the error's own."""
    raw = bytes(frame)
    quoted = raw[42:]
    header = IP(quoted[:20])
    header.ttl = ttl
    del header.chksum
    whole = bytes(header)[:20] + quoted[20:]
    icmp = ICMP(raw[34:42] + whole)
    del icmp.chksum
    return Raw(raw[:34] + bytes(icmp))


class OnTheWay(PipelineTest):
    """Who is neither end of a segment cannot be seen from the next one's addresses; that it is not the far end, can."""

    def runTest(self) -> None:
        gateway = read_address(GATEWAY)
        self.insert(join(FROM_OUTSIDE, udp(BACK), TO_WIRE, udp((32002, 20002))))
        self.insert(join(FROM_WIRE, udp(BACK), TO_ACME, udp((53, 40000)), router=gateway))
        kind = ICMP(type=11)
        for sender, ttl in ((UNDERLAY_ROUTER, 0), (FROM_OUTSIDE.source, TO_WIRE.ttl)):
            before = error(FROM_OUTSIDE, kind, sender, udp(OUT))
            after = error(TO_WIRE, kind, TO_WIRE.source, udp((20002, 32002)))
            self.check_forwarded(OUTSIDE, before, WIRE, with_quoted_ttl(after, ttl))
        before = with_quoted_ttl(error(FROM_WIRE, kind, FROM_WIRE.source, udp(OUT)), 0)
        after = error(TO_ACME, kind, GATEWAY, udp((40000, 53)))
        self.check_forwarded(WIRE, before, ACME, with_quoted_ttl(after, TO_ACME.ttl))


class OnTheWay6(PipelineTest):
    """The same in IPv6."""

    def runTest(self) -> None:
        gateway = read_address(GATEWAY6)
        self.insert(join(FROM_WIRE6, udp(BACK), TO_ACME6, udp((53, 40000)), router=gateway))
        self.insert(join(FROM_ACME6, udp((53, 40000)), TO_WIRE6, udp(OUT)))
        kind = ICMPv6TimeExceeded()
        for sender, limit in ((STRANGER6, 0), (FROM_ACME6.source, TO_WIRE6.ttl)):
            before = error(FROM_ACME6, kind, sender, udp((40000, 53)))
            after = error(TO_WIRE6, kind, TO_WIRE6.source, udp(BACK))
            self.check_forwarded(ACME, before, WIRE, with_quoted_hop_limit(after, limit))
        before = with_quoted_hop_limit(error(FROM_WIRE6, kind, FROM_WIRE6.source, udp(OUT)), 0)
        after = error(TO_ACME6, kind, GATEWAY6, udp((40000, 53)))
        self.check_forwarded(WIRE, before, ACME, with_quoted_hop_limit(after, TO_ACME6.ttl))


class Ipv4ErrorsOfEndpoints(PipelineTest):
    """An endpoint's own, such as a closed port's, goes out with the addresses of the underlay."""

    def runTest(self) -> None:
        self.insert(join(FROM_ACME, udp((53, 40000)), TO_WIRE, udp(OUT)))
        before = error(FROM_ACME, ICMP(type=3, code=3), FROM_ACME.source, udp((40000, 53)))
        after = error(TO_WIRE, ICMP(type=3, code=3), TO_WIRE.source, udp(BACK))
        self.check_forwarded(ACME, before, WIRE, with_quoted_ttl(after, TO_WIRE.ttl))


class Ipv6Errors(PipelineTest):
    """The same in IPv6."""

    def runTest(self) -> None:
        pairs = (
            (tcp(), tcp(OUT), tcp((80, 40000)), tcp(BACK)),
            (udp(), udp(OUT), udp((53, 40000)), udp(BACK)),
            (echo6(7), echo6(20007), echo6(7, False), echo6(20007, False)),
        )
        for sent, on_wire, answer, answer_on_wire in pairs:
            self.insert(join(FROM_WIRE6, answer_on_wire, TO_ACME6, answer, router=read_address(GATEWAY6)))
            for kind in ERRORS6:
                for length in (48, 60, 66, FULL):
                    for sender, shown in ((UNDERLAY_ROUTER6, GATEWAY6), (FROM_WIRE6.source, TO_ACME6.source)):
                        with self.subTest(about=sent.summary(), kind=kind.type, length=length, sender=sender):
                            before = error(FROM_WIRE6, kind, sender, on_wire, length)
                            after = error(TO_ACME6, kind, shown, sent, length)
                            self.check_forwarded(WIRE, before, ACME, with_quoted_hop_limit(after, TO_ACME6.ttl))


def with_quoted_hop_limit(frame: Packet, limit: int) -> Packet:
    """As `with_quoted_ttl`."""
    raw = bytearray(bytes(frame))
    raw[62 + 7] = limit
    packet = IPv6(bytes(raw[14:]))
    del packet.payload.cksum
    return Raw(bytes(raw[:14]) + bytes(packet))


class Portless(PipelineTest):
    """An error about a protocol without ports."""

    def runTest(self) -> None:
        for protocol in (47, 132):
            self.insert(entry(FROM_WIRE, FROM_WIRE.portless(protocol), TO_ACME, TO_ACME.portless(protocol)))
            body = Raw(bytes(range(30)))
            frames = []
            for segment in (FROM_WIRE, TO_ACME):
                about = Segment(0, "", "", segment.destination, segment.source, 62).header(proto=protocol) / body
                frames.append(segment.frame(ICMP(type=3, code=2) / about))
            self.check_forwarded(WIRE, frames[0], ACME, with_quoted_ttl(frames[1], TO_ACME.ttl))


class Unclaimed(PipelineTest):
    """About nothing that a connection sent: a wire's goes to the stack as it came, an endpoint's is dropped."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, ACME_GUARD6)
        for quoted in (tcp(BACK), udp(BACK), echo(20007)):
            frame = error(FROM_WIRE, ICMP(type=3, code=4), UNDERLAY_ROUTER, quoted)
            self.check_forwarded(WIRE, frame, STACK, frame)
            mine = error(FROM_ACME, ICMP(type=3, code=3), FROM_ACME.source, quoted)
            self.check_dropped(ACME, [mine], DropReason.ERROR)
        for quoted in (tcp(BACK), udp(BACK), echo6(20007)):
            frame = error(FROM_WIRE6, ICMPv6PacketTooBig(), UNDERLAY_ROUTER6, quoted)
            self.check_forwarded(WIRE, frame, STACK, frame)
            mine = error(FROM_ACME6, ICMPv6DestUnreach(), FROM_ACME6.source, quoted)
            self.check_dropped(ACME, [mine], DropReason.ERROR)


class Lies(PipelineTest):
    """To somebody else than who sent what is quoted; about a later fragment, or options; a redirect; cut short."""

    def runTest(self) -> None:
        self.insert(join(FROM_WIRE, udp(BACK), TO_ACME, udp((53, 40000))))
        honest = error(FROM_WIRE, ICMP(type=3, code=3), FROM_WIRE.source, udp(OUT))
        after = error(TO_ACME, ICMP(type=3, code=3), TO_ACME.source, udp())
        self.check_forwarded(WIRE, honest, ACME, with_quoted_ttl(after, TO_ACME.ttl))
        elsewhere = Segment(WIRE, FROM_WIRE.source_mac, FROM_WIRE.destination_mac, UNDERLAY_ROUTER, "172.16.1.77")
        about = Segment(0, "", "", FROM_WIRE.destination, FROM_WIRE.source)
        lies = [elsewhere.frame(ICMP(type=3, code=3) / (about.header() / udp(OUT)))]
        honest_header = Segment(WIRE, FROM_WIRE.source_mac, FROM_WIRE.destination_mac, UNDERLAY_ROUTER, "172.16.1.1")
        for fields in ({"frag": 1, "flags": 0}, {"ihl": 6}, {"version": 6}):
            lies.append(honest_header.frame(ICMP(type=3, code=3) / (about.header(**fields) / udp(OUT))))
        lies.append(honest_header.frame(ICMP(type=5, code=1) / (about.header() / udp(OUT))))  # a redirect
        lies.append(honest_header.frame(ICMP(type=3, code=3) / Raw(bytes(about.header() / udp(OUT))[:23])))
        for lie in lies:
            self.check_forwarded(WIRE, lie, STACK, lie)


class RefusedFlow(PipelineTest):
    """An error about a flow that was refused is refused."""

    def runTest(self) -> None:
        self.insert(ConnectionEntry(key(FROM_WIRE, udp(BACK)), Drop(DropReason.DENIED)))
        self.check_dropped(WIRE, [error(FROM_WIRE, ICMP(type=3, code=3), UNDERLAY_ROUTER, udp(OUT))], DropReason.DENIED)


class Behind(PipelineTest):
    """What follows the IP packet in its frame is no part of a quotation."""

    def runTest(self) -> None:
        self.insert(join(FROM_WIRE, tcp(BACK), TO_ACME, tcp((80, 40000))))
        before = error(FROM_WIRE, ICMP(type=3, code=4), FROM_WIRE.source, tcp(OUT), 28)
        after = with_quoted_ttl(error(TO_ACME, ICMP(type=3, code=4), TO_ACME.source, tcp(), 28), TO_ACME.ttl)
        self.check_forwarded(WIRE, bytes(before) + b"trailer " * 3, ACME, bytes(after) + b"trailer " * 3)


class AcrossFamilies(PipelineTest):
    """Is the agent's to translate."""

    def runTest(self) -> None:
        self.insert(join(FROM_WIRE6, udp(BACK), TO_ACME, udp((53, 40000))))
        self.insert(join(FROM_WIRE, tcp(BACK), TO_ACME6, tcp((80, 40000))))
        frames = [
            error(FROM_WIRE6, ICMPv6PacketTooBig(mtu=1400), UNDERLAY_ROUTER6, udp(OUT)),
            error(FROM_WIRE, ICMP(type=3, code=4), UNDERLAY_ROUTER, tcp(OUT)),
        ]
        for frame in frames:
            self.check_punted(WIRE, frame, PuntReason.ERROR)
