"""The edge, for an endpoint's packets: what goes to the agent as a miss, and what is dropped for which reason."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.l2 import Dot1Q
from scapy.packet import Packet, Raw

from nvi.switch import DropReason, GuardEntry, PuntReason
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import ACME, ACME_GUARD, FROM_ACME, TO_WIRE, WIRE, echo, entry, ethernet, ip, tcp, udp

FLAGS_RESERVED = "evil"


class EdgeTest(PipelineTest):
    """With one endpoint admitted, and no connection."""

    def setUp(self) -> None:
        super().setUp()
        self.insert(ACME_GUARD)


class Misses(EdgeTest):
    """A flow that `connections` does not hold is punted with its port, and not a byte is changed."""

    def runTest(self) -> None:
        for transport in (
            tcp(),
            udp(),
            udp(chksum=0),
            echo(7),
            echo(7, request=False),
            echo(0x0800),
            udp(data=b"x" * 1472),
        ):
            for trailer in (b"", b"\x55" * 13):
                frame = bytes(ethernet() / ip() / transport) + trailer
                if len(frame) <= 1514:
                    self.check_punted(ACME, frame, PuntReason.MISS)


class UnusualButWell(EdgeTest):
    """Neither the reserved bit, nor TTL 1 or 255, nor a wrong checksum is the pipeline's to judge."""

    def runTest(self) -> None:
        for fields in (
            {"flags": FLAGS_RESERVED},
            {"flags": "evil+DF"},
            {"flags": 0},
            {"ttl": 1},
            {"ttl": 255},
            {"chksum": 0xDEAD},
            {"tos": 0xFF},
        ):
            self.check_punted(ACME, ethernet() / ip(**fields) / udp(), PuntReason.MISS)
        self.check_punted(ACME, ethernet() / ip() / udp(chksum=0xDEAD), PuntReason.MISS)


class BordersOfGroups(EdgeTest):
    """Class D begins at 224.0.0.0; unicast below it is a miss."""

    def runTest(self) -> None:
        self.check_punted(ACME, ethernet() / ip(destination="223.255.255.255") / udp(), PuntReason.MISS)
        self.check_dropped(ACME, [ethernet() / ip(destination="224.0.0.0") / udp()], DropReason.GROUP)


class Groups(EdgeTest):
    """Broadcast and multicast, by MAC or by address; class E too."""

    def runTest(self) -> None:
        addresses = ("255.255.255.255", "239.1.2.3", "240.0.0.1")
        macs = ("ff:ff:ff:ff:ff:ff", "01:00:5e:01:02:03", "03:00:00:00:00:01")
        frames = [ethernet() / ip(destination=address) / udp() for address in addresses]
        frames += [ethernet(destination=mac) / ip() / udp() for mac in macs]
        self.check_dropped(ACME, frames, DropReason.GROUP)


class Options(EdgeTest):
    """An IPv4 header with options, up to the longest."""

    def runTest(self) -> None:
        options = ([IPOption_Router_Alert()], [IPOption_NOP()], [IPOption_NOP()] * 40)
        frames = [
            ethernet() / ip(options=chosen) / transport for chosen in options for transport in (udp(), tcp(), echo(1))
        ]
        self.assertEqual({bytes(frame)[14] for frame in frames}, {0x46, 0x4F})
        self.check_dropped(ACME, frames, DropReason.OPTIONS)


class Portless(EdgeTest):
    """A protocol without ports, whatever its number, is a flow of its addresses alone."""

    def runTest(self) -> None:
        for number in (0, 2, 4, 41, 47, 50, 58, 132, 250, 255):
            self.check_punted(ACME, ethernet() / ip(proto=number) / Raw(bytes(40)), PuntReason.MISS)
            self.insert(entry(FROM_ACME, FROM_ACME.portless(number), TO_WIRE, TO_WIRE.portless(number)))
            body = Raw(bytes(range(40)))
            frames = FROM_ACME.frame(body, proto=number), TO_WIRE.frame(body, proto=number)
            self.check_forwarded(ACME, frames[0], WIRE, frames[1])


class OtherIcmp(EdgeTest):
    """ICMP that is neither an echo nor an error: a redirect, a timestamp, codes that there are not."""

    def runTest(self) -> None:
        kinds = ((4, 0), (5, 0), (9, 0), (10, 0), (13, 0), (17, 0), (8, 1), (0, 1))
        frames = [ethernet() / ip() / ICMP(type=kind, code=code) for kind, code in kinds]
        self.check_dropped(ACME, frames, DropReason.UNSUPPORTED)


