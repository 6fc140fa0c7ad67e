"""Sees every packet that leaves a switch, and says whether that may be.

The packets carry serial numbers, so whatever comes out of a switch, anywhere, is known to be of what was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from nvi.keys import KEY_FIRST, KEY_LAST
from nvi.model import Endpoint
from nvi.simulation import ROUTER_MAC, external_mac, host_mac
from nvi.switch import PORT_EXTERNAL, PORT_FIRST_ENDPOINT, PORT_UNDERLAY

from . import wire
from .model import Broken, Invariant, Model, expect

TENANTS, CONTENT, SEGMENTS, POLICY = Invariant.TENANTS, Invariant.CONTENT, Invariant.SEGMENTS, Invariant.POLICY


@dataclass(slots=True)
class Sent:
    """A packet that somebody sent."""

    sender: Endpoint
    frame: bytes
    arrived: bool = False
    refused: bool = False
    """Whether its sender was told that it could not arrive."""
    swallowed: bool = False
    """Whether a fault has taken it from the wire."""
    waiter: asyncio.Future[bool] | None = None


class Witness:
    """Knows all that was sent, and what has become of it."""

    def __init__(self, model: Model, clock: Callable[[], float]) -> None:
        """`clock`: seconds."""
        self.sent: dict[int, Sent] = {}
        self.broken: list[Broken] = []
        self.on_broken: Callable[[], None] = lambda: None
        self.on_note: Callable[[str], None] | None = None
        """Called with a line about everything that happens."""
        self._model = model
        self._clock = clock
        self._trace = blake2b(digest_size=16)

    @property
    def digest(self) -> str:
        """Of all that has happened, and when."""
        return self._trace.hexdigest()

    def note(self, *what: object) -> None:
        """Something has happened."""
        line = f"{self._clock():.6f} {' '.join(map(str, what))}"
        self._trace.update(line.encode())
        if self.on_note is not None:
            self.on_note(line)

    def complain(self, broken: Broken) -> None:
        """An invariant does not hold."""
        self.broken.append(broken)
        self.on_broken()

    def send(self, sender: Endpoint, frame: bytes) -> int:
        """A packet is about to be sent, with the serial number `next_serial`. Returns that."""
        serial = self.next_serial
        self.sent[serial] = Sent(sender, frame)
        return serial

    @property
    def next_serial(self) -> int:
        """The number that the next packet is to carry."""
        return len(self.sent) + 1

    async def arrival(self, serial: int, seconds: float) -> bool:
        """Whether a packet arrives in time."""
        sent = self.sent[serial]
        if not sent.arrived:
            loop = asyncio.get_running_loop()
            sent.waiter = loop.create_future()
            timer = loop.call_later(seconds, _set, sent.waiter, False)
            await sent.waiter
            timer.cancel()
            sent.waiter = None
        return sent.arrived

    def swallow(self, packet: bytes) -> None:
        """A fault takes a packet from the wire."""
        serial = wire.serial_of(packet)
        if serial is not None:
            self.sent[serial].swallowed = True

    def see(self, host: str, port: int, packet: bytes) -> None:
        """A packet leaves a switch."""
        self._trace.update(f"{self._clock():.6f} {host} {port} ".encode() + packet)
        if self.on_note is not None:
            self.on_note(f"{self._clock():.6f} {host} port {port}: {wire.show(packet)}")
        self._model.now = self._clock()
        try:
            if port in (PORT_UNDERLAY, PORT_EXTERNAL):
                self._check_wire(host, port, packet)
            elif (receiver := self._model.placed.get((host, port))) is not None:
                self._check_arrival(receiver, packet)
            else:
                # Identifiers of echoes cannot be kept for NVI as ports are, and some protocols have none: what nobody
                # knows of these is the host's own.
                known = port >= PORT_FIRST_ENDPOINT or packet[23] in (wire.ICMP, wire.PORTLESS)
                expect(known, CONTENT, "it came out at a port of the host's own")
        except Broken as broken:
            at = f"[{self._clock():.3f} {host} port {port}: {packet.hex()}]"
            self.complain(Broken(broken.invariant, f"{broken.text} {at}"))

    def _check_wire(self, host: str, port: int, packet: bytes) -> None:
        serial = wire.serial_of(packet)
        expect(serial in self.sent, CONTENT, "nobody sent that")
        assert serial is not None
        sent, here, outside = self.sent[serial], self._model.host[host], port == PORT_EXTERNAL
        peer = self._model.host_at(host, packet[30:34], outside)
        if peer is None or peer == host:
            raise Broken(SEGMENTS, "its destination is no other host's address")
        if outside:
            ours = [here.external.address] if here.external is not None else []
            macs = ROUTER_MAC + external_mac(host)
        else:
            ours, macs = [*here.addresses, *here.pool], host_mac(peer) + host_mac(host)
        expect(packet[26:30] in ours, SEGMENTS, "its source is not this host's address")
        expect(packet[:12] == macs, SEGMENTS, "the MACs are not the segment's")
        if not wire.is_later_fragment(packet):
            keys = wire.keys_of(packet)
            expect(all(KEY_FIRST <= key <= KEY_LAST for key in keys), SEGMENTS, f"its ports {keys} are no keys")
        expect(packet[22] == 64, SEGMENTS, "the TTL is not the segment's")
        check_carried(packet, sent.frame)

    def _check_arrival(self, receiver: Endpoint, packet: bytes) -> None:
        serial = wire.serial_of(packet)
        if serial is None and packet[23] == wire.TCP and packet[47] & wire.RST:
            return  # a segment that the policy forbids is answered so
        expect(serial in self.sent, CONTENT, "nobody sent that")
        assert serial is not None
        sent, name = self.sent[serial], receiver.name
        expect(sent.sender.tenant == receiver.tenant, TENANTS, f"{name} got a packet of {sent.sender.name}")
        if packet[23] == wire.ICMP and packet[34] in (wire.DESTINATION_UNREACHABLE, wire.TIME_EXCEEDED):
            expect(sent.sender.name == name, CONTENT, f"{name} was told of a packet of {sent.sender.name}")
            expect(packet[42:] == sent.frame[14:][: len(packet) - 42], CONTENT, "the quotation is not what was sent")
            sent.refused = True
            return
        expect(receiver.address == sent.frame[30:34], CONTENT, "it was sent to another address")
        expect(self._model.lately_allowed(sent.sender, receiver), POLICY, f"{sent.sender.name} to {name}")
        tenant = self._model.tenants[receiver.tenant]
        routed = receiver.network != sent.sender.network
        check_arrived(packet, sent.frame, receiver.mac, tenant.gateway_mac(receiver.network) if routed else None)
        expect(not sent.arrived, CONTENT, "it came twice")
        sent.arrived = True
        if sent.waiter is not None:
            _set(sent.waiter, True)


def check_carried(packet: bytes, was: bytes) -> None:
    """A packet on a segment, as far as it does not depend on which segment that is."""
    expect(len(packet) == len(was), SEGMENTS, "its length is not that of the overlay packet")
    expect(wire.invariant_part(packet) == wire.invariant_part(was), CONTENT, "on a segment it is not what was sent")
    expect(wire.checksum_errors(packet) == wire.checksum_errors(was), CONTENT, "checksums on a segment")


def check_arrived(packet: bytes, was: bytes, mac: bytes, router: bytes | None) -> None:
    """A packet that arrives at an endpoint with this MAC. `router`: the MAC of the router between; None if none is."""
    shown = was[6:12] if router is None else router
    expect(packet[:14] == mac + shown + was[12:14], CONTENT, "MACs")
    expect((wire.head(packet), packet[26:34]) == (wire.head(was), was[26:34]), CONTENT, "IP header")
    expect(packet[22] == was[22] - (router is not None), CONTENT, "TTL")
    expect(wire.checksum_errors(packet) == wire.checksum_errors(was), CONTENT, "checksums")
    expect(packet[34:] == was[34:], CONTENT, "it is not what was sent")


def _set(waiter: asyncio.Future[bool], arrived: bool) -> None:
    if not waiter.done():
        waiter.set_result(arrived)
