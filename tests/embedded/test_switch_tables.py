"""Matching, accounting and state of the embedded switch's engine."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from switch_support import SECOND, Clock, engine

from nvi.embedded.engine import Engine
from nvi.embedded.matching import DuplicateEntry, NoSuchEntry, TableFull
from nvi.embedded.meters import MeterConfig

NAMES = {name: f"I.t_{name}" for name in ("exact", "lpm", "ternary", "range", "optional", "const")}


def send(switch: Engine, stage: int, a: int = 0, b: int = 0, c: int = 0, rest: bytes = b"") -> tuple[int, int] | None:
    """(result, trace), or None if the packet was dropped. They start as 1000 and 50."""
    out = switch.process(1, struct.pack(">BIHBIB", stage, a, b, c, 1000, 50) + rest)
    if not out:
        return None
    ((port, packet),) = out
    assert port == 2
    fields = struct.unpack_from(">BIHBIB", packet)
    return fields[4], fields[5]


def act(switch: Engine, table: str, action: str) -> int:
    return switch.program.action_id(f"I.{action}" if action != "NoAction" else action, NAMES[table])


def test_exact() -> None:
    switch = engine("tables")
    switch.insert(NAMES["exact"], ((1,), (2,)), act(switch, "exact", "metered"), (77,))
    assert send(switch, 0, 1, 2) == (77, 1)
    assert send(switch, 0, 1, 3) == (1000, 2)
    switch.modify(NAMES["exact"], ((1,), (2,)), act(switch, "exact", "drop"), ())
    assert send(switch, 0, 1, 2) is None
    switch.remove(NAMES["exact"], ((1,), (2,)))
    assert send(switch, 0, 1, 2) == (1000, 2)


def test_size_and_identity_are_enforced() -> None:
    switch = engine("tables")
    drop = act(switch, "exact", "drop")
    for value in range(8):
        switch.insert(NAMES["exact"], ((value,), (0,)), drop, ())
    with pytest.raises(TableFull):
        switch.insert(NAMES["exact"], ((8,), (0,)), drop, ())
    with pytest.raises(DuplicateEntry):
        switch.insert(NAMES["exact"], ((7,), (0,)), drop, ())
    with pytest.raises(NoSuchEntry):
        switch.remove(NAMES["exact"], ((9,), (0,)))
    with pytest.raises(NoSuchEntry):
        switch.modify(NAMES["exact"], ((9,), (0,)), drop, ())
    switch.remove(NAMES["exact"], ((7,), (0,)))
    switch.insert(NAMES["exact"], ((8,), (0,)), drop, ())


prefixes = st.tuples(st.integers(0, (1 << 32) - 1), st.integers(0, 32)).map(
    lambda p: (p[0] >> (32 - p[1]) << (32 - p[1]), p[1])
)


@given(
    st.dictionaries(prefixes, st.integers(1, 10_000), max_size=12), st.lists(st.integers(0, (1 << 32) - 1), max_size=8)
)
def test_lpm_is_the_longest_prefix(routes: dict[tuple[int, int], int], addresses: list[int]) -> None:
    switch = engine("tables")
    for prefix, value in routes.items():
        switch.insert(NAMES["lpm"], ((3,), prefix), act(switch, "lpm", "set"), (value,))
    for address in [*addresses, *(value for value, _ in routes)]:
        best = max(
            (r for r in routes if address >> (32 - r[1]) == r[0] >> (32 - r[1])), key=lambda r: r[1], default=None
        )
        expected = (routes[best] if best else 7, 50)
        # Twice: the second answer comes from the cache.
        assert send(switch, 1, address, c=3) == send(switch, 1, address, c=3) == expected
        assert send(switch, 1, address, c=4) == (7, 50)


rules = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 3), st.integers(1, 10_000)), max_size=8)


@given(rules, st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), max_size=8))
def test_ternary_takes_the_highest_priority(
    given_rules: list[tuple[int, int, int, int]], keys: list[tuple[int, int]]
) -> None:
    switch = engine("tables")
    table = []
    for priority, (value, mask, c, result) in enumerate(given_rules, 1):
        switch.insert(
            NAMES["ternary"], ((value & mask, mask), (0, 0), (c,)), act(switch, "ternary", "set"), (result,), priority
        )
        table.append((value & mask, mask, c, result))
    for a, c in keys:
        hits = [result for value, mask, want, result in table if a & mask == value and want == c]
        assert send(switch, 2, a, c=c) == ((hits[-1], 10) if hits else (1002, 2))
    for priority, (value, mask, c, _) in enumerate(table, 1):
        switch.remove(NAMES["ternary"], ((value, mask), (0, 0), (c,)), priority)
    for a, c in keys:
        assert send(switch, 2, a, c=c) == (1002, 2)


def test_range_and_optional() -> None:
    switch = engine("tables")
    put = act(switch, "range", "set")
    switch.insert(NAMES["range"], ((10, 20), (0, 0)), put, (1,), 1)
    switch.insert(NAMES["range"], ((15, 30), (0x0A000000, 8)), put, (2,), 2)
    assert [send(switch, 3, 0x0A000001, b) for b in (9, 10, 15, 30, 31)] == [
        (0xDEAD, 50), (1, 50), (2, 50), (2, 50), (0xDEAD, 50),
    ]  # fmt: skip
    assert send(switch, 3, 0x0B000001, 15) == (1, 50)
    put = act(switch, "optional", "set")
    full = (1 << 32) - 1
    switch.insert(NAMES["optional"], ((5, full), (1,), (0, 0)), put, (1,), 1)
    switch.insert(NAMES["optional"], ((0, 0), (1,), (9, 255)), put, (2,), 2)
    assert send(switch, 9, 5, rest=b"\x01") == (1, 50)
    assert send(switch, 9, 5, rest=b"\x09") == (2, 50)
    assert send(switch, 9, 6, rest=b"\x01") == (1000, 50)
    # The header `m` is not there: its fields count as 0, and it is not valid.
    assert send(switch, 8, 5) == (1000, 50)


def test_const_entries() -> None:
    switch = engine("tables")
    assert send(switch, 4, 1, 60) == (1, 50)
    assert send(switch, 4, 2, 60) == (1002, 3)
    assert send(switch, 4, 0x12, 300) == (4, 50)
    assert send(switch, 4, 2, 300) == (5, 50)


def test_exit_and_action_run() -> None:
    switch = engine("tables")
    for c, name in enumerate(("stop", "maybe_stop", "set", "maybe_stop", "drop")):
        args = (9,) if name == "set" else ()
        switch.insert(NAMES["ternary"], ((0, 0), (0, 0), (c,)), act(switch, "ternary", name), args, 1)
    assert send(switch, 2, c=0) == (1000, 50)
    assert send(switch, 2, c=1) == (3, 99)
    assert send(switch, 2, c=2) == (9, 10)
    assert send(switch, 2, c=3) == (1000, 50)
    assert send(switch, 2, c=4) is None
    assert send(switch, 7, c=0) == (2, 77)
    assert send(switch, 7, c=1) is None
    assert send(switch, 7, c=2) == (2, 50)


def test_default_entry() -> None:
    switch = engine("tables")
    switch.set_default(NAMES["lpm"], act(switch, "lpm", "add"), (5, 6))
    assert send(switch, 1) == (1005, 6)
    switch.tables[NAMES["lpm"]].reset_default()
    assert send(switch, 1) == (7, 50)


def test_counters() -> None:
    switch = engine("tables")
    entry = switch.insert(NAMES["exact"], ((1,), (2,)), act(switch, "exact", "metered"), (7,))
    for _ in range(3):
        send(switch, 0, 1, 2, 4, b"x" * 10)
    assert (entry.packets, entry.octets) == (3, 3 * 23)
    cells = switch.counters["I.packets"]
    assert (cells.packets[4], cells.octets[4]) == (3, 69)
    send(switch, 0, c=200)  # out of range: counts nowhere
    assert cells.packets == {4: 3}
    changed = switch.modify(NAMES["exact"], ((1,), (2,)), act(switch, "exact", "metered"), (8,))
    assert changed.packets == 3


def test_registers() -> None:
    switch = engine("tables")
    assert send(switch, 6, 5, c=3) == (0, 50)
    assert send(switch, 6, 0xFFFFFFFF, c=3) == (5, 50)
    assert send(switch, 6, 0, c=3) == (4, 50)
    assert send(switch, 6, 0, c=4) == (0, 50)
    assert send(switch, 6, 1, c=16) == (0, 50)  # out of range: nothing read, nothing written
    states = switch.registers["I.states"]
    assert [states[cell] for cell in range(16)] == [0, 0, 0, 4] + [0] * 12


def test_indirect_meter() -> None:
    clock = Clock()
    switch = engine("tables", clock)

    def colours(count: int) -> list[int]:
        found = [send(switch, 5, c=1) for _ in range(count)]
        return [item[1] for item in found if item is not None]

    assert colours(5) == [0] * 5  # not configured: always green
    switch.configure_meter("I.rates", 1, MeterConfig(cir=10, cburst=2, pir=20, pburst=4))
    assert colours(6) == [0, 0, 1, 1, 2, 2]
    clock.advance(0.1)  # one committed token, two peak tokens
    assert colours(3) == [0, 1, 2]
    clock.advance(60)
    assert colours(6) == [0, 0, 1, 1, 2, 2]
    switch.configure_meter("I.rates", 1, None)
    assert colours(5) == [0] * 5


def test_direct_meter_counts_bytes() -> None:
    switch = engine("tables")
    entry = switch.insert(NAMES["exact"], ((1,), (2,)), act(switch, "exact", "metered"), (7,))
    switch.set_direct_meter(entry, MeterConfig(cir=1, cburst=13, pir=1, pburst=30))

    def colour() -> int:
        ((_, packet),) = switch.process(1, struct.pack(">BIHBIB", 0, 1, 2, 0, 0, 0))
        return packet[7]

    assert [colour() for _ in range(3)] == [0, 1, 2]


def test_idle_stamps() -> None:
    clock = Clock()
    switch = engine("tables", clock)
    entry = switch.insert(NAMES["exact"], ((1,), (2,)), act(switch, "exact", "metered"), (7,), timeout=5 * SECOND)
    clock.advance(4)
    assert switch.expired(clock()) == []
    send(switch, 0, 1, 2)
    clock.advance(4)
    assert switch.expired(clock()) == []
    assert clock() - entry.stamp == 4 * SECOND
    clock.advance(1)
    assert switch.expired(clock()) == [(NAMES["exact"], entry)]


def test_packet_out_and_punt() -> None:
    switch = engine("tables")
    assert switch.process(510, b"\x03\x80hello") == [(7, b"hello")]
    switch.insert(NAMES["exact"], ((1,), (2,)), act(switch, "exact", "punt"), ())
    ((port, packet),) = switch.process(5, struct.pack(">BIHBIB", 0, 1, 2, 0, 0, 0))
    assert port == 510
    assert int.from_bytes(packet[:2]) == 5 << 7 | 5


def test_engines_do_not_share_state() -> None:
    one, two = engine("tables"), engine("tables")
    one.insert(NAMES["exact"], ((1,), (2,)), act(one, "exact", "metered"), (77,))
    send(one, 6, 5, c=3)
    assert send(two, 0, 1, 2) == (1000, 2)
    assert send(two, 6, 0, c=3) == (0, 50)
    assert one.compiled is two.compiled
