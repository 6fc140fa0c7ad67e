"""Fragments that came before the first one of their datagram: held until that has passed, for a moment.

The switch learns from the first fragment of which flow the others are. They come too early if the network has changed
their order, and, much more often, while the first one waits for its connection.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ..packets import ETHERTYPE_IPV4, DatagramId, MalformedPacket, fragment_of
from .local import Local

PATIENCE = 0.1
"""Seconds for which a fragment is held if nothing is known of its first."""

LONG_PATIENCE = 3.0
"""Seconds for which it is held while the first one waits for its connection."""

PER_PORT = 128
"""Fragments that are held of what came in at one port."""

BYTES_PER_PORT = 128 * 1024
"""And how many bytes of them. Two whole datagrams of the largest size."""

_MORE_FRAGMENTS, _FRAGMENT_HEADER = 0x20, 44
"""What byte 20 of a frame with a first fragment has or is: flags of IPv4, next header of IPv6."""

Datagram = tuple[int, DatagramId]
"""(port, identity)"""


@dataclass(slots=True)
class _Held:
    """What is known of a datagram whose first fragment has not passed."""

    frames: list[bytes] = field(default_factory=list)
    first_waits: bool = False
    timer: asyncio.TimerHandle | None = None


class Fragments:
    """The fragments that one agent holds."""

    def __init__(self, local: Local) -> None:
        """Start with none."""
        self._local = local
        self._held: dict[Datagram, _Held] = {}
        self._at_port: dict[int, tuple[int, int]] = {}
        """(fragments and first ones awaited, bytes) by port."""

    def __len__(self) -> int:
        """Fragments held, and first ones awaited."""
        return sum(count for count, _ in self._at_port.values())

    def count(self, port: int) -> int:
        """The same of what came in at one port."""
        return self._at_port.get(port, (0, 0))[0]

    def hold(self, port: int, frame: bytes) -> None:
        """A later fragment has come whose first the switch does not know."""
        identity = self._identify(frame)
        if identity is None or identity[1] == 0:
            self._local.events["malformed"] += 1
            return
        held = self._room(port, identity[0], len(frame), PATIENCE)
        if held is not None:
            held.frames.append(frame)

    def first_waits(self, port: int, frame: bytes) -> None:
        """A packet waits for its connection; if it is a first fragment, the others of its datagram wait with it."""
        if (identity := self._first(frame)) is None:
            return
        held = self._held.get((port, identity))
        if held is not None and held.first_waits:
            return
        held = self._room(port, identity, 0, LONG_PATIENCE)
        if held is not None:
            held.first_waits = True

    def passed(self, port: int, frame: bytes) -> None:
        """A packet has been handed back to the switch; if it is a first fragment, the others follow it."""
        if (identity := self._first(frame)) is not None and (port, identity) in self._held:
            self._release(port, identity)

    def stop(self) -> None:
        """Forget all of them."""
        for held in self._held.values():
            assert held.timer is not None
            held.timer.cancel()
        self._held.clear()
        self._at_port.clear()

    def _room(self, port: int, identity: DatagramId, size: int, patience: float) -> _Held | None:
        """What is known of a datagram, with one more fragment counted; None if the port has too much already."""
        count, total = self._at_port.get(port, (0, 0))
        if count >= PER_PORT or total + size > BYTES_PER_PORT:
            self._local.events["overflow fragments"] += 1
            return None
        held = self._held.get((port, identity))
        if held is None:
            held = self._held[port, identity] = _Held()
            held.timer = asyncio.get_running_loop().call_later(PATIENCE, self._release, port, identity)
        if patience > PATIENCE and not held.first_waits:
            assert held.timer is not None
            held.timer.cancel()
            held.timer = asyncio.get_running_loop().call_later(patience, self._release, port, identity)
        self._at_port[port] = (count + 1, total + size)
        return held

    def _release(self, port: int, identity: DatagramId) -> None:
        """Hand back what is held of a datagram. What the switch still cannot place, it drops and counts."""
        held = self._held.pop((port, identity))
        assert held.timer is not None
        held.timer.cancel()
        count, total = self._at_port[port]
        count -= len(held.frames) + held.first_waits
        if count:
            self._at_port[port] = (count, total - sum(map(len, held.frames)))
        else:
            del self._at_port[port]
        for frame in held.frames:
            self._local.switch.reinject(port, frame)

    def _first(self, frame: bytes) -> DatagramId | None:
        """Of which datagram a frame is the first fragment; None if it is none. Quick for what is no fragment."""
        is_ipv4, hint = frame[12:14] == ETHERTYPE_IPV4, int.from_bytes(frame[20:21])
        if not (hint & _MORE_FRAGMENTS if is_ipv4 else hint == _FRAGMENT_HEADER):
            return None
        found = self._identify(frame)
        return found[0] if found is not None and found[1] == 0 else None

    @staticmethod
    def _identify(frame: bytes) -> tuple[DatagramId, int] | None:
        try:
            return fragment_of(frame)
        except MalformedPacket:
            return None
