"""ICMP errors for the other family (RFC 7915 sections 4.2, 4.3, 5.2 and 5.3), and for another segment of the same.

An error says "your packet", and quotes it. Whoever rewrites packets must quote the packet that its reader has sent:
with the reader's own addresses and ports, in the reader's family.
"""

from __future__ import annotations

from ..checksum import fold
from ..model import Address, FirstPacket, Flow, Protocol
from .errors import (
    FRAGMENTATION_NEEDED,
    PARAMETER_PROBLEM,
    PARAMETER_PROBLEM6,
    TIME_EXCEEDED,
    TIME_EXCEEDED6,
    TOO_BIG6,
    UNREACHABLE,
    UNREACHABLE6,
    ErrorMessage,
    build_error,
)
from .headers import IPV4_LENGTH, ip_packet

GROWTH = 20
"""Bytes by which a packet grows when it becomes IPv6, and shrinks when it becomes IPv4."""

FRAGMENT_GROWTH = GROWTH + 8
"""The same of a fragment, which has a header of its own in IPv6 (RFC 8200 section 4.5)."""

_UNREACHABLE_TO_6 = {0: 0, 1: 0, 3: 4, 5: 0, 6: 0, 7: 0, 8: 0, 9: 1, 10: 1, 11: 0, 12: 0, 13: 1, 15: 1}
_UNREACHABLE_TO_4 = {0: 1, 1: 10, 2: 1, 3: 1, 4: 3}
_POINTER_TO_6 = {
    0: 0,
    1: 1,
    2: 4,
    3: 4,
    8: 7,
    9: 6,
    **dict.fromkeys(range(12, 16), 8),
    **dict.fromkeys(range(16, 20), 24),
}
_POINTER_TO_4 = {
    0: 0,
    1: 1,
    4: 2,
    5: 2,
    6: 9,
    7: 8,
    **dict.fromkeys(range(8, 24), 12),
    **dict.fromkeys(range(24, 40), 16),
}
_PLATEAUS = (65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68)
"""Usual MTUs (RFC 1191 section 7), for routers that do not tell theirs."""
_PROTOCOL_UNREACHABLE, _NEXT_HEADER_POINTER = 2, 6
_CHECKSUM_AT: dict[int, int] = {Protocol.TCP: 16, Protocol.UDP: 6, Protocol.ICMP: 2, Protocol.ICMPV6: 2}
_ECHO_TO_6, _ECHO_TO_4 = {8: 128, 0: 129}, {128: 8, 129: 0}


def translate_error(
    error: ErrorMessage,
    frame: bytes,
    sent: Flow,
    source: Address,
    destination: Address,
    shown: FirstPacket,
    quoted_ttl: int,
) -> bytes | None:
    """The IP packet that tells `destination` of an error, as one about a packet of the flow `sent`.

    `frame` is what the error was read from; `source` is in whose name it is told. All addresses are of one family,
    which may be another one than that of the error. `shown`: what the connection's packets carry there, and so does
    the error, and but for its TTL the packet that it quotes. None for an error that the other family does not have.
    """
    meaning = (error.kind, error.code, error.parameter)
    if len(source) != len(error.outer.source):
        translated = _to_ipv6(error) if len(source) == 16 else _to_ipv4(error)
        if translated is None:
            return None
        meaning = translated
    return build_error(
        *meaning,
        _requote(error, frame, sent, shown, quoted_ttl),
        source,
        destination,
        ttl=shown.ttl,
        traffic_class=error.outer.traffic_class,
        flow_label=shown.flow_label,
    )


def _to_ipv6(error: ErrorMessage) -> tuple[int, int, int] | None:
    kind, code = error.kind, error.code
    if kind == UNREACHABLE and code == FRAGMENTATION_NEEDED:
        mtu = error.parameter & 0xFFFF or next(size for size in _PLATEAUS if size < max(error.quoted.length, 69))
        return TOO_BIG6, 0, mtu + GROWTH
    if kind == UNREACHABLE and code == _PROTOCOL_UNREACHABLE:
        return PARAMETER_PROBLEM6, 1, _NEXT_HEADER_POINTER
    if kind == UNREACHABLE and code in _UNREACHABLE_TO_6:
        return UNREACHABLE6, _UNREACHABLE_TO_6[code], 0
    if kind == TIME_EXCEEDED:
        return TIME_EXCEEDED6, code, 0
    if (
        kind == PARAMETER_PROBLEM
        and code in (0, 2)
        and (pointer := _POINTER_TO_6.get(error.parameter >> 24)) is not None
    ):
        return PARAMETER_PROBLEM6, 0, pointer
    return None


