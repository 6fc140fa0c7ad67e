"""`connections`, action `rewrite`: what a packet becomes on the next segment, and that nothing else of it changes.

What is expected is built by scapy from scratch, with checksums computed anew; the switch updates them.
"""

from __future__ import annotations

from scapy.layers.inet import IP, TCP
from scapy.packet import Packet, Raw

from nvi.packets import ECHO_PORT
from nvi.switch import DropReason, PuntReason
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import (
    ACME,
    ACME_GUARD,
    FROM_ACME,
    FROM_GLOBEX,
    FROM_WIRE,
    GLOBEX,
    GLOBEX_MAC,
    STACK,
    STRANGER,
    TO_ACME,
    TO_GLOBEX,
    TO_WIRE,
    WIRE,
    Segment,
    echo,
    join,
    tcp,
    udp,
)

MTU = 1500
OUT, BACK = (20001, 32001), (32001, 20001)
"""The ports of the segment between the hosts, as our host and as the far one sends them."""


class RewritingTest(PipelineTest):
    """Joins two segments and sends packets along."""

    def check_joined(self, come: Segment, before: Packet, go: Segment, after: Packet, **fields: object) -> None:
        """A packet with `before` on one segment becomes one with `after` on the next."""
        self.insert(join(come, before, go, after))
        self.check_forwarded(come.port, come.frame(before, **fields), go.port, go.frame(after, **fields))


class Tcp(RewritingTest):
    """TCP, out and back. Options, flags, sequence numbers, window and the urgent pointer arrive as they were sent."""

    def runTest(self) -> None:
        self.check_joined(FROM_ACME, tcp((40000, 80)), TO_WIRE, tcp(OUT))
        self.check_joined(FROM_WIRE, tcp(BACK), TO_ACME, tcp((80, 40000)))


class Udp(RewritingTest):
    """UDP, out and back."""

    def runTest(self) -> None:
        self.check_joined(FROM_ACME, udp((40000, 53)), TO_WIRE, udp(OUT))
        self.check_joined(FROM_WIRE, udp(BACK), TO_ACME, udp((53, 40000)))


class UdpWithoutChecksum(RewritingTest):
    """A UDP checksum of 0 says that there is none (RFC 768), and stays 0."""

    def runTest(self) -> None:
        self.check_joined(FROM_ACME, udp((40000, 53), chksum=0), TO_WIRE, udp(OUT, chksum=0))


class UdpChecksumThatBecomesZero(RewritingTest):
    """A UDP checksum that comes out as 0 is sent as 0xffff (RFC 768)."""

    def runTest(self) -> None:
        filler = Raw(with_checksum_zero(TO_WIRE.frame(udp(OUT, b"\0\0"))))
        self.check_joined(FROM_ACME, udp((40000, 53), bytes(filler)), TO_WIRE, udp(OUT, bytes(filler), chksum=0xFFFF))


class TcpChecksumThatBecomesZero(RewritingTest):
    """A TCP checksum of 0 is one like any other."""

    def runTest(self) -> None:
        filler = with_checksum_zero(TO_WIRE.frame(tcp(OUT, b"\0\0")))
        after = TO_WIRE.frame(tcp(OUT, filler))
        self.assertEqual(IP(bytes(after.payload))[TCP].chksum, 0)
        self.check_joined(FROM_ACME, tcp((40000, 80), filler), TO_WIRE, tcp(OUT, filler))


def with_checksum_zero(frame: Packet) -> bytes:
    """The two bytes of payload that, in place of its zeros, give the frame a transport checksum of 0."""
    transport = IP(bytes(frame.payload)).payload
    return int(transport.chksum).to_bytes(2, "big")


class EchoRequest(RewritingTest):
    """The identifier is the key; in its own range, at the ends of it, and where stand-ins for ports coincide."""

    def runTest(self) -> None:
        for before, after in ((0, 20000), (1, 32767), (0xFFFF, 20000), (4711, 0), (4711, 0xFFFF)):
            with self.subTest(identifier=before, key=after):
                self.check_joined(FROM_ACME, echo(before), TO_WIRE, echo(after))
                self.check_joined(FROM_WIRE, echo(before), TO_ACME, echo(after))
                self.doCleanups()


class EchoReply(RewritingTest):
    """The reverse of a request."""

    def runTest(self) -> None:
        for before, after in ((20000, 0), (32767, 1), (20000, 0xFFFF), (4711, 4712)):
            with self.subTest(identifier=before, key=after):
                self.check_joined(FROM_WIRE, echo(before, request=False), TO_ACME, echo(after, request=False))
                self.check_joined(FROM_ACME, echo(before, request=False), TO_WIRE, echo(after, request=False))
                self.doCleanups()


