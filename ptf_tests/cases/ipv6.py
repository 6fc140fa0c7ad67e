"""IPv6: `connections6`, the guard, the edge."""

from __future__ import annotations

from scapy.layers.inet6 import (
    ICMPv6MLReport2,
    ICMPv6NIQueryName,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Packet, Raw

from nvi.switch import ConnectionEntry, Drop, DropReason, PuntReason
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import (
    ACME,
    ACME_GUARD,
    ACME_GUARD6,
    FROM_ACME6,
    FROM_WIRE6,
    GLOBEX,
    STACK,
    STRANGER6,
    TO_ACME6,
    TO_WIRE6,
    WIRE,
    Segment,
    echo6,
    entry,
    ethernet,
    ip6,
    join,
    key,
    tcp,
    udp,
)

OUT, BACK = (20001, 32001), (32001, 20001)
KEY_FIRST, KEY_LAST = 20000, 32767


class Ipv6Test(PipelineTest):
    """With one endpoint admitted."""

    def setUp(self) -> None:
        super().setUp()
        self.insert(ACME_GUARD6)


class Rewritten(PipelineTest):
    """TCP, UDP and echoes, out and back; every other field arrives as it was sent."""

    def runTest(self) -> None:
        for before, after in (
            (tcp(), tcp(OUT)),
            (udp(), udp(OUT)),
            (echo6(7), echo6(20007)),
            (echo6(8, False), echo6(20008, False)),
        ):
            self.insert(join(FROM_ACME6, before, TO_WIRE6, after))
            self.check_forwarded(ACME, FROM_ACME6.frame(before), WIRE, TO_WIRE6.frame(after))
        for before, after in ((tcp(BACK), tcp((80, 40000))), (udp(BACK), udp((53, 40000))), (echo6(9), echo6(20009))):
            self.insert(join(FROM_WIRE6, before, TO_ACME6, after))
            self.check_forwarded(WIRE, FROM_WIRE6.frame(before), ACME, TO_ACME6.frame(after))


class FieldsAndLengths(PipelineTest):
    """Traffic class and flow label are not the switch's to change; the hop limit is the entry's."""

    def runTest(self) -> None:
        self.insert(join(FROM_ACME6, udp(), TO_WIRE6, udp(OUT)))
        for fields in ({"tc": 0, "fl": 0}, {"tc": 0xFF, "fl": 0xFFFFF}):
            self.check_forwarded(ACME, FROM_ACME6.frame(udp(), **fields), WIRE, TO_WIRE6.frame(udp(OUT), **fields))
        for ttl in (1, 255):
            self.check_forwarded(ACME, FROM_ACME6.frame(udp(), ttl=ttl), WIRE, TO_WIRE6.frame(udp(OUT)))
        for length in (0, 1, 1452):
            data = bytes(n % 251 for n in range(length))
            frames = FROM_ACME6.frame(udp(data=data)), TO_WIRE6.frame(udp(OUT, data))
            self.check_forwarded(ACME, frames[0], WIRE, frames[1])


class Corrupted(PipelineTest):
    """A wrong checksum stays as wrong; a UDP checksum of 0 stays 0."""

    def runTest(self) -> None:
        for before, after in ((tcp(), tcp(OUT)), (udp(), udp(OUT)), (echo6(7), echo6(20007))):
            self.insert(join(FROM_ACME6, before, TO_WIRE6, after))
            came, went = bytearray(bytes(FROM_ACME6.frame(before))), bytearray(bytes(TO_WIRE6.frame(after)))
            came[-1] ^= 0x10
            went[-1] ^= 0x10
            self.check_forwarded(ACME, bytes(came), WIRE, bytes(went))
        without = FROM_ACME6.frame(udp(chksum=0)), TO_WIRE6.frame(udp(OUT, chksum=0))
        self.check_forwarded(ACME, without[0], WIRE, without[1])


class EveryKeyFieldCounts(Ipv6Test):
    """A packet that differs in one field from an entry's key does not hit it."""

    def runTest(self) -> None:
        self.insert(join(FROM_ACME6, udp(), TO_WIRE6, udp(OUT)))
        near = FROM_ACME6
        other = Segment(ACME, near.source_mac, near.destination_mac, near.source, STRANGER6)
        for frame in (near.frame(udp((1, 53))), near.frame(udp((40000, 1))), near.frame(tcp((40000, 53)))):
            self.check_punted(ACME, frame, PuntReason.MISS)
        self.check_punted(ACME, other.frame(udp()), PuntReason.MISS)
        spoofed = Segment(ACME, near.source_mac, near.destination_mac, STRANGER6, near.destination)
        self.check_dropped(ACME, [spoofed.frame(udp())], DropReason.SPOOFED)
        self.check_dropped(GLOBEX, [near.frame(udp())], DropReason.SPOOFED)


class Refused(PipelineTest):
    """The action `drop`."""

    def runTest(self) -> None:
        self.insert(ConnectionEntry(key(FROM_ACME6, udp()), Drop(DropReason.DENIED)))
        self.check_dropped(ACME, [FROM_ACME6.frame(udp())], DropReason.DENIED)


class Misses(Ipv6Test):
    """A flow that is not held is punted as it came, also without ports, whatever the protocol."""

    def runTest(self) -> None:
        for transport in (tcp(), udp(), echo6(7), echo6(7, False)):
            self.check_punted(ACME, ethernet() / ip6() / transport, PuntReason.MISS)
        for number in (47, 50, 59, 132, 255):
            self.check_punted(ACME, ethernet() / ip6(nh=number) / Raw(bytes(40)), PuntReason.MISS)
        options = ethernet() / ip6() / IPv6ExtHdrDestOpt() / udp()
        self.check_punted(ACME, options, PuntReason.MISS)


class Portless(PipelineTest):
    """A protocol without ports is rewritten in its addresses only."""

    def runTest(self) -> None:
        for protocol in (47, 50, 132, 250):
            self.insert(entry(FROM_ACME6, FROM_ACME6.portless(protocol), TO_WIRE6, TO_WIRE6.portless(protocol)))
            body = Raw(bytes(range(40)))
            frames = FROM_ACME6.frame(body, nh=protocol), TO_WIRE6.frame(body, nh=protocol)
            self.check_forwarded(ACME, frames[0], WIRE, frames[1])


class Spoofed(PipelineTest):
    """IPv4 admission says nothing of IPv6; a mapped address is no IPv4 address."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD)
        self.check_dropped(ACME, [ethernet() / ip6() / udp()], DropReason.SPOOFED)
        self.check_dropped(ACME, [ethernet() / ip6("::10.0.1.1") / udp()], DropReason.SPOOFED)


class Groups(Ipv6Test):
    """Multicast, by MAC or address: a counted drop."""

    def runTest(self) -> None:
        frames: list[Packet] = [ethernet() / ip6(destination=to) / udp() for to in ("ff02::1", "ff05::2", "ff0e::1")]
        frames += [ethernet(destination=mac) / ip6() / udp() for mac in ("33:33:00:00:00:01", "ff:ff:ff:ff:ff:ff")]
        frames += [ethernet() / ip6(destination="ff02::16") / IPv6ExtHdrHopByHop() / ICMPv6MLReport2()]
        self.check_dropped(ACME, frames, DropReason.GROUP)


class Extensions(Ipv6Test):
    """Hop-by-hop options and routing headers (source routes, RFC 5095) are not carried."""

    def runTest(self) -> None:
        frames = [ethernet() / ip6() / extension / udp() for extension in (IPv6ExtHdrHopByHop(), IPv6ExtHdrRouting())]
        self.check_dropped(ACME, frames, DropReason.EXTENSION)


class OtherIcmp(Ipv6Test):
    """ICMPv6 that is neither echo, error nor discovery."""

    def runTest(self) -> None:
        self.check_dropped(ACME, [ethernet() / ip6() / ICMPv6NIQueryName()], DropReason.UNSUPPORTED)


class Malformed(Ipv6Test):
    """Cut short, of another version, longer than the frame, without hops, from nowhere."""

    def runTest(self) -> None:
        frame = bytes(ethernet() / ip6() / udp())
        cuts = [frame[:length] for length in (15, 53, 54, 57, 61)]
        wrong = [bytes([*frame[:14], version << 4, *frame[15:]]) for version in (0, 4, 5, 7, 15)]
        self.check_dropped(ACME, [*cuts, *wrong], DropReason.MALFORMED)
        frames = [ethernet() / ip6(**fields) / udp() for fields in ({"hlim": 0}, {"plen": 17}, {"plen": 0xFFFF})]
        self.check_dropped(ACME, frames, DropReason.MALFORMED)


class Passing(PipelineTest):
    """What is not NVI's passes between wire and stack; what is in the key range does not reach the stack."""

    def runTest(self) -> None:
        own = [FROM_WIRE6.frame(tcp((22, 50000))), FROM_WIRE6.frame(udp((53, 53))), FROM_WIRE6.frame(echo6(1))]
        own += [FROM_WIRE6.frame(Raw(bytes(20)), nh=89), FROM_WIRE6.frame(IPv6ExtHdrHopByHop() / udp(BACK))]
        for frame in own:
            self.check_forwarded(WIRE, frame, STACK, frame)
            self.check_forwarded(STACK, frame, WIRE, frame)
        for number in (KEY_FIRST, KEY_LAST):
            for transport in (tcp((80, number)), udp((80, number)), echo6(number), echo6(number, False)):
                self.check_punted(WIRE, FROM_WIRE6.frame(transport), PuntReason.STRAY)
