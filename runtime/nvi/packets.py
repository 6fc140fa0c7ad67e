"""Parse and build the few headers that the agent needs. No I/O.

The switch has already sorted out most of what cannot be (p4src/edge.p4); what is checked here is what the pipeline
cannot see cheaply. Nothing that fails a check is ever installed.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct as Layout

from msgspec import Struct

from .checksum import internet_checksum
from .model import Address, Flow, Mac, Protocol

ETHERNET_LENGTH = 14
IPV4_LENGTH = 20

ECHO_PORT = 0x0800
"""What stands for the responder's port in the flow of an ICMP echo: the type and code of a request."""

_IPV4 = Layout("!BBHHHBBH4s4s")
_ARP = Layout("!HHBBH6s4s6s4s")
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10


class MalformedPacket(ValueError):
    """A packet that no careful stack would have sent. The text says what is wrong with it."""


class Unreachable(IntEnum):
    """Codes of ICMP destination unreachable (RFC 792, RFC 1812 section 5.2.7.1)."""

    HOST = 1
    ADMINISTRATIVELY_PROHIBITED = 13


class Packet(Struct, frozen=True):
    """What the agent reads of an Ethernet frame with IPv4 and TCP, UDP or ICMP echo."""

    source_mac: Mac
    destination_mac: Mac
    flow: Flow
    ttl: int
    opens: bool
    """Whether it can be the first packet of a connection: a bare SYN, any UDP, an echo request."""


def echo_port(identifier: int) -> int:
    """What stands for the responder's port in an echo with this identifier.

    Never such that a request and a reply, of whatever identifiers, have one and the same flow (`p4src/ids.p4`).
    """
    return identifier + 1 if identifier in (ECHO_PORT, ECHO_PORT + 1) else ECHO_PORT


def parse(frame: bytes) -> Packet:
    """Read a frame. Raises MalformedPacket."""
    if len(frame) < ETHERNET_LENGTH + IPV4_LENGTH:
        raise MalformedPacket(f"{len(frame)} bytes are too short for an IPv4 packet")
    if frame[12:14] != b"\x08\x00" or frame[14] != 0x45:
        raise MalformedPacket("not IPv4 without options")
    _, _, total, _, fragment, ttl, protocol, _, source, destination = _IPV4.unpack_from(frame, ETHERNET_LENGTH)
    end = ETHERNET_LENGTH + total
    if total < IPV4_LENGTH or end > len(frame):
        raise MalformedPacket(f"IPv4 total length {total} does not fit a frame of {len(frame)} bytes")
    if fragment & 0x3FFF:
        raise MalformedPacket("a fragment")
    if internet_checksum(frame[ETHERNET_LENGTH : ETHERNET_LENGTH + IPV4_LENGTH]):
        raise MalformedPacket("wrong IPv4 header checksum")
    l4 = ETHERNET_LENGTH + IPV4_LENGTH
    size = end - l4
    if protocol == Protocol.TCP:
        l4_source, l4_destination, opens = _read_tcp(frame, l4, size)
    elif protocol == Protocol.UDP:
        l4_source, l4_destination, opens = _read_udp(frame, l4, size)
    elif protocol == Protocol.ICMP:
        l4_source, l4_destination, opens = _read_echo(frame, l4, size)
    else:
        raise MalformedPacket(f"protocol {protocol} is not TCP, UDP or ICMP")
    flow = Flow(source, destination, protocol, l4_source, l4_destination)
    return Packet(frame[6:12], frame[0:6], flow, ttl, opens)


def _read_tcp(frame: bytes, at: int, size: int) -> tuple[int, int, bool]:
    if size < 20 or not 20 <= (frame[at + 12] >> 4) * 4 <= size:
        raise MalformedPacket("TCP header length does not fit the packet")
    flags = frame[at + 13]
    if not flags & (_SYN | _ACK | _RST | _FIN) or (flags & _SYN and flags & (_FIN | _RST)):
        raise MalformedPacket(f"TCP flags {flags:#04x} that no stack sends")
    source, destination = int.from_bytes(frame[at : at + 2], "big"), int.from_bytes(frame[at + 2 : at + 4], "big")
    if not source or not destination:
        raise MalformedPacket("TCP port 0")
    return source, destination, flags & (_SYN | _ACK) == _SYN


def _read_udp(frame: bytes, at: int, size: int) -> tuple[int, int, bool]:
    if size < 8 or not 8 <= int.from_bytes(frame[at + 4 : at + 6], "big") <= size:
        raise MalformedPacket("UDP length does not fit the packet")
    source, destination = int.from_bytes(frame[at : at + 2], "big"), int.from_bytes(frame[at + 2 : at + 4], "big")
    if not destination:
        raise MalformedPacket("UDP destination port 0")
    return source, destination, True


def _read_echo(frame: bytes, at: int, size: int) -> tuple[int, int, bool]:
    if size < 8:
        raise MalformedPacket("ICMP header is cut short")
    kind, code = frame[at], frame[at + 1]
    if code or kind not in (0, 8):
        raise MalformedPacket(f"ICMP type {kind} code {code} is not an echo")
    identifier = int.from_bytes(frame[at + 4 : at + 6], "big")
    if kind == 8:
        return identifier, echo_port(identifier), True
    return echo_port(identifier), identifier, False


class ArpRequest(Struct, frozen=True):
    """An ARP request (RFC 826) for Ethernet and IPv4."""

    sender_mac: Mac
    sender: Address
    target: Address


def parse_arp_request(frame: bytes) -> ArpRequest:
    """Read a frame. Raises MalformedPacket."""
    if len(frame) < ETHERNET_LENGTH + _ARP.size or frame[12:14] != b"\x08\x06":
        raise MalformedPacket("not ARP, or cut short")
    hardware, protocol, hardware_size, protocol_size, operation, mac, sender, _, target = _ARP.unpack_from(
        frame, ETHERNET_LENGTH
    )
    if (hardware, protocol, hardware_size, protocol_size, operation) != (1, 0x0800, 6, 4, 1):
        raise MalformedPacket("not an ARP request for Ethernet and IPv4")
    return ArpRequest(mac, sender, target)


def destination_unreachable(frame: bytes, code: Unreachable, router: Address, router_mac: Mac) -> bytes:
    """The frame with which a router answers a packet that it does not forward (RFC 792)."""
    return _icmp_error(frame, 3, code, router, router_mac)


def time_exceeded(frame: bytes, router: Address, router_mac: Mac) -> bytes:
    """The frame with which a router answers a packet whose TTL ends with it (RFC 792)."""
    return _icmp_error(frame, 11, 0, router, router_mac)


def _icmp_error(frame: bytes, kind: int, code: int, router: Address, router_mac: Mac) -> bytes:
    total = int.from_bytes(frame[16:18], "big")
    # As much as fits into 576 bytes (RFC 1812 section 4.3.2.3).
    quoted = frame[ETHERNET_LENGTH : ETHERNET_LENGTH + min(total, 576 - IPV4_LENGTH - 8)]
    body = bytes([kind, code, 0, 0, 0, 0, 0, 0]) + quoted
    body = body[:2] + internet_checksum(body).to_bytes(2, "big") + body[4:]
    sender = frame[26:30]
    # DSCP CS6, internetwork control (RFC 1812 section 4.3.2.5); don't fragment, so no identification (RFC 6864).
    header = _IPV4.pack(0x45, 0xC0, IPV4_LENGTH + len(body), 0, 0x4000, 64, Protocol.ICMP, 0, router, sender)
    header = header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:]
    return frame[6:12] + router_mac + b"\x08\x00" + header + body
