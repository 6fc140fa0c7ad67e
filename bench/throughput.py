"""Throughput of one TCP stream on BMv2: NVI's pipeline against a minimal LPM forwarder (forwarder.p4).

iperf3 between two namespaces, through one switch (one host), then through two (two hosts). Both programs run on the
same BMv2 binary, with the same interfaces, MTU and offloads (none); the runs take turns, and the ratio is that of their
medians. NVI's entries are those that real agents write when iperf3 connects.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack

from nvi.bench.ends import CLIENT, SERVER
from nvi.bench.farm import Farm
from nvi.bench.lab import Lab, need
from nvi.bench.line import Line
from nvi.model import show_address
from nvi.switch import PORT_FIRST_ENDPOINT, PORT_UNDERLAY

from .controller import Controller, compiled, route
from .report import Result, interleave, main

SECONDS, ROUNDS = 3, 5
REQUIRED, AIM = 0.4, 0.5


def benchmark(rounds: int = ROUNDS) -> list[Result]:
    """See above."""
    return [
        asyncio.run(_compare(switches, rounds, what))
        for switches, what in ((1, "one TCP stream on BMv2, within a host"), (2, "one TCP stream on BMv2, two hosts"))
    ]


async def _compare(switches: int, rounds: int, what: str) -> Result:
    iperf = need("iperf3", "apt-get install iperf3")
    with Lab() as lab, ExitStack() as controllers:
        ours, peer = Line(lab, switches), Line(lab, switches, first_device=10)
        for line in (ours, peer):
            line.configure()
            lab.spawn(line.server, iperf, "--server")
        _program_forwarders(peer, controllers)
        sites = [(ours.switches[0], 2)] if switches == 1 else [(switch, 1) for switch in ours.switches]

        def stream(line: Line) -> float:
            to = show_address(SERVER.address)
            report = line.client.run(iperf, "--client", to, "--time", str(SECONDS), "--omit", "1", "--json")
            return float(json.loads(report)["end"]["sum_received"]["bits_per_second"]) / 1e6

        async with Farm(*sites):
            mine, theirs = await asyncio.to_thread(interleave, rounds, lambda: stream(ours), lambda: stream(peer))
    ratio = mine.median / theirs.median
    bound = f"at least {REQUIRED}, aim {AIM}" if switches == 1 else ""
    return Result(what, f"{mine.median:.0f} Mbit/s", f"{theirs.median:.0f} Mbit/s", ratio, bound)


def _program_forwarders(line: Line, controllers: ExitStack) -> None:
    pipeline = compiled("forwarder")
    for index, switch in enumerate(line.switches):
        controller = Controller(switch.address, switch.device_id, pipeline)
        controllers.callback(controller.close)
        here = CLIENT if index == 0 else SERVER
        routes = []
        for end in (CLIENT, SERVER):
            port = PORT_FIRST_ENDPOINT + (end is SERVER) if len(line.switches) == 1 else PORT_UNDERLAY
            if len(line.switches) == 2 and end is here:
                port = PORT_FIRST_ENDPOINT
            routes.append(route(pipeline, end.address, 32, end.mac, port))
        controller.write(controller.request(routes))


if __name__ == "__main__":
    main(benchmark)
