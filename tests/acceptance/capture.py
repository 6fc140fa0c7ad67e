"""What was on a wire, and whether it should have been."""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from nvi.checksum import internet_checksum

from .farm import Farm

KEYS = range(20000, 32768)

# Immediate mode, or the kernel keeps packets for up to a second.
_TCPDUMP = ("tcpdump", "-U", "--immediate-mode", "-s", "0", "-B", "65536", "-Z", "root")


@dataclass(frozen=True)
class Seen:
    """One IPv4 packet."""

    source: IPv4Address
    destination: IPv4Address
    protocol: int
    length: int
    frame: bytes

    @property
    def ports(self) -> tuple[int, int]:
        """Of TCP and UDP; for echo, the identifier twice."""
        if self.protocol == 1:
            identifier = int.from_bytes(self.frame[38:40], "big")
            return identifier, identifier
        return struct.unpack_from("!HH", self.frame, 34)  # type: ignore[return-value]

    @property
    def is_nvi(self) -> bool:
        """Whether its ports are keys."""
        return self.protocol in (1, 6, 17) and any(port in KEYS for port in self.ports)

    @property
    def substance(self) -> tuple[int, int, bytes, bytes]:
        """What no rewrite may change: length, TOS and flags, everything after ports and checksum.

        And the identification, but only with DF: a datagram that might be cut gets a fresh one (RFC 6864).
        """
        frame = self.frame[: 14 + self.length]
        if self.protocol == 6:
            rest = frame[38:50] + frame[52:]
        elif self.protocol == 17:
            rest = frame[38:40] + frame[42:]
        else:
            rest = frame[34:36] + frame[40:]
        kept = frame[18:22] if frame[20] & 0x40 else frame[20:22]
        return self.protocol, self.length, frame[15:16] + kept, rest

    def wrong_checksum(self) -> str | None:
        """Which checksum is wrong, if one is."""
        header, body = self.frame[14:34], self.frame[34 : 14 + self.length]
        if internet_checksum(header):
            return "IPv4"
        if self.protocol == 1:
            return "ICMP" if internet_checksum(body) else None
        if self.protocol == 17 and body[6:8] == b"\0\0":
            return None
        pseudo = header[12:20] + struct.pack("!HH", self.protocol, len(body))
        return "transport" if internet_checksum(pseudo + body) else None


def read(path: Path) -> list[Seen]:
    """The IPv4 packets of a capture file."""
    data = path.read_bytes()
    assert data[:4] == b"\xd4\xc3\xb2\xa1", f"{path} is not a little-endian pcap file"
    at, seen = 24, []
    while at + 16 <= len(data):
        _, _, captured, _ = struct.unpack_from("<IIII", data, at)
        frame = data[at + 16 : at + 16 + captured]
        at += 16 + captured
        if frame[12:14] == b"\x08\x00":
            source, destination = IPv4Address(frame[26:30]), IPv4Address(frame[30:34])
            seen.append(Seen(source, destination, frame[23], int.from_bytes(frame[16:18], "big"), frame))
    return seen


@contextlib.contextmanager
def capturing(farm: Farm, directory: Path, *places: tuple[str, str]) -> Iterator[dict[tuple[str, str], Path]]:
    """Capture on (endpoint or host, interface) meanwhile, every packet whole."""
    files = {place: directory / f"{place[0]}-{place[1]}.pcap" for place in places}
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(farm.running(where, *_TCPDUMP, "-i", interface, "-w", str(path)))
            for (where, interface), path in files.items()
        ]
        farm.wait_for(lambda: all(path.exists() and path.stat().st_size >= 24 for path in files.values()), "tcpdump")
        yield files
        farm.wait_for(_quiet(list(files.values())), "captures written", 30)
        assert all(process.poll() is None for process in processes), "a capture ended early"


def _quiet(files: list[Path]):
    sizes: list[int] = []

    def settled() -> bool:
        before, sizes[:] = list(sizes), [path.stat().st_size for path in files]
        return before == sizes

    return settled


def sent(packets: list[Seen], source: str) -> Counter[tuple[int, int, bytes, bytes]]:
    """What the packets from an address are made of, apart from what every segment has of its own."""
    return Counter(seen.substance for seen in packets if seen.source == IPv4Address(source))
