"""Keys: the ports that an agent contributes to its segments. No I/O; time is a parameter.

What must be unique is the pair of ports of a segment, together with its two addresses and protocol, and only at the
two hosts that use it. The one who offers proposes any key of its own; the one who accepts picks its own such that the
pair is free. Each checks only what it knows itself: so nobody coordinates beyond the offer. A protocol without ports
leaves only the addresses to be unique: its pairs are (0, 0), and what is chosen are the addresses themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from msgspec import Struct

from .model import Address, show_address, show_protocol

KEY_FIRST, KEY_LAST = 20000, 32767
"""The range of keys, kept out of the host's own ephemeral ports (`p4src/ids.p4`)."""

SEARCH_LIMIT = 256
"""Keys that one search looks at before it gives up: exhaustion is a refusal, never a wait."""


class Exhausted(Exception):
    """No free pair was found. The text says for which peer."""


class Path(Struct, frozen=True, gc=False):
    """Between which addresses, on which wire, and by which protocol, a pair of keys must be unique."""

    wire: int
    """The switch's port: hosts elsewhere may have the addresses of hosts here."""
    local: Address
    peer: Address
    protocol: int


class Pair(Struct, frozen=True, gc=False):
    """The two ports of a segment, as one of its ends sees them."""

    path: Path
    local: int
    peer: int


class Keys:
    """The pairs that one host uses, or has used so recently that a straggler may still carry them."""

    def __init__(self, quarantine: float, first: int = KEY_FIRST, last: int = KEY_LAST, start: int = 0) -> None:
        """`quarantine`: seconds for which a pair rests that the peer has not acknowledged as released.

        `start`: where to begin to search, any number. An agent that begins each of its lives elsewhere does not hand
        out first what it handed out last.
        """
        self.quarantine = quarantine
        self._first = first
        self._size = last - first + 1
        self._next = start % self._size
        self._busy: set[Pair] = set()
        self._resting: dict[Pair, float] = {}

    def __len__(self) -> int:
        """Pairs in use or in quarantine."""
        return len(self._busy)

    def __contains__(self, pair: Pair) -> bool:
        """Whether a pair is in use or in quarantine."""
        return pair in self._busy

    def pick(self, path: Path, peer: int | None) -> int:
        """A key of our own. With the peer's key known, one with which the pair is free; else any.

        Raises Exhausted after looking at SEARCH_LIMIT keys.
        """
        for _ in range(min(SEARCH_LIMIT, self._size)):
            # Each search goes on where the last one stopped, so a key that was just released is the last to be tried.
            self._next = (self._next + 1) % self._size
            key = self._first + self._next
            if peer is None or Pair(path, key, peer) not in self._busy:
                return key
        raise Exhausted(f"no free key among {min(SEARCH_LIMIT, self._size)} tried towards {show_address(path.peer)}")

    def pick_path(self, paths: Iterable[Path]) -> Path:
        """Between which addresses a flow of a protocol without ports can go: there the addresses are the key.

        Raises Exhausted if all the paths, or the first SEARCH_LIMIT of them, carry such a flow.
        """
        tried = None
        for tried in islice(paths, SEARCH_LIMIT):
            if Pair(tried, 0, 0) not in self._busy:
                return tried
        if tried is None:
            raise Exhausted("the two hosts have no addresses of the same family")
        raise Exhausted(
            f"every pair of addresses towards {show_address(tried.peer)} carries a flow of protocol "
            f"{show_protocol(tried.protocol)} already; give one of the two hosts a pool of addresses"
        )

    def take(self, pair: Pair) -> bool:
        """Use a pair. False if it is in use or resting: it is never taken away from its connection."""
        if pair in self._busy:
            return False
        self._busy.add(pair)
        return True

    def resume(self, pair: Pair) -> bool:
        """Use a pair that the peer says that it still uses for the connection at hand, so it may be resting here.

        False if another connection has it.
        """
        if self._resting.pop(pair, None) is not None:
            return True
        return self.take(pair)

    def free(self, pair: Pair) -> None:
        """The peer has acknowledged that it does not use the pair any more."""
        self._resting.pop(pair, None)
        self._busy.discard(pair)

    def rest(self, pair: Pair, now: float) -> None:
        """The pair is not used any more, but the peer has not said that it knows. `now`: seconds, monotonic."""
        if pair in self._busy:
            # Anew, if it rests already: the pairs that rest are in the order in which they wake.
            self._resting.pop(pair, None)
            self._resting[pair] = now + self.quarantine

    def wake(self, now: float) -> None:
        """End the quarantine of all pairs whose time has come."""
        while self._resting and next(iter(self._resting.values())) <= now:
            self.free(next(iter(self._resting)))
