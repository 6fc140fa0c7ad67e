"""Parser, checksums and deparser of the embedded switch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from switch_support import engine

from nvi.embedded.hashes import csum16

_process = engine("headers").process

TOO_SHORT, BAD_VERSION, NO_MATCH, HEADER_TOO_SHORT, INVALID_ARGUMENT = range(1, 6)
ETHERNET = bytes(range(12))


def ipv4(options: bytes = b"", tos: int = 0, ttl: int = 64, protocol: int = 17, version: int = 4) -> bytes:
    ihl = 5 + len(options) // 4
    head = bytes([version << 4 | ihl, tos, 0, 100, 0, 7, 0x40, 0, ttl, protocol])
    rest = bytes([10, 0, 0, 1, 10, 0, 0, 2]) + options
    return head + csum16(head + b"\0\0" + rest).to_bytes(2) + rest


def udp(payload: bytes, checksum: bytes = b"\0\0", source: int = 1000) -> bytes:
    return source.to_bytes(2) + b"\0\x35" + (8 + len(payload)).to_bytes(2) + checksum + payload


class Result:
    def __init__(self, packet: bytes, port: int = 3) -> None:
        ((self.port, out),) = _process(port, packet)
        self.error, self.bad_checksum = out[0], out[1]
        self.length, self.peek = int.from_bytes(out[2:4]), int.from_bytes(out[4:6])
        self.rest = out[6:]


@given(st.binary(max_size=60), st.integers(0, 10).map(lambda n: bytes(range(4 * n))))
def test_ipv4_with_options_and_udp(payload: bytes, options: bytes) -> None:
    packet = ETHERNET + b"\x08\x00" + ipv4(options) + udp(payload, b"\x12\x34")
    result = Result(packet)
    assert (result.error, result.bad_checksum, result.length) == (0, 0, len(packet) + 6)
    size = 14 + 20 + len(options)
    out = result.rest
    assert out[:22] == packet[:22]
    assert out[22] == 63
    assert csum16(out[14:size]) == 0
    pseudo = out[26:34] + b"\0\x11" + (8 + len(payload)).to_bytes(2)
    assert csum16(pseudo + out[size : size + 6] + out[size + 8 :]) == int.from_bytes(out[size + 6 : size + 8])
    assert out[size + 8 :] == payload


def test_udp_without_checksum_stays_without() -> None:
    result = Result(ETHERNET + b"\x08\x00" + ipv4() + udp(b"abc"))
    assert result.rest[40:42] == b"\0\0"


@given(st.integers(14, 41))
def test_too_short(size: int) -> None:
    """What was extracted before the error stays; the rest passes as payload."""
    packet = (ETHERNET + b"\x08\x00" + ipv4() + udp(b""))[:size]
    result = Result(packet)
    assert result.error == TOO_SHORT
    if size < 34:
        assert result.rest == packet
    else:
        assert result.rest[34:] == packet[34:]


def test_nothing_at_all() -> None:
    result = Result(b"")
    assert (result.error, result.rest) == (TOO_SHORT, b"")


def test_wrong_header_checksum_is_reported_and_replaced() -> None:
    header = bytearray(ipv4())
    header[10] ^= 0xFF
    result = Result(ETHERNET + b"\x08\x00" + bytes(header) + udp(b""))
    assert result.bad_checksum == 1
    assert csum16(result.rest[14:34]) == 0


def test_verify_stops_the_parser() -> None:
    packet = ETHERNET + b"\x08\x00" + ipv4(version=6) + udp(b"")
    result = Result(packet)
    assert result.error == BAD_VERSION
    assert result.rest[34:] == packet[34:]


def test_header_length_below_the_minimum() -> None:
    """(4 - 5) * 32 wraps: BMv2 takes the width as an int."""
    header = b"\x44" + ipv4()[1:]
    assert Result(ETHERNET + b"\x08\x00" + header + udp(b"")).error in (TOO_SHORT, INVALID_ARGUMENT)


def test_tag_is_removed() -> None:
    packet = ETHERNET + b"\x81\x00" + b"\x20\x05\x08\x00" + ipv4() + udp(b"xy")
    result = Result(packet)
    assert result.rest[:14] == ETHERNET + b"\x08\x00"
    assert result.length == len(packet) + 6 - 4
    assert result.rest[14] == 0x45


def test_select_on_two_fields() -> None:
    result = Result(ETHERNET + b"\x81\x00" + b"\x10\x05\x08\x00" + ipv4())
    assert result.error == NO_MATCH


def test_tag_is_added_with_fresh_fields() -> None:
    result = Result(ETHERNET + b"\x08\x00" + ipv4(tos=1) + udp(b""))
    assert result.rest[:18] == ETHERNET + b"\x81\x00" + b"\x00\x07\x08\x00"


def test_header_copy() -> None:
    result = Result(ETHERNET + b"\x08\x00" + ipv4(tos=2, protocol=6) + b"payload")
    assert result.rest[34:48] == ETHERNET[:6] + bytes(6) + b"\x08\x00"
    assert result.rest[48:] == b"payload"
    assert result.rest[18:20] == b"\x00\x07"


def test_advance_and_masked_select() -> None:
    packet = ETHERNET + b"\x12\x99" + b"??" + udp(b"z", source=99)
    result = Result(packet)
    # The two bytes that were skipped belong to no header, so they are gone.
    assert result.rest == ETHERNET + b"\x12\x99" + udp(b"z", source=99)


def test_lookahead_and_range() -> None:
    assert Result(ETHERNET + b"\x13\x07" + b"\xab\xcd").peek == 0xABCD
    assert Result(ETHERNET + b"\x13\x08" + b"\xab\xcd").peek == 0
    assert Result(ETHERNET + b"\x13\x03" + b"\xab").error == TOO_SHORT


def test_drop_in_ingress_and_egress() -> None:
    assert _process(1, ETHERNET + b"\x08\x00" + ipv4(ttl=0) + udp(b"")) == []
    assert _process(1, ETHERNET + b"\x08\x00" + ipv4() + udp(b"", source=666)) == []


@given(st.binary(max_size=200))
def test_no_packet_is_too_strange(packet: bytes) -> None:
    for prefix in (b"", ETHERNET + b"\x08\x00", ETHERNET + b"\x81\x00", ETHERNET + b"\x12\x00", ETHERNET + b"\x13\x01"):
        assert len(_process(1, prefix + packet)) <= 1
