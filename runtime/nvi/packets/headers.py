"""Ethernet and IP headers of both families, read with the care of a router (RFC 1812, RFC 8200), and written."""

from __future__ import annotations

from struct import Struct as Layout

from msgspec import Struct

from ..checksum import internet_checksum
from ..model import Address, Mac, Protocol

ETHERNET_LENGTH = 14
IPV4_LENGTH = 20
IPV6_LENGTH = 40

ETHERTYPE_IPV4 = b"\x08\x00"
ETHERTYPE_IPV6 = b"\x86\xdd"

EXTENSION_HEADERS = frozenset((0, 43, 51, 60, 135, 139, 140))
"""IPv6 extension headers (IANA ipv6-parameters) but for Fragment, which the switch looks behind, and ESP, behind which
nobody can look. A packet that begins with one of them counts as one of a protocol without ports."""

_ROUTING = 43
_FRAGMENT = 44
_AUTHENTICATION = 51
_LONGEST_CHAIN = 8

_IPV4 = Layout("!BBHHHBBH4s4s")
_IPV6 = Layout("!IHBB16s16s")


class MalformedPacket(ValueError):
    """A packet that no careful stack would have sent. The text says what is wrong with it."""


class Fragment(Struct, frozen=True, gc=False):
    """Which part of a datagram a packet is."""

    identification: int
    offset: int
    """Bytes of the datagram's payload that come before."""
    more: bool
    """Whether others come after."""


class Datagram(Struct, frozen=True, gc=False):
    """What an IP header says, and where its parts lie in the bytes that were read."""

    source: Address
    destination: Address
    protocol: int
    """Of what follows; for IPv6 that of the first header that is not Fragment."""
    ttl: int
    traffic_class: int
    flow_label: int
    dont_fragment: bool
    """Always true of IPv6."""
    fragment: Fragment | None
    """None if the packet is a whole datagram."""
    start: int
    """Offset of the IP header."""
    payload: int
    """Offset of what follows it."""
    end: int
    """Offset behind the packet, by its own length: more than there is if it was cut short in a quotation."""

    @property
    def length(self) -> int:
        """Bytes of the packet, header included."""
        return self.end - self.start

    @property
    def is_later_fragment(self) -> bool:
        """Whether the beginning of its datagram is in another packet."""
        return self.fragment is not None and self.fragment.offset > 0


def read_datagram(frame: bytes) -> Datagram:
    """The IP packet in an Ethernet frame. Raises MalformedPacket."""
    ether_type = frame[12:14]
    if ether_type == ETHERTYPE_IPV4:
        datagram = _read_ipv4(frame, ETHERNET_LENGTH, quoted=False)
    elif ether_type == ETHERTYPE_IPV6:
        datagram = _read_ipv6(frame, ETHERNET_LENGTH)
    else:
        raise MalformedPacket(f"EtherType {ether_type.hex() or 'none'} is not that of IP")
    if datagram.end > len(frame):
        raise MalformedPacket(f"IP length {datagram.length} does not fit a frame of {len(frame)} bytes")
    return datagram


def read_quoted(data: bytes, at: int) -> Datagram:
    """The beginning of an IP packet as an ICMP error quotes it: cut short perhaps. Raises MalformedPacket."""
    version = data[at] >> 4 if at < len(data) else 0
    if version == 4:
        return _read_ipv4(data, at, quoted=True)
    if version == 6:
        return _read_ipv6(data, at)
    raise MalformedPacket("what is quoted is no IP packet")


def _read_ipv4(data: bytes, at: int, quoted: bool) -> Datagram:
    if len(data) < at + IPV4_LENGTH:
        raise MalformedPacket(f"{len(data) - at} bytes are too short for an IPv4 packet")
    version_ihl, tos, total, identification, flags, ttl, protocol, _, source, destination = _IPV4.unpack_from(data, at)
    if version_ihl != 0x45:
        raise MalformedPacket("not IPv4 without options")
    if total < IPV4_LENGTH:
        raise MalformedPacket(f"IPv4 total length {total} is less than that of its header")
    # Quotations are of packets under way, whose checksums not everybody keeps right.
    if not quoted and internet_checksum(data[at : at + IPV4_LENGTH]):
        raise MalformedPacket("wrong IPv4 header checksum")
    payload, end = at + IPV4_LENGTH, at + total
    fragment = _fragment(identification, (flags & 0x1FFF) * 8, bool(flags & 0x2000), end - payload)
    return Datagram(source, destination, protocol, ttl, tos, 0, bool(flags & 0x4000), fragment, at, payload, end)


