"""What the switch knows of an entry's use: its direct counter, its age, and the notification that it is idle."""

from __future__ import annotations

import time
from queue import Empty

from nvi.p4rt.codec import nvi_codec
from ptf_tests.harness import PipelineTest
from ptf_tests.packets import ACME, ACME_GUARD, FROM_ACME, TO_WIRE, WIRE, echo, join, tcp, udp

OUT = (20001, 32001)
NOTIFIED_WITHIN = 6.0
"""Seconds. BMv2 looks once a second, and tells the second time after two more."""


class Counter(PipelineTest):
    """Packets, and bytes of whole frames, of this entry and no other; a miss counts nowhere."""

    def runTest(self) -> None:
        entries = [join(FROM_ACME, one, TO_WIRE, other) for one, other in ((udp(), udp(OUT)), (tcp(), tcp(OUT)))]
        self.insert(*entries)
        sent = {entry.key: [0, 0] for entry in entries}
        for entry, make, lengths in zip(entries, (udp, tcp), ((0, 1, 1400), (7,)), strict=True):
            ends = (make().sport, make().dport)
            for length in lengths:
                before = FROM_ACME.frame(make(ends, bytes(length)))
                self.check_forwarded(ACME, before, WIRE, TO_WIRE.frame(make(OUT, bytes(length))))
                sent[entry.key][0] += 1
                sent[entry.key][1] += len(before)
        usage = self.switch.usage([entry.key for entry in entries])
        self.assertEqual({key: [read.packets, read.bytes] for key, read in usage.items()}, sent)


class CounterOfANewEntry(PipelineTest):
    """Begins at zero, also where an entry with that key has been before; modifying keeps it."""

    def runTest(self) -> None:
        entry = join(FROM_ACME, udp(), TO_WIRE, udp(OUT))
        for _ in range(2):
            self.switch.insert([entry])
            self.check_forwarded(ACME, FROM_ACME.frame(udp()), WIRE, TO_WIRE.frame(udp(OUT)))
            self.assertEqual(self.switch.usage([entry.key])[entry.key].packets, 1)
            self.switch.modify([entry])
            self.assertEqual(self.switch.usage([entry.key])[entry.key].packets, 1)
            self.switch.delete([entry])
            self.assertEqual(self.switch.usage([entry.key]), {})


class TimeSinceLastHit(PipelineTest):
    """Grows while nothing hits the entry, and starts anew with a packet."""

    def runTest(self) -> None:
        entry = join(FROM_ACME, echo(1), TO_WIRE, echo(20000), idle_timeout=30.0)
        self.insert(ACME_GUARD, entry)

        def idle() -> float:
            return self.switch.usage([entry.key])[entry.key].idle

        inserted = time.monotonic()
        time.sleep(0.5)
        before = idle()
        self.assertGreaterEqual(before, 0.49)
        self.assertLessEqual(before, time.monotonic() - inserted + 0.1)
        hit = time.monotonic()
        self.check_forwarded(ACME, FROM_ACME.frame(echo(1)), WIRE, TO_WIRE.frame(echo(20000)))
        self.assertLessEqual(idle(), time.monotonic() - hit + 0.01)
        self.assertLess(idle(), before)


class IdleNotification(PipelineTest):
    """Sent when an entry has not been hit for its timeout; not for one without, and not while packets come."""

    def runTest(self) -> None:
        idle, busy, eternal = (
            join(FROM_ACME, udp((port, 53)), TO_WIRE, udp((20000 + port, 32001)), timeout)
            for port, timeout in ((1, 1.0), (2, 2.0), (3, 0.0))
        )
        self.insert(idle, busy, eternal)
        deadline = time.monotonic() + NOTIFIED_WITHIN
        told = []
        while not told or time.monotonic() < deadline - NOTIFIED_WITHIN / 2:
            self.assertLess(time.monotonic(), deadline, "no notification")
            self.check_forwarded(ACME, FROM_ACME.frame(udp((2, 53))), WIRE, TO_WIRE.frame(udp((20002, 32001))))
            try:
                told.append(self.switch.idle.get(timeout=0.1))
            except Empty:
                continue
        for entry in told:
            key, _ = nvi_codec().decode_usage(entry)
            self.assertEqual(key, idle.key)
            self.assertEqual(entry.idle_timeout_ns, 1_000_000_000)
