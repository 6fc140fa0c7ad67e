"""What is committed in `p4src/compiled/` is what the sources beside it compile to."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

P4SRC = Path(__file__).parents[2] / "p4src"
COMPILED = P4SRC / "compiled"
REMEDY = "p4src/ and p4src/compiled/ do not belong together: run `make p4`, and commit both"


def test_it_was_compiled_from_these_sources() -> None:
    """As `sha256sum -c compiled/sources.sha256` in `p4src/`, and no source is left out."""
    recorded = {name: digest for digest, name in map(str.split, (COMPILED / "sources.sha256").read_text().splitlines())}
    assert "nvi.p4" in recorded
    assert recorded == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in P4SRC.glob("*.p4")}, REMEDY


@pytest.mark.skipif(shutil.which("p4c-bm2-ss") is None, reason="p4c-bm2-ss is not on PATH")
def test_compiling_it_again_gives_the_same(tmp_path: Path) -> None:
    names = ("nvi.json", "nvi.p4info.txtpb")
    json, p4info = (str(tmp_path / name) for name in names)
    compiler = ("p4c-bm2-ss", "--std", "p4-16", "--arch", "v1model", "--Werror")
    subprocess.run([*compiler, "-o", json, "--p4runtime-files", p4info, "nvi.p4"], cwd=P4SRC, check=True)
    for name in names:
        assert (tmp_path / name).read_bytes() == (COMPILED / name).read_bytes(), f"{name}: {REMEDY}"
