"""Ports of the switch as Linux network interfaces.

Frames come in through a ring that the kernel fills and this process maps (PACKET_MMAP, TPACKET_V2): measured here,
0.45 us for a frame against 0.95 us with `recv`, and no system call at which the interpreter lock changes hands.
They go out by `send`: a ring for sending gained a tenth at best (1.7 against 1.8 us for 1500 bytes) and would delay
every frame until a batch is full. Constants: linux/if_packet.h. See packet(7) and the kernel's packet_mmap.rst.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_RX_RING = 5
PACKET_STATISTICS = 6
PACKET_VERSION = 10
PACKET_IGNORE_OUTGOING = 23
PACKET_MR_PROMISC = 1
TPACKET_V2 = 1
TP_STATUS_USER = 1 << 0
TP_STATUS_CSUMNOTREADY = 1 << 3
TP_STATUS_VLAN_VALID = 1 << 4
TP_STATUS_VLAN_TPID_VALID = 1 << 6
ETH_P_ALL = 3
SIOCGIFMTU = 0x8921
NETLINK_ROUTE = 0
RTMGRP_LINK = 1

RING_FRAMES = 512
"""Frames that wait for the switch, per port, before the kernel drops more: 1 MB at an MTU of 1500."""
TRUNK_RING_FRAMES = 2048
"""The same for ports that carry the traffic of all endpoints. The memory is the kernel's and cannot be swapped."""
RING_HEADROOM = 128
"""What the kernel puts before a frame in the ring: tpacket2_hdr and sockaddr_ll, 66 to 82 bytes."""
LINK_HEADER = 14 + 8
"""Ethernet with two VLAN tags."""


class PortError(Exception):
    """A port cannot be used. The text names the interface and the reason."""


@dataclass(slots=True)
class PortCounters:
    """What the kernel's own interface counters do not tell."""

    truncated: int = 0
    """Frames that came in larger than the MTU allows (segmentation offload on the other end is on)."""
    unfinished: int = 0
    """Frames whose transport checksum the sender left to its hardware (checksum offload is on)."""
    send_errors: int = 0
    """Frames that could not be sent: too large for the MTU, queue full, interface down."""


