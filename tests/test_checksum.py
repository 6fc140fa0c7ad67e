"""`nvi.checksum` against the textbook: RFC 1071's loop, and checksums computed anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nvi.checksum import change, fold, internet_checksum

WORDS = st.lists(st.integers(0, 0xFFFF), min_size=2, max_size=20)


def rfc1071(data: bytes) -> int:
    """The checksum as RFC 1071 section 4.1 computes it."""
    if len(data) % 2:
        data += b"\0"
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


@given(st.binary(max_size=1500))
def test_checksum_is_that_of_rfc_1071(data: bytes) -> None:
    assert internet_checksum(data) == rfc1071(data)


def test_a_correct_header_sums_to_zero() -> None:
    header = bytes.fromhex("45000073000040004011b861c0a80001c0a800c7")
    assert internet_checksum(header) == 0
    assert internet_checksum(header[:10] + b"\0\0" + header[12:]) == 0xB861


@given(WORDS)
def test_fold_adds_carries_back(words: list[int]) -> None:
    total = folded = sum(words)
    while folded >> 16:
        folded = (folded & 0xFFFF) + (folded >> 16)
    assert fold(total) == (folded or 0xFFFF)


@given(WORDS, st.data())
def test_update_equals_recomputation(words: list[int], data: st.DataObject) -> None:
    """RFC 1624: adding `change` to the complement of the checksum gives that of the changed data."""
    new_words = data.draw(st.lists(st.integers(0, 0xFFFF), min_size=len(words), max_size=len(words)))
    fixed = b"\x45\x00"  # a header is never all zero
    old, new = (b"".join(word.to_bytes(2, "big") for word in part) for part in (words, new_words))
    before = internet_checksum(fixed + old)
    delta = change(int.from_bytes(new, "big"), int.from_bytes(old, "big"))
    assert 0xFFFF - fold(0xFFFF - before + delta) == internet_checksum(fixed + new)
