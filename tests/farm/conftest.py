"""Farms that live for one test, in a run directory of their own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .machine import Machine, links, processes


@pytest.fixture
def machine() -> Iterator[Machine]:
    """This machine, without a farm; and, after the test, nothing left of what the test has started."""
    # Not tmp_path: the path of a UNIX socket has 107 bytes at most.
    base = Path(tempfile.mkdtemp(prefix="nvi-"))
    machine = Machine(base / "run")
    before = links()
    try:
        yield machine
    finally:
        machine.nvi("down")
        left = processes(f"NVI_RUN_DIR={machine.run}")
        remains = list(base.iterdir())
        shutil.rmtree(base)
    assert not left
    assert not remains
    # The farm's namespaces have no names: without processes in them, they are gone.
    assert links() == before
