"""What an agent must not forget and what changes too often to be written anew each time: a journal on the disk.

A file of lines, each with a checksum and one record. Records are appended; `sync` returns once they are on the disk,
and calls that come meanwhile share its next write. When most of the file is of no use any more, it is replaced by a
new one that says the same: so its size is bounded by what there is to say.

After a crash the last line may be cut short: it was never promised. Whatever else is damaged is left out, and said.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from .files import replace_file
from .state import StateError

_HEADER = b'{"journal":"nvi","schema":1}'

SPARE_RECORDS = 1024
"""How many more records than needed a journal may have, beyond as many again, before it is written anew."""

Record = TypeVar("Record")

_log = structlog.get_logger()


class JournalError(StateError):
    """The journal cannot be read or kept. The text names the file, the reason and the remedy."""


class Journal(Generic[Record]):
    """The records of one file."""

    def __init__(self, path: str | Path | None, kind: Any) -> None:
        """`path`: of the file, which need not exist yet; None keeps it in memory, for tests.

        `kind`: the type of the records, a Struct or a union of tagged ones.
        """
        self._path = None if path is None else Path(path)
        self._in_memory = b""
        self._decode = msgspec.json.Decoder(kind).decode
        self._snapshot: Callable[[], Iterable[Record]] = tuple
        self._pending: list[bytes] = []
        """Lines that are not written yet."""
        self._written = 0
        """Records in the file."""
        self._size = 0
        """Bytes of the file that are known to be good."""
        self._needed = 0
        """Records in the file when it was last written anew."""
        self._writing = asyncio.Lock()

    def read(self) -> list[Record]:
        """The records that there are, in order. Raises JournalError if the file cannot be read.

        A file that is no journal is put aside, and there are none.
        """
        data = self._load()
        header, *lines = data.split(b"\n")
        if data and _content(header) != _HEADER:
            self._put_aside()
            return []
        records, damaged = [], 0
        for number, line in enumerate(lines):
            content = _content(line)
            try:
                if content is None:
                    raise ValueError("its checksum is wrong")
                records.append(self._decode(content))
            except ValueError:  # msgspec's errors are ValueErrors, too
                damaged += number < len(lines) - 1  # the last one was being written when the agent ended
        if damaged:
            _log.warning("records of the journal are damaged and left out", path=str(self._path), records=damaged)
        return records

    async def begin(self, snapshot: Callable[[], Iterable[Record]]) -> None:
        """Keep a journal from now on that says what `snapshot` returns, now and whenever it is written anew.

        Raises JournalError.
        """
        self._snapshot = snapshot
        async with self._writing:
            await self._write_anew()

    def append(self, record: Record) -> None:
        """A record is to be kept. It is on the disk after the next `sync`."""
        self._pending.append(_line(msgspec.json.encode(record)))

    async def sync(self) -> None:
        """Have everything on the disk that was appended. Raises JournalError; then none of it may be."""
        async with self._writing:
            if not self._pending:
                return  # somebody else's call has done it
            if self._written + len(self._pending) > 2 * self._needed + SPARE_RECORDS:
                await self._write_anew()
                return
            lines, self._pending = self._pending, []
            data = b"".join(lines)
            await self._on_disk(lambda: self._append(data), lines)
            self._written += len(lines)
            self._size += len(data)

    async def _write_anew(self) -> None:
        """Replace the file as a whole, such that after a power failure it is the old or the new one."""
        before, self._pending = self._pending, []
        lines = [_line(_HEADER), *(_line(msgspec.json.encode(record)) for record in self._snapshot())]
        data = b"".join(lines)
        await self._on_disk(lambda: self._replace(data), before)
        self._written = self._needed = len(lines) - 1
        self._size = len(data)

    async def _on_disk(self, write: Callable[[], None], lines: list[bytes]) -> None:
        """Write in a thread: a disk may take its time, and the agent has none. `lines`: kept for later if it fails."""
        try:
            if self._path is None:
                write()
            else:
                await asyncio.to_thread(write)
        except OSError as error:
            self._pending = lines + self._pending
            raise JournalError(
                f"cannot write the journal {self._path}: {error.strerror}; make its directory writable, with room"
            ) from None

    def _load(self) -> bytes:
        if self._path is None:
            return self._in_memory
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise JournalError(f"cannot read the journal {self._path}: {error.strerror}; give access to it") from None

    def _put_aside(self) -> None:
        if self._path is None:
            return
        aside = self._path.with_name(self._path.name + ".bad")
        try:
            self._path.replace(aside)
        except OSError as error:
            raise JournalError(f"cannot move {self._path}, which is no journal: {error.strerror}; remove it") from None
        _log.error("not a journal of this version; what it kept is forgotten", path=str(self._path), now=str(aside))

    def _append(self, data: bytes) -> None:
        if self._path is None:
            self._in_memory += data
            return
        with self._path.open("r+b") as file:
            # What an earlier write that failed has left is not known to be whole.
            file.truncate(self._size)
            file.seek(self._size)
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())

    def _replace(self, data: bytes) -> None:
        if self._path is None:
            self._in_memory = data
            return
        replace_file(self._path, data)


def _line(content: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _content(line: bytes) -> bytes | None:
    """What a line says; None if it is damaged."""
    content = line[9:]
    return content if line[:9] == b"%08x " % zlib.crc32(content) else None
