"""Tables as they are at run time. Generated code looks entries up; the control plane changes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from . import ir
from .meters import Meter

Match = tuple[int, ...]
"""One element of a key: (value,) exact; (value, prefix length); (value, mask); (low, high)."""
Key = tuple[Match, ...]

CACHE_SIZE = 4096
"""So many results of slow lookups are remembered."""


class TableFull(Exception):
    """The table has as many entries as its declared size."""


class DuplicateEntry(Exception):
    """There is an entry with this key (and priority) already."""


class NoSuchEntry(Exception):
    """There is no entry with this key (and priority)."""


class Entry:
    """An entry of a table; the generated code updates `packets`, `octets` and `stamp`."""

    __slots__ = ("action", "args", "extra", "key", "meter", "octets", "packets", "priority", "stamp", "timeout")

    def __init__(self, key: Key, action: int, args: tuple[int, ...], priority: int = 0, timeout: int = 0) -> None:
        self.key = key
        self.action = action
        self.args = args
        self.priority = priority
        """The largest number wins (P4Runtime's convention)."""
        self.timeout = timeout
        """Idle timeout in ns; 0 for none."""
        self.stamp = 0
        """When a packet last hit it, in ns of the engine's clock; at first, when it was written."""
        self.packets = 0
        self.octets = 0
        self.meter: Meter | None = None
        self.extra: object = None
        """Whatever the control plane wants to keep with it."""


class RuntimeTable:
    """Entries of one table, with its default entry."""

    __slots__ = ("_cache", "_exact", "_lock", "_ordered", "default", "entries", "find", "get", "table", "widths")

    def __init__(self, table: ir.Table) -> None:
        self.table = table
        self.widths = tuple(key.width for key in table.keys)
        self.entries: dict[tuple[Key, int], Entry] = {}
        """By key and priority (0 where the kind of match has none)."""
        self.default = Entry((), table.default.action, table.default.args)
        self.find: Callable[[int | tuple[int, ...]], Entry | None]
        self.get: Callable[[int | tuple[int, ...]], Entry | None]
        self._exact: dict[int | tuple[int, ...], Entry] = {}
        self._cache: dict[int | tuple[int, ...], Entry | None] = {}
        self._ordered: list[Entry] = []
        self._lock = threading.Lock()
        self.get = self._exact.get
        self.find = self._find
        for entry in table.entries or ():
            # In the JSON the lowest number wins, here the highest.
            self.insert(Entry(entry.matches, entry.call.action, entry.call.args, self._const_priority(entry)))

    def _const_priority(self, entry: ir.ConstEntry) -> int:
        return (1 << 31) - 1 - entry.priority if self.needs_priority else 0

    @property
    def needs_priority(self) -> bool:
        """Entries of this table overlap, so each has a priority."""
        return self.table.match in ("ternary", "range")

    def reset_default(self) -> None:
        """Back to the default entry of the program."""
        self.default = Entry((), self.table.default.action, self.table.default.args)

    # ---------------------------------------------------------------------------------------------- writes

    def insert(self, entry: Entry) -> None:
        """Raises DuplicateEntry, TableFull."""
        identity = (entry.key, entry.priority)
        with self._lock:
            if identity in self.entries:
                raise DuplicateEntry
            if len(self.entries) >= self.table.size:
                raise TableFull
            self.entries[identity] = entry
            if self.table.match == "exact":
                self._exact[self._plain(entry.key)] = entry
            else:
                self._reorder([*self._ordered, entry])

    def replace(self, entry: Entry) -> None:
        """Put an entry in the place of the one with its key. Raises NoSuchEntry."""
        identity = (entry.key, entry.priority)
        with self._lock:
            old = self.entries.get(identity)
            if old is None:
                raise NoSuchEntry
            self.entries[identity] = entry
            if self.table.match == "exact":
                self._exact[self._plain(entry.key)] = entry
            else:
                self._reorder([entry if other is old else other for other in self._ordered])

    def remove(self, key: Key, priority: int) -> Entry:
        """Raises NoSuchEntry."""
        with self._lock:
            entry = self.entries.pop((key, priority), None)
            if entry is None:
                raise NoSuchEntry
            if self.table.match == "exact":
                del self._exact[self._plain(key)]
            else:
                self._reorder([other for other in self._ordered if other is not entry])
            return entry

    def lookup(self, key: Key, priority: int) -> Entry:
        """The entry with this key, not the one that a packet would find. Raises NoSuchEntry."""
        try:
            return self.entries[key, priority]
        except KeyError:
            raise NoSuchEntry from None

    def all(self) -> Iterator[Entry]:
        """A snapshot of all entries."""
        with self._lock:
            entries = list(self.entries.values())
        return iter(entries)

    def clear(self) -> None:
        """Remove all entries but const ones, and reset the default entry."""
        with self._lock:
            if self.table.entries is None:
                self.entries.clear()
                self._exact.clear()
                self._reorder([])
            self.reset_default()

    @staticmethod
    def _plain(key: Key) -> int | tuple[int, ...]:
        """The key as the generated code builds it."""
        return key[0][0] if len(key) == 1 else next(zip(*key, strict=True))

    def _reorder(self, entries: list[Entry]) -> None:
        """New entries for slow lookups: best first, so that the first that matches wins."""
        if self.table.match == "lpm":
            position = next((i for i, key in enumerate(self.table.keys) if key.match == "lpm"), 0)
            entries.sort(key=lambda entry: -entry.key[position][-1])
        else:
            entries.sort(key=lambda entry: -entry.priority)
        self._ordered = entries
        # A new cache: a lookup that is under way may still write to the old one.
        self._cache = {}

    # --------------------------------------------------------------------------------------------- lookups

    def _find(self, key: int | tuple[int, ...]) -> Entry | None:
        cache = self._cache
        try:
            return cache[key]
        except KeyError:
            pass
        # In this order: entries that are newer than the cache are never remembered in it for longer than it lives.
        found = self._search(key if isinstance(key, tuple) else (key,), self._ordered)
        if len(cache) >= CACHE_SIZE:
            cache.clear()
        if cache is self._cache:
            cache[key] = found
        return found

    def _search(self, key: tuple[int, ...], entries: list[Entry]) -> Entry | None:
        kinds = [item.match for item in self.table.keys]
        for entry in entries:
            if all(map(_holds, kinds, key, entry.key, self.widths)):
                return entry
        return None


def _holds(kind: str, value: int, match: Match, width: int) -> bool:
    if kind == "exact":
        return value == match[0]
    if kind == "ternary":
        return value & match[1] == match[0]
    if kind == "lpm":
        return (value ^ match[0]) >> (width - match[1]) == 0
    return match[0] <= value <= match[1]