def _to_ipv4(error: ErrorMessage) -> tuple[int, int, int] | None:
    kind, code = error.kind, error.code
    if kind == TOO_BIG6:
        return UNREACHABLE, FRAGMENTATION_NEEDED, min(max(error.parameter - GROWTH, 68), 0xFFFF)
    if kind == UNREACHABLE6 and code in _UNREACHABLE_TO_4:
        return UNREACHABLE, _UNREACHABLE_TO_4[code], 0
    if kind == TIME_EXCEEDED6:
        return TIME_EXCEEDED, code, 0
    if kind == PARAMETER_PROBLEM6 and code == 1:
        return UNREACHABLE, _PROTOCOL_UNREACHABLE, 0
    if kind == PARAMETER_PROBLEM6 and code == 0 and (pointer := _POINTER_TO_4.get(error.parameter)) is not None:
        return PARAMETER_PROBLEM, 0, pointer << 24
    return None


def _requote(error: ErrorMessage, frame: bytes, sent: Flow, shown: FirstPacket, ttl: int) -> bytes:
    """What is quoted, as the packet of the flow `sent` that it once was."""
    quoted = error.quoted
    l4 = bytearray(frame[quoted.payload : error.quoted_end])
    size = min(quoted.end - quoted.payload, 0xFFFF - IPV4_LENGTH)
    if quoted.fragment is None or quoted.fragment.offset == 0:
        _rewrite_transport(l4, error.flow, sent, size)
    # Only an identification cannot be known again from what became of the packet.
    header = ip_packet(
        sent.source,
        sent.destination,
        sent.protocol,
        bytes(size),
        ttl=ttl,
        traffic_class=quoted.traffic_class,
        flow_label=shown.flow_label,
        dont_fragment=shown.dont_fragment,
    )
    return header[: len(header) - size] + bytes(l4)


def _rewrite_transport(l4: bytearray, old: Flow, new: Flow, size: int) -> None:
    """Ports, identifiers and checksum, as far as they are quoted; `size`: bytes of the packet behind its header."""
    checksum_at = _CHECKSUM_AT.get(old.protocol)
    if checksum_at is None:
        return
    before = _summed(l4, old, size)
    if old.protocol in (Protocol.TCP, Protocol.UDP):
        l4[0:4] = new.l4_source.to_bytes(2) + new.l4_destination.to_bytes(2)
    else:
        if new.protocol != old.protocol:
            l4[0] = (_ECHO_TO_6 if new.protocol == Protocol.ICMPV6 else _ECHO_TO_4)[l4[0]]
        is_request = l4[0] in (8, 128)
        l4[4:6] = (new.l4_source if is_request else new.l4_destination).to_bytes(2)
    if len(l4) < checksum_at + 2:
        return
    checksum = int.from_bytes(l4[checksum_at : checksum_at + 2])
    if old.protocol == Protocol.UDP and not checksum:
        return
    l4[checksum_at : checksum_at + 2] = (0xFFFF - fold(0xFFFF - checksum + _summed(l4, new, size) - before)).to_bytes(2)


def _summed(l4: bytearray, flow: Flow, size: int) -> int:
    """What the transport checksum covers and a rewrite may change."""
    if flow.protocol in (Protocol.TCP, Protocol.UDP):
        return int.from_bytes(flow.source + flow.destination) + int.from_bytes(l4[0:4])
    own = int.from_bytes(l4[0:2]) + int.from_bytes(l4[4:6])
    if flow.protocol == Protocol.ICMP:
        return own  # no pseudo header
    return own + int.from_bytes(flow.source + flow.destination) + size + Protocol.ICMPV6
