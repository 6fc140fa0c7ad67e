"""The meter `punts`: no port keeps the agent from the others' packets."""

from __future__ import annotations

from contextlib import suppress
from queue import Empty

from scapy.packet import Packet

from nvi.switch import DropReason, Punt, PuntReason
from ptf_tests.harness import QUIET, PipelineTest
from ptf_tests.packets import (
    ACME,
    ACME_GUARD,
    ACME_MAC,
    FAR,
    FROM_ACME,
    FROM_WIRE,
    GLOBEX,
    GLOBEX_GUARD,
    GLOBEX_MAC,
    STACK,
    TO_WIRE,
    WIRE,
    arp_request,
    ethernet,
    ip,
    join,
    tcp,
    udp,
)

RATE, BURST, PACKETS = 1, 5, 40
SLACK = 3
"""How many more may pass: one for every second that the test takes."""


def miss(mac: str = ACME_MAC) -> Packet:
    """An endpoint's packet that is punted."""
    return ethernet(mac) / ip() / udp()


class MeterTest(PipelineTest):
    """With two endpoints, and a limit for the first one's port and the wire."""

    def setUp(self) -> None:
        super().setUp()
        self.insert(ACME_GUARD, GLOBEX_GUARD)
        for port in (ACME, WIRE):
            self.limit_punts(port, RATE, BURST)

    def check_limited(self, port: int, frame: Packet, reason: PuntReason, left: int) -> None:
        """Of many packets about `left` are punted; the excess is counted as PUNT_LIMIT."""
        for _ in range(PACKETS):
            self.send(port, frame)
        for _ in range(left):
            self.expect_punt(port, reason, frame)
        more = self.further_punts()
        self.assertLessEqual(len(more), SLACK)
        self.assertEqual(more, [Punt(port, reason, bytes(frame))] * len(more))
        self.expect_drop(port, DropReason.PUNT_LIMIT, PACKETS - left - len(more))

    def further_punts(self) -> list[Punt]:
        """Punts that come until none comes any more."""
        punts = []
        with suppress(Empty):
            while True:
                punts.append(self.switch.punts.get(timeout=QUIET))
        return punts


class Excess(MeterTest):
    """A port's misses beyond its rate."""

    def runTest(self) -> None:
        self.check_limited(ACME, miss(), PuntReason.MISS, BURST)


class OneMeterForAllReasons(MeterTest):
    """Who has used up its port's share with misses asks for no neighbours either."""

    def runTest(self) -> None:
        self.check_limited(ACME, miss(), PuntReason.MISS, BURST)
        self.check_limited(ACME, arp_request(FAR), PuntReason.NEIGHBOUR, 0)


class StraysToo(MeterTest):
    """The underlay is a port like any other."""

    def runTest(self) -> None:
        self.check_limited(WIRE, FROM_WIRE.frame(tcp((80, 20000))), PuntReason.STRAY, BURST)


class OtherPorts(MeterTest):
    """Neither another port's punts, nor what is not punted, suffers."""

    def runTest(self) -> None:
        self.insert(join(FROM_ACME, tcp(), TO_WIRE, tcp((20001, 32001))))
        self.check_limited(ACME, miss(), PuntReason.MISS, BURST)
        for _ in range(PACKETS):
            self.check_punted(GLOBEX, miss(GLOBEX_MAC), PuntReason.MISS)
        for _ in range(PACKETS):
            self.check_forwarded(ACME, FROM_ACME.frame(tcp()), WIRE, TO_WIRE.frame(tcp((20001, 32001))))
        self.check_forwarded(WIRE, FROM_WIRE.frame(tcp((22, 80))), STACK, FROM_WIRE.frame(tcp((22, 80))))
        self.check_dropped(ACME, [ethernet(GLOBEX_MAC) / ip() / udp()], DropReason.SPOOFED)


class Reinjected(MeterTest):
    """What the agent sends does not count."""

    def runTest(self) -> None:
        for _ in range(PACKETS):
            self.switch.reinject(ACME, bytes(miss()))
        self.expect_drop(ACME, DropReason.REINJECTED, PACKETS)
        self.check_limited(ACME, miss(), PuntReason.MISS, BURST)


class WithoutLimit(MeterTest):
    """A meter that is unset lets everything pass."""

    def runTest(self) -> None:
        self.check_limited(ACME, miss(), PuntReason.MISS, BURST)
        self.switch.unlimit_punts(ACME)
        for _ in range(PACKETS):
            self.check_punted(ACME, miss(), PuntReason.MISS)
