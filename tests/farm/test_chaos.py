"""Agents as processes, three NATS servers: each is ended under traffic, and established flows lose nothing."""

from __future__ import annotations

import pytest

from bench.chaos import Chaos, failures, one_after_the_other, rows, table
from nvi.nats import server as nats_server

from .machine import Machine, wait_for

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]


@pytest.mark.skipif(nats_server.find() is None, reason="there is no nats-server: scripts/setup.sh gets it")
def test_no_process_that_dies_takes_established_connections_with_it(machine: Machine) -> None:
    chaos = Chaos(2, machine.run, "embedded")
    try:
        chaos.up()
        one_after_the_other(chaos, 3.0)
        talks = chaos.finish()
        wait_for(lambda: machine.ping("e0", "10.0.0.2"), "new connections are made", patience=60.0)
    finally:
        chaos.down()
    costs = rows(chaos.faults, talks)
    # What the machine has to spare decides when new connections work again: `make chaos` measures that.
    assert not failures(costs, talks), table(costs, talks)
    assert sum(len(talk.stream) for talk in talks) > 100, table(costs, talks)
    away = next(row for row in costs if row.fault.away)
    assert away.dialled > away.failed, "peers that know each other go on without NATS\n" + table(costs, talks)
