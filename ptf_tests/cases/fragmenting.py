"""Fragments: the first one's ports are the later ones' too; identifications of two endpoints never meet on a wire."""

from __future__ import annotations

import struct

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6ExtHdrFragment
from scapy.packet import Raw

from nvi.switch import DropReason, PuntReason
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import (
    ACME,
    ACME_GUARD,
    ACME_GUARD6,
    DATA,
    FROM_ACME,
    FROM_ACME6,
    FROM_GLOBEX,
    FROM_WIRE,
    FROM_WIRE6,
    GLOBEX,
    STACK,
    TO_ACME,
    TO_ACME6,
    TO_GLOBEX,
    TO_WIRE,
    TO_WIRE6,
    WIRE,
    cut,
    echo,
    echo6,
    entry,
    ethernet,
    join,
    tcp,
    udp,
)

OUT, BACK = (20001, 32001), (32001, 20001)


def renumbered(frame: bytes, identification: int) -> bytes:
    """The fragment with another identification."""
    if frame[12:14] == b"\x86\xdd":
        return frame[:58] + struct.pack("!I", identification) + frame[62:]
    packet = IP(frame[14:])
    packet.id = identification & 0xFFFF
    del packet.chksum
    return frame[:14] + bytes(packet)


def identification_of(frame: bytes) -> int:
    """That of a fragment or datagram."""
    if frame[12:14] == b"\x86\xdd":
        return int(struct.unpack_from("!I", frame, 58)[0])
    return int(struct.unpack_from("!H", frame, 18)[0])


class FragmentTest(PipelineTest):
    """Sends fragments."""

    def out(self, port: int, frame: bytes) -> bytes:
        """What comes out of the wire for a frame that comes in at the port."""
        self.send(port, frame)
        return self.take(WIRE)

    def check_cut(self, come: list[bytes], go: list[bytes], port: int) -> int:
        """Fragments become those others on the wire, all with one new identification, which this returns."""
        first = self.out(port, come[0])
        identification = identification_of(first)
        self.assertEqual(first, renumbered(go[0], identification))
        for before, after in zip(come[1:], go[1:], strict=True):
            self.assertEqual(self.out(port, before), renumbered(after, identification))
        return identification


class ToTheWire(FragmentTest):
    """In both families, of all protocols."""

    def runTest(self) -> None:
        for come, go, pairs in (
            (FROM_ACME, TO_WIRE, ((udp(data=DATA), udp(OUT, DATA)), (tcp(data=DATA), tcp(OUT, DATA)), *ECHOES)),
            (FROM_ACME6, TO_WIRE6, ((udp(data=DATA), udp(OUT, DATA)), (tcp(data=DATA), tcp(OUT, DATA)), *ECHOES6)),
        ):
            for number, (before, after) in enumerate(pairs):
                self.insert(join(come, before, go, after))
                with self.subTest(protocol=before.name, ipv6=come.is_ipv6):
                    parts = cut(come, before, 77 + number), cut(go, after, 0)
                    self.assertGreater(len(parts[0]), 2)
                    self.check_cut(*parts, ACME)


ECHOES = ((echo(7, data=DATA), echo(20007, data=DATA)), (echo(8, False, DATA), echo(20008, False, DATA)))
ECHOES6 = ((echo6(7, data=DATA), echo6(20007, data=DATA)), (echo6(8, False, DATA), echo6(20008, False, DATA)))


class FromTheWire(FragmentTest):
    """Towards an endpoint the identification stays that of the wire."""

    def runTest(self) -> None:
        for come, go in ((FROM_WIRE, TO_ACME), (FROM_WIRE6, TO_ACME6)):
            before, after = udp(BACK, DATA), udp((53, 40000), DATA)
            self.insert(join(come, before, go, after))
            for one, other in zip(cut(come, before, 78), cut(go, after, 78), strict=True):
                self.check_forwarded(WIRE, one, ACME, other)


