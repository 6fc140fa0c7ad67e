"""No key names two connections, none is stolen, and no search is unbounded."""

from __future__ import annotations

import random
from collections import deque
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvi.keys import SEARCH_LIMIT, Exhausted, Keys, Pair, Path

PATH = Path(1, b"\xac\x10\x01\x01", b"\xac\x10\x02\x01", 6)


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
    other = Path(1, PATH.local, b"\xac\x10\x03\x01", 6)
    for path in (PATH, other, Path(1, PATH.local, PATH.peer, 17)):
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


A1, A2, B1 = b"\xac\x10\x01\x01", b"\xac\x10\x01\x02", b"\xac\x10\x02\x01"


def paths(own, peers, protocol=47):
    return [Path(wire=1, local=local, peer=peer, protocol=protocol) for local, peer in product(own, peers)]


def test_defect_22_a_protocol_without_ports_takes_a_pair_of_addresses_as_its_key():
    keys = Keys(60.0)
    for expected in (A1, A2):
        path = keys.pick_path(paths([A1, A2], [B1]))
        assert path.local == expected
        assert keys.take(Pair(path, 0, 0))
    with pytest.raises(Exhausted, match=r"towards 172.16.2.1 carries a flow of protocol gre already; give one of"):
        keys.pick_path(paths([A1, A2], [B1]))
    assert keys.pick_path(paths([A1], [B1], protocol=50)).protocol == 50
    keys.free(Pair(paths([A2], [B1])[0], 0, 0))
    assert keys.pick_path(paths([A1, A2], [B1])).local == A2


def test_a_search_for_addresses_looks_at_a_bounded_number_of_them():
    keys = Keys(60.0)
    pool = [bytes([10, 1, n >> 8, n & 255]) for n in range(300)]
    for path in paths(pool[:SEARCH_LIMIT], [B1]):
        keys.take(Pair(path, 0, 0))
    with pytest.raises(Exhausted):
        keys.pick_path(paths(pool, [B1]))
    with pytest.raises(Exhausted, match="no addresses of the same family"):
        keys.pick_path([])


def test_defects_1_2_and_3_a_million_short_connections_never_share_a_pair():
    """Between two hosts; each is released with its peer's word or without it.

    No pair names two connections, and none comes back before its release or the end of its quarantine.
    """
    chance = random.Random(3)
    keys = Keys(quarantine=60.0, first=20000, last=20255)
    live: deque[Pair] = deque()
    forbidden: dict[Pair, float] = {}
    now = 0.0
    for made in range(1_000_000):
        now += 0.01
        theirs = 20000 + made % 16
        pair = Pair(PATH, keys.pick(PATH, theirs), theirs)
        assert keys.take(pair), "what was picked was not free"
        assert forbidden.get(pair, 0.0) <= now, "a pair came back too soon"
        forbidden[pair] = float("inf")
        live.append(pair)
        if len(live) > 1000:
            gone = live.popleft()
            if chance.random() < 0.9:
                keys.free(gone)
                forbidden[gone] = now
            else:
                keys.rest(gone, now)
                forbidden[gone] = now + 60.0
        if made % 100 == 0:
            keys.wake(now)
    resting = len(keys) - len(live)
    assert 0 < resting < 60 * 100 * 0.2, "the quarantine is not emptied"
    for pair in live:
        keys.free(pair)
    keys.wake(now + 60.0)
    assert len(keys) == 0


def test_defect_3_a_full_space_is_a_refusal_and_one_release_makes_room_again():
    keys = Keys(quarantine=60.0, first=20000, last=20063)
    pairs = [Pair(PATH, key, 20000) for key in range(20000, 20064)]
    assert all(keys.take(pair) for pair in pairs)
    for _ in range(100):
        with pytest.raises(Exhausted, match="no free key"):
            keys.pick(PATH, 20000)
    assert keys.pick(PATH, 20001), "another peer's key leaves the whole range"
    keys.rest(pairs[9], 0.0)
    with pytest.raises(Exhausted):
        keys.pick(PATH, 20000)
    keys.wake(60.0)
    assert keys.pick(PATH, 20000) == pairs[9].local
