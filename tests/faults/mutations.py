"""Defects on purpose. Each breaks one invariant, and the simulation must see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from fuzz.model import Invariant
from nvi.agent.adopting import Adopter
from nvi.agent.joining import Joiner
from nvi.keys import Keys, Pair, Path


@dataclass(frozen=True)
class Mutation:
    """What is put in the place of what."""

    name: str
    breaks: frozenset[Invariant]
    """Any of these tells it."""
    places: tuple[tuple[Any, str, Callable[..., Any]], ...]
    """(object, name of its attribute, what it is instead)."""

    @contextmanager
    def applied(self):
        """As long as this lasts."""
        with ExitStack() as patches:
            for where, name, instead in self.places:
                patches.enter_context(patch.object(where, name, instead))
            yield


def _free_at_once(keys: Keys, pair: Pair, _: float) -> None:
    keys.free(pair)


def _take_anyway(keys: Keys, pair: Pair) -> bool:
    keys._busy.add(pair)
    return True


def _first_path(_: Keys, paths: Iterable[Path]) -> Path:
    return next(iter(paths))


async def _nothing(*_: object) -> None:
    return None


MUTATIONS = (
    Mutation("the quarantine of keys is forgotten", frozenset({Invariant.KEYS}), ((Keys, "rest", _free_at_once),)),
    Mutation(
        "a pair of keys that is taken is taken again",
        frozenset({Invariant.KEYS, Invariant.TENANTS, Invariant.CONTENT}),
        ((Keys, "take", _take_anyway), (Keys, "pick_path", _first_path)),
    ),
    Mutation("what a new policy forbids is not ended", frozenset({Invariant.POLICY}), ((Joiner, "enforce", _nothing),)),
    Mutation("keys are not given back", frozenset({Invariant.NOTHING_LEFT}), ((Joiner, "give_back", lambda *_: None),)),
    Mutation(
        "a restarted agent adopts nothing", frozenset({Invariant.ESTABLISHED}), ((Adopter, "_recognise", _nothing),)
    ),
)