class EchoStandIns(RewritingTest):
    """Identifiers that equal a stand-in for the responder's port get another: no request has the key of a reply."""

    def runTest(self) -> None:
        identifiers = range(ECHO_PORT - 1, ECHO_PORT + 4)
        segments = ((FROM_ACME, TO_WIRE), (FROM_WIRE, TO_ACME))
        kinds = [(come, go, number, request) for come, go in segments for number in identifiers for request in (1, 0)]
        # All at once: two of them with one key would be refused.
        self.insert(*(join(come, echo(n, request), go, echo(n ^ 0x5555, request)) for come, go, n, request in kinds))
        for come, go, n, request in kinds:
            with self.subTest(identifier=n, request=request, port=come.port):
                before, after = come.frame(echo(n, request)), go.frame(echo(n ^ 0x5555, request))
                self.check_forwarded(come.port, before, go.port, after)
        for come, go, n, request in kinds:
            with self.subTest(key=n, request=request, port=come.port):
                self.check_joined(come, echo(n + 0x1000, request), go, echo(n, request))


class BetweenEndpoints(RewritingTest):
    """Two endpoints of one host: from overlay to overlay."""

    def runTest(self) -> None:
        self.check_joined(FROM_ACME, tcp((40000, 80)), TO_GLOBEX, tcp((40000, 80)))
        self.check_joined(FROM_GLOBEX, tcp((80, 40000)), TO_ACME, tcp((80, 40000)))


class TimeToLive(RewritingTest):
    """The TTL is the entry's, whatever the packet's was."""

    def runTest(self) -> None:
        self.insert(join(FROM_ACME, udp(), TO_WIRE, udp(OUT)))
        for ttl in (1, 2, 63, 64, 254, 255):
            with self.subTest(ttl=ttl):
                self.check_forwarded(ACME, FROM_ACME.frame(udp(), ttl=ttl), WIRE, TO_WIRE.frame(udp(OUT)))
        for ttl in (1, 255):
            far = Segment(ACME, TO_ACME.source_mac, TO_ACME.destination_mac, TO_ACME.source, TO_ACME.destination, ttl)
            with self.subTest(new_ttl=ttl):
                self.check_joined(FROM_WIRE, udp((ttl, 1)), far, udp((1, ttl)))


class HeaderFields(RewritingTest):
    """Identification, DSCP, ECN and the DF and reserved bits are not the switch's to change."""

    def runTest(self) -> None:
        self.insert(join(FROM_ACME, udp(), TO_WIRE, udp(OUT)))
        for fields in ({"id": 0}, {"id": 0xFFFF}, {"tos": 0}, {"tos": 0xFF}, {"flags": "evil+DF"}):
            with self.subTest(**fields):
                self.check_forwarded(ACME, FROM_ACME.frame(udp(), **fields), WIRE, TO_WIRE.frame(udp(OUT), **fields))


class PayloadLengths(RewritingTest):
    """From nothing to a full MTU, odd and even."""

    def runTest(self) -> None:
        for make, header in ((udp, 28), (tcp, 20 + len(bytes(tcp(data=b""))))):
            self.insert(join(FROM_ACME, make(), TO_WIRE, make(OUT)))
            ends = (make().sport, make().dport)
            for length in (0, 1, 2, 3, 511, 1000, MTU - header - 1, MTU - header):
                data = bytes(n % 251 for n in range(length))
                with self.subTest(protocol=make.__name__, length=length):
                    before, after = FROM_ACME.frame(make(ends, data)), TO_WIRE.frame(make(OUT, data))
                    self.check_forwarded(ACME, before, WIRE, after)
        self.assertEqual(len(before), MTU + 14)


class EthernetTrailer(RewritingTest):
    """What follows the IP packet in its frame, such as padding to 60 bytes, is kept."""

    def runTest(self) -> None:
        self.insert(join(FROM_ACME, udp(data=b""), TO_WIRE, udp(OUT, b"")))
        for trailer in (bytes(18), b"\xff" * 18, b"\x01", bytes(range(200))):
            with self.subTest(trailer=len(trailer)):
                before, after = FROM_ACME.frame(udp(data=b"")), TO_WIRE.frame(udp(OUT, b""))
                self.check_forwarded(ACME, bytes(before) + trailer, WIRE, bytes(after) + trailer)


