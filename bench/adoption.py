"""How long a restarted agent takes to adopt a full switch: 60,000 entries, while their packets run.

The connections of the traffic are set up by agents; the rest of the table is filled with entries as an agent would have
written them. Then the agent ends, and the next one starts, while a packet of each connection of the traffic goes to and
fro. Measured is from the new agent's start to when it has its switch, and all connections are known.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import uvloop

from nvi.bench.ends import TENANT, host
from nvi.bench.farm import Cable, Farm
from nvi.bench.lab import Lab, LabError
from nvi.bench.line import Line, generate
from nvi.emulation.targets import Target, available
from nvi.formulation import endpoint_side, join, link_side, tag
from nvi.keys import KEY_FIRST, KEY_LAST
from nvi.model import Endpoint, FirstPacket, Flow, Protocol
from nvi.switch import PORT_FIRST_ENDPOINT, PORT_UNDERLAY, ConnectionEntry, Operation, Update

from .report import Result, main

CONNECTIONS = 30_000
"""Of two entries each."""
BUSY, RATE = 1200, 200.0
"""Connections of the traffic, and packets per second; each comes back."""
IDLE_TIMEOUT = 300.0
FIRST = FirstPacket(64)
BATCH = 2000
START_SECONDS = 1.5
"""Until the load generator sends."""


def benchmark(connections: int = CONNECTIONS) -> list[Result]:
    """See above."""
    return [uvloop.run(adopt(target, connections)) for target in available()]


async def adopt(target: Target, connections: int, busy: int = BUSY) -> Result:
    """`busy`: of the connections, how many have traffic meanwhile."""
    with Lab() as lab:
        line = Line(lab, 2, target)
        async with Farm(*((switch, 1) for switch in line.switches), idle_timeout=IDLE_TIMEOUT) as farm:
            made = await asyncio.to_thread(generate, lab, line, "pace", 0, busy, RATE)
            if made.arrived != made.sent:
                raise LabError(f"{made.sent - made.arrived} of {made.sent} connections were not set up")
            entries = [each async for each in _entries(farm.endpoints[0], farm.endpoints[1], connections - busy)]
            for start in range(0, len(entries), BATCH):
                await farm.sessions[0].write(
                    [Update(Operation.INSERT, entry) for entry in entries[start : start + BATCH]]
                )
            traffic = asyncio.create_task(asyncio.to_thread(generate, lab, line, "pace", 0, busy, RATE))
            await asyncio.sleep(START_SECONDS)
            begin = time.monotonic()
            await farm.restart(0)
            took = time.monotonic() - begin
            seen = await traffic
            adopted = len(await farm.agents[0].connections())
    lost = seen.sent - seen.arrived
    what = f"adoption of {2 * connections} entries, {target}"
    found = f"{adopted} of {connections} connections; {lost} of {2 * seen.sent} packets lost meanwhile"
    return Result(what, f"{took:.2f} s", found, None, "less than 5 s")


async def _entries(near: Endpoint, far: Endpoint, connections: int) -> AsyncIterator[ConnectionEntry]:
    """Those that the agent of the first host has for connections of its endpoint, none of them the generator's."""
    here, there = host(1).addresses[0], host(2).addresses[0]
    hop = await Cable(here).next_hop(there)
    tags = tag(True, FIRST.ttl, TENANT.name, far.host), tag(False, FIRST.ttl, TENANT.name, far.host)
    keys = KEY_LAST - KEY_FIRST + 1
    for number in range(connections):
        flow = Flow(near.address, far.address, Protocol.UDP, 1024 + number, 1000)
        # The agents have begun at the lower end with theirs.
        out = Flow(here, there, Protocol.UDP, KEY_LAST - number % keys, KEY_LAST - number // keys)
        overlay = endpoint_side(TENANT, near, PORT_FIRST_ENDPOINT, far, flow, FIRST)
        underlay = link_side(PORT_UNDERLAY, out, hop.source_mac, hop.destination_mac, hop.mtu, FIRST)
        for entry in join(overlay, underlay, IDLE_TIMEOUT, tags):
            yield entry


if __name__ == "__main__":
    main(benchmark)
