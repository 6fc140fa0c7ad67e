"""A farm for all tests of a module, on each target that this machine has; gone before the next module begins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .farm import TARGETS, Farm

TOPOLOGIES = Path(__file__).parents[2] / "topologies"


def _bring_up(
    topology: str, request: pytest.FixtureRequest, directories: pytest.TempPathFactory, *more: str
) -> Iterator[Farm]:
    """A farm of an example, with a shorter idle timeout, and more lines."""
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    farm = Farm(request.param)
    file = directories.mktemp("topology") / f"{topology}.yaml"
    lines = (TOPOLOGIES / f"{topology}.yaml").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("idle_timeout:")]
    file.write_text("\n".join([*lines, f"idle_timeout: {farm.idle_timeout:.0f}", *more, ""]))
    farm.nvi("up", str(file), "--target", farm.target, "--detach", timeout=280)
    try:
        yield farm
    finally:
        farm.nvi("down")


@pytest.fixture(scope="module", params=TARGETS)
def farm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Four hosts of one site, with a limit of punts that a flood exceeds on a slow machine, too."""
    yield from _bring_up("leaf-spine", request, tmp_path_factory, "punt_rate: 1500")


@pytest.fixture(scope="module", params=TARGETS)
def sites(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """The farm of `make run`."""
    yield from _bring_up("three-sites", request, tmp_path_factory)


@pytest.fixture(scope="module", params=TARGETS)
def dual(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Both families, over and under."""
    yield from _bring_up("dual-stack", request, tmp_path_factory)


@pytest.fixture(scope="module", params=TARGETS)
def narrow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A link of 1400 bytes in the underlay."""
    yield from _bring_up("small-mtu", request, tmp_path_factory)
