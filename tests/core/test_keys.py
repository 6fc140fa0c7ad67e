"""No key names two connections, none is stolen, and no search is unbounded."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvi.keys import SEARCH_LIMIT, Exhausted, Keys, Pair, Path

PATH = Path(b"\xac\x10\x01\x01", b"\xac\x10\x02\x01", 6)


def test_pairs_are_unique_until_the_space_is_used_up():
    keys = Keys(60.0, first=20000, last=20009)
    pairs = set()
    for peer in range(20000, 20010):
        for _ in range(10):
            pair = Pair(PATH, keys.pick(PATH, peer), peer)
            assert keys.take(pair)
            pairs.add(pair)
    assert len(pairs) == 100
    with pytest.raises(Exhausted):
        keys.pick(PATH, 20000)
    assert not any(keys.take(pair) for pair in pairs), "a pair in use was given away"


def test_another_protocol_or_peer_has_its_own_pairs():
    keys = Keys(60.0)
    other = Path(PATH.local, b"\xac\x10\x03\x01", 6)
    for path in (PATH, other, Path(PATH.local, PATH.peer, 17)):
        assert keys.take(Pair(path, 20000, 20000))


def test_a_search_looks_at_a_bounded_number_of_keys():
    keys = Keys(60.0, first=20000, last=32767)
    for key in range(20000, 32768):
        keys.take(Pair(PATH, key, 30000))

    looked_at = 0

    class Counting(set):
        def __contains__(self, pair):
            nonlocal looked_at
            looked_at += 1
            return super().__contains__(pair)

    keys._busy = Counting(keys._busy)
    with pytest.raises(Exhausted):
        keys.pick(PATH, 30000)
    assert looked_at <= SEARCH_LIMIT


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "free", "rest", "wait"]),
            st.integers(20000, 20003),
            st.integers(20000, 20003),
            st.floats(0, 50),
        ),
        max_size=80,
    )
)
def test_a_pair_is_free_again_after_release_or_quarantine_and_never_before(steps):
    """Against a model: a pair is busy, or rests until a known time, or is free."""
    keys = Keys(quarantine=60.0, first=20000, last=20003)
    now = 0.0
    busy_until: dict[Pair, float] = {}
    for step, local, peer, seconds in steps:
        pair = Pair(PATH, local, peer)
        if step == "wait":
            now += seconds
            keys.wake(now)
            busy_until = {pair: until for pair, until in busy_until.items() if until > now}
        elif step == "take":
            assert keys.take(pair) == (pair not in busy_until)
            busy_until.setdefault(pair, float("inf"))
        elif step == "free":
            keys.free(pair)
            busy_until.pop(pair, None)
        elif busy_until.get(pair) == float("inf"):
            keys.rest(pair, now)
            busy_until[pair] = now + 60.0
        assert len(keys) == len(busy_until)
