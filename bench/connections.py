"""Connections set up per second, without loss: a pair of agents over two BMv2, and a farm in memory on one core.

Over BMv2 a generator sends the first packets of connections between two hosts, a window of them at a time: the next one
whenever one has come out at the far endpoint. Everything is real but the underlay's next hops. The agents share one
process and its one core, the switches have the other. In memory the generator is part of the process, and what its
frames cost is not counted: they are made beforehand.

CPU seconds per 1,000 connections (4 entries each): of processes over BMv2, by the kernel's account; in memory, of the
calls into the switches.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import uvloop

from nvi import simulation
from nvi.bench.ends import TENANT, endpoint, host
from nvi.bench.farm import Farm, like_an_agent
from nvi.bench.lab import Lab, LabError
from nvi.bench.line import Line, generate
from nvi.bench.traffic import frame
from nvi.switch import PORT_FIRST_ENDPOINT

from .report import Result, main

WINDOW, CONNECTIONS, ROUNDS = 40, 1350, 5  # with the warm-up less than the 8,192 that one endpoint may have

P = ParamSpec("P")
T = TypeVar("T")


def benchmark(rounds: int = ROUNDS) -> list[Result]:
    """See above."""
    results = []
    try:
        results.append(uvloop.run(_over_bmv2(rounds)))
    except LabError as reason:
        print(f"connections over BMv2 skipped: {reason}")
    return [*results, uvloop.run(_in_memory(rounds))]


async def _over_bmv2(rounds: int) -> Result:
    rates, agents, switches = [], [], []
    lost = 0
    with Lab() as lab:
        line = Line(lab, 2)
        async with Farm(*((switch, 1) for switch in line.switches)):
            for first in range(0, (rounds + 1) * CONNECTIONS, CONNECTIONS):
                before = os.times(), sum(switch.cpu_seconds() for switch in line.switches)
                report = await asyncio.to_thread(generate, lab, line, "saturate", first, CONNECTIONS, WINDOW)
                after = os.times(), sum(switch.cpu_seconds() for switch in line.switches)
                if first == 0:
                    continue  # warm up
                rates.append(report.arrived / report.seconds)
                agents.append(1e3 * (sum(after[0][:2]) - sum(before[0][:2])) / report.sent)
                switches.append(1e3 * (after[1] - before[1]) / report.sent)
                lost += report.sent - report.arrived
    return _result("connections/s, 2 agents, 2 BMv2", rates, agents, switches, lost, "at least 1500, aim 2500")


async def _in_memory(rounds: int) -> Result:
    like_an_agent()
    hosts = [host(1), host(2)]
    farm = simulation.Farm(idle_timeout=300.0, punt_rate=1_000_000)
    await farm.start([TENANT], hosts)
    ends = [endpoint(number, where) for number, where in enumerate(hosts, start=1)]
    for end in ends:
        await farm.add_endpoint(end, PORT_FIRST_ENDPOINT)
    stopwatch = _Stopwatch()
    for each in farm.hosts.values():
        engine = each.switch.engine
        engine.process = stopwatch.around(engine.process)
        engine.insert = stopwatch.around(engine.insert)  # type: ignore[method-assign]
    rates, agents, switches = [], [], []
    lost = 0
    for first in range(0, (rounds + 1) * CONNECTIONS, CONNECTIONS):
        frames = [frame(number) for number in range(first, first + CONNECTIONS)]
        begin, before = time.process_time(), stopwatch.seconds
        sent = arrived = idle = 0
        while arrived < CONNECTIONS and idle < 1000:
            while sent < CONNECTIONS and sent - arrived < WINDOW:
                farm.emit(ends[0].name, frames[sent])
                sent += 1
            await asyncio.sleep(0)
            new = len(farm.delivered(ends[1].name))
            arrived += new
            idle = 0 if new else idle + 1
        whole, inside = time.process_time() - begin, stopwatch.seconds - before
        if first == 0:
            continue  # warm up
        rates.append(arrived / whole)
        agents.append(1e3 * (whole - inside) / sent)
        switches.append(1e3 * inside / sent)
        lost += sent - arrived
    await farm.stop()
    return _result("connections/s, 2 agents, in-memory switches, one core", rates, agents, switches, lost, "aim 5000")


class _Stopwatch:
    """Adds up the time that some functions take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[P, T]) -> Callable[P, T]:
        """The function, timed."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begin

        return timed


def _result(what: str, rates: list[float], agents: list[float], switches: list[float], lost: int, bound: str) -> Result:
    costs = f"CPU s/1000: agents {statistics.median(agents):.2f}, switches {statistics.median(switches):.2f}"
    return Result(what, f"{statistics.median(rates):.0f}/s, {lost} lost", costs, None, bound)


if __name__ == "__main__":
    main(benchmark)
