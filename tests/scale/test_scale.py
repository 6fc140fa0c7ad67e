"""What a host takes does not depend on the size of the farm, and it stores nothing of hosts that are not its peers.

Counted, not timed; `make bench` and `make scale` do the same with more hosts (docs/scale.md).
"""

import pytest

from bench.scale.measuring import Measured, Names, Walk, run
from bench.scale.traffic import PEERS, PORT, SMALLEST, TENANT, Traffic, distances, endpoint, host, peers
from nvi.directory.memory import MemoryDirectory
from nvi.simulation import Farm, VirtualClockLoop

FLAT = ("setup_ms", "setup_worst_ms", "established_ms", "calls", "messages", "requests", "entries", "stored", "left")


@pytest.fixture(scope="module")
def small() -> Measured:
    return run("ours", SMALLEST, SMALLEST)


def test_more_hosts_are_no_more_work_for_each(small):
    large = run("ours", 3 * SMALLEST, 3 * SMALLEST)
    assert small.named == large.named == PEERS
    for what in FLAT:
        values = getattr(small, what), getattr(large, what)
        assert max(values) <= 1.2 * min(values), what


def test_who_is_told_everything_knows_everybody(small):
    """The peer is what it should be, and it does the same job."""
    pushing = run("pushing", 10 * SMALLEST, SMALLEST)
    assert pushing.named == 10 * SMALLEST - 1
    assert pushing.messages >= 10 * SMALLEST
    assert pushing.entries == small.entries
    assert pushing.empty > 2 * small.empty  # with endpoints, and without a connection


def _plant_name(farm: Farm) -> None:
    farm.hosts[host(3).name].agent.config = ["a line about host000011"]


def _plant_address(farm: Farm) -> None:
    farm.hosts[host(3).name].agent._local.events[b"\0\0" + endpoint(11).address + bytes(14)] += 1


def _plant_entry(farm: Farm) -> None:
    engine = farm.hosts[host(3).name].switch.engine
    table = next(name for name in engine.tables if name.endswith("neighbours"))
    engine.insert(table, ((1,), (int.from_bytes(endpoint(11).address),)), 0, ())


@pytest.mark.parametrize("plant", [None, _plant_name, _plant_address, _plant_entry])
def test_a_stranger_is_found_wherever_a_host_stores_it(plant):
    async def look() -> None:
        directory = MemoryDirectory()
        farm = Farm(directory=directory)
        await farm.start([TENANT], map(host, range(SMALLEST)))
        for number in range(SMALLEST):
            await farm.add_endpoint(endpoint(number), PORT)
        traffic = Traffic(farm, SMALLEST)
        await traffic.round(0)
        assert traffic.outcome.completed == SMALLEST
        if plant is not None:
            plant(farm)
        walk = Walk(farm, SMALLEST, (farm, directory, farm.offers), check=True)
        distance = distances(SMALLEST)[0]
        try:
            walk.all(lambda number: {(number + distance) % SMALLEST, (number - distance) % SMALLEST})
        finally:
            await farm.stop()

    loop = VirtualClockLoop()
    try:
        if plant is None:
            loop.run_until_complete(look())
        else:
            with pytest.raises(Names, match=r"host000003 should name .* it names also host000011"):
                loop.run_until_complete(look())
    finally:
        loop.close()


@pytest.mark.parametrize("hosts", [SMALLEST, 100, 1_000, 100_000])
def test_peers_are_mutual_and_as_many_in_every_farm(hosts):
    mine = peers(7, hosts)
    assert len(mine) == PEERS
    assert all(7 in peers(other, hosts) for other in mine)


def test_too_few_hosts_for_the_traffic():
    with pytest.raises(ValueError, match="too few"):
        distances(PEERS)
