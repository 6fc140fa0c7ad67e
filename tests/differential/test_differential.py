"""The embedded switch does what BMv2 does: the same tables, the same packets, the same outcome.

Meters are unset, since what they let pass depends on the time. `NVI_SEED=...` repeats a run.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from differential import traffic
from differential.bmv2 import running_bmv2
from differential.embedded import Embedded
from nvi.switch import PORT_CPU, ConnectionEntry, DropReason, PuntReason

PACKETS = 10_000
BATCH = 32

pytestmark = pytest.mark.skipif(shutil.which("simple_switch_grpc") is None, reason="simple_switch_grpc is not on PATH")


def test_the_embedded_switch_equals_bmv2() -> None:
    seed = int(os.environ.get("NVI_SEED") or random.randrange(1 << 32))
    print(f"NVI_SEED={seed}")
    chance = random.Random(seed)
    entries = traffic.tables(chance)
    packets = traffic.packets(chance, entries, PACKETS)
    embedded = Embedded()
    embedded.insert(entries)
    outcomes: Counter[int] = Counter()
    punted: set[int] = set()
    with TemporaryDirectory() as directory, running_bmv2(Path(directory), traffic.PORTS) as bmv2:
        bmv2.client.insert(entries)
        for start in range(0, PACKETS, BATCH):
            groups = packets[start : start + BATCH]
            batch = [one for group in groups for one in group]
            expected, seen = bmv2.run(batch), embedded.run(batch)
            punted.update(punt[1] & 0x7F for punt in expected.get(PORT_CPU, ()))
            outcomes.update({port: len(out) for port, out in expected.items()})
            if expected != seen:
                # One by one: which of them is it? (Groups leave nothing behind that others look at, but for the number
                # of identifications given, which is the same on both sides.)
                for group in groups:
                    text = ", ".join(f"port {port}: {frame.hex(' ')}" for port, frame in group)
                    assert embedded.run(group) == bmv2.run(group), f"{text} (NVI_SEED={seed})"
                pytest.fail(f"packets {start} to {start + BATCH} together differ, not one by one (NVI_SEED={seed})")
        keys = [entry.key for entry in entries if isinstance(entry, ConnectionEntry)]
        used = {key: (usage.packets, usage.bytes) for key, usage in bmv2.client.usage(keys).items()}
        drops = bmv2.client.drops()
    assert {key: (usage.packets, usage.bytes) for key, usage in embedded.usage(keys).items()} == used
    assert embedded.drops() == drops
    # The comparison means something only if everything has happened.
    assert set(outcomes) == {*traffic.PORTS, PORT_CPU}
    assert punted == set(PuntReason)
    assert {index % 32 for index in drops} == set(DropReason)
    hits = [packets for packets, _ in used.values() if packets]
    assert len(hits) > 0.6 * len(keys)  # those of the two stacks' ports can hardly be hit
    assert sum(hits) > 0.2 * PACKETS
