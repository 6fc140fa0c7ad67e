"""One farm of one size, from its start until its connections are forgotten: what that takes of each host."""

from __future__ import annotations

import asyncio
import cProfile
import gc
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nvi.bench.lab import resident_bytes
from nvi.directory.memory import MemoryDirectory
from nvi.embedded.memory import MemorySwitch
from nvi.offers.memory import MemoryOffers
from nvi.rows import CONNECTIONS as _CONNECTIONS
from nvi.rows import CONNECTIONS6, NEIGHBOURS
from nvi.simulation import Farm, SimulatedHost, VirtualClockLoop, host_mac

from .delays import DistantFarm, DistantOffers
from .holdings import Holdings, Owners, holdings
from .pushing import Centre, PushingFarm
from .traffic import CONNECTIONS, PATIENCE, PORT, ROUND_SECONDS, TENANT, Traffic, endpoint, host, peers

IDLE_TIMEOUT = 30.0
"""Seconds; so all of a host's connections are there at once before the first one goes."""
FORGOTTEN_AFTER = 70.0
"""Seconds after which nothing is left of any connection: the idle timeout is over, and the neighbours' lifetime."""
WALKED = 50
"""Hosts of a farm whose memory is gone through, evenly spread; all, if there are fewer."""
OBSERVED = 10_000
"""Hosts whose last connection's function calls are counted, which takes long: with more of them, those of the beginning
of the round."""
FORGOTTEN_UP_TO = 10_000
"""Hosts of the largest farm that is watched until nothing is left, which takes as long again."""
WARM_UP = 20
"""Hosts of a farm that comes first, so that the pipeline is compiled, and is not counted."""
_TABLES = {_CONNECTIONS, CONNECTIONS6, NEIGHBOURS}


@dataclass(frozen=True)
class Measured:
    """What one farm took. Per host, unless it says otherwise."""

    way: str
    hosts: int
    """In the farm."""
    simulated: int
    """Of these."""
    setup_ms: float
    """Virtual time: the median first packet's, from leaving to arriving."""
    setup_worst_ms: float
    established_ms: float
    """The median, from connect() to the end of the handshake."""
    start_cpu_ms: float
    """CPU time from nothing to an endpoint that is ready."""
    traffic_cpu_ms: float
    """CPU time of its connections, their forgetting not included."""
    calls: float
    """Function calls in NVI's code for one connection opened, and one answered."""
    messages: float
    """From other agents, or the centre, until all of its connections are there: offers, answers, what is pushed."""
    requests: float
    """To the directory until then, but for leases."""
    entries: float
    """In `connections` and `neighbours` of its switch when all of its connections are there."""
    stored: float
    """Bytes of all that it stores then."""
    stored_worst: float
    empty: float
    """The same before its first connection."""
    left: float | None
    """The same after its last one; None if that was not waited for."""
    named: float
    """Hosts that are named in it, itself not counted."""
    rss_empty: float
    """Bytes of the process, before its first connection."""
    rss: float
    """The same when all of them are there, with the endpoints' stacks, which are the traffic's own."""
    peak_rss: float
    """Bytes of the process, in all."""
    seconds: float
    """How long all of it took, in all."""


class Names(Exception):
    """A host stores the name of one that it has nothing to do with."""


async def measure(way: str, hosts: int, simulated: int) -> Measured:
    """`way`: ours or pushing. `simulated`: that many of the hosts; the others are only told of. Raises Names."""
    await _run(way, WARM_UP, WARM_UP)
    return await _run(way, hosts, simulated)