class Portless(FragmentTest):
    """Without ports there is nothing to remember but the identification."""

    def runTest(self) -> None:
        body = Raw(DATA)
        for come, go in ((FROM_ACME, TO_WIRE),):
            self.insert(entry(come, come.portless(47), go, go.portless(47)))
            self.check_cut(cut(come, body, 5, proto=47), cut(go, body, 5, proto=47), ACME)


class OutOfOrder(FragmentTest):
    """Later ones in any order after the first; one ahead of it goes to the agent."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, ACME_GUARD6)
        for come, go in ((FROM_ACME, TO_WIRE), (FROM_ACME6, TO_WIRE6)):
            self.insert(join(come, udp(data=DATA), go, udp(OUT, DATA)))
            before, after = cut(come, udp(data=DATA), 901), cut(go, udp(OUT, DATA), 0)
            self.check_punted(ACME, before[1], PuntReason.FRAGMENT)
            first = identification_of(self.out(ACME, before[0]))
            for index in (2, 1, 2):
                self.assertEqual(self.out(ACME, before[index]), renumbered(after[index], first))
            self.switch.reinject(ACME, before[1])
            self.expect(WIRE, renumbered(after[1], first))


class Reinjected(FragmentTest):
    """One that the agent has held, and whose first has not come: dropped, and counted."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD)
        self.switch.reinject(ACME, cut(FROM_ACME, udp(data=DATA), 902)[1])
        self.expect_drop(ACME, DropReason.REINJECTED)


class NoConnection(FragmentTest):
    """The first one is a miss; the later ones of a flow that is not held go to the agent too, and wait there."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, ACME_GUARD6)
        for come in (FROM_ACME, FROM_ACME6):
            first, *others = cut(come, udp(data=DATA), 903)
            self.check_punted(ACME, first, PuntReason.MISS)
            for other in others:
                self.check_punted(ACME, other, PuntReason.FRAGMENT)


class EqualIdentifications(FragmentTest):
    """Of two endpoints of one address and one identification: the wire sees two."""

    def runTest(self) -> None:
        other = (20002, 32002)
        self.insert(join(FROM_ACME, udp(), TO_WIRE, udp(OUT)), join(FROM_GLOBEX, udp(), TO_WIRE, udp(other)))
        ours, theirs = cut(FROM_ACME, udp(data=DATA), 7), cut(FROM_GLOBEX, udp(data=DATA), 7)
        out, out_other = cut(TO_WIRE, udp(OUT, DATA), 0), cut(TO_WIRE, udp(other, DATA), 0)
        first, second = identification_of(self.out(ACME, ours[0])), identification_of(self.out(GLOBEX, theirs[0]))
        self.assertNotEqual(first, second)
        for index in (1, 2):
            self.assertEqual(self.out(GLOBEX, theirs[index]), renumbered(out_other[index], second))
            self.assertEqual(self.out(ACME, ours[index]), renumbered(out[index], first))


class Whole(FragmentTest):
    """A whole datagram that may be cut further on gets an identification too; between endpoints it keeps its own."""

    def runTest(self) -> None:
        self.insert(join(FROM_ACME, udp(), TO_WIRE, udp(OUT)), join(FROM_ACME, tcp(), TO_GLOBEX, tcp((1, 2))))
        seen = set()
        for _ in range(3):
            came = self.out(ACME, bytes(FROM_ACME.frame(udp(), flags=0)))
            seen.add(identification_of(came))
            self.assertEqual(came, renumbered(bytes(TO_WIRE.frame(udp(OUT), flags=0)), identification_of(came)))
        self.assertEqual(len(seen), 3)
        frames = FROM_ACME.frame(tcp(), flags=0), TO_GLOBEX.frame(tcp((1, 2)), flags=0)
        self.check_forwarded(ACME, frames[0], GLOBEX, frames[1])


class ReinjectedFirst(FragmentTest):
    """A first fragment that the agent hands back has the identification under which others may have gone already."""

    def runTest(self) -> None:
        for come, go in ((FROM_ACME, TO_WIRE), (FROM_ACME6, TO_WIRE6)):
            self.insert(join(come, udp(), go, udp(OUT)))
            first, *others = cut(come, udp(data=DATA), 51)
            numbers = {identification_of(self.out(ACME, frame)) for frame in (first, others[1])}
            self.switch.reinject(ACME, first)
            numbers.add(identification_of(self.take(WIRE)))
            numbers.add(identification_of(self.out(ACME, others[0])))
            self.assertEqual(len(numbers), 1)
            # The same sent once more is another datagram.
            self.assertNotIn(identification_of(self.out(ACME, first)), numbers)


class TheHostsOwn(FragmentTest):
    """At the wire: fragments outside the key range go to the stack, in it to the agent, ahead of the first also."""

    def runTest(self) -> None:
        for segment in (FROM_WIRE, FROM_WIRE6):
            for part in cut(segment, udp((53, 5353), DATA), 31):
                self.check_forwarded(WIRE, part, STACK, part)
            first, *others = cut(segment, udp((53, 20000), DATA), 32)
            self.check_punted(WIRE, first, PuntReason.STRAY)
            for other in others:
                self.check_punted(WIRE, other, PuntReason.FRAGMENT)
            unknown = cut(segment, udp((53, 5353), DATA), 33)[1]
            self.check_punted(WIRE, unknown, PuntReason.FRAGMENT)


class Forged(FragmentTest):
    """Another port, MAC, address, protocol or identification is another datagram, whose first fragment is not known."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, join(FROM_ACME, udp(), TO_WIRE, udp(OUT)))
        first, second, _ = cut(FROM_ACME, udp(data=DATA), 44)
        self.out(ACME, first)
        self.check_dropped(GLOBEX, [second], DropReason.SPOOFED)
        self.check_punted(ACME, renumbered(second, 45), PuntReason.FRAGMENT)
        self.check_punted(WIRE, second, PuntReason.FRAGMENT)


