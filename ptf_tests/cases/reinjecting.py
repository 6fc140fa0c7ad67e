"""Packets from the agent: processed as if they had just arrived, or sent as they are."""

from __future__ import annotations

from nvi.switch import ConnectionEntry, Drop, DropReason
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import (
    ACME,
    ACME_GUARD,
    FAR,
    FAR_MAC,
    FROM_ACME,
    FROM_WIRE,
    GLOBEX,
    NEAR,
    PORTS,
    STACK,
    STRANGER,
    TO_ACME,
    TO_WIRE,
    WIRE,
    arp_answer,
    arp_request,
    echo,
    ethernet,
    ip,
    join,
    key,
    neighbour,
    tcp,
    udp,
)

OUT, BACK = (20001, 32001), (32001, 20001)


class Hits(PipelineTest):
    """A packet that the agent has made an entry for takes the way of those that follow it."""

    def runTest(self) -> None:
        for before, after in ((tcp(), tcp(OUT)), (udp(), udp(OUT)), (echo(1), echo(20000))):
            self.insert(join(FROM_ACME, before, TO_WIRE, after))
            self.switch.reinject(ACME, bytes(FROM_ACME.frame(before)))
            self.expect(WIRE, TO_WIRE.frame(after))
        self.insert(join(FROM_WIRE, udp(BACK), TO_ACME, udp()))
        self.switch.reinject(WIRE, bytes(FROM_WIRE.frame(udp(BACK))))
        self.expect(ACME, TO_ACME.frame(udp()))


class Refused(PipelineTest):
    """Its entry may also say drop: it is counted at the port where the packet first came in."""

    def runTest(self) -> None:
        self.insert(ConnectionEntry(key(FROM_ACME, udp()), Drop(DropReason.DENIED)))
        self.switch.reinject(ACME, bytes(FROM_ACME.frame(udp())))
        self.expect_drop(ACME, DropReason.DENIED)


class Misses(PipelineTest):
    """A packet whose entry has gone is dropped and counted at its port: the agent does not see it twice."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, neighbour(NEAR, FAR_MAC))
        for port, frame in (
            (ACME, FROM_ACME.frame(udp())),
            (ACME, FROM_ACME.frame(echo(1))),
            (ACME, arp_request(STRANGER)),
            (WIRE, FROM_WIRE.frame(tcp((80, 20000)))),
        ):
            self.switch.reinject(port, bytes(frame))
            self.expect_drop(port, DropReason.REINJECTED)


class AsIfItHadArrived(PipelineTest):
    """The edge does with it what it does with any packet of that port."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, neighbour(FAR, FAR_MAC))
        self.switch.reinject(ACME, bytes(arp_request(FAR)))
        self.expect(ACME, arp_answer(FAR_MAC, FAR))
        for port, to in ((WIRE, STACK), (STACK, WIRE)):
            frame = FROM_WIRE.frame(tcp((22, 80)))
            self.switch.reinject(port, bytes(frame))
            self.expect(to, frame)
        for port, frame, reason in (
            (ACME, ethernet() / ip(STRANGER) / udp(), DropReason.SPOOFED),
            (GLOBEX, ethernet() / ip() / udp(), DropReason.SPOOFED),
            (ACME, ethernet() / ip(ttl=0) / udp(), DropReason.MALFORMED),
            (ACME, ethernet() / ip(destination="224.0.0.1") / udp(), DropReason.GROUP),
            (ACME, arp_request(NEAR), DropReason.NEIGHBOUR_SELF),
            (ACME, arp_request(FAR, op=2), DropReason.UNSUPPORTED),
        ):
            self.switch.reinject(port, bytes(frame))
            self.expect_drop(port, reason)


class ShorterThanAnyFrame(PipelineTest):
    """Not even an Ethernet header: an endpoint's is malformed, the stack's passes."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD)
        for length in (1, 6, 13):
            self.switch.reinject(ACME, bytes(length))
            self.expect_drop(ACME, DropReason.MALFORMED)
        self.switch.reinject(STACK, bytes(range(60)))
        self.expect(WIRE, bytes(range(60)))


class SparePorts(PipelineTest):
    """Ports 5 to 15 have no part: what has no entry ends there, silently but for what no part could accept."""

    def runTest(self) -> None:
        for port in (5, 15):
            self.switch.reinject(port, bytes(ethernet() / ip() / udp()))
            self.switch.reinject(port, bytes(arp_request(FAR)))
        self.assert_quiet()


class Sent(PipelineTest):
    """Out of any port as it is, whatever it is, without a look at any table."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, join(FROM_ACME, udp(), TO_WIRE, udp(OUT)), neighbour(FAR, FAR_MAC))
        frames = [FROM_ACME.frame(udp()), arp_request(FAR), ethernet(type=0x86DD), bytes(range(60)), b"\xff" * 1514]
        for port in PORTS:
            for frame in frames:
                self.switch.send(port, bytes(frame))
                self.expect(port, frame)
