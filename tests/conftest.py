"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

# Hypothesis shows the same quick examples each time, or many new ones (NVI_HYPOTHESIS=thorough). A failure prints the
# shrunk example, and the line `@reproduce_failure(...)` or the seed that repeats it.
_COMMON: dict[str, Any] = {
    "deadline": None,
    "print_blob": True,
    "phases": [phase for phase in Phase if phase is not Phase.explain],
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("default", derandomize=True, database=None, **_COMMON)
settings.register_profile("thorough", max_examples=2000, stateful_step_count=60, **_COMMON)
settings.load_profile(os.environ.get("NVI_HYPOTHESIS", "default"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need root are skipped without it, and say so."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root: run 'sudo make test'"))


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A program that is tested in this process configures logging for itself, and its stderr is gone afterwards."""
    yield
    structlog.reset_defaults()
