"""Tells endpoints why their packets do not get through: as a router or a firewall would, and no more often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..model import Address, Mac, Protocol
from ..packets import (
    ETHERTYPE_IPV6,
    MalformedPacket,
    Unreachable,
    destination_unreachable,
    may_be_answered,
    parse,
    reset,
    time_exceeded,
    too_big,
)
from .connections import Attachment
from .local import Local

ERROR_RATE = 100
"""ICMP errors and resets per second that one endpoint is sent (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4f)."""

ERROR_BURST = 200
"""How many of them may come at once."""


class Allowance:
    """A token bucket. No I/O; time is a parameter."""

    def __init__(self, rate: float, burst: float) -> None:
        """`rate`: per second; `burst`: at once."""
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Whether one more is allowed. `now`: seconds, monotonic."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Explainer:
    """Answers endpoints' packets in the name of their networks' routers."""

    def __init__(self, local: Local) -> None:
        """Start with a full allowance for everybody."""
        self._local = local
        self._allowances: dict[int, Allowance] = {}

    def unreachable(self, near: Attachment, frame: bytes, code: Unreachable) -> None:
        """The packet goes no further."""
        self._explain(near, frame, lambda router, mac: destination_unreachable(frame, code, router, mac))

    def time_exceeded(self, near: Attachment, frame: bytes) -> None:
        """Its TTL ends at the router."""
        self._explain(near, frame, lambda router, mac: time_exceeded(frame, router, mac))

    def too_big(self, near: Attachment, frame: bytes, mtu: int) -> None:
        """It must not be fragmented, and is longer than `mtu` bytes."""
        self._explain(near, frame, lambda router, mac: too_big(frame, mtu, router, mac), too_big=True)

    def denied(self, near: Attachment, frame: bytes) -> None:
        """The policy forbids it.

        A TCP connection that exists is reset: an ICMP error would not end it (RFC 1122 section 4.2.3.9).
        """
        try:
            packet = parse(frame)
            is_open = packet.flow.protocol == Protocol.TCP and not packet.opens
        except MalformedPacket:
            is_open = False
        if is_open:
            self.reset(near, frame)
        else:
            self.unreachable(near, frame, Unreachable.ADMINISTRATIVELY_PROHIBITED)

    def reset(self, near: Attachment, frame: bytes) -> None:
        """The TCP connection of the segment in the frame is not."""
        answer = reset(frame)
        if answer is not None and self._allowed(near):
            self._local.switch.send(near.port, answer)

    def forget(self, port: int) -> None:
        """The endpoint at this port is gone."""
        self._allowances.pop(port, None)

    def _explain(
        self, near: Attachment, frame: bytes, build: Callable[[Address, Mac], bytes], *, too_big: bool = False
    ) -> None:
        local = self._local
        router = local.router_of(near.endpoint, frame[12:14] == ETHERTYPE_IPV6)
        if router is None or not may_be_answered(frame, too_big=too_big):
            local.events["errors not to be sent"] += 1
        elif self._allowed(near):
            local.switch.send(near.port, build(*router))

    def _allowed(self, near: Attachment) -> bool:
        allowance = self._allowances.setdefault(near.port, Allowance(ERROR_RATE, ERROR_BURST))
        if allowance.take(asyncio.get_running_loop().time()):
            return True
        self._local.events["errors over the limit"] += 1
        return False
