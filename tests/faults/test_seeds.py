"""Farms under faults: the invariants hold, whatever the seed; a seed says the same each time; a defect is found."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from faults.mutations import MUTATIONS, Mutation
from fuzz.__main__ import replay, run_all, verdict
from fuzz.model import Broken, Invariant
from fuzz.plan import make_plan
from fuzz.run import Outcome, run

SEEDS = 100
"""Seeds that have to hold, and within which a defect has to be found (docs/simulation.md)."""

pytestmark = pytest.mark.timeout(1800)
"""Minutes on a machine that is busy otherwise."""


def test_every_invariant_holds():
    wrong = [said for outcome in run_all(range(1, SEEDS + 1)) if (said := verdict(outcome))]
    assert not wrong, "\n".join(wrong)


def test_a_seed_says_the_same_each_time_whatever_the_hashes_are():
    here = run(17)
    assert here.digest == run(17).digest != run(18).digest
    command = [sys.executable, "-m", "fuzz", "--seed", "17"]
    root = Path(__file__).parents[2]
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{root}:{root / 'runtime'}"}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
        assert f"digest: {here.digest}" in done.stdout


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_defect_is_found(mutation: Mutation):
    with mutation.applied():
        for seed in range(1, SEEDS + 1):
            broken = run(seed).broken
            if broken is not None:
                assert broken.invariant in mutation.breaks, broken
                return
    pytest.fail(f"{SEEDS} seeds have not told that {mutation.name}")


def test_what_is_wrong_is_said_with_the_command_that_shows_it_again():
    broken = Broken(Invariant.KEYS, "of h1")
    outcome = Outcome(4711, broken, "", 0, Counter(), Counter(), Counter(), 0.0)
    assert "of h1" in verdict(outcome)
    assert replay(4711) == "make fuzz SEED=4711"
    assert replay(4711) in verdict(outcome)


def test_a_plan_has_what_a_seed_must_have():
    for seed in range(1, 1001):
        plan = make_plan(seed)
        assert len(plan.openings) >= 200
        assert len(plan.faults) >= 20
