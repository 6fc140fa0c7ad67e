"""Neighbour discovery (RFC 4861): solicitations answered at the port, the rest of it nobody's who is an endpoint."""

from __future__ import annotations

from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.packet import Packet, Raw

from nvi.model import read_address, read_mac
from nvi.switch import DropReason, GuardEntry, NeighbourEntry, PuntReason
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import (
    ACME,
    ACME_GUARD6,
    ACME_MAC,
    ACME_NETWORK,
    FAR6,
    FAR_MAC,
    FROM_WIRE6,
    GLOBEX_MAC,
    NEAR6,
    STACK,
    STRANGER6,
    WIRE,
    ethernet,
    ip6,
    neighbour,
)

GATEWAY6, GATEWAY_MAC = "fd00:1::fe", "02:00:00:00:01:fe"
LINK_LOCAL = "fe80::1"
PROBING = GuardEntry(ACME, read_mac(ACME_MAC), bytes(16), ACME_NETWORK)


def solicitation(
    target: str, source: str = NEAR6, options: Packet | None = None, hlim: int = 255, **fields: object
) -> Packet:
    """A neighbour solicitation as an endpoint sends it, with its link-layer address unless it probes."""
    if options is None and source != "::":
        options = ICMPv6NDOptSrcLLAddr(lladdr=ACME_MAC)
    header = IPv6(src=source, dst=f"ff02::1:ff00:{target[-1]}", hlim=hlim)
    asked = ICMPv6ND_NS(tgt=target, **fields)
    return ethernet(destination="33:33:ff:00:00:01") / header / (asked if options is None else asked / options)


def advertisement(target: str, mac: str, to: str = NEAR6, to_mac: str = ACME_MAC, router: int = 0) -> Packet:
    """What the switch answers."""
    flags = {"R": router, "S": int(to != "ff02::1"), "O": 1}
    answer = ICMPv6ND_NA(tgt=target, **flags) / ICMPv6NDOptDstLLAddr(lladdr=mac)
    return ethernet(mac, to_mac) / IPv6(src=target, dst=to, hlim=255) / answer


class Answered(PipelineTest):
    """In the owner's name; that of the gateway says that it is a router, or hosts would forget it as one."""

    def runTest(self) -> None:
        gateway = NeighbourEntry(ACME_NETWORK, read_address(GATEWAY6), read_mac(GATEWAY_MAC), router=True)
        self.insert(ACME_GUARD6, neighbour(FAR6, FAR_MAC), gateway)
        for _ in range(2):
            self.check_forwarded(ACME, solicitation(FAR6), ACME, advertisement(FAR6, FAR_MAC))
        expected = advertisement(GATEWAY6, GATEWAY_MAC, router=1)
        self.check_forwarded(ACME, solicitation(GATEWAY6), ACME, expected)


class AskedAgain(PipelineTest):
    """To an address, without an option, as a cache is refreshed (section 7.3)."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD6, neighbour(FAR6, FAR_MAC))
        unicast = ethernet() / IPv6(src=NEAR6, dst=FAR6, hlim=255) / ICMPv6ND_NS(tgt=FAR6)
        self.check_forwarded(ACME, unicast, ACME, advertisement(FAR6, FAR_MAC))


class FromALinkLocalAddress(PipelineTest):
    """A second address of the endpoint's, which `guard` admits."""

    def runTest(self) -> None:
        own = GuardEntry(ACME, read_mac(ACME_MAC), read_address(LINK_LOCAL), ACME_NETWORK)
        self.insert(own, neighbour(FAR6, FAR_MAC))
        self.check_forwarded(ACME, solicitation(FAR6, LINK_LOCAL), ACME, advertisement(FAR6, FAR_MAC, LINK_LOCAL))
        self.check_dropped(ACME, [solicitation(FAR6)], DropReason.SPOOFED)


