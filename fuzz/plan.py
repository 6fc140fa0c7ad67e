"""What will happen in a farm, made of a seed: who talks, what goes wrong, and what is changed meanwhile.

It names no packets and no loop steps: those follow from it, always in the same way.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TypeVar

from . import wire
from .offers import Weather

CONNECTIONS = 240
"""That are opened while things go wrong, at least 200 of which must come about."""

LASTING = 16
"""Of which so many last."""

BEGIN, END = 2.0, 62.0
"""When things begin to go wrong, and when the last of them has been put right: seconds."""

ALWAYS = Weather(lost=0.02, late=0.02, twice=0.03, latency=0.02)
STORM = Weather(lost=0.25, late=0.25, twice=0.25, latency=0.3)
CALM = Weather()


@dataclass(frozen=True)
class Opening:
    """Somebody opens a connection, and says something on it so many times."""

    at: float
    protocol: int
    rounds: int
    pause: float
    """Seconds between two rounds."""


@dataclass(frozen=True)
class Crash:
    """An agent dies, and another one comes."""

    at: float
    host: str
    calls: int
    """After so many more questions of its to the world ..."""
    steps: int
    """... and so many steps of the event loop."""
    seconds: float
    """Until the next one comes."""
    forgetful: bool = False
    """Whether the state file is lost, too."""


@dataclass(frozen=True)
class Outage:
    """A switch dies, and comes back with nothing."""

    at: float
    host: str
    seconds: float


@dataclass(frozen=True)
class Parting:
    """Two agents do not hear each other."""

    at: float
    hosts: tuple[str, str]
    seconds: float
    wire: bool
    """Whether packets between the two are lost, too."""


@dataclass(frozen=True)
class Isolation:
    """A host reaches neither the directory nor other agents."""

    at: float
    host: str
    seconds: float


@dataclass(frozen=True)
class Gale:
    """Offers meet with worse."""

    at: float
    seconds: float


@dataclass(frozen=True)
class Jump:
    """The wall clock is set."""

    at: float
    by: float
    """Seconds."""


@dataclass(frozen=True)
class Move:
    """An endpoint goes to another host."""

    at: float


@dataclass(frozen=True)
class Heir:
    """An endpoint is removed, and another tenant's gets its port, its MAC and its address."""

    at: float
    crash: Crash | None
    """Of the agent, while it is told of it."""


@dataclass(frozen=True)
class Policy:
    """A tenant's policy changes."""

    at: float


Fault = Crash | Outage | Parting | Isolation | Gale | Jump
Change = Move | Heir | Policy


@dataclass(frozen=True)
class Plan:
    """One run."""

    seed: int
    hosts: int
    openings: tuple[Opening, ...]
    faults: tuple[Fault, ...]
    changes: tuple[Change, ...]


def make_plan(seed: int) -> Plan:
    """The same for the same seed, always."""
    rng = random.Random(f"plan {seed}")
    hosts = rng.randint(3, 6)
    names = [f"h{number}" for number in range(hosts)]

    def at() -> float:
        return rng.uniform(BEGIN, END - 12.0)

    def crash(forgetful: bool = False) -> Crash:
        host, seconds = rng.choice(names), rng.choice((0.0, 0.05, 0.5, 3.0, 11.0))
        return Crash(at(), host, rng.randint(1, 40), rng.randint(0, 8), seconds, forgetful)

    openings = [
        Opening(rng.uniform(0.0, END - 4.0), _protocol(rng), rng.choice((1, 1, 2, 3)), rng.uniform(0.1, 3.0))
        for _ in range(CONNECTIONS - LASTING)
    ] + [Opening(rng.uniform(0.0, 20.0), _protocol(rng), 1000, rng.uniform(1.0, 6.0)) for _ in range(LASTING)]
    faults: list[Fault] = [
        *(crash(forgetful=number == 0) for number in range(14)),
        *(Outage(at(), rng.choice(names), rng.choice((0.0, 0.2, 4.0))) for _ in range(3)),
        *(Parting(at(), _pair(rng, names), rng.uniform(0.5, 12.0), rng.random() < 0.5) for _ in range(4)),
        *(Isolation(at(), rng.choice(names), rng.uniform(0.5, 12.0)) for _ in range(2)),
        *(Gale(at(), rng.uniform(1.0, 6.0)) for _ in range(3)),
        *(Jump(at(), rng.uniform(-86400.0, 86400.0)) for _ in range(2)),
    ]
    changes: list[Change] = [
        *(Move(at()) for _ in range(4)),
        *(Heir(at(), crash() if rng.random() < 0.7 else None) for _ in range(4)),
        *(Policy(at()) for _ in range(4)),
    ]
    return Plan(seed, hosts, _in_order(openings), _in_order(faults), _in_order(changes))


Event = TypeVar("Event", Opening, Fault, Change)


def _in_order(events: list[Event]) -> tuple[Event, ...]:
    return tuple(sorted(events, key=lambda event: event.at))


def _pair(rng: random.Random, names: list[str]) -> tuple[str, str]:
    one, other = rng.sample(names, 2)
    return one, other


def _protocol(rng: random.Random) -> int:
    return rng.choices((wire.TCP, wire.UDP, wire.ICMP, wire.PORTLESS), (6, 3, 2, 1))[0]
