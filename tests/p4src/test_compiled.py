"""What is committed in `compiled/` is what the sources beside it compile to: the pipeline, and the benchmarks' peer."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REMEDY = "sources and compiled/ do not belong together: run `make p4`, and commit both"

programs = pytest.mark.parametrize(("directory", "program"), [("p4src", "nvi"), ("bench", "forwarder")])


@programs
def test_it_was_compiled_from_these_sources(directory: str, program: str) -> None:
    """As `sha256sum -c compiled/sources.sha256` beside the sources, and no source is left out."""
    sources = ROOT / directory
    lines = (sources / "compiled/sources.sha256").read_text().splitlines()
    recorded = {name: digest for digest, name in map(str.split, lines)}
    assert f"{program}.p4" in recorded
    assert recorded == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sources.glob("*.p4")}, (
        REMEDY
    )


@programs
@pytest.mark.skipif(shutil.which("p4c-bm2-ss") is None, reason="p4c-bm2-ss is not on PATH")
def test_compiling_it_again_gives_the_same(directory: str, program: str, tmp_path: Path) -> None:
    sources = ROOT / directory
    names = (f"{program}.json", f"{program}.p4info.txtpb")
    json, p4info = (str(tmp_path / name) for name in names)
    compiler = ("p4c-bm2-ss", "--std", "p4-16", "--arch", "v1model", "--Werror")
    subprocess.run([*compiler, "-o", json, "--p4runtime-files", p4info, f"{program}.p4"], cwd=sources, check=True)
    for name in names:
        assert (tmp_path / name).read_bytes() == (sources / "compiled" / name).read_bytes(), f"{name}: {REMEDY}"
