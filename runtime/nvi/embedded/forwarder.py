"""The data plane's thread: frames from ports through the engine to ports."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable

import structlog

from .dataplane import Process
from .ports import InterfaceWatch, Port, PortError, PortPlan, interface_mtu

log = structlog.get_logger()

BATCH = 64
"""Frames taken from one port before the others have their turn."""
PASSES_BETWEEN_POLLS = 64
"""While there is traffic, so many rounds over the ports pass before other events are looked at."""
INJECT_QUEUE = 4096
"""Packets from the controller that wait before more are dropped."""


class Forwarder:
    """A DataPlane over Linux interfaces. `start` and `stop` are called once each."""

    def __init__(self, plan: PortPlan, cpu_port: int = 510) -> None:
        self.plan = plan
        self.cpu_port = cpu_port
        self.on_cpu_packet: Callable[[bytes], None] = lambda _: None
        self.ports: dict[int, Port] = {}
        self.no_such_port = 0
        """Packets sent to a port that does not exist."""
        self.failures = 0
        """Packets at which the program failed: a defect of this switch, see its log."""
        self.not_injected = 0
        """Packets from the controller that came faster than they could be processed."""
        self._process: Process = _drop
        self._injected: deque[bytes] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._watch = InterfaceWatch()
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._epoll.register(self._watch.socket, select.EPOLLIN)
        self._senders: dict[int, Callable[[bytes], object]] = {cpu_port: self._to_cpu}
        self._refused: dict[tuple[str, int], str] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="data plane", daemon=True)

    # ----------------------------------------------------------------------------------- from other threads

    def start(self) -> None:
        """Attach to the interfaces that are there, and run. Raises PortError if a fixed one cannot be used."""
        names = self._watch.names()
        for number, name in self.plan.fixed.items():
            if name in names:
                self._attach(Port(number, name, self.plan.ring_frames(number)))
            else:
                log.warning("waiting for an interface", port=number, interface=name)
        self._rescan()
        self._thread.start()

    def stop(self) -> None:
        """End the thread and give the interfaces back."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        if self._thread.is_alive():
            self._thread.join()
        for port in list(self.ports.values()):
            self._detach(port)
        self._epoll.close()
        self._watch.close()
        os.close(self._wake)

    def set_process(self, process: Process | None) -> None:
        """See DataPlane."""
        self._process = process or _drop

    def inject(self, packet: bytes) -> None:
        """See DataPlane."""
        if len(self._injected) >= INJECT_QUEUE:
            self.not_injected += 1
            return
        self._injected.append(packet)
        os.eventfd_write(self._wake, 1)

    # ------------------------------------------------------------------------------------------ its own thread

    def _run(self) -> None:
        passes = 0
        while not self._stopping:
            busy = False
            for port in tuple(self.ports.values()):
                if self._receive(port):
                    busy = True
            while self._injected:
                self._forward(self._process, self.cpu_port, self._injected.popleft())
                busy = True
            passes += 1
            if not busy or passes >= PASSES_BETWEEN_POLLS:
                passes = 0
                self._poll(0 if busy else None)

    def _receive(self, port: Port) -> bool:
        """Process what has come in at a port; whether there was anything."""
        process, number = self._process, port.number
        frame = None
        for frame in port.frames(BATCH):
            self._forward(process, number, frame)
        return frame is not None

    def _forward(self, process: Process, number: int, frame: bytes) -> None:
        egress = -1
        try:
            for egress, packet in process(number, frame):
                self._senders[egress](packet)
        except OSError:
            self.ports[egress].counters.send_errors += 1
        except Exception as error:
            if egress >= 0 and egress not in self._senders:
                self.no_such_port += 1
                return
            # A defect in this switch. The packet is lost; the switch goes on.
            self.failures += 1
            if self.failures == 1:
                log.error("the program failed at a packet; more failures are only counted", port=number, exc_info=error)

    def _to_cpu(self, packet: bytes) -> None:
        self.on_cpu_packet(packet)

    def _poll(self, timeout: float | None) -> None:
        for descriptor, event in self._epoll.poll(timeout):
            if descriptor == self._wake:
                os.eventfd_read(self._wake)
            elif descriptor == self._watch.socket.fileno():
                self._watch.drain()
                self._rescan()
            elif event & (select.EPOLLERR | select.EPOLLHUP):
                self._clear_error(descriptor)

    def _clear_error(self, descriptor: int) -> None:
        """An interface went down or away. Its socket says so once; the watch does the rest."""
        for port in self.ports.values():
            if port.socket.fileno() == descriptor:
                port.clear_error()

    # ---------------------------------------------------------------------------------------------- ports

    def _rescan(self) -> None:
        """Make the ports those that the plan wants of the interfaces that are there."""
        names = self._watch.names()
        wanted = self.plan.wanted(list(names))
        for port in list(self.ports.values()):
            if wanted.get(port.number) != port.name or names.get(port.name) != port.index or self._outgrown(port):
                self._detach(port)
        for number, name in wanted.items():
            if number in self.ports:
                continue
            try:
                self._attach(Port(number, name, self.plan.ring_frames(number)))
            except PortError as error:
                # It may have gone again already; if not, say so once and not at every change of another interface.
                if self._refused.get((name, names[name])) != str(error):
                    self._refused[name, names[name]] = str(error)
                    log.warning("a port is left out", reason=str(error))

    @staticmethod
    def _outgrown(port: Port) -> bool:
        """The MTU has become larger than the ring's frames."""
        try:
            return interface_mtu(port.socket, port.name) > port.mtu
        except OSError:
            return True

    def _attach(self, port: Port) -> None:
        self.ports[port.number] = port
        self._senders[port.number] = port.send
        self._epoll.register(port.socket, select.EPOLLIN)
        log.info("port attached", port=port.number, interface=port.name)

    def _detach(self, port: Port) -> None:
        del self.ports[port.number]
        del self._senders[port.number]
        self._epoll.unregister(port.socket)
        port.close()
        log.info("port detached", port=port.number, interface=port.name)


def _drop(port: int, packet: bytes) -> list[tuple[int, bytes]]:
    """What the switch does before it has a program."""
    del port, packet
    return []