class Port:
    """An interface that belongs to the switch."""

    def __init__(self, number: int, name: str, ring_frames: int = RING_FRAMES) -> None:
        """Attach to an interface: see everything that comes in, nothing that goes out. Raises PortError."""
        self.number = number
        self.name = name
        self._ring_frames = ring_frames
        self.counters = PortCounters()
        try:
            self.index = socket.if_nametoindex(name)
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except OSError as error:
            raise PortError(f"port {number}, interface {name}: {error.strerror or error}") from error
        try:
            self.mtu = interface_mtu(self.socket, name)
            self._map()
            membership = struct.pack("iHH8s", self.index, PACKET_MR_PROMISC, 0, b"")
            self.socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)
            self.socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            self.socket.setblocking(False)
            self.socket.bind((name, ETH_P_ALL))
        except OSError as error:
            self.socket.close()
            raise PortError(f"port {number}, interface {name}: {error.strerror or error}") from error
        self.send: Callable[[bytes], int] = self.socket.send
        """Send a frame. Raises OSError."""

    def _map(self) -> None:
        # Frames must divide blocks, and blocks must be pages: powers of two are both.
        self._frame_size = 2048
        while self._frame_size < self.mtu + LINK_HEADER + RING_HEADROOM:
            self._frame_size *= 2
        block_size = max(self._frame_size, 1 << 16)
        size = self._frame_size * self._ring_frames
        request = struct.pack("IIII", block_size, size // block_size, self._frame_size, self._ring_frames)
        self.socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        self.socket.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
        self._ring = mmap.mmap(self.socket.fileno(), size)
        self._words = memoryview(self._ring).cast("I")
        self._next = 0

    def clear_error(self) -> None:
        """Take the error that an interface leaves on its socket when it goes down."""
        self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def frames(self, limit: int) -> Iterator[bytes]:
        """Frames that have come in, at most so many. Each is complete, with its VLAN tag if it has one."""
        words, ring, size, end = self._words, self._ring, self._frame_size, self._ring_frames
        stride = size // 4
        position = self._next
        for _ in range(limit):
            head = position * stride
            status = words[head]
            if not status & TP_STATUS_USER:
                break
            length = words[head + 2]
            start = position * size + (words[head + 3] & 0xFFFF)
            frame = ring[start : start + length]
            whole = words[head + 1] == length
            if status & (TP_STATUS_VLAN_VALID | TP_STATUS_CSUMNOTREADY):
                frame = self._repair(frame, status, words[head + 6])
            words[head] = 0  # the kernel may use the place again
            position = position + 1 if position + 1 < end else 0
            self._next = position
            if whole:
                yield frame
            else:
                self.counters.truncated += 1

    def _repair(self, frame: bytes, status: int, vlan: int) -> bytes:
        """Put back the VLAN tag that the kernel has taken out."""
        if status & TP_STATUS_CSUMNOTREADY:
            self.counters.unfinished += 1
        if status & TP_STATUS_VLAN_VALID:
            kind = vlan >> 16 if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
            return frame[:12] + struct.pack("!HH", kind, vlan & 0xFFFF) + frame[12:]
        return frame

    def kernel_drops(self) -> int:
        """Frames that the kernel has dropped since the last call because the ring was full."""
        packets, drops = struct.unpack("II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        del packets
        return int(drops)

    def close(self) -> None:
        """Give the interface back."""
        self._words.release()
        self._ring.close()
        self.socket.close()


def interface_mtu(any_socket: socket.socket, name: str) -> int:
    """The MTU of an interface, in bytes. Raises OSError."""
    request = struct.pack("16si12x", name.encode(), 0)
    answer = fcntl.ioctl(any_socket, SIOCGIFMTU, request)
    return int(struct.unpack("16si12x", answer)[1])


@dataclass(frozen=True, slots=True)
class PortPlan:
    """Which interfaces are to be ports."""

    fixed: Mapping[int, str]
    """Port number -> interface."""
    prefix: str | None = None
    """Every interface PREFIXn is port n."""
    first: int = 0
    """The lowest port number that the prefix gives."""
    last: int = 509

    def ring_frames(self, number: int) -> int:
        """How many frames may wait at a port."""
        return TRUNK_RING_FRAMES if number in self.fixed else RING_FRAMES

    def wanted(self, names: Sequence[str]) -> dict[int, str]:
        """The ports that these interfaces make."""
        present = set(names)
        ports = {number: name for number, name in self.fixed.items() if name in present}
        if self.prefix is not None:
            for name in names:
                digits = name.removeprefix(self.prefix)
                # "ep016" is not another name of port 16: two interfaces must not claim one port.
                if name.startswith(self.prefix) and digits.isdecimal() and str(int(digits)) == digits:
                    number = int(digits)
                    if self.first <= number <= self.last and number not in self.fixed:
                        ports[number] = name
        return ports


class InterfaceWatch:
    """Tells when interfaces come, go or change, in this process's network namespace."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_ROUTE)
        self.socket.bind((0, RTMGRP_LINK))

    def drain(self) -> None:
        """Forget what was reported so far; whoever asks looks at the interfaces anew anyway."""
        while True:
            try:
                self.socket.recv(65536)
            except BlockingIOError:
                return
            except OSError as error:
                # Reports were lost: that is a report too.
                if error.errno != errno.ENOBUFS:
                    raise

    def names(self) -> dict[str, int]:
        """Interfaces of the namespace and their indices. Not from /sys, which may show another namespace."""
        return {name: index for index, name in socket.if_nameindex()}

    def close(self) -> None:
        """Stop watching."""
        self.socket.close()
