"""Between the wire and the host's own stack: what is not NVI's passes, and what may be NVI's never gets there."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Dot1Q
from scapy.packet import Packet, Raw

from nvi.switch import PuntReason
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import FROM_WIRE, STACK, TO_WIRE, WIRE, Segment, echo, ethernet, ip, join, tcp, udp

KEY_FIRST, KEY_LAST = 20000, 32767
BELOW, ABOVE = KEY_FIRST - 1, KEY_LAST + 1


def anything(segment: Segment) -> list[Packet | bytes]:
    """Frames that are nobody's but the host's."""

    def frame(**fields: object) -> Packet:
        return ethernet(segment.source_mac, segment.destination_mac, **fields)

    header = {"source": segment.source, "destination": segment.destination}
    return [
        segment.frame(tcp((22, 50000))),
        segment.frame(udp((53, 53))),
        segment.frame(udp((53, 53), chksum=0)),
        segment.frame(echo(1)),
        segment.frame(echo(1, request=False)),
        segment.frame(ICMP(type=3, code=4)),
        segment.frame(udp((53, 53)), ttl=0),
        segment.frame(udp((53, 53)), chksum=0xDEAD),
        segment.frame(tcp((22, 50000), b"x" * 1440)),
        frame() / ip(**header, options=[IPOption_NOP()]) / udp((1, KEY_FIRST)),
        frame() / ip(**header, flags="MF") / udp((KEY_FIRST, 1)),
        frame() / ip(**header, flags="MF") / Raw(bytes(3)),
        frame() / ip(**header, proto=47) / Raw(bytes(30)),
        frame() / ip(**header, proto=89) / Raw(bytes(1)),
        frame() / ARP(op=1, hwsrc=segment.source_mac, psrc=segment.source, pdst=segment.destination),
        frame() / ARP(op=2, hwsrc=segment.source_mac, psrc=segment.source, pdst=segment.destination) / Raw(bytes(18)),
        frame() / IPv6(src="fe80::1", dst="ff02::1") / ICMPv6EchoRequest(),
        frame() / Dot1Q(vlan=5) / ip(**header) / udp((1, KEY_FIRST)),
        frame(type=0x88CC) / Raw(b"\x02\x07"),
        ethernet(segment.source_mac, "ff:ff:ff:ff:ff:ff") / ip(**header) / udp((68, 67)),
        bytes(segment.frame(tcp((22, 50000))))[:45],
        bytes(segment.frame(udp((1, KEY_FIRST))))[:36],
        bytes(segment.frame(udp((53, 53)))) + b"trailer",
        bytes(frame(type=0x0800))[:14] + b"\x45",
        bytes(frame(type=0x0806))[:14] + bytes(5),
    ]


class FromTheWire(PipelineTest):
    """What is not NVI's goes to the stack as it came."""

    def runTest(self) -> None:
        for frame in anything(FROM_WIRE):
            with self.subTest(frame=bytes(frame).hex(" ")):
                self.check_forwarded(WIRE, frame, STACK, frame)


class FromTheStack(PipelineTest):
    """What the stack sends goes to the wire as it is, whatever it is, also if it looks like a connection's packet."""

    def runTest(self) -> None:
        self.insert(join(TO_WIRE, udp((20001, 32001)), FROM_WIRE, udp((1, 2))))
        in_range = [TO_WIRE.frame(make((KEY_FIRST, KEY_LAST))) for make in (tcp, udp)]
        in_range += [TO_WIRE.frame(echo(KEY_FIRST)), TO_WIRE.frame(udp((20001, 32001)))]
        for frame in (*anything(TO_WIRE), *in_range):
            with self.subTest(frame=bytes(frame).hex(" ")):
                self.check_forwarded(STACK, frame, WIRE, frame)


class Strays(PipelineTest):
    """In the range of keys, both ends of it included, a packet is punted; outside it is the stack's."""

    def runTest(self) -> None:
        for number, stray in ((BELOW, False), (KEY_FIRST, True), (KEY_LAST, True), (ABOVE, False)):
            ports = (80, number)
            for transport in (tcp(ports), udp(ports), echo(number), echo(number, request=False)):
                frame = FROM_WIRE.frame(transport)
                with self.subTest(number=number, transport=transport.summary()):
                    if stray:
                        self.check_punted(WIRE, frame, PuntReason.STRAY)
                    else:
                        self.check_forwarded(WIRE, frame, STACK, frame)


class SourceInTheRange(PipelineTest):
    """Of TCP and UDP only the destination counts: other hosts may use what ports they like."""

    def runTest(self) -> None:
        for number in (KEY_FIRST, KEY_LAST):
            for make in (tcp, udp):
                frame = FROM_WIRE.frame(make((number, 80)))
                self.check_forwarded(WIRE, frame, STACK, frame)
