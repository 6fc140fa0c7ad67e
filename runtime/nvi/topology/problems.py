"""What is wrong with a topology file, collected so that all of it can be told at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct


class Problem(Struct, frozen=True, order=True):
    """One thing that is wrong, and what to do about it."""

    line: int
    """Line of the file, from 1."""
    what: str
    remedy: str


class TopologyError(Exception):
    """A topology file that cannot be used. Its text has lines of `FILE:LINE: what is wrong; what to do`."""

    def __init__(self, path: Path, problems: Iterable[Problem]) -> None:
        self.path = path
        self.problems = sorted(set(problems))
        super().__init__(
            "\n".join(f"{path}:{problem.line}: {problem.what}; {problem.remedy}" for problem in self.problems)
        )


class Report:
    """Collects problems while a file is read."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, line: int, what: str, remedy: str) -> None:
        """Note a problem and go on, so that its author can mend everything in one go."""
        self.problems.append(Problem(line, what, remedy))