async def _run(way: str, hosts: int, simulated: int) -> Measured:
    begin = time.monotonic()
    offers = DistantOffers(MemoryOffers())
    directory = MemoryDirectory()
    requests: Counter[str] = Counter()
    centre = Centre([TENANT])
    farm: Farm
    if way == "pushing":
        farm = PushingFarm(centre, offers, idle_timeout=IDLE_TIMEOUT)
    else:
        farm = DistantFarm(directory, requests, offers, idle_timeout=IDLE_TIMEOUT)
    rss, cpu = resident_bytes(), time.process_time()
    await farm.start([TENANT], map(host, range(simulated)))
    await asyncio.sleep(1.0)  # until every agent has taken its switch over
    await asyncio.gather(*[farm.add_endpoint(endpoint(number), PORT) for number in range(simulated)])
    if way == "pushing":
        for number in range(simulated, hosts):
            centre.announce(endpoint(number), host(number))
    await asyncio.sleep(1.0)
    started = time.process_time() - cpu
    grown_empty = resident_bytes() - rss
    walk = Walk(farm, hosts, (farm, directory, requests, offers, centre), check=way != "pushing")
    empty = walk.all(lambda _: set())

    traffic = Traffic(farm, simulated)
    cpu = time.process_time()
    for number in range(CONNECTIONS - 1):
        await traffic.round(number)
    took = time.process_time() - cpu
    profile = cProfile.Profile(builtins=False)
    observed = min(1.0, OBSERVED / simulated)
    last = asyncio.create_task(traffic.round(CONNECTIONS - 1))
    await asyncio.sleep(0)
    profile.enable()
    await asyncio.sleep(ROUND_SECONDS * observed if observed < 1.0 else ROUND_SECONDS + PATIENCE)
    profile.disable()
    await last
    outcome = traffic.outcome
    if outcome.completed != CONNECTIONS * simulated:
        raise RuntimeError(f"of {CONNECTIONS * simulated} connections {outcome.completed} completed")
    grown = resident_bytes() - rss - walk.weight
    messages, asked = offers.messages + centre.messages, requests.total() - requests["lease"]
    entries = [_entries(each) for each in farm.hosts.values()]
    full = walk.all(lambda number: peers(number, simulated))

    left = None
    if simulated <= FORGOTTEN_UP_TO:
        await asyncio.sleep(FORGOTTEN_AFTER)
        if any(map(_entries, farm.hosts.values())):
            raise RuntimeError("something is left in a switch")
        left = statistics.mean(each.octets for each in walk.all(lambda _: set()))
    result = Measured(
        way,
        hosts,
        simulated,
        setup_ms=1e3 * statistics.median(outcome.first_packets),
        setup_worst_ms=1e3 * max(outcome.first_packets),
        established_ms=1e3 * statistics.median(outcome.established),
        start_cpu_ms=1e3 * started / simulated,
        traffic_cpu_ms=1e3 * took / (CONNECTIONS - 1) * CONNECTIONS / simulated,
        calls=_calls(profile) / simulated / observed,
        messages=messages / simulated,
        requests=asked / simulated,
        entries=statistics.mean(entries),
        stored=statistics.mean(each.octets for each in full),
        stored_worst=max(each.octets for each in full),
        empty=statistics.mean(each.octets for each in empty),
        named=statistics.mean(len(each.names) - 1 for each in full),
        left=left,
        rss_empty=grown_empty / simulated,
        rss=grown / simulated,
        peak_rss=resident_bytes("VmHWM"),
        seconds=time.monotonic() - begin,
    )
    await farm.stop()
    return result


class Walk:
    """Goes through what the hosts of a farm store."""

    def __init__(self, farm: Farm, hosts: int, shared: Sequence[object], *, check: bool) -> None:
        """`hosts`: that many may be named; `check`: whether only those that should be are."""
        before = resident_bytes()
        self._farm = farm
        self._shared = shared
        self._check = check
        self._owners = Owners()
        for each in map(host, range(hosts)):
            self._owners.add(each, [endpoint(_number(each.name))], [host_mac(each.name)])
        count = len(farm.hosts)
        self._walked = range(0, count, -(-count // (WALKED if check else WALKED // 5)))
        self.weight = resident_bytes() - before
        """Bytes of the process that this has taken."""

    def all(self, expected: Callable[[int], set[int]]) -> list[Holdings]:
        """What each stores. `expected`: by number, who is to be named in it. Raises Names if it is somebody else."""
        return [self._one(number, {host(each).name for each in expected(number)}) for number in self._walked]

    def _one(self, number: int, expected: set[str]) -> Holdings:
        name = host(number).name
        found = holdings(self._farm.hosts[name], self._owners, self._shared)
        strangers, missing = sorted(found.names - expected - {name}), sorted((expected | {name}) - found.names)
        if self._check and (strangers or missing):
            text = f"{name} should name itself and {', '.join(sorted(expected)) or 'nobody'}"
            text += f"; it names also {', '.join(strangers)}" if strangers else ""
            text += f"; it does not name {', '.join(missing)}" if missing else ""
            raise Names(text)
        return found


def _number(name: str) -> int:
    return int(name.removeprefix("host"))


def _entries(each: SimulatedHost) -> int:
    assert isinstance(each.switch, MemorySwitch)
    tables = each.switch.engine.tables.items()
    return sum(len(table.entries) for name, table in tables if name.rpartition(".")[2] in _TABLES)


def _calls(profile: cProfile.Profile) -> int:
    """Calls of functions in NVI's own code, that of the switches included."""
    return sum(
        each.callcount
        for each in profile.getstats()
        if not isinstance(each.code, str) and any(part in each.code.co_filename for part in ("/nvi/", "<nvi."))
    )


def run(way: str, hosts: int, simulated: int) -> Measured:
    """Measure in this process."""
    loop = VirtualClockLoop()
    # Each host would look through its own few objects; here one collection would go through those of all hosts.
    gc.disable()
    try:
        return loop.run_until_complete(measure(way, hosts, simulated))
    finally:
        gc.enable()
        loop.close()