class NotKnownYet(PipelineTest):
    """A miss goes to the agent, and so does what has further options."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD6, PROBING, neighbour(FAR6, FAR_MAC))
        self.check_punted(ACME, solicitation(STRANGER6), PuntReason.NEIGHBOUR)
        self.check_punted(ACME, solicitation(STRANGER6, "::"), PuntReason.NEIGHBOUR)
        options = ICMPv6NDOptSrcLLAddr(lladdr=ACME_MAC) / ICMPv6NDOptMTU()
        self.check_punted(ACME, solicitation(FAR6, options=options), PuntReason.NEIGHBOUR)


class OwnAddress(PipelineTest):
    """Duplicate address detection (RFC 4862) of its own address is met with silence, of another's with its owner."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD6, PROBING, neighbour(NEAR6, ACME_MAC), neighbour(FAR6, FAR_MAC))
        own = [solicitation(NEAR6, "::"), solicitation(NEAR6, "::", Raw(b"\x0e\x01nonce!")), solicitation(NEAR6)]
        self.check_dropped(ACME, own, DropReason.NEIGHBOUR_SELF)
        all_nodes = advertisement(FAR6, FAR_MAC, "ff02::1", "33:33:00:00:00:01")
        self.check_forwarded(ACME, solicitation(FAR6, "::"), ACME, all_nodes)
        self.check_forwarded(ACME, solicitation(FAR6, "::", Raw(b"\x0e\x01nonce!")), ACME, all_nodes)


class Lies(PipelineTest):
    """With another's link-layer address; from beyond a router; for a group; with a wrong checksum."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD6, neighbour(FAR6, FAR_MAC))
        other = ICMPv6NDOptSrcLLAddr(lladdr=GLOBEX_MAC)
        self.check_dropped(ACME, [solicitation(FAR6, options=other)], DropReason.SPOOFED)
        self.check_dropped(ACME, [solicitation(FAR6, hlim=254), solicitation("ff02::1")], DropReason.NEIGHBOUR)
        plain = ethernet() / IPv6(src=NEAR6, dst=FAR6, hlim=255) / ICMPv6ND_NS(tgt=FAR6, cksum=0xDEAD)
        self.check_dropped(ACME, [solicitation(FAR6, cksum=0xDEAD), plain], DropReason.MALFORMED)


class NotForEndpoints(PipelineTest):
    """Advertisements, of routers and neighbours, and redirects: dropped before anybody can learn from them."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD6)
        messages = [ICMPv6ND_RA(), ICMPv6ND_NA(tgt=FAR6), ICMPv6ND_NA(tgt=NEAR6), ICMPv6ND_Redirect(tgt=FAR6)]
        frames = [ethernet() / ip6(hlim=255) / message for message in messages]
        self.check_dropped(ACME, frames, DropReason.NEIGHBOUR)


class RouterSolicitation(PipelineTest):
    """Is the agent's to answer, also from an endpoint that has no address yet."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD6, PROBING)
        for source in (NEAR6, "::"):
            header = IPv6(src=source, dst="ff02::2", hlim=255)
            frame = ethernet(destination="33:33:00:00:00:02") / header / ICMPv6ND_RS()
            self.check_punted(ACME, frame, PuntReason.LOCAL)


class AtTheWire(PipelineTest):
    """The underlay's neighbour discovery is the host's own business, both ways."""

    def runTest(self) -> None:
        self.insert(neighbour(FROM_WIRE6.destination, FAR_MAC, 0))
        header = IPv6(src=FROM_WIRE6.source, dst=FROM_WIRE6.destination, hlim=255)
        for message in (ICMPv6ND_NS(tgt=FROM_WIRE6.destination), ICMPv6ND_NA(tgt=FROM_WIRE6.source), ICMPv6ND_RA()):
            frame = ethernet() / header / message
            self.check_forwarded(WIRE, frame, STACK, frame)
            self.check_forwarded(STACK, frame, WIRE, frame)
