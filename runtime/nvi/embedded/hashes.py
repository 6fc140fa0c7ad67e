"""The hash algorithms of v1model, with BMv2's parameters (behavioral-model `src/bm_sim/calculations.cpp`)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable


def concatenate(parts: Iterable[tuple[int, int] | tuple[bytes, int]], tail: bytes = b"") -> bytes:
    """Fields (value, width in bits) one after another, padded with zero bits to whole bytes, then `tail`."""
    total, width = 0, 0
    for value, bits in parts:
        number = int.from_bytes(value) if isinstance(value, bytes) else value
        total = total << bits | number
        width += bits
    size = (width + 7) // 8
    return (total << (8 * size - width)).to_bytes(size) + tail


def csum16(data: bytes) -> int:
    """The Internet checksum (RFC 1071); an odd byte counts as if a zero byte followed."""
    total = int.from_bytes(data) << (8 if len(data) & 1 else 0)
    return -total % 65535 if total else 65535


def crc16(data: bytes) -> int:
    """CRC-16/ARC: polynomial 0x8005, reflected, no initial value."""
    value = 0
    for byte in data:
        value = value >> 8 ^ _CRC16[(value ^ byte) & 0xFF]
    return value


def crc_ccitt(data: bytes) -> int:
    """CRC-16/IBM-3740: polynomial 0x1021, initial value 0xffff."""
    value = 0xFFFF
    for byte in data:
        value = (value << 8 & 0xFFFF) ^ _CCITT[value >> 8 ^ byte]
    return value


def crc32(data: bytes) -> int:
    """That of Ethernet."""
    return zlib.crc32(data)


def xor16(data: bytes) -> int:
    """Exclusive or of the 16-bit words, the last one padded with a zero byte."""
    value = 0
    for position in range(0, len(data), 2):
        value ^= int.from_bytes(data[position : position + 2].ljust(2, b"\0"))
    return value


def identity(data: bytes) -> int:
    """The first 64 bits of the data as a number."""
    return int.from_bytes(data[:8])


def _table_reflected(polynomial: int) -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
        table.append(value)
    return tuple(table)


def _table(polynomial: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << 8
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value & 0x8000 else 0)) & 0xFFFF
        table.append(value)
    return tuple(table)


_CRC16 = _table_reflected(0xA001)
_CCITT = _table(0x1021)

FUNCTIONS: dict[str, Callable[[bytes], int]] = {
    "crc16": crc16,
    "crc16_custom": crc16,
    "crc32": crc32,
    "crc32_custom": crc32,
    "crcCCITT": crc_ccitt,
    "csum16": csum16,
    "xor16": xor16,
    "identity": identity,
}
"""By their names in the JSON. The custom ones have the standard parameters unless Thrift changes them."""

WIDTHS: dict[str, int] = {name: {"crc32": 32, "crc32_custom": 32, "identity": 64}.get(name, 16) for name in FUNCTIONS}
"""Bits of each result."""
