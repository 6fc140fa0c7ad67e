"""`guard`: an endpoint sends as itself, or not at all."""

from __future__ import annotations

from nvi.model import read_address, read_mac
from nvi.switch import DropReason, GuardEntry, PuntReason
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import (
    ACME,
    ACME_GUARD,
    FAR,
    FAR_MAC,
    GLOBEX,
    GLOBEX_GUARD,
    GLOBEX_MAC,
    NEAR,
    STRANGER,
    arp_request,
    echo,
    ethernet,
    ip,
    tcp,
    udp,
)

SPOOFED = DropReason.SPOOFED


class Admitted(PipelineTest):
    """(port, MAC, address) as given: the packet goes on, here to the agent."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, GLOBEX_GUARD)
        for transport in (tcp(), udp(), echo(1)):
            self.check_punted(ACME, ethernet() / ip() / transport, PuntReason.MISS)
            self.check_punted(GLOBEX, ethernet(GLOBEX_MAC) / ip() / transport, PuntReason.MISS)


class NobodyKnown(PipelineTest):
    """A port at which no endpoint is given sends nothing."""

    def runTest(self) -> None:
        self.check_dropped(ACME, [ethernet() / ip() / udp(), arp_request(FAR)], SPOOFED)


class WrongMac(PipelineTest):
    """A neighbour's MAC, of the port's other side or of another port."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, GLOBEX_GUARD)
        for mac in (GLOBEX_MAC, FAR_MAC, "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"):
            self.check_dropped(ACME, [ethernet(mac) / ip() / udp(), arp_request(FAR, mac=mac)], SPOOFED)


class WrongAddress(PipelineTest):
    """Another address than its own, also none."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD)
        for address in (FAR, STRANGER, "0.0.0.0", "255.255.255.255"):
            spoofed = [ethernet() / ip(address) / udp(), arp_request(FAR, sender=address)]
            self.check_dropped(ACME, spoofed, SPOOFED)


class WrongPort(PipelineTest):
    """What is right at one port is not at another."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD)
        self.check_dropped(GLOBEX, [ethernet() / ip() / udp(), arp_request(FAR)], SPOOFED)


class ArpSenderMac(PipelineTest):
    """The sender's MAC in an ARP request is that of the frame."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, GuardEntry(ACME, read_mac(GLOBEX_MAC), read_address(NEAR), 1))
        lies = [arp_request(FAR, source=GLOBEX_MAC), arp_request(FAR, mac=GLOBEX_MAC, source=ACME_GUARD.mac.hex(":"))]
        self.check_dropped(ACME, lies, SPOOFED)


class SeveralAddresses(PipelineTest):
    """An endpoint may have two addresses, and two endpoints may share a port."""

    def runTest(self) -> None:
        second = GuardEntry(ACME, ACME_GUARD.mac, read_address(STRANGER), ACME_GUARD.network)
        other = GuardEntry(ACME, read_mac(GLOBEX_MAC), read_address(FAR), ACME_GUARD.network)
        self.insert(ACME_GUARD, second, other)
        for packet in (ethernet() / ip(), ethernet() / ip(STRANGER), ethernet(GLOBEX_MAC) / ip(FAR, STRANGER)):
            self.check_punted(ACME, packet / udp(), PuntReason.MISS)
        self.check_dropped(ACME, [ethernet(GLOBEX_MAC) / ip(STRANGER) / udp()], SPOOFED)
