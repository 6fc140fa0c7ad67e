"""Arithmetic, conditions and hashes of the embedded switch against what P4 says, computed independently."""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from switch_support import engine

from nvi.embedded import hashes

M32, M64, M128 = (1 << 32) - 1, (1 << 64) - 1, (1 << 128) - 1
_process = engine("alu").process


@dataclass(frozen=True)
class Values:
    a: int
    b: int
    s: int
    small: int
    tiny: int
    wide: int
    huge: int

    def packet(self, op: int) -> bytes:
        head = struct.pack(">BIIhBQ", op, self.a, self.b, self.s, self.small << 3 | self.tiny, self.wide)
        return head + self.huge.to_bytes(16)


def run(op: int, values: Values, rest: bytes = b"") -> tuple[int, ...]:
    """The ten results."""
    packet = values.packet(op)
    ((port, out),) = _process(5, packet + rest)
    assert port == 5
    assert out.startswith(packet)
    assert out.endswith(rest)
    result = out[len(packet) : len(out) - len(rest)]
    number = int.from_bytes(result)
    widths = (32, 32, 32, 16, 16, 64, 128, 7, 1, 48)
    assert 8 * len(result) == sum(widths)
    fields = []
    for width in reversed(widths):
        fields.append(number & (1 << width) - 1)
        number >>= width
    return tuple(reversed(fields))


edge = st.sampled_from((0, 1, 2, M32, M32 - 1, 1 << 31, (1 << 31) - 1))
numbers = st.one_of(edge, st.integers(0, M32))
value_sets = st.builds(
    Values,
    a=numbers,
    b=numbers,
    s=st.one_of(st.sampled_from((-32768, 32767, -1, 0, 1, 5, 6)), st.integers(-32768, 32767)),
    small=st.integers(0, 31),
    tiny=st.integers(0, 7),
    wide=st.integers(0, M64),
    huge=st.integers(0, M128),
)


@given(value_sets, st.binary(max_size=4))
def test_plain(v: Values, rest: bytes) -> None:
    assert run(0, v, rest) == (
        v.a + v.b & M32,
        v.a - v.b & M32,
        v.a * v.b & M32,
        v.a & ~v.b & 0xFFFF,
        v.s + 1 & 0xFFFF,
        v.wide ^ v.a,
        v.huge | v.wide,
        v.small + v.tiny,
        int(v.a > v.b),
        (v.a >> 8) << 24 | v.b & 0xFFFFFF,
    )


@given(value_sets)
def test_shifts(v: Values) -> None:
    assert run(1, v) == (
        v.a << v.small & M32,
        v.a >> v.small,
        v.b << 7 & M32,
        v.b >> 9 & 0xFFFF,
        v.s >> v.tiny & 0xFFFF,
        v.wide << 1 & M64,
        v.huge << v.small & M128,
        v.huge >> 100 & 0x7F,
        v.small >> 2 & 1,
        v.wide & 0xFFFFFFFF00FF | (v.a & 0xFF) << 8,
    )


@given(value_sets)
def test_saturating_and_signed(v: Values) -> None:
    def saturate(x: int) -> int:
        return max(-32768, min(32767, x)) & 0xFFFF

    assert run(2, v) == (
        min(v.a + v.b, M32),
        max(v.a - v.b, 0),
        v.s & M32,
        saturate(v.s - 1000),
        saturate(2 * v.s),
        v.s & 0xFF,
        0,
        1 if v.a == v.b else 2 if v.a < v.b else 3,
        int(v.s < 0),
        -v.s & 0xFFFF,
    )


@given(value_sets, st.booleans())
def test_conditions(v: Values, same: bool) -> None:
    v = Values(v.a, v.a if same else v.b, v.s, v.small, v.tiny, v.wide, v.huge)
    test = v.a == v.b or (v.small == 3 and v.tiny <= 2)
    r = [0] * 10
    r[8] = int(test and v.a != 0)
    if test:
        r[0] = 1
        r[1] = 2 if v.s > 5 else 3
        if v.s > 5:
            r[2], r[3] = 4, 6  # otherwise the action has returned
    else:
        r[0], r[3] = 5 if v.a & 1 else 0, 6
    assert run(3, v) == tuple(r)


def crc(data: bytes, width: int, polynomial: int, initial: int, final: int) -> int:
    """A reflected CRC, bit by bit (ITU-T V.42 style)."""
    value = initial
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
    return (value ^ final) & (1 << width) - 1


def ones_complement(data: bytes) -> int:
    """RFC 1071, word by word."""
    data += b"\0" * (len(data) % 2)
    total = 0
    for (word,) in struct.iter_unpack(">H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(value_sets)
def test_hashes(v: Values) -> None:
    a, b, op, huge = v.a.to_bytes(4), v.b.to_bytes(4), bytes([4]), v.huge.to_bytes(16)
    xor = 0
    for (word,) in struct.iter_unpack(">H", v.wide.to_bytes(8) + op + b"\0"):
        xor ^= word
    odd = (v.small << 19 | 5 << 16 | v.s & 0xFFFF).to_bytes(3)
    assert run(4, v) == (
        binascii.crc32(a + b + op),
        crc(a + bytes([v.small << 3 | v.tiny]), 16, 0xA001, 0, 0) % 1000 + 10,
        xor,
        ones_complement(huge + op),
        0,
        int.from_bytes(huge[:8]) % M64,
        0,
        crc(odd, 16, 0xA001, 0, 0) % 50 + 3,
        0,
        ones_complement(a) % max(v.b, 1) + 5,
    )


@given(st.binary(max_size=200))
def test_algorithms(data: bytes) -> None:
    assert hashes.csum16(data) == ones_complement(data)
    assert hashes.crc16(data) == crc(data, 16, 0xA001, 0, 0)
    assert hashes.crc32(data) == crc(data, 32, 0xEDB88320, M32, M32)
    assert hashes.crc_ccitt(data) == binascii.crc_hqx(data, 0xFFFF)


def test_check_values() -> None:
    """The catalogue's check values, for "123456789"."""
    data = b"123456789"
    assert hashes.crc16(data) == 0xBB3D
    assert hashes.crc32(data) == 0xCBF43926
    assert hashes.crc_ccitt(data) == 0x29B1
    assert hashes.csum16(b"") == 0xFFFF
    assert hashes.csum16(b"\xff\xff") == 0


def test_short_packet_keeps_its_payload() -> None:
    ((port, out),) = _process(3, b"\x01\x02")
    assert port == 3
    assert out.endswith(b"\x01\x02")
