"""Who is told what, when many write at once. No gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from nvi.p4rt.codec import Change, UpdateError
from nvi.p4rt.writer import BATCH, LONGEST_PAUSE, PACE, PAUSE, BatchFailed, Writer
from nvi.simulation import VirtualClockLoop
from nvi.switch import SwitchError

OK = UpdateError("OK", "")
BAD = UpdateError("NOT_FOUND", "no")


class Rpc:
    """Takes a turn of the event loop for each batch; updates named in `bad` fail."""

    def __init__(self, bad: Sequence[bytes] = (), error: Exception | None = None) -> None:
        self.batches: list[list[bytes]] = []
        self.bad = bad
        self.error = error
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, updates: Sequence[bytes]) -> None:
        self.batches.append(list(updates))
        await asyncio.sleep(0)
        await self.gate.wait()
        if self.error:
            raise self.error
        if set(updates) & set(self.bad):
            raise BatchFailed([BAD if update in self.bad else OK for update in updates])


def changes(*names: str) -> list[Change]:
    """One of each key; `a1` and `a2` have the same."""
    return [Change(name[0], name.encode()) for name in names]


def many(prefix: int, count: int) -> list[Change]:
    return [Change((prefix, i), b"%d/%d" % (prefix, i)) for i in range(count)]


async def test_all_that_write_in_one_turn_go_together() -> None:
    rpc = Rpc()
    writer = Writer(rpc)
    await asyncio.gather(writer.write(changes("a", "b")), writer.write(changes("c")))
    assert rpc.batches == [[b"a", b"b", b"c"]]


async def test_what_is_written_meanwhile_waits_and_goes_together() -> None:
    rpc = Rpc()
    rpc.gate.clear()
    writer = Writer(rpc)
    first = asyncio.create_task(writer.write(changes("a")))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(writer.write(changes(name))) for name in "bcd"]
    await asyncio.sleep(0.01)
    assert rpc.batches == [[b"a"]]
    rpc.gate.set()
    await asyncio.gather(first, *others)
    assert rpc.batches == [[b"a"], [b"b", b"c", b"d"]]


@pytest.mark.parametrize(
    ("takes", "pause"), [(0.0005, PAUSE - 0.0005), (0.004, (PACE - 1) * 0.004), (5.0, LONGEST_PAUSE)]
)
def test_the_longer_a_batch_takes_the_longer_more_of_them_are_waited_for_up_to_a_limit(
    takes: float, pause: float
) -> None:
    async def measure() -> list[float]:
        clock = asyncio.get_running_loop().time
        begun = []

        async def rpc(_: Sequence[bytes]) -> None:
            begun.append(clock())
            await asyncio.sleep(takes)

        writer = Writer(rpc)
        first = asyncio.gather(*(writer.write(changes(name)) for name in "ab"))
        await asyncio.sleep(takes / 2)
        await asyncio.gather(first, writer.write(changes("c")))
        return begun

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        first, second = runner.run(measure())
    assert second - (first + takes) == pytest.approx(pause)


async def test_only_the_caller_whose_update_failed_hears_of_it() -> None:
    writer = Writer(Rpc(bad=[b"b", b"e"]))
    results = await asyncio.gather(*(writer.write(changes(*names)) for names in (["a", "b"], ["c"], ["d", "e", "f"])))
    assert results == [[(1, BAD)], [], [(1, BAD)]]


async def test_large_writes_are_split_and_failures_keep_their_place() -> None:
    rpc = Rpc(bad=[b"1/5", b"1/450"])
    writer = Writer(rpc)
    large, small = await asyncio.gather(writer.write(many(1, 500)), writer.write(many(2, 3)))
    assert [len(batch) for batch in rpc.batches] == [BATCH, BATCH, 103]
    assert [update for batch in rpc.batches for update in batch][:500] == [c.message for c in many(1, 500)]
    assert large == [(5, BAD), (450, BAD)]
    assert small == []


async def test_updates_of_one_key_never_share_a_batch() -> None:
    """A switch may reorder what is in a batch (section 12.1)."""
    rpc = Rpc()
    writer = Writer(rpc)
    await asyncio.gather(writer.write(changes("a1", "b", "a2", "c")), writer.write(changes("d", "c")))
    assert rpc.batches == [[b"a1", b"b"], [b"a2", b"c", b"d"], [b"c"]]


async def test_when_a_batch_fails_all_in_it_hear_of_it_but_not_the_next() -> None:
    rpc = Rpc(error=SwitchError("gone"))
    writer = Writer(rpc)
    first = await asyncio.gather(writer.write(changes("a")), writer.write(changes("b")), return_exceptions=True)
    assert [str(error) for error in first] == ["gone", "gone"]
    assert first[0] is not first[1]
    rpc.error = None
    assert await writer.write(changes("c")) == []


async def test_a_failed_batch_ends_the_rest_of_that_write() -> None:
    rpc = Rpc(error=SwitchError("gone"))
    with pytest.raises(SwitchError):
        await Writer(rpc).write(many(1, 500))
    assert len(rpc.batches) == 1


async def test_a_cancelled_caller_takes_only_its_own_unsent_updates_along() -> None:
    rpc = Rpc()
    rpc.gate.clear()
    writer = Writer(rpc)
    sent, waiting, other = (asyncio.create_task(writer.write(changes(name))) for name in "abc")
    del sent
    await asyncio.sleep(0.01)
    late = asyncio.create_task(writer.write(changes("d")))
    later = asyncio.create_task(writer.write(changes("e")))
    await asyncio.sleep(0.01)
    waiting.cancel()
    late.cancel()
    rpc.gate.set()
    assert await other == []
    assert await later == []
    assert rpc.batches == [[b"a", b"b", b"c"], [b"e"]]
    for task in waiting, late:
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_writing_nothing_does_nothing() -> None:
    rpc = Rpc()
    assert await Writer(rpc).write([]) == []
    assert rpc.batches == []
