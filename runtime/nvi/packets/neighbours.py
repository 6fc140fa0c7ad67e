"""Who has an address, and who is the router: ARP (RFC 826), neighbour and router discovery (RFC 4861, RFC 8106)."""

from __future__ import annotations

from struct import Struct as Layout

from msgspec import Struct

from ..model import Address, Mac, Protocol, Subnet, interface_address
from .headers import (
    ETHERNET_LENGTH,
    Datagram,
    MalformedPacket,
    ethernet,
    ip_packet,
    read_datagram,
    transport_checksum,
    with_checksum,
)

ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_SOLICITED_NODE = bytes.fromhex("ff0200000000000000000001ff")
_UNSPECIFIED = bytes(16)

_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT, _NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT = 133, 134, 135, 136
_SOURCE_LINK_ADDRESS, _TARGET_LINK_ADDRESS, _PREFIX, _MTU, _RDNSS = 1, 2, 3, 5, 25
_FOREVER = 0xFFFFFFFF

ROUTER_LIFETIME = 0xFFFF
"""Seconds for which a router advertisement holds: as long as can be said (RFC 8319). The gateway does not go away."""

_ARP = Layout("!HHBBH6s4s6s4s")


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


class NeighbourSolicitation(Struct, frozen=True):
    """A question who has an IPv6 address (RFC 4861 section 4.3)."""

    sender_mac: Mac
    sender: Address
    """Unspecified if it probes whether somebody has the address that it wants (RFC 4862)."""
    target: Address

    @property
    def is_probe(self) -> bool:
        """Whether it asks only to find out whether the address is free."""
        return self.sender == _UNSPECIFIED


def parse_neighbour_solicitation(frame: bytes) -> NeighbourSolicitation:
    """Read a frame, and validate it as RFC 4861 section 7.1.1 wants it. Raises MalformedPacket."""
    datagram, body = _read(frame, _NEIGHBOUR_SOLICITATION, 24)
    target = body[8:24]
    if target[0] == 0xFF:
        raise MalformedPacket("a solicitation of a multicast address")
    options = _options(body[24:])
    if datagram.source == _UNSPECIFIED and (
        datagram.destination[:13] != _SOLICITED_NODE or _SOURCE_LINK_ADDRESS in options
    ):
        raise MalformedPacket("a probe for an address that is not sent as one")
    return NeighbourSolicitation(frame[6:12], datagram.source, target)


class RouterSolicitation(Struct, frozen=True):
    """A question who is the router (RFC 4861 section 4.1)."""

    sender_mac: Mac
    sender: Address


def parse_router_solicitation(frame: bytes) -> RouterSolicitation:
    """Read a frame, and validate it as RFC 4861 section 6.1.1 wants it. Raises MalformedPacket."""
    datagram, body = _read(frame, _ROUTER_SOLICITATION, 8)
    if datagram.source == _UNSPECIFIED and _SOURCE_LINK_ADDRESS in _options(body[8:]):
        raise MalformedPacket("a solicitation from nobody with a link-layer address")
    return RouterSolicitation(frame[6:12], datagram.source)


def neighbour_advertisement(question: NeighbourSolicitation, mac: Mac, *, is_router: bool) -> bytes:
    """The frame in which whoever has the address answers for it (RFC 4861 sections 4.4 and 7.2.4)."""
    solicited = 0 if question.is_probe else 0x40000000
    flags = (0x80000000 if is_router else 0) | solicited | 0x20000000
    body = bytes([_NEIGHBOUR_ADVERTISEMENT, 0, 0, 0]) + flags.to_bytes(4) + question.target
    body += bytes([_TARGET_LINK_ADDRESS, 1]) + mac
    if question.is_probe:
        return _frame(ALL_NODES, _ALL_NODES_MAC, question.target, mac, body)
    return _frame(question.sender, question.sender_mac, question.target, mac, body)


def router_advertisement(
    question: RouterSolicitation,
    router_mac: Mac,
    subnet: Subnet,
    dns: tuple[Address, ...],
    mtu: int,
    *,
    autonomous: bool,
) -> bytes:
    """The frame in which a gateway tells an endpoint of itself (RFC 4861 section 4.2, RFC 8106 section 5.1).

    `dns`: resolvers, of IPv6; `mtu`: bytes; `autonomous`: whether the endpoint may make its address of the prefix and
    its MAC.
    """
    body = bytes([_ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0]) + ROUTER_LIFETIME.to_bytes(2) + bytes(8)
    body += bytes([_SOURCE_LINK_ADDRESS, 1]) + router_mac
    body += bytes([_MTU, 1, 0, 0]) + mtu.to_bytes(4)
    on_link = 0x80 | (0x40 if autonomous else 0)
    body += bytes([_PREFIX, 4, subnet.prefix_length, on_link]) + 2 * _FOREVER.to_bytes(4) + bytes(4) + subnet.prefix
    if dns:
        body += bytes([_RDNSS, 1 + 2 * len(dns), 0, 0]) + _FOREVER.to_bytes(4) + b"".join(dns)
    receiver = (question.sender, question.sender_mac)
    if question.sender == _UNSPECIFIED:
        receiver = (ALL_NODES, _ALL_NODES_MAC)
    return _frame(*receiver, interface_address(b"\xfe\x80" + bytes(14), router_mac), router_mac, body)


def _frame(destination: Address, destination_mac: Mac, source: Address, source_mac: Mac, body: bytes) -> bytes:
    checked = with_checksum(source, destination, Protocol.ICMPV6, body, 2)
    # Hop limit 255 proves that it comes from this link (RFC 4861 section 3.1).
    packet = ip_packet(source, destination, Protocol.ICMPV6, checked, ttl=255)
    return ethernet(destination_mac, source_mac, packet)


def _read(frame: bytes, kind: int, size: int) -> tuple[Datagram, bytes]:
    datagram = read_datagram(frame)
    body = frame[datagram.payload : datagram.end]
    if datagram.protocol != Protocol.ICMPV6 or len(datagram.source) != 16 or datagram.fragment is not None:
        raise MalformedPacket("not a whole ICMPv6 message")
    if len(body) < size or body[0] != kind or body[1] or datagram.ttl != 255:
        raise MalformedPacket(f"not an ICMPv6 message of type {kind} of this link")
    if transport_checksum(datagram.source, datagram.destination, Protocol.ICMPV6, body):
        raise MalformedPacket("wrong ICMPv6 checksum")
    return datagram, body


def _options(data: bytes) -> set[int]:
    """The kinds of the options of a message of neighbour discovery. Raises MalformedPacket."""
    kinds = set()
    while data:
        size = 8 * data[1] if len(data) > 1 else 0
        if not 0 < size <= len(data):
            raise MalformedPacket("an option of neighbour discovery that does not fit the packet")
        kinds.add(data[0])
        data = data[size:]
    return kinds
