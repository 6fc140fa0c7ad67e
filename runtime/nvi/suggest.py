"""What to say to somebody who used a word that does not exist. No I/O."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(word: str, known: Iterable[str], *, noun: str) -> str:
    """What to do about an unknown word: `did you mean 'tenant'?`, else which ones there are."""
    choices = list(known)
    close = difflib.get_close_matches(word, choices, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if not choices:
        return f"there is no {noun} yet: declare it first"
    shown = ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "")
    return f"use one of: {shown}"
