"""New connections, made by raw frames: the load generator, a process of its own.

It holds a raw socket on the interface of the client, one on the server's, and sends frames that it made beforehand:
UDP, each from a port of its own, so each the first packet of a connection. What comes out at the far side it counts,
or sends back. It prints one JSON object. It imports little, since it is started for each round.

    python -m nvi.bench.traffic saturate PID PID first count window
    python -m nvi.bench.traffic pace PID PID first count rate
    python -m nvi.bench.traffic offer PID PID first count rate
    python -m nvi.bench.traffic flood PID PID first count window
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from struct import Struct as Layout

from ..checksum import internet_checksum
from ..namespaces import open_socket
from .ends import CLIENT, SERVER

PATIENCE = 2.0
"""Seconds after which what has not come is lost."""

STALLED = 0.2
"""Seconds after which, if nothing has come, nothing of what is under way is waited for any more."""

STREAM_RATE = 250.0
"""Packets per second of the connection that is there already while others are offered."""

_STREAM = 1 << 31
"""Number of its first packet."""
_AT_ONCE = 8
"""First packets that are sent between two looks at what has come."""
_HEADERS = 42  # Ethernet, IPv4, UDP
_ETH_P_ALL = 3
_TIMEVAL = Layout("@qq")
_PORTS = 60000
_RECEIVE = 2048
_SO_RCVBUFFORCE = 33
_BUFFER = 8 << 20
"""Bytes, by the kernel's account, of what has come and was not looked at yet: nothing is to be lost here."""


@dataclass(frozen=True)
class Stream:
    """What became of the packets of a connection that was there already."""

    sent: int
    delays: list[float]
    """Milliseconds from one end to the other, of those that arrived."""


@dataclass(frozen=True)
class Report:
    """What one run of the generator has seen."""

    sent: int
    arrived: int
    seconds: float
    """From the first packet sent to the last one that arrived."""
    round_trips: list[float]
    """Milliseconds, of `pace`."""
    in_time: int = 0
    """Of `offer`: those that arrived while packets were still being sent."""
    stream: Stream | None = None
    """Of `offer`."""


def frame(number: int, size: int = 64) -> bytes:
    """The first packet of connection `number`, which is also in its payload."""
    length = size - 14
    header = b"\x45\0" + length.to_bytes(2) + b"\0\0\x40\0\x40\x11\0\0" + CLIENT.address + SERVER.address
    header = header[:10] + internet_checksum(header).to_bytes(2) + header[12:]
    group, port = divmod(number, _PORTS)
    # No UDP checksum: it would be all the same to the switches, and there are many of them to be made.
    udp = (1024 + port).to_bytes(2) + (1024 + group).to_bytes(2) + (length - 20).to_bytes(2) + b"\0\0"
    return SERVER.mac + CLIENT.mac + b"\x08\0" + header + udp + number.to_bytes(4) + bytes(length - 32)


def answer(packet: bytes) -> bytes:
    """The packet, sent back."""
    macs, ports = packet[6:12] + packet[:6], packet[36:38] + packet[34:36]
    return macs + packet[12:26] + packet[30:34] + packet[26:30] + ports + packet[38:]


def number_of(packet: bytes) -> int:
    """The number of its connection."""
    return int.from_bytes(packet[_HEADERS : _HEADERS + 4])


