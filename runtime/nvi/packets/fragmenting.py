"""Cut what is too long for the next link (RFC 791 section 3.2), and tell which parts belong together."""

from __future__ import annotations

from msgspec import Struct

from ..model import Address
from .headers import ETHERNET_LENGTH, IPV4_LENGTH, ipv4_header, read_datagram


class DatagramId(Struct, frozen=True):
    """What the fragments of one datagram have in common (RFC 791, RFC 8200 section 4.5)."""

    source: Address
    destination: Address
    protocol: int
    """For IPv6 it is not part of the identity, but all fragments have the same: that behind the Fragment header."""
    identification: int


def fragment_of(frame: bytes) -> tuple[DatagramId, int] | None:
    """(of which datagram the frame is a fragment, its offset in bytes); None if it is a whole one.

    Raises MalformedPacket.
    """
    datagram = read_datagram(frame)
    part = datagram.fragment
    if part is None:
        return None
    return DatagramId(datagram.source, datagram.destination, datagram.protocol, part.identification), part.offset


def cut(frame: bytes, mtu: int) -> list[bytes]:
    """An IPv4 packet as fragments of at most `mtu` bytes each (at least 28), the first one first.

    Raises MalformedPacket. A packet that is short enough stays as it is, and a fragment becomes smaller ones.
    """
    datagram = read_datagram(frame)
    if datagram.length <= mtu:
        return [frame]
    at, end = datagram.payload, datagram.end
    flags_and_offset = int.from_bytes(frame[ETHERNET_LENGTH + 6 : ETHERNET_LENGTH + 8])
    step = (mtu - IPV4_LENGTH) // 8 * 8
    tos, identification = frame[ETHERNET_LENGTH + 1], int.from_bytes(frame[ETHERNET_LENGTH + 4 : ETHERNET_LENGTH + 6])
    ends = (datagram.source, datagram.destination)
    parts = []
    for offset in range(0, end - at, step):
        piece = frame[at + offset : min(at + offset + step, end)]
        more = 0x2000 if at + offset + step < end else 0
        place = flags_and_offset + offset // 8 | more
        fields = (0x45, tos, IPV4_LENGTH + len(piece), identification, place, datagram.ttl, datagram.protocol, 0, *ends)
        parts.append(frame[:ETHERNET_LENGTH] + ipv4_header(*fields) + piece)
    return parts
