"""The Internet checksum and what rewriting does to it (RFC 1071, RFC 1624). No I/O.

A one's complement sum of 16-bit words is the residue modulo 0xffff of the number that the words spell, since
2**16 = 1 (mod 0xffff). So Python's long integers add up any number of words at once.
"""

from __future__ import annotations


def fold(total: int) -> int:
    """The one's complement sum, 1 to 0xffff, of 16-bit words that add up, or spell, to `total`.

    It stands for zero as 0xffff, as folding the carries of words that are not all zero does.
    """
    return (total - 1) % 0xFFFF + 1


def change(new: int, old: int) -> int:
    """What replacing `old` by `new` adds to the one's complement sum under a checksum (RFC 1624, equation 3: ~m + m').

    Both are numbers spelt by whole 16-bit words, such as two addresses and a pair of ports in a row.
    """
    return fold(new - old)


def internet_checksum(data: bytes) -> int:
    """The checksum of `data`, whose own checksum field is zero, or 0 if it is in place and correct (RFC 1071)."""
    total = int.from_bytes(data) << 8 * (len(data) % 2)
    return 0xFFFF - fold(total) if total else 0xFFFF
