"""DHCP for one endpoint, whose address is known already (RFC 2131, RFC 2132).

There is no pool and no lease to remember: every endpoint has the address that its orchestrator gave it, and is told so
whenever it asks.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct as Layout

from msgspec import Struct

from ..model import Address, Mac, Protocol, Subnet
from .headers import MalformedPacket, ethernet, ip_packet, read_datagram, transport_checksum, with_checksum

LEASE_TIME = 3600
"""Seconds: the time within which an endpoint hears that its address is another one now."""

SERVER_PORT, CLIENT_PORT = 67, 68
_BROADCAST = b"\xff\xff\xff\xff"
_BROADCAST_MAC = b"\xff\xff\xff\xff\xff\xff"
_NONE = bytes(4)
_COOKIE = b"\x63\x82\x53\x63"
_FIXED = Layout("!BBBBIHH4s4s4s4s6s10s64s128s4s")
_MINIMUM = 300
"""Bytes of a BOOTP message (RFC 1542 section 2.1), which some clients insist on."""
_MESSAGE, _FLAG_BROADCAST = 53, 0x8000


class Kind(IntEnum):
    """DHCP message types (RFC 2132 section 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class DhcpMessage(Struct, frozen=True):
    """What a client says."""

    kind: Kind
    transaction: int
    wants_broadcast: bool
    """It cannot receive unicast before it has its address."""
    current: Address
    """The address that it uses (`ciaddr`), or 0.0.0.0."""
    mac: Mac
    requested: Address | None
    server: Address | None
    client: bytes | None
    """Its own name for itself (option 61)."""


class DhcpOffer(Struct, frozen=True):
    """What an endpoint is told."""

    address: Address
    subnet: Subnet
    router_mac: Mac
    dns: tuple[Address, ...]
    """Resolvers, of IPv4."""
    mtu: int
    """Bytes that its interface may send at a time."""


def parse_dhcp(frame: bytes) -> DhcpMessage:
    """Read a client's message to a server. Raises MalformedPacket."""
    datagram = read_datagram(frame)
    if datagram.protocol != Protocol.UDP or datagram.fragment is not None or len(datagram.source) != 4:
        raise MalformedPacket("not a whole UDP datagram of IPv4")
    segment = frame[datagram.payload : datagram.end]
    if len(segment) < 8 + _FIXED.size or segment[:4] != CLIENT_PORT.to_bytes(2) + SERVER_PORT.to_bytes(2):
        raise MalformedPacket("not a message of a DHCP client, or cut short")
    length = int.from_bytes(segment[4:6])
    if not 8 + _FIXED.size <= length <= len(segment):
        raise MalformedPacket("UDP length does not fit the packet")
    segment = segment[:length]
    if segment[6:8] != b"\0\0" and transport_checksum(datagram.source, datagram.destination, Protocol.UDP, segment):
        raise MalformedPacket("wrong UDP checksum")
    operation, hardware, size, _, transaction, _, flags, current, _, _, relay, mac, _, _, _, cookie = (
        _FIXED.unpack_from(segment, 8)
    )
    if (operation, hardware, size, relay, cookie) != (1, 1, 6, _NONE, _COOKIE):
        raise MalformedPacket("not a DHCP request of a client on this link")
    options = _read_options(segment[8 + _FIXED.size :])
    kind = options.get(_MESSAGE, b"")
    if len(kind) != 1 or kind[0] not in (Kind.DISCOVER, Kind.REQUEST, Kind.DECLINE, Kind.RELEASE, Kind.INFORM):
        raise MalformedPacket("not a DHCP message that a client sends")
    return DhcpMessage(
        Kind(kind[0]),
        transaction,
        bool(flags & _FLAG_BROADCAST),
        current,
        mac,
        _address(options.get(50)),
        _address(options.get(54)),
        options.get(61),
    )


def answer_dhcp(message: DhcpMessage, offer: DhcpOffer) -> bytes | None:
    """The frame that answers a client, or None if it gets no answer (RFC 2131 section 4.3)."""
    gateway = offer.subnet.gateway
    match message.kind:
        case Kind.DISCOVER:
            return _reply(message, offer, Kind.OFFER)
        case Kind.REQUEST if message.server is not None and message.server != gateway:
            return None  # it has chosen another server
        case Kind.REQUEST:
            wanted = message.requested or message.current
            if message.current != _NONE and message.server is None:
                wanted = message.current
            return _reply(message, offer, Kind.ACK if wanted == offer.address else Kind.NAK)
        case Kind.INFORM if message.current == offer.address:
            return _reply(message, offer, Kind.ACK)
        case _:
            return None


def _reply(message: DhcpMessage, offer: DhcpOffer, kind: Kind) -> bytes:
    gateway = offer.subnet.gateway
    options = {_MESSAGE: bytes([kind]), 54: gateway}
    if message.client is not None:
        options[61] = message.client  # RFC 6842
    given = _NONE
    if kind is not Kind.NAK:
        mask = (0xFFFFFFFF << (32 - offer.subnet.prefix_length) & 0xFFFFFFFF).to_bytes(4)
        options |= {1: mask, 3: gateway, 26: offer.mtu.to_bytes(2)}
        if offer.dns:
            options[6] = b"".join(offer.dns[:63])
        if message.kind is not Kind.INFORM:
            given = offer.address
            options |= {
                51: LEASE_TIME.to_bytes(4),
                58: (LEASE_TIME // 2).to_bytes(4),
                59: (LEASE_TIME * 7 // 8).to_bytes(4),
            }
    flags = _FLAG_BROADCAST if message.wants_broadcast else 0
    current = _NONE if kind is Kind.NAK else message.current
    fixed = (
        2,
        1,
        6,
        0,
        message.transaction,
        0,
        flags,
        current,
        given,
        _NONE,
        _NONE,
        message.mac,
        b"",
        b"",
        b"",
        _COOKIE,
    )
    body = _FIXED.pack(*fixed)
    body += b"".join(bytes([code, len(value)]) + value for code, value in options.items()) + b"\xff"
    body = body.ljust(_MINIMUM, b"\0")
    # To whom: RFC 2131 section 4.1.
    destination, destination_mac = given, message.mac
    if current != _NONE:
        destination = current
    elif kind is Kind.NAK or message.wants_broadcast:
        destination, destination_mac = _BROADCAST, _BROADCAST_MAC
    head = SERVER_PORT.to_bytes(2) + CLIENT_PORT.to_bytes(2) + (8 + len(body)).to_bytes(2) + b"\0\0"
    datagram = with_checksum(gateway, destination, Protocol.UDP, head + body, 6)
    return ethernet(destination_mac, offer.router_mac, ip_packet(gateway, destination, Protocol.UDP, datagram))


def _read_options(data: bytes) -> dict[int, bytes]:
    """The options by code; those that are split are put together (RFC 3396)."""
    options: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
            continue
        if at + 2 > len(data) or at + 2 + data[at + 1] > len(data):
            raise MalformedPacket("a DHCP option that does not fit the message")
        code, value = data[at], data[at + 2 : at + 2 + data[at + 1]]
        options[code] = options.get(code, b"") + value
        at += 2 + data[at + 1]
    return options


def _address(option: bytes | None) -> Address | None:
    if option is None:
        return None
    if len(option) != 4:
        raise MalformedPacket("a DHCP option that should be an address")
    return option
