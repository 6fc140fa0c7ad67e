"""`connections`, action `drop`: what the agent has refused is dropped in the switch, and counted by its reason."""

from __future__ import annotations

from nvi.switch import ConnectionEntry, Drop, DropReason
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import ACME, ACME_GUARD, FROM_ACME, FROM_WIRE, STACK, WIRE, echo, key, tcp, udp


class EveryReason(PipelineTest):
    """A refused flow is counted at 32 x port + reason, for every reason that there is."""

    def runTest(self) -> None:
        self.insert(ACME_GUARD)
        for segment in (FROM_ACME, FROM_WIRE):
            for reason in DropReason:
                refused = udp((reason, 53))
                self.insert(ConnectionEntry(key(segment, refused), Drop(reason)))
                with self.subTest(port=segment.port, reason=reason.name):
                    self.check_dropped(segment.port, [segment.frame(refused)], reason)


class EveryProtocol(PipelineTest):
    """TCP and echoes are refused like UDP. The guard is not asked: the agent has been."""

    def runTest(self) -> None:
        for transport in (tcp(), echo(4711), echo(4711, request=False)):
            self.insert(ConnectionEntry(key(FROM_ACME, transport), Drop(DropReason.DENIED)))
            with self.subTest(transport=transport.summary()):
                self.check_dropped(ACME, [FROM_ACME.frame(transport)] * 3, DropReason.DENIED)


class ThatFlowOnly(PipelineTest):
    """The stack's packets with the same 5-tuple as a refused one pass."""

    def runTest(self) -> None:
        self.insert(ConnectionEntry(key(FROM_WIRE, udp()), Drop(DropReason.UNKNOWN)))
        self.check_dropped(WIRE, [FROM_WIRE.frame(udp())], DropReason.UNKNOWN)
        self.check_forwarded(STACK, FROM_WIRE.frame(udp()), WIRE, FROM_WIRE.frame(udp()))
        self.check_forwarded(WIRE, FROM_WIRE.frame(udp((40000, 54))), STACK, FROM_WIRE.frame(udp((40000, 54))))
