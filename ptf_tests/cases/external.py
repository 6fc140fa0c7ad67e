"""The external side of a gateway: its wire, its host's stack, and what is published there."""

from __future__ import annotations

from scapy.layers.inet import ICMP
from scapy.packet import Raw

from nvi.model import read_address
from nvi.switch import PuntReason, ServiceEntry
from ptf_tests.cases.passing import ABOVE, BELOW, KEY_FIRST, KEY_LAST, anything
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import (
    ACME,
    FROM_ACME,
    FROM_OUTSIDE,
    FROM_WIRE,
    OUTSIDE,
    OUTSIDE_STACK,
    STACK,
    TO_ACME,
    TO_OUTSIDE,
    WIRE,
    echo,
    entry,
    join,
    tcp,
    udp,
)


class Passing(PipelineTest):
    """What is not NVI's goes to the external stack, and what that sends to the external wire."""

    def runTest(self) -> None:
        for frame in anything(FROM_OUTSIDE):
            with self.subTest(frame=bytes(frame).hex(" ")):
                self.check_forwarded(OUTSIDE, frame, OUTSIDE_STACK, frame)
                self.check_forwarded(OUTSIDE_STACK, frame, OUTSIDE, frame)


class Strays(PipelineTest):
    """In the range of keys a packet is punted; outside it is the stack's."""

    def runTest(self) -> None:
        for number, stray in ((BELOW, False), (KEY_FIRST, True), (KEY_LAST, True), (ABOVE, False)):
            for transport in (tcp((80, number)), udp((80, number)), echo(number), echo(number, request=False)):
                frame = FROM_OUTSIDE.frame(transport)
                if stray:
                    self.check_punted(OUTSIDE, frame, PuntReason.STRAY)
                else:
                    self.check_forwarded(OUTSIDE, frame, OUTSIDE_STACK, frame)


class Connected(PipelineTest):
    """Entries of the external side: the same table, any router's MAC; the underlay's wire is another scope."""

    def runTest(self) -> None:
        self.insert(
            join(FROM_ACME, tcp(), TO_OUTSIDE, tcp((20001, 80))),
            join(FROM_OUTSIDE, tcp((80, 20001)), TO_ACME, tcp((80, 40000))),
        )
        self.check_forwarded(ACME, FROM_ACME.frame(tcp()), OUTSIDE, TO_OUTSIDE.frame(tcp((20001, 80))))
        back = FROM_OUTSIDE.frame(tcp((80, 20001)))
        self.check_forwarded(OUTSIDE, back, ACME, TO_ACME.frame(tcp((80, 40000))))
        self.check_punted(WIRE, back, PuntReason.STRAY)


class Services(PipelineTest):
    """What is published is the agent's, inside the range of keys and outside; an entry comes before it."""

    def runTest(self) -> None:
        address = read_address(FROM_OUTSIDE.destination)
        self.insert(ServiceEntry(address, 6, 8080), ServiceEntry(address, 17, KEY_FIRST))
        for transport in (tcp((50000, 8080)), udp((50000, KEY_FIRST))):
            self.check_punted(OUTSIDE, FROM_OUTSIDE.frame(transport), PuntReason.SERVICE)
        for transport in (udp((50000, 8080)), tcp((50000, 8081))):
            frame = FROM_OUTSIDE.frame(transport)
            self.check_forwarded(OUTSIDE, frame, OUTSIDE_STACK, frame)
        self.insert(join(FROM_OUTSIDE, tcp((50000, 8080)), TO_ACME, tcp((50000, 80))))
        frames = FROM_OUTSIDE.frame(tcp((50000, 8080))), TO_ACME.frame(tcp((50000, 80)))
        self.check_forwarded(OUTSIDE, frames[0], ACME, frames[1])
        other = FROM_OUTSIDE.frame(tcp((50001, 8080)))
        self.check_punted(OUTSIDE, other, PuntReason.SERVICE)


class OtherAddresses(PipelineTest):
    """A service is at one address; its wire's other addresses are the stack's."""

    def runTest(self) -> None:
        self.insert(ServiceEntry(read_address("198.51.100.99"), 6, 8080))
        frame = FROM_OUTSIDE.frame(tcp((50000, 8080)))
        self.check_forwarded(OUTSIDE, frame, OUTSIDE_STACK, frame)


class PortlessAtTheUnderlay(PipelineTest):
    """An agent claims an address of its pool for a protocol without ports with port 0."""

    def runTest(self) -> None:
        body = Raw(bytes(30))
        frame = FROM_WIRE.frame(body, proto=47)
        self.check_forwarded(WIRE, frame, STACK, frame)
        self.insert(ServiceEntry(read_address(FROM_WIRE.destination), 47, 0))
        self.check_punted(WIRE, frame, PuntReason.SERVICE)
        self.insert(entry(FROM_WIRE, FROM_WIRE.portless(47), TO_ACME, TO_ACME.portless(47)))
        self.check_forwarded(WIRE, frame, ACME, TO_ACME.frame(body, proto=47))


class Errors(PipelineTest):
    """An error about nothing of ours is the stack's, also about a port of the range."""

    def runTest(self) -> None:
        about = bytes(TO_OUTSIDE.header() / tcp((KEY_FIRST, 80)))
        frame = FROM_OUTSIDE.frame(ICMP(type=3, code=1) / Raw(about))
        self.check_forwarded(OUTSIDE, frame, OUTSIDE_STACK, frame)
