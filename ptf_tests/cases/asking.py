"""`neighbours`: ARP requests are answered at the port, or handed to the agent; nothing of ARP leaves the switch."""

from __future__ import annotations

from nvi.switch import DropReason, GuardEntry, PuntReason
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import (
    ACME,
    ACME_GUARD,
    ACME_MAC,
    FAR,
    FAR_MAC,
    GLOBEX,
    GLOBEX_GUARD,
    GLOBEX_MAC,
    HOST_MAC,
    NEAR,
    OUR_HOST,
    STACK,
    STRANGER,
    WIRE,
    arp_answer,
    arp_request,
    neighbour,
)

GATEWAY, GATEWAY_MAC = "10.0.1.254", "02:00:00:00:01:fe"


class Answered(PipelineTest):
    """In the owner's name, to the one who has asked; the padding comes back."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, neighbour(FAR, FAR_MAC), neighbour(GATEWAY, GATEWAY_MAC))
        for _ in range(2):
            self.check_forwarded(ACME, arp_request(FAR), ACME, arp_answer(FAR_MAC, FAR))
        self.check_forwarded(ACME, arp_request(GATEWAY), ACME, arp_answer(GATEWAY_MAC, GATEWAY))


class AskedAgain(PipelineTest):
    """Requests to a MAC, with which a cache is refreshed (RFC 1122), any target MAC in them, without padding."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, neighbour(FAR, FAR_MAC))
        unicast = arp_request(FAR, hwdst=FAR_MAC)
        unicast.dst = FAR_MAC
        self.check_forwarded(ACME, unicast, ACME, arp_answer(FAR_MAC, FAR))
        short = bytes(arp_request(FAR))[:42]
        self.check_forwarded(ACME, short, ACME, bytes(arp_answer(FAR_MAC, FAR))[:42])


class NotKnownYet(PipelineTest):
    """A miss goes to the agent."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, neighbour(FAR, FAR_MAC))
        self.check_punted(ACME, arp_request(STRANGER), PuntReason.NEIGHBOUR)


class EachNetworkItsOwn(PipelineTest):
    """The same address has another owner, or none, in another network."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, GLOBEX_GUARD, neighbour(FAR, FAR_MAC), neighbour(GATEWAY, GATEWAY_MAC))
        self.insert(neighbour(GATEWAY, "02:00:00:00:02:fe", GLOBEX_GUARD.network))
        ours = {"mac": GLOBEX_MAC}
        self.check_punted(GLOBEX, arp_request(FAR, **ours), PuntReason.NEIGHBOUR)
        answer = arp_answer("02:00:00:00:02:fe", GATEWAY, asker_mac=GLOBEX_MAC)
        self.check_forwarded(GLOBEX, arp_request(GATEWAY, **ours), GLOBEX, answer)
        self.check_forwarded(ACME, arp_request(GATEWAY), ACME, arp_answer(GATEWAY_MAC, GATEWAY))


class OwnAnnouncement(PipelineTest):
    """Who asks for its own address announces it (RFC 5227), and is answered by silence, whatever `neighbours` holds."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD)
        self.check_dropped(ACME, [arp_request(NEAR)], DropReason.NEIGHBOUR_SELF)
        self.insert(neighbour(NEAR, ACME_MAC))
        self.check_dropped(ACME, [arp_request(NEAR)], DropReason.NEIGHBOUR_SELF)


class OwnProbe(PipelineTest):
    """A probe comes from 0.0.0.0. For the prober's own address there is silence, for another's its owner's MAC."""

    def runTest(self) -> None:
        probing = GuardEntry(ACME, ACME_GUARD.mac, bytes(4), ACME_GUARD.network)
        self.insert(probing, neighbour(NEAR, ACME_MAC), neighbour(FAR, FAR_MAC))
        self.check_dropped(ACME, [arp_request(NEAR, sender="0.0.0.0")], DropReason.NEIGHBOUR_SELF)
        answer = arp_answer(FAR_MAC, FAR, asker="0.0.0.0")
        self.check_forwarded(ACME, arp_request(FAR, sender="0.0.0.0"), ACME, answer)
        self.check_punted(ACME, arp_request(STRANGER, sender="0.0.0.0"), PuntReason.NEIGHBOUR)


class NotARequest(PipelineTest):
    """Replies, and ARP for anything but Ethernet and IPv4: dropped before anybody can learn from them."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, neighbour(FAR, FAR_MAC))
        others = [arp_request(FAR, **fields) for fields in ({"op": 2}, {"op": 0}, {"op": 3}, {"hwtype": 6})]
        others += [arp_request(FAR, ptype=0x86DD), *(with_length(place, 8) for place in (18, 19))]
        self.check_dropped(ACME, others, DropReason.UNSUPPORTED)


def with_length(place: int, length: int) -> bytes:
    """A request that says of its addresses that they have another length."""
    frame = bytearray(bytes(arp_request(FAR)))
    frame[place] = length
    return bytes(frame)


class CutShort(PipelineTest):
    """A request that ends before its last field."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD, neighbour(FAR, FAR_MAC))
        frame = bytes(arp_request(FAR))
        self.check_dropped(ACME, [frame[:length] for length in (15, 24, 41)], DropReason.MALFORMED)


class AtTheWire(PipelineTest):
    """The underlay's ARP is the host's own business, both ways, though `neighbours` knows the answer."""

    def runTest(self) -> None:
        self.insert(neighbour(FAR, FAR_MAC, 0))
        request = arp_request(FAR, OUR_HOST, HOST_MAC)
        self.check_forwarded(WIRE, request, STACK, request)
        self.check_forwarded(STACK, request, WIRE, request)