def _read_ipv6(data: bytes, at: int) -> Datagram:
    if len(data) < at + IPV6_LENGTH:
        raise MalformedPacket(f"{len(data) - at} bytes are too short for an IPv6 packet")
    first, size, protocol, ttl, source, destination = _IPV6.unpack_from(data, at)
    if first >> 28 != 6:
        raise MalformedPacket("not IPv6")
    payload, end = at + IPV6_LENGTH, at + IPV6_LENGTH + size
    fragment = None
    if protocol == _FRAGMENT:
        if min(len(data), end) < payload + 8:
            raise MalformedPacket("the Fragment header is cut short")
        protocol, place = data[payload], int.from_bytes(data[payload + 2 : payload + 4])
        identification = int.from_bytes(data[payload + 4 : payload + 8])
        payload += 8
        fragment = _fragment(identification, place & 0xFFF8, bool(place & 1), end - payload)
    if protocol in EXTENSION_HEADERS and (fragment is None or fragment.offset == 0):
        _check_extensions(data, protocol, payload, min(len(data), end))
    label, traffic_class = first & 0xFFFFF, first >> 20 & 0xFF
    return Datagram(source, destination, protocol, ttl, traffic_class, label, True, fragment, at, payload, end)


def _fragment(identification: int, offset: int, more: bool, size: int) -> Fragment | None:
    if not offset and not more:  # also an atomic fragment (RFC 6946)
        return None
    if size <= 0 or offset + size > 0xFFFF:
        raise MalformedPacket("a fragment of nothing, or that reaches behind the largest datagram")
    if more and size % 8:
        raise MalformedPacket("a fragment whose end is not the beginning of another one")
    return Fragment(identification, offset, more)


def _check_extensions(data: bytes, protocol: int, at: int, end: int) -> None:
    """Whether IPv6 extension headers make sense, up to the end of their chain or of what there is."""
    for _ in range(_LONGEST_CHAIN):
        if protocol == _ROUTING:
            # Whatever its type: an endpoint has no say in the way of its packets (RFC 5095, RFC 6169).
            raise MalformedPacket("a source route")
        if protocol not in EXTENSION_HEADERS:
            return
        if at + 8 > end:
            raise MalformedPacket("an IPv6 extension header is cut short")
        size = (data[at + 1] + 2) * 4 if protocol == _AUTHENTICATION else (data[at + 1] + 1) * 8
        protocol, at = data[at], at + size
        if at > end:
            raise MalformedPacket("an IPv6 extension header does not fit the packet")
    raise MalformedPacket(f"more than {_LONGEST_CHAIN} IPv6 extension headers")


def is_single(address: Address) -> bool:
    """Whether an address can be that of one machine: not multicast, broadcast, loopback or none at all."""
    if len(address) == 4:
        return address[0] not in (0, 127) and address[0] < 224
    return address[0] != 0xFF and address[:15] != bytes(15)


def transport_checksum(source: Address, destination: Address, protocol: int, payload: bytes) -> int:
    """The checksum of a transport header and its data, whose checksum field is zero (RFC 8200 section 8.1).

    Zero if it is in place and correct.
    """
    # A pseudo header's place and width do not matter to the sum: so this is right for both families.
    return internet_checksum(source + destination + len(payload).to_bytes(4) + protocol.to_bytes(4) + payload)


def with_checksum(source: Address, destination: Address, protocol: int, payload: bytes, at: int) -> bytes:
    """The transport header and its data with the checksum at offset `at` put right. ICMP has no pseudo header."""
    blank = payload[:at] + b"\0\0" + payload[at + 2 :]
    if protocol == Protocol.ICMP:
        checksum = internet_checksum(blank)
    else:
        checksum = transport_checksum(source, destination, protocol, blank)
        if protocol == Protocol.UDP and not checksum:
            checksum = 0xFFFF  # zero means that there is none (RFC 768)
    return blank[:at] + checksum.to_bytes(2) + blank[at + 2 :]


def ip_packet(
    source: Address,
    destination: Address,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = 64,
    traffic_class: int = 0,
    flow_label: int = 0,
    dont_fragment: bool = True,
) -> bytes:
    """A whole packet of the family that the addresses are of. One to be sent has no identification (RFC 6864)."""
    if len(source) == 16:
        first = 6 << 28 | traffic_class << 20 | flow_label
        return _IPV6.pack(first, len(payload), protocol, ttl, source, destination) + payload
    total, flags = IPV4_LENGTH + len(payload), 0x4000 if dont_fragment else 0
    return ipv4_header(0x45, traffic_class, total, 0, flags, ttl, protocol, 0, source, destination) + payload


def ipv4_header(*fields: int | bytes) -> bytes:
    """The fields in their order, from version and IHL on, with the checksum (whatever is given for it) put right."""
    header = _IPV4.pack(*fields)
    header = header[:10] + b"\0\0" + header[12:]
    return header[:10] + internet_checksum(header).to_bytes(2) + header[12:]


def ethernet(destination: Mac, source: Mac, packet: bytes) -> bytes:
    """A frame with an IP packet."""
    return destination + source + (ETHERTYPE_IPV6 if packet[0] >> 4 == 6 else ETHERTYPE_IPV4) + packet
