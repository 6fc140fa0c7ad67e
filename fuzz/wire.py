"""Packets as endpoints send them, and what the invariants say of them on their way. Independent of `nvi.packets`."""

from __future__ import annotations

import struct
from dataclasses import dataclass

TCP, UDP, ICMP = 6, 17, 1
PORTLESS = 253
"""An experimental protocol (RFC 3692) stands for all that have nothing but addresses."""
FIN, SYN, RST, SYN_ACK, ACK = 0x01, 0x02, 0x04, 0x12, 0x10
ECHO_REQUEST, ECHO_REPLY, DESTINATION_UNREACHABLE, TIME_EXCEEDED = 8, 0, 3, 11

MARK = b"\xabNVI"


def ones_sum(data: bytes) -> int:
    """The one's complement sum; 0xffff stands for zero, too."""
    data += bytes(len(data) % 2)
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    return sum(words) % 0xFFFF


def checksum(data: bytes) -> int:
    """RFC 1071."""
    return 0xFFFF - ones_sum(data)


@dataclass(frozen=True)
class Ports:
    """What names a flow above IP: two ports, an echo identifier twice, or nothing."""

    protocol: int
    source: int
    destination: int

    def reversed(self) -> Ports:
        return Ports(self.protocol, self.destination, self.source)


def payload(serial: int, size: int) -> bytes:
    """A payload from which the packet is known again, also where it is quoted."""
    return MARK + serial.to_bytes(4) + bytes(n % 251 for n in range(size))


def serial_of(frame: bytes) -> int | None:
    """Of the packet that the frame is, or quotes."""
    at = frame.find(MARK)
    return int.from_bytes(frame[at + 4 : at + 8]) if at >= 0 and len(frame) >= at + 8 else None


def transport(ports: Ports, kind: int, source: bytes, destination: bytes, data: bytes, udp_checksum: bool) -> bytes:
    """`kind`: TCP flags, or ICMP type."""
    if ports.protocol == PORTLESS:
        return data
    if ports.protocol == ICMP:
        body = struct.pack("!BBHHH", kind, 0, 0, ports.source, 1) + data
        return body[:2] + checksum(body).to_bytes(2) + body[4:]
    pair = struct.pack("!HH", ports.source, ports.destination)
    if ports.protocol == TCP:
        body, at = pair + struct.pack("!IIBBHHH", 1000, 2000, 5 << 4, kind, 65535, 0, 0) + data, 16
    else:
        body, at = pair + struct.pack("!HH", 8 + len(data), 0) + data, 6
    if ports.protocol == UDP and not udp_checksum:
        return body
    value = checksum(source + destination + struct.pack("!HH", ports.protocol, len(body)) + body)
    return body[:at] + (value or 0xFFFF if ports.protocol == UDP else value).to_bytes(2) + body[at + 2 :]


def frame(
    macs: tuple[bytes, bytes],
    addresses: tuple[bytes, bytes],
    ports: Ports,
    kind: int,
    data: bytes,
    ttl: int = 64,
    udp_checksum: bool = True,
) -> bytes:
    """`macs`, `addresses`: (of the sender, of the receiver)."""
    body = transport(ports, kind, *addresses, data, udp_checksum)
    fields = 0x45, 0xB8, 20 + len(body), 0xBEEF, 0x4000, ttl, ports.protocol, 0, *addresses
    header = struct.pack("!BBHHHBBH4s4s", *fields)
    header = header[:10] + checksum(header).to_bytes(2) + header[12:]
    return macs[1] + macs[0] + b"\x08\0" + header + body


def is_later_fragment(packet: bytes) -> bool:
    """Whether the ports of its datagram are in another packet."""
    return packet[20] & 0x1F != 0 or packet[21] != 0


def head(packet: bytes) -> bytes:
    """Of the IP header all but TTL, checksum and addresses; and what is or may be cut gets an identification anew."""
    may_be_cut = packet[20] & 0x7F != 0x40 or packet[21] != 0
    return packet[14:18] + (b"" if may_be_cut else packet[18:20]) + packet[20:22] + packet[23:24]


def invariant_part(packet: bytes) -> tuple[bytes, ...]:
    """Everything that rewriting leaves alone on every segment."""
    l4 = packet[34:]
    if is_later_fragment(packet):
        return packet[12:14], head(packet), l4
    match packet[23]:
        case 6:
            return packet[12:14], head(packet), l4[4:16], l4[18:]
        case 17:
            return packet[12:14], head(packet), l4[4:6], l4[8:]
        case 1:
            return packet[12:14], head(packet), l4[0:2], l4[6:]
        case _:
            return packet[12:14], head(packet), l4


def checksum_errors(packet: bytes) -> tuple[int, int | None]:
    """How far the header's and the transport's checksums are from right: 0 if valid. None: one without."""
    ip, l4 = packet[14:34], packet[34:]
    if is_later_fragment(packet) or ip[9] == PORTLESS or (ip[9] == UDP and l4[6:8] == b"\0\0"):
        return ones_sum(ip), None
    pseudo = b"" if ip[9] == ICMP else ip[12:20] + struct.pack("!HH", ip[9], len(l4))
    return ones_sum(ip), ones_sum(pseudo + l4)


def is_answer_of(packet: bytes, sent: bytes) -> bool:
    """Whether a packet goes back where another one came from: addresses and ports are those of that one, exchanged."""
    return packet[26:34] == sent[30:34] + sent[26:30] and packet[34:38] == sent[36:38] + sent[34:36]


def numbers_of_reset(sent: bytes) -> bytes:
    """Sequence and acknowledgement number of the reset that answers a segment (RFC 9293 section 3.10.7.1)."""
    if sent[47] & ACK:
        return sent[42:46] + bytes(4)
    size = len(sent) - 54 + bool(sent[47] & SYN) + bool(sent[47] & FIN)
    return bytes(4) + (int.from_bytes(sent[38:42]) + size).to_bytes(4)


def keys_of(packet: bytes) -> tuple[int, ...]:
    """The two ports on the wire; the identifier of an echo twice; nothing, if there are none."""
    if packet[23] == PORTLESS:
        return ()
    first, second = (38, 38) if packet[23] == ICMP else (34, 36)
    return int.from_bytes(packet[first : first + 2]), int.from_bytes(packet[second : second + 2])


def show(packet: bytes) -> str:
    """A packet in one line, for people."""
    ends = [".".join(map(str, packet[at : at + 4])) for at in (26, 30)]
    keys = keys_of(packet)
    if keys and not is_later_fragment(packet):
        ends = [f"{end}:{key}" for end, key in zip(ends, keys, strict=True)]
    return f"packet {serial_of(packet)}, protocol {packet[23]}, {ends[0]} > {ends[1]}"