class CorruptedOnTheWay(RewritingTest):
    """A packet with a wrong checksum leaves with one that is as wrong: it is never repaired."""

    def runTest(self) -> None:
        for before, after in (
            (udp(), udp(OUT)),
            (tcp(), tcp(OUT)),
            (echo(4711), echo(20000)),
        ):
            self.insert(join(FROM_ACME, before, TO_WIRE, after))
            came, went = bytes(FROM_ACME.frame(before)), bytes(TO_WIRE.frame(after))
            # The last byte of the payload; DSCP, under the header's checksum.
            for place in (len(came) - 1, 15):
                with self.subTest(protocol=before.name, byte=place):
                    self.check_forwarded(ACME, flipped(came, place), WIRE, flipped(went, place))
                    self.assertNotEqual(flipped(went, place), went)


def flipped(frame: bytes, place: int) -> bytes:
    """The frame with a bit of one byte changed, and no checksum adapted."""
    return frame[:place] + bytes([frame[place] ^ 0x10]) + frame[place + 1 :]


class TenantsWithTheSameAddresses(RewritingTest):
    """Two endpoints with one address, one 5-tuple and one far address: each keeps to its own segment, both ways."""

    def runTest(self) -> None:
        other = (20002, 32002)
        self.insert(
            join(FROM_ACME, tcp(), TO_WIRE, tcp(OUT)),
            join(FROM_GLOBEX, tcp(), TO_WIRE, tcp(other)),
            join(FROM_WIRE, tcp(BACK), TO_ACME, tcp((80, 40000))),
            join(FROM_WIRE, tcp(other[::-1]), TO_GLOBEX, tcp((80, 40000))),
        )
        for _ in range(2):
            self.check_forwarded(ACME, FROM_ACME.frame(tcp()), WIRE, TO_WIRE.frame(tcp(OUT)))
            self.check_forwarded(GLOBEX, FROM_GLOBEX.frame(tcp()), WIRE, TO_WIRE.frame(tcp(other)))
            self.check_forwarded(WIRE, FROM_WIRE.frame(tcp(BACK)), ACME, TO_ACME.frame(tcp((80, 40000))))
            self.check_forwarded(WIRE, FROM_WIRE.frame(tcp(other[::-1])), GLOBEX, TO_GLOBEX.frame(tcp((80, 40000))))


class EveryKeyFieldCounts(RewritingTest):
    """A packet that differs in one field of the key from an entry's does not hit it."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, join(FROM_ACME, udp(), TO_WIRE, udp(OUT)), join(FROM_WIRE, udp(BACK), TO_ACME, udp()))
        near = FROM_ACME
        for frame in (
            near.frame(udp((40001, 53))),
            near.frame(udp((40000, 54))),
            near.frame(tcp((40000, 53))),
            Segment(ACME, near.source_mac, near.destination_mac, near.source, STRANGER).frame(udp()),
        ):
            self.check_punted(ACME, frame, PuntReason.MISS)
        wrong_mac = Segment(ACME, GLOBEX_MAC, near.destination_mac, near.source, near.destination)
        wrong_address = Segment(ACME, near.source_mac, near.destination_mac, STRANGER, near.destination)
        self.check_dropped(ACME, [wrong_mac.frame(udp()), wrong_address.frame(udp())], DropReason.SPOOFED)
        self.check_dropped(GLOBEX, [near.frame(udp())], DropReason.SPOOFED)
        self.check_forwarded(STACK, near.frame(udp()), WIRE, near.frame(udp()))
        # The destination MAC is no part of it, and at the wire neither is the source's: routers may change.
        rerouted = Segment(WIRE, GLOBEX_MAC, GLOBEX_MAC, FROM_WIRE.source, FROM_WIRE.destination)
        self.check_forwarded(WIRE, rerouted.frame(udp(BACK)), ACME, TO_ACME.frame(udp()))


class ChangedAndDeleted(RewritingTest):
    """A modified entry does the new thing; a deleted one nothing."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD)
        old, new = join(FROM_ACME, udp(), TO_WIRE, udp(OUT)), join(FROM_ACME, udp(), TO_GLOBEX, udp((7, 8)))
        self.switch.insert([old])
        self.check_forwarded(ACME, FROM_ACME.frame(udp()), WIRE, TO_WIRE.frame(udp(OUT)))
        self.switch.modify([new])
        self.check_forwarded(ACME, FROM_ACME.frame(udp()), GLOBEX, TO_GLOBEX.frame(udp((7, 8))))
        self.switch.delete([new])
        self.check_punted(ACME, FROM_ACME.frame(udp()), PuntReason.MISS)
