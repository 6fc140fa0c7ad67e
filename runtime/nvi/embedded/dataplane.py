"""What moves packets between ports and the engine; `service` needs no more of it than this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Process = Callable[[int, bytes], list[tuple[int, bytes]]]


class DataPlane(Protocol):
    """The packet side of a switch."""

    on_cpu_packet: Callable[[bytes], None]
    """Called, in the data plane's own thread, with every packet for the CPU port. It must not block."""

    def set_process(self, process: Process | None) -> None:
        """From now on packets go through this function; None drops them all."""

    def inject(self, packet: bytes) -> None:
        """Process a packet as if it had come in at the CPU port. May be called from any thread."""


class MemoryDataPlane:
    """A data plane without ports: whoever calls `inject` or `receive` runs the packet. For tests."""

    def __init__(self, cpu_port: int = 510) -> None:
        self.cpu_port = cpu_port
        self.on_cpu_packet: Callable[[bytes], None] = lambda _: None
        self.sent: list[tuple[int, bytes]] = []
        """(port, packet) of everything that left."""
        self._process: Process | None = None

    def set_process(self, process: Process | None) -> None:
        """See DataPlane."""
        self._process = process

    def inject(self, packet: bytes) -> None:
        """See DataPlane."""
        self.receive(self.cpu_port, packet)

    def receive(self, port: int, packet: bytes) -> None:
        """A packet comes in at a port."""
        if self._process is None:
            return
        for egress, data in self._process(port, packet):
            if egress == self.cpu_port:
                self.on_cpu_packet(data)
            else:
                self.sent.append((egress, data))
