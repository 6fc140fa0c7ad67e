"""Entries that do not take every packet: a router between, a narrow way. What they do not take is punted as it came."""

from __future__ import annotations

from scapy.packet import Packet

from nvi.switch import DropReason, PuntReason
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import (
    ACME,
    DATA,
    FROM_ACME,
    FROM_ACME6,
    TO_WIRE,
    TO_WIRE6,
    WIRE,
    Segment,
    cut,
    echo,
    echo6,
    join,
    tcp,
    udp,
)

OUT = (20001, 32001)


def ways() -> list[tuple[Segment, Segment, Packet, Packet]]:
    """Every kind of rewrite that may have limits."""
    same = [(FROM_ACME, TO_WIRE, make(), make(OUT)) for make in (tcp, udp)] + [
        (FROM_ACME6, TO_WIRE6, make(), make(OUT)) for make in (tcp, udp)
    ]
    across = [(FROM_ACME, TO_WIRE6, tcp(), tcp(OUT)), (FROM_ACME6, TO_WIRE, tcp(), tcp(OUT))]
    echoes = [(FROM_ACME, TO_WIRE, echo(7), echo(20007)), (FROM_ACME6, TO_WIRE6, echo6(7), echo6(20007))]
    return [*same, *across, *echoes]


class TimeToLive(PipelineTest):
    """Across a router a TTL of 1 ends; 2 passes. Within a network every TTL does."""

    def runTest(self) -> None:
        for come, go, before, after in ways():
            with self.subTest(to=go.destination, protocol=before.name):
                self.insert(join(come, before, go, after, routed=True))
                for ttl in (0, 1):
                    self.check_punted(ACME, come.frame(before, ttl=ttl), PuntReason.TTL)
                self.send(ACME, come.frame(before, ttl=2))
                self.take(WIRE)  # other cases say what it becomes
                self.doCleanups()


class Length(PipelineTest):
    """Up to the limit it passes; what is longer is punted, counted by the IP packet and not by the frame."""

    def runTest(self) -> None:
        for come, go, before, after in ways():
            with self.subTest(to=go.destination, protocol=before.name):
                length = len(come.header() / before)
                self.insert(join(come, before, go, after, max_length=length))
                self.send(ACME, bytes(come.frame(before)) + bytes(30))
                self.take(WIRE)
                self.doCleanups()
                self.insert(join(come, before, go, after, max_length=length - 1))
                self.check_punted(ACME, come.frame(before), PuntReason.TOO_BIG)
                self.doCleanups()


class LengthOfFragments(PipelineTest):
    """In IPv6 a fragment is longer by a header of its own, which counts. What the agent has cut is looked at again."""

    def runTest(self) -> None:
        self.insert(join(FROM_ACME, udp(data=DATA), TO_WIRE6, udp(OUT, DATA), max_length=1220 + 7))
        for part in cut(FROM_ACME, udp(data=DATA), 5)[:2]:
            self.check_punted(ACME, part, PuntReason.TOO_BIG)
            self.switch.reinject(ACME, part)
            self.expect_punt(ACME, PuntReason.TOO_BIG, part)
        self.doCleanups()
        self.insert(join(FROM_ACME, udp(data=DATA), TO_WIRE6, udp(OUT, DATA), max_length=1220 + 8))
        for part in cut(FROM_ACME, udp(data=DATA), 5):
            self.send(ACME, part)
            self.take(WIRE)


class Passing(PipelineTest):
    """A packet that an entry with limits takes is rewritten like any other."""

    def runTest(self) -> None:
        for come, go, before, after in ways():
            if come.is_ipv6 == go.is_ipv6:
                self.insert(join(come, before, go, after, routed=True, max_length=1400))
                self.check_forwarded(ACME, come.frame(before), WIRE, go.frame(after))


class Reinjected(PipelineTest):
    """The agent has seen it: it is not punted again."""

    def runTest(self) -> None:
        self.insert(join(FROM_ACME, udp(), TO_WIRE, udp(OUT), routed=True))
        self.switch.reinject(ACME, bytes(FROM_ACME.frame(udp(), ttl=1)))
        self.expect_drop(ACME, DropReason.REINJECTED)
