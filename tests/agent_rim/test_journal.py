"""The journal: what was synced is there after any crash, and no file, however bad, stops the agent."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from msgspec import Struct
from structlog.testing import capture_logs

from nvi.agent.journal import SPARE_RECORDS, Journal, JournalError


class Note(Struct, frozen=True):
    number: int


async def begun(path: Path | None, notes: list[Note] | None = None) -> Journal[Note]:
    journal: Journal[Note] = Journal(path, Note)
    held = notes if notes is not None else journal.read()
    await journal.begin(lambda: held)
    return journal


def read(path: Path) -> list[int]:
    return [note.number for note in Journal(path, Note).read()]


async def test_what_is_synced_is_there_again_in_order(tmp_path):
    path = tmp_path / "journal"
    journal = await begun(path)
    for number in range(3):
        journal.append(Note(number))
    await journal.sync()
    journal.append(Note(99))
    assert read(path) == [0, 1, 2], "what is not synced is not promised"


async def test_after_a_crash_at_any_byte_what_was_synced_before_is_there(tmp_path):
    path = tmp_path / "journal"
    journal = await begun(path)
    journal.append(Note(0))
    await journal.sync()
    safe = path.stat().st_size
    journal.append(Note(1))
    await journal.sync()
    whole = path.read_bytes()
    with capture_logs() as logs:
        for size in range(safe, len(whole)):
            path.write_bytes(whole[:size])
            assert read(path) in ([0], [0, 1])
    assert not logs, "a last line that is cut short is nothing to worry about"
    path.write_bytes(whole[: len(whole) - 3])
    successor = await begun(path)
    successor.append(Note(2))
    await successor.sync()
    assert read(path) == [0, 2]


async def test_a_damaged_record_is_left_out_and_said(tmp_path):
    path = tmp_path / "journal"
    journal = await begun(path)
    for number in range(3):
        journal.append(Note(number))
    await journal.sync()
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b"1", b"7")
    path.write_bytes(b"\n".join(lines))
    with capture_logs() as logs:
        assert read(path) == [0, 2]
    assert logs[0]["records"] == 1
    assert logs[0]["path"] == str(path)


@pytest.mark.parametrize("content", [b"\n", b"\0" * 4096, b"{}\n", bytes(range(256)), b"00000000 x\n"])
async def test_a_file_that_is_no_journal_is_put_aside(tmp_path, content):
    path = tmp_path / "journal"
    path.write_bytes(content)
    with capture_logs() as logs:
        journal = await begun(path)
    assert logs[0]["now"] == str(tmp_path / "journal.bad")
    assert (tmp_path / "journal.bad").read_bytes() == content
    journal.append(Note(5))
    await journal.sync()
    assert read(path) == [5]


async def test_its_size_is_bounded_by_what_there_is_to_say(tmp_path):
    path = tmp_path / "journal"
    held: list[Note] = []
    journal = await begun(path, held)
    largest = 0
    for number in range(20 * SPARE_RECORDS):
        held[:] = [Note(number)]
        journal.append(Note(number))
        if number % 100 == 99:
            await journal.sync()
            largest = max(largest, len(read(path)))
    assert largest <= SPARE_RECORDS + 2 + 100
    await journal.sync()
    assert read(path)[-1] == 20 * SPARE_RECORDS - 1


async def test_calls_that_come_during_a_write_share_the_next_one(tmp_path, monkeypatch):
    path = tmp_path / "journal"
    journal = await begun(path)
    syncs = 0
    real = os.fdatasync

    def counting(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", counting)

    async def one(number: int) -> None:
        journal.append(Note(number))
        await journal.sync()
        assert number in read(path)

    await asyncio.gather(*(one(number) for number in range(50)))
    assert 1 <= syncs <= 2


async def test_a_full_disk_is_said_and_nothing_is_lost_once_there_is_room(tmp_path, monkeypatch):
    path = tmp_path / "journal"
    journal = await begun(path)
    journal.append(Note(0))
    await journal.sync()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", full)
        journal.append(Note(1))
        with pytest.raises(JournalError, match=rf"cannot write the journal {path}: No space left on device; make"):
            await journal.sync()
    journal.append(Note(2))
    await journal.sync()
    assert read(path) == [0, 1, 2]


async def test_without_a_directory_there_is_a_sentence(tmp_path):
    with pytest.raises(JournalError, match="No such file or directory; make its directory writable"):
        await begun(tmp_path / "missing" / "journal")
    (tmp_path / "directory").mkdir()
    with pytest.raises(JournalError, match=r"cannot read the journal .*: Is a directory; give access to it"):
        Journal(tmp_path / "directory", Note).read()


async def test_in_memory_it_is_the_same():
    journal = await begun(None)
    journal.append(Note(1))
    await journal.sync()
    assert journal.read() == [Note(1)]
