"""How a command fails."""

from __future__ import annotations

FAILED = 1
"""Exit status: the operation could not be done."""
MISUSE = 2
"""Exit status: what was asked makes no sense."""


class CommandError(Exception):
    """What was wrong, where, and what to do, in a sentence or several lines; and the exit status."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status
