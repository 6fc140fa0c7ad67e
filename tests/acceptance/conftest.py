"""A farm for all tests of a module, on each target that this machine has; gone before the next module begins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .farm import TARGETS, Farm

TOPOLOGY = Path(__file__).parents[2] / "topologies" / "leaf-spine.yaml"


@pytest.fixture(scope="module", params=TARGETS)
def farm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Four hosts of one site, with a shorter idle timeout."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    farm = Farm(request.param)
    topology = tmp_path_factory.mktemp("topology") / "leaf-spine.yaml"
    text = TOPOLOGY.read_text()
    assert "idle_timeout: 30" in text
    # A limit that a flood exceeds on a slow machine, too.
    topology.write_text(text.replace("idle_timeout: 30", f"idle_timeout: {farm.idle_timeout:.0f}\npunt_rate: 1500"))
    farm.nvi("up", str(topology), "--target", farm.target, "--detach")
    try:
        yield farm
    finally:
        farm.nvi("down")