class Malformed(FragmentTest):
    """Tiny first ones, those over a TCP header, and what reaches beyond the largest datagram (RFC 1858, RFC 3128)."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, ACME_GUARD6, join(FROM_ACME, tcp(), TO_WIRE, tcp(OUT)))
        over = [
            bytes(FROM_ACME.header(flags=flags, frag=at, id=61, proto=6) / Raw(bytes(64)))
            for flags, at in (("MF", 1), (0, 2))
        ]
        beyond = bytes(FROM_ACME.header(flags=0, frag=0x1FFF, id=61, proto=17) / Raw(bytes(64)))
        macs = bytes(ethernet(FROM_ACME.source_mac, FROM_ACME.destination_mac, type=0x0800))
        tiny = bytes(IP(src=FROM_ACME.source, dst=FROM_ACME.destination, flags="MF", proto=6) / Raw(bytes(16)))
        self.check_dropped(ACME, [macs + part for part in (tiny, *over, beyond)], DropReason.MALFORMED)
        macs6 = bytes(ethernet(FROM_ACME6.source_mac, FROM_ACME6.destination_mac, type=0x86DD))
        header = FROM_ACME6.header() / IPv6ExtHdrFragment(id=61, nh=6, offset=1) / Raw(bytes(64))
        self.check_dropped(ACME, [macs6 + bytes(header)], DropReason.MALFORMED)


class OtherIcmp(FragmentTest):
    """Of ICMP only echoes are carried in fragments."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, ACME_GUARD6)
        macs = bytes(ethernet(FROM_ACME.source_mac, FROM_ACME.destination_mac, type=0x0800))
        error = macs + bytes(FROM_ACME.header(flags="MF", proto=1) / Raw(b"\3\3" + bytes(62)))
        macs6 = bytes(ethernet(FROM_ACME6.source_mac, FROM_ACME6.destination_mac, type=0x86DD))
        asked = FROM_ACME6.header(ttl=255) / IPv6ExtHdrFragment(nh=58, m=1) / Raw(b"\x87\0" + bytes(62))
        self.check_dropped(ACME, [error, macs6 + bytes(asked)], DropReason.FRAGMENT)
