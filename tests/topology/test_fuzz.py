"""Whatever a file holds: a topology, or an error that says where and what to do. Nothing else."""

from __future__ import annotations

import json
import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from nvi.topology import TopologyError, loads

from .test_topology import CLOUDS, GOOD


def try_load(text: str) -> None:
    """Load a text that may be wrong in any way."""
    try:
        loads(text, Path("f.yaml"))
    except TopologyError as error:
        assert error.problems
        last = text.count("\n") + 1
        assert all(1 <= problem.line <= last for problem in error.problems), error
        assert all(problem.what and problem.remedy for problem in error.problems)


@given(st.text())
def test_any_text(text: str) -> None:
    try_load(text)


@given(st.text(alphabet=":{}[],&*!|>'\"%@`-?# \n\tab1."))
def test_any_punctuation(text: str) -> None:
    try_load(text)


WORDS = tuple(
    """
    name idle_timeout punt_rate sites hosts tenants endpoints site underlay networks groups cidr gateway ip mac host
    pool external address public internet outside cidr6 gateway6 ip6 dns mtu publish via port external_port protocol
    dc h1 h2 red blue web db a b c null true 3 -1 .5 .nan 0x10
    172.16.1.1/24 10.0.1.0/24 10.0.1.1 10.0.1.254
    fd00::1 fd00::/64 fd00::1/64 ::/0
    fe80::1 198.51.100.1/24 e1 e9 w9 tcp 80 30000 0.0.0.0/0 255.255.255.255/32 1.2.3.4/31
    02:00:00:00:00:0b ~ << &x *x !!int [] {} [a] {a:b}
    """.split()  # noqa: SIM905  # a list of so many quotes could not be read
)


@settings(max_examples=400)
@given(st.integers(1, 6), st.randoms(use_true_random=False))
def test_mutations(count: int, rng: random.Random) -> None:
    """Files that are nearly right get furthest into the reader."""
    text = rng.choice((GOOD, CLOUDS))
    for _ in range(count):
        lines = text.split("\n")
        at = rng.randrange(len(lines))
        words = lines[at].replace("{", " { ").replace("}", " } ").replace(",", " , ").split(" ")
        position = rng.randrange(len(words))
        match rng.randrange(5):
            case 0:
                words[position] = rng.choice(WORDS)
            case 1:
                words.insert(position, rng.choice(WORDS))
            case 2:
                del words[position]
            case 3:
                lines.insert(at, rng.choice(lines))
            case _:
                words[position] = words[position][::-1]
        lines[at] = " ".join(words)
        text = "\n".join(lines)
    try_load(text)


Scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS)
Trees = st.recursive(
    Scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=30,
)


@given(st.dictionaries(st.sampled_from(WORDS[:6]), Trees))
def test_any_structure(tree: dict[str, object]) -> None:
    try_load(json.dumps(tree, indent=1))