class Generator:
    """Sends at one interface, and receives at the other."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server

    def saturate(self, first: int, count: int, window: float) -> Report:
        """Send the next packet whenever one has arrived: as fast as connections come about, and no faster.

        One that has been overtaken by twice the window is taken for lost, and the next one has its place. (If it comes
        after all, it has arrived.)
        """
        frames = [frame(number) for number in range(first, first + count)]
        sent, newest, arrived = 0, 0, set[int]()
        under_way: dict[int, None] = {}  # by number, oldest first
        begin = last = time.monotonic()
        while len(arrived) < count:
            while sent < count and len(under_way) < window:
                under_way[first + sent] = None
                self.client.send(frames[sent])
                sent += 1
            if not select.select((self.server,), (), (), STALLED)[0]:
                under_way.clear()
                if sent == count and time.monotonic() - last > PATIENCE:
                    break
                continue
            number = number_of(self.server.recv(_RECEIVE))
            if number - first not in range(sent) or number in arrived:
                continue
            arrived.add(number)
            under_way.pop(number, None)
            last, newest = time.monotonic(), max(newest, number)
            while under_way and (oldest := next(iter(under_way))) + 2 * window < newest:
                del under_way[oldest]
        return Report(sent, len(arrived), last - begin, [])

    def pace(self, first: int, count: int, rate: float) -> Report:
        """Send at a rate, send back what arrives at the far side, and see how long that takes."""
        frames = [frame(number) for number in range(first, first + count)]
        departures: dict[int, float] = {}
        trips: dict[int, float] = {}
        begin = last = due = time.monotonic()
        while len(trips) < count:
            wait = max(due - last, 0.0) if len(departures) < count else PATIENCE
            come = select.select((self.client, self.server), (), (), wait)[0]
            for ready in come:
                packet = ready.recv(_RECEIVE)
                now = time.monotonic()
                number = number_of(packet)
                if number not in departures or number in trips:
                    continue
                if ready is self.server:
                    self.server.send(answer(packet))
                else:
                    trips[number] = 1e3 * (now - departures[number])
            last = time.monotonic()
            if len(departures) == count and not come:
                break
            if len(departures) < count and last >= due:
                number = first + len(departures)
                departures[number] = last
                self.client.send(frames[number - first])
                due += 1 / rate
        return Report(len(departures), len(trips), last - begin, list(trips.values()))

    def offer(self, first: int, count: int, rate: float) -> Report:
        """Send at a rate, whatever comes of it, beside a stream of packets of one connection that is there already.

        The stream is of connection `first`, the new ones are those that follow.
        """
        if self.saturate(first, 1, 1).arrived == 0:
            return Report(count, 0, 0.0, [], 0, Stream(0, []))
        first += 1
        frames = [frame(number) for number in range(first, first + count)]
        head = frame(first - 1)[:_HEADERS]
        sent, arrived, in_time = 0, set[int](), 0
        departures: list[float] = []
        delays: dict[int, float] = {}
        begin = now = last = time.monotonic()
        while sent < count or (now - last < PATIENCE and len(arrived) + len(delays) < count + len(departures)):
            now = time.monotonic()
            if sent < count and now >= begin + len(departures) / STREAM_RATE:
                self.client.send(head + (_STREAM + len(departures)).to_bytes(4) + bytes(18))
                departures.append(now)
            behind = min(int((now - begin) * rate) + 1, count) - sent
            for each in frames[sent : sent + min(behind, _AT_ONCE)]:
                self.client.send(each)
                sent += 1
            patience = 0.0 if behind > _AT_ONCE else 1 / max(rate, STREAM_RATE) if sent < count else PATIENCE
            if not select.select((self.server,), (), (), patience)[0]:
                continue
            number, now = number_of(self.server.recv(_RECEIVE)), time.monotonic()
            if number >= _STREAM and number - _STREAM < len(departures):
                delays[number] = 1e3 * (now - departures[number - _STREAM])
            elif number - first in range(sent):
                arrived.add(number)
                in_time += sent < count
            last = now
        return Report(sent, len(arrived), last - begin, [], in_time, Stream(len(departures), list(delays.values())))

    def flood(self, first: int, count: int, window: float) -> Report:
        """Packets of one connection, which is there already, `window` of them under way at a time."""
        packet = frame(first)
        send, receive = self.client.send, self.server.recv
        sent = int(window)
        begin = time.monotonic()
        for _ in range(sent):
            send(packet)
        for arrived in range(1, count + 1):
            try:
                receive(_RECEIVE)
            except BlockingIOError:
                arrived -= 1
                break
            if sent < count:
                send(packet)
                sent += 1
        last = time.monotonic()
        return Report(sent, arrived, last - begin, [])


def _socket() -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(int(PATIENCE), 0))  # cheaper than a timeout
    raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    raw.bind(("eth0", 0))
    return raw


async def _sockets(pids: Sequence[str]) -> list[socket.socket]:
    return [await open_socket(f"/proc/{pid}/ns/net", _socket) for pid in pids]


def _main(mode: str, client: str, server: str, first: str, count: str, argument: str) -> None:
    generator = Generator(*asyncio.run(_sockets((client, server))))
    run: Callable[[int, int, float], Report] = getattr(generator, mode)
    print(json.dumps(asdict(run(int(first), int(count), float(argument)))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
