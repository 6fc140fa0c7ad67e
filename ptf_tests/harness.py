"""The verbs in which the cases are written.

Every packet has exactly one outcome: it leaves by one port, or is punted, or is dropped and counted, or (rarely) is
dropped silently. Each verb sends packets, waits for the outcome that it names, and compares all bytes. What nobody has
named, a packet, a punt or a drop, is a failure of its test.
"""

from __future__ import annotations

import atexit
import time
from collections import Counter
from collections.abc import Iterable
from functools import cache
from queue import Empty

import ptf
from ptf.base_tests import BaseTest
from ptf.testutils import dp_poll, send_packet, test_param_get
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from nvi.switch import DropReason, Entry, Punt, PuntReason

from .client import Client

PATIENCE = 3.0
"""Seconds for a packet to come out. On an idle machine it takes a millisecond."""
QUIET = 0.1
"""Seconds without anything, after which nothing more is expected to come."""
REASONS = 32
"""Cells of the counter `drops` for each port."""


@cache
def client() -> Client:
    """The controller of all tests of this process."""
    connected = Client(test_param_get("p4runtime"))
    atexit.register(connected.close)
    return connected


class PipelineTest(BaseTest):
    """One statement about the pipeline. Leaves the switch as it was found: with empty tables and no limits."""

    def setUp(self) -> None:
        super().setUp()
        self.dataplane = ptf.dataplane_instance
        self.dataplane.flush()
        self.switch = client()
        while not self.switch.punts.empty():
            self.switch.punts.get()
        self._dropped = Counter(self.switch.drops())

    def tearDown(self) -> None:
        """Fails the test if anything has happened that it did not name."""
        self.assert_quiet()
        self.assertEqual(self.switch.drops(), self._dropped, "counter drops, by 32 x port + reason")
        super().tearDown()

    # Tables.

    def insert(self, *entries: Entry) -> None:
        """Add entries, for the duration of this test."""
        self.switch.insert(entries)
        self.addCleanup(self.switch.delete, entries)

    def limit_punts(self, port: int, rate: int, burst: int) -> None:
        """Set the meter of a port, for the duration of this test."""
        self.switch.limit_punts(port, rate, burst)
        self.addCleanup(self.switch.unlimit_punts, port)

    # Packets in.

    def send(self, port: int, packet: Packet | bytes) -> None:
        """A packet arrives at a port."""
        send_packet(self, port, packet)

    # Packets out.

    def expect(self, port: int, packet: Packet | bytes) -> None:
        """The next packet that comes out of the switch is this one, by this port."""
        result = dp_poll(self, timeout=PATIENCE)
        if not isinstance(result, self.dataplane.PollSuccess):
            self.fail(f"nothing came out; expected at port {port}:\n{describe(packet)}")
        # PTF's own comparison ignores what follows a packet of less than 60 bytes.
        if (result.port, result.packet) != (port, bytes(packet)):
            expected = f"expected at port {port}:\n{describe(packet)}"
            self.fail(f"came out of port {result.port}:\n{describe(result.packet)}\n{expected}")

    def take(self, port: int) -> bytes:
        """The next packet that comes out of the switch, which must be by this port."""
        result = dp_poll(self, timeout=PATIENCE)
        if not isinstance(result, self.dataplane.PollSuccess):
            self.fail(f"nothing came out; expected something at port {port}")
        self.assertEqual(result.port, port, describe(result.packet))
        return bytes(result.packet)

    def expect_punt(self, port: int, reason: PuntReason, packet: Packet | bytes) -> None:
        """The next punt is of this packet, unchanged."""
        try:
            punt = self.switch.punts.get(timeout=PATIENCE)
        except Empty:
            self.fail(f"no punt; expected {reason.name} of port {port}:\n{describe(packet)}")
        self.assertEqual(punt, Punt(port, reason, bytes(packet)))

    def expect_drop(self, port: int, reason: DropReason, packets: int = 1) -> None:
        """So many packets of this port are dropped for this reason."""
        index = REASONS * port + reason
        self._dropped[index] += packets
        deadline = time.monotonic() + PATIENCE
        while (count := self.switch.drops(index).get(index, 0)) < self._dropped[index]:
            if time.monotonic() > deadline:
                self.fail(f"not counted at port {port} as {reason.name}: {self._dropped[index] - count} of {packets}")
            time.sleep(0.002)

    def assert_quiet(self) -> None:
        """Nothing more comes out, and nothing is punted."""
        result = dp_poll(self, timeout=QUIET)
        if isinstance(result, self.dataplane.PollSuccess):
            self.fail(f"nobody expected this at port {result.port}:\n{describe(result.packet)}")
        if not self.switch.punts.empty():
            self.fail(f"nobody expected this punt: {self.switch.punts.get()}")

    # All in one.

    def check_forwarded(self, port: int, packet: Packet | bytes, to: int, expected: Packet | bytes) -> None:
        """A packet that comes in at `port` goes out by the port `to` as `expected`."""
        self.send(port, packet)
        self.expect(to, expected)

    def check_punted(self, port: int, packet: Packet | bytes, reason: PuntReason) -> None:
        """A packet that comes in at `port` is punted."""
        self.send(port, packet)
        self.expect_punt(port, reason, packet)

    def check_dropped(self, port: int, packets: Iterable[Packet | bytes], reason: DropReason) -> None:
        """Packets that come in at `port` are dropped and counted, one by one."""
        for packet in packets:
            with self.subTest(packet=bytes(packet).hex(" ")):
                self.send(port, packet)
                self.expect_drop(port, reason)


def describe(packet: Packet | bytes) -> str:
    """A packet for people: what scapy makes of it, and its bytes."""
    raw = bytes(packet)
    return f"  {Ether(raw).summary()}\n  {raw.hex(' ')}" if len(raw) >= 14 else f"  {raw.hex(' ')}"
