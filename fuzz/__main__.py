"""`python -m fuzz [--seeds N] [--seed N [--trace]]`: run seeds, say what came of them, and how to run one again."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

from .run import Outcome, run

FEWEST_CONNECTIONS, FEWEST_FAULTS = 200, 20


def replay(seed: int) -> str:
    """The command that runs a seed again."""
    return f"make fuzz SEED={seed}"


def verdict(outcome: Outcome) -> str:
    """What is wrong with a run; empty if nothing is."""
    if outcome.broken is not None:
        return f"seed {outcome.seed}: {outcome.broken}\n  again: {replay(outcome.seed)}"
    faults = outcome.faults.total()
    if outcome.connections < FEWEST_CONNECTIONS or faults < FEWEST_FAULTS:
        return f"seed {outcome.seed}: only {outcome.connections} connections and {faults} faults"
    return ""


def run_all(seeds: Iterable[int], work: Callable[[int], Outcome] = run) -> Iterator[Outcome]:
    """Run seeds on all processors, and return what came of each as it comes."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(work, seeds)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--seeds", type=int, default=1000, help="how many, from 1 on")
    parser.add_argument("--seed", type=int, help="just this one")
    parser.add_argument("--trace", action="store_true", help="with --seed: print everything that happens")
    arguments = parser.parse_args()
    began = time.monotonic()
    if arguments.seed is not None:
        outcomes: Iterator[Outcome] = iter([run(arguments.seed, print if arguments.trace else None)])
    else:
        outcomes = run_all(range(1, arguments.seeds + 1))
    count, connections, wrong = 0, 0, 0
    faults: Counter[str] = Counter()
    messages: Counter[str] = Counter()
    for outcome in outcomes:
        count += 1
        connections += outcome.connections
        faults += outcome.faults
        messages += outcome.messages
        if said := verdict(outcome):
            wrong += 1
            print(said, flush=True)
        if count % 100 == 0:
            print(f"{count} seeds, {wrong} wrong, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{count} seeds in {time.monotonic() - began:.0f} s: {connections} connections came about")
    print("faults: " + ", ".join(f"{number} {kind}" for kind, number in faults.most_common()))
    print("messages: " + ", ".join(f"{number} {kind}" for kind, number in messages.most_common()))
    if arguments.seed is not None:
        print(f"digest: {outcome.digest}")
    print(f"{wrong} of {count} seeds broke an invariant" if wrong else "every invariant held")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
