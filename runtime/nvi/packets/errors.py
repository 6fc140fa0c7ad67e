"""ICMP errors of both families (RFC 792, RFC 1812, RFC 4443): built, read, and left unsaid where they must be."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

from ..checksum import internet_checksum
from ..model import Address, Flow, Mac, Protocol
from .flows import quoted_flow
from .headers import (
    ETHERNET_LENGTH,
    IPV4_LENGTH,
    IPV6_LENGTH,
    Datagram,
    MalformedPacket,
    ethernet,
    ip_packet,
    is_single,
    read_datagram,
    read_quoted,
    transport_checksum,
    with_checksum,
)

UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM = 3, 11, 12
FRAGMENTATION_NEEDED = 4
"""Types, and a code of the first, of ICMP."""

UNREACHABLE6, TOO_BIG6, TIME_EXCEEDED6, PARAMETER_PROBLEM6 = 1, 2, 3, 4
"""Types of ICMPv6."""

_QUERIES = frozenset((0, 8, 9, 10, 13, 14, 15, 16, 17, 18))
"""ICMP types that are no errors (RFC 1122 section 3.2.2), and so may be answered with one."""
_REDIRECT6 = 137
_INTERNETWORK_CONTROL = 0xC0
"""The traffic class of errors: DSCP CS6 (RFC 1812 section 4.3.2.5)."""
_SHORTEST_MTU = {4: 576, 16: 1280}
"""By length of address: what an error must not exceed (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4c)."""


class Unreachable(IntEnum):
    """Codes of ICMP destination unreachable (RFC 792, RFC 1812 section 5.2.7.1)."""

    NETWORK = 0
    HOST = 1
    PORT = 3
    ADMINISTRATIVELY_PROHIBITED = 13


_CODE6 = {
    Unreachable.NETWORK: 0,
    Unreachable.HOST: 3,
    Unreachable.PORT: 4,
    Unreachable.ADMINISTRATIVELY_PROHIBITED: 1,
}
"""What says the same in ICMPv6 (RFC 4443 section 3.1)."""


def destination_unreachable(frame: bytes, code: Unreachable, router: Address, router_mac: Mac) -> bytes:
    """The frame with which a router answers a packet that it does not forward."""
    kind_and_code = (UNREACHABLE, int(code)) if len(router) == 4 else (UNREACHABLE6, _CODE6[code])
    return _about(frame, *kind_and_code, 0, router, router_mac)


def time_exceeded(frame: bytes, router: Address, router_mac: Mac) -> bytes:
    """The frame with which a router answers a packet whose TTL ends with it."""
    return _about(frame, TIME_EXCEEDED if len(router) == 4 else TIME_EXCEEDED6, 0, 0, router, router_mac)


def too_big(frame: bytes, mtu: int, router: Address, router_mac: Mac) -> bytes:
    """The frame with which a router answers a packet longer than `mtu` bytes that it must not fragment.

    RFC 1191 section 4, RFC 4443 section 3.2.
    """
    if len(router) == 4:
        return _about(frame, UNREACHABLE, FRAGMENTATION_NEEDED, min(mtu, 0xFFFF), router, router_mac)
    return _about(frame, TOO_BIG6, 0, mtu, router, router_mac)


def may_be_answered(frame: bytes, *, too_big: bool = False) -> bool:
    """Whether a packet may be answered with an ICMP error (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4e).

    Not if it is an error itself, was not sent to a single machine or by one, or is a later fragment of IPv4.
    `too_big`: the error would be Packet Too Big, which IPv6 sends also about multicast.
    """
    try:
        datagram = read_datagram(frame)
    except MalformedPacket:
        return False
    is_ipv6 = len(datagram.source) == 16
    to_group = bool(frame[0] & 1) or not is_single(datagram.destination)
    if not is_single(datagram.source) or (to_group and not (too_big and is_ipv6)):
        return False
    if datagram.is_later_fragment:
        # In IPv6 it may be part of an error for all we can tell from it.
        return not (datagram.protocol == Protocol.ICMPV6 or not is_ipv6)
    if datagram.protocol == (Protocol.ICMPV6 if is_ipv6 else Protocol.ICMP):
        if datagram.payload >= datagram.end:
            return False
        kind = frame[datagram.payload]
        return kind >= 128 and kind != _REDIRECT6 if is_ipv6 else kind in _QUERIES
    return True


def build_error(
    kind: int,
    code: int,
    parameter: int,
    quoted: bytes,
    source: Address,
    destination: Address,
    *,
    ttl: int = 64,
    traffic_class: int = _INTERNETWORK_CONTROL,
    flow_label: int = 0,
) -> bytes:
    """The IP packet with an ICMP error that quotes as much as it may of an IP packet.

    `parameter`: the word after the checksum, for example an MTU.
    """
    room = _SHORTEST_MTU[len(source)] - (IPV4_LENGTH if len(source) == 4 else IPV6_LENGTH) - 8
    protocol = Protocol.ICMP if len(source) == 4 else Protocol.ICMPV6
    body = bytes([kind, code, 0, 0]) + parameter.to_bytes(4) + quoted[:room]
    message = with_checksum(source, destination, protocol, body, 2)
    return ip_packet(
        source, destination, protocol, message, ttl=ttl, traffic_class=traffic_class, flow_label=flow_label
    )


def _about(frame: bytes, kind: int, code: int, parameter: int, router: Address, router_mac: Mac) -> bytes:
    if len(router) == 4:
        sender, length = frame[26:30], int.from_bytes(frame[16:18])
    else:
        sender, length = frame[22:38], IPV6_LENGTH + int.from_bytes(frame[18:20])
    packet = frame[ETHERNET_LENGTH : ETHERNET_LENGTH + length]
    return ethernet(frame[6:12], router_mac, build_error(kind, code, parameter, packet, router, sender))


class ErrorMessage(Struct, frozen=True):
    """An ICMP error about a packet of a flow."""

    outer: Datagram
    kind: int
    code: int
    parameter: int
    """The word after the checksum: for example an MTU, or a pointer."""
    quoted: Datagram
    """The packet that it is about; its offsets are those in the frame."""
    flow: Flow
    """Of that packet."""
    quoted_end: int
    """Offset behind the last byte that is quoted."""


def parse_error(frame: bytes) -> ErrorMessage:
    """Read an ICMP or ICMPv6 error. Raises MalformedPacket.

    Also if it is a redirect or a source quench, which nobody should believe (RFC 1812 section 5.3.3, RFC 6633).
    """
    outer = read_datagram(frame)
    is_ipv6 = len(outer.source) == 16
    at = outer.payload
    if outer.protocol != (Protocol.ICMPV6 if is_ipv6 else Protocol.ICMP) or outer.fragment is not None:
        raise MalformedPacket("not a whole ICMP message")
    if outer.end < at + 8:
        raise MalformedPacket("ICMP header is cut short")
    known = (1, 2, 3, 4) if is_ipv6 else (UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM)
    kind, code = frame[at], frame[at + 1]
    if kind not in known:
        raise MalformedPacket(f"ICMP type {kind} is not an error that is passed on")
    body = frame[at : outer.end]
    wrong = transport_checksum(outer.source, outer.destination, 58, body) if is_ipv6 else internet_checksum(body)
    if wrong:
        raise MalformedPacket("wrong ICMP checksum")
    data = frame[: outer.end]
    quoted = read_quoted(data, at + 8)
    if len(quoted.source) != len(outer.source):
        raise MalformedPacket("an ICMP error about a packet of the other family")
    flow = quoted_flow(data, quoted)
    end = min(outer.end, quoted.end)
    return ErrorMessage(outer, kind, code, int.from_bytes(frame[at + 4 : at + 8]), quoted, flow, end)