class Dhcp(EdgeTest):
    """A client's broadcast is the agent's to answer, from an address or none; unicast is a flow like any other."""

    def runTest(self) -> None:
        self.insert(GuardEntry(ACME, ACME_GUARD.mac, bytes(4), ACME_GUARD.network))
        for source in ("0.0.0.0", FROM_ACME.source):
            for flags in (0, "DF"):
                header = ip(source, "255.255.255.255", flags=flags)
                frame = ethernet(destination="ff:ff:ff:ff:ff:ff") / header / udp((68, 67), bytes(300))
                self.check_punted(ACME, frame, PuntReason.LOCAL)
        self.check_punted(ACME, ethernet() / ip() / udp((68, 67)), PuntReason.MISS)
        others = [ethernet() / ip(destination="255.255.255.255") / udp(ends) for ends in ((67, 68), (68, 68), (1, 67))]
        self.check_dropped(ACME, others, DropReason.GROUP)


class OtherEtherTypes(EdgeTest):
    """What is neither IPv4 nor ARP."""

    def runTest(self) -> None:
        kinds = (0x0000, 0x05DC, 0x0801, 0x88CC, 0xFFFF)
        frames: list[Packet] = [ethernet(type=kind) / ip() / udp() for kind in kinds]
        frames += [
            ethernet() / Dot1Q(vlan=3) / ip() / udp(),
        ]
        self.check_dropped(ACME, frames, DropReason.UNSUPPORTED)


class CutShort(EdgeTest):
    """Frames that end within a header that they announce."""

    def runTest(self) -> None:
        for transport, header in ((tcp(), 18), (udp(), 8), (echo(1), 6)):
            frame = bytes(ethernet() / ip() / transport)
            lengths = {15, 33, 34, 35, 34 + header - 1}
            self.check_dropped(ACME, [frame[:length] for length in sorted(lengths)], DropReason.MALFORMED)


class LessThanAnnounced(EdgeTest):
    """A total length that reaches beyond the frame's end; one that ends before it is padding."""

    def runTest(self) -> None:
        for transport in (tcp(), udp(), echo(1)):
            length = len(ip() / transport)
            for claimed in (length + 1, length + 2, 0xFFFF):
                self.check_dropped(ACME, [ethernet() / ip(len=claimed) / transport], DropReason.MALFORMED)
            self.check_punted(ACME, ethernet() / ip(len=length - 1) / transport, PuntReason.MISS)


class NotVersion4(EdgeTest):
    """Another version, or a header of less than 20 bytes, under IPv4's EtherType."""

    def runTest(self) -> None:
        frames = []
        for version_ihl in (0x00, 0x40, 0x44, 0x35, 0x50, 0x55, 0x65, 0xF5, 0xFF):
            frame = bytearray(bytes(ethernet() / ip() / udp()))
            frame[14] = version_ihl
            frames.append(bytes(frame))
        self.check_dropped(ACME, frames, DropReason.MALFORMED)


class CannotBeForwarded(EdgeTest):
    """No TTL left, or from nowhere: an endpoint that probes with ARP may say 0.0.0.0 there, but not in IP."""

    def runTest(self) -> None:
        self.insert(GuardEntry(ACME, ACME_GUARD.mac, bytes(4), ACME_GUARD.network))
        frames = [ethernet() / ip(**fields) / udp() for fields in ({"ttl": 0}, {"source": "0.0.0.0"})]
        self.check_dropped(ACME, frames, DropReason.MALFORMED)


class WorstFirst(EdgeTest):
    """A packet with several faults is counted once: spoofed, malformed, group, options, unsupported."""

    def runTest(self) -> None:
        all_of_them = {"options": [IPOption_NOP()], "proto": 1, "destination": "224.0.0.1"}
        for reason, gone in (
            (DropReason.SPOOFED, {"source": "10.9.9.9", "ttl": 0}),
            (DropReason.MALFORMED, {"source": "10.0.1.1", "ttl": 0}),
            (DropReason.GROUP, {"ttl": 1}),
            (DropReason.OPTIONS, {"destination": "10.0.1.2"}),
            (DropReason.UNSUPPORTED, {"options": []}),
        ):
            all_of_them.update(gone)
            self.check_dropped(ACME, [ethernet() / ip(**all_of_them) / Raw(bytes([5, *bytes(39)]))], reason)
