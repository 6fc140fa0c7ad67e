"""What the agents may ask and publish (the `memory` directory)."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine

import pytest

from nvi.directory import LEASE, Conflict
from nvi.directory.memory import MemoryDirectory
from nvi.model import Endpoint, External, Host, Service, read_address
from nvi.simulation import VirtualClockLoop

OUTSIDE = read_address("198.51.100.1")


def on_a_virtual_clock(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    """Have a test wait without time going by."""

    @functools.wraps(test)
    def run() -> None:
        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            runner.run(test())

    return run


def host(name: str, number: int, external: bytes | None = None, site: str = "bj") -> Host:
    side = None if external is None else External(external, external)
    return Host(name, site, (bytes([172, 16, 0, number]),), external=side)


@on_a_virtual_clock
async def test_a_host_that_falls_silent_is_gone_when_its_lease_ends():

    directory = MemoryDirectory()
    changes: list[str] = []
    directory.watch_host("h9", lambda: changes.append("h9"))
    await directory.publish_host(host("h9", 9, OUTSIDE))
    await asyncio.sleep(LEASE * 0.9)
    await directory.publish_host(host("h9", 9, OUTSIDE))
    await asyncio.sleep(LEASE * 0.9)
    assert [each.name for each in await directory.gateways("bj")] == ["h9"]
    assert await directory.gateway_at(OUTSIDE) == host("h9", 9, OUTSIDE)
    assert changes == ["h9"], "to renew a lease is no change"
    await asyncio.sleep(LEASE * 0.2)
    assert await directory.gateways("bj") == ()
    assert await directory.host("h9") is None
    assert await directory.host_at("bj", bytes([172, 16, 0, 9])) is None
    assert await directory.gateway_at(OUTSIDE) is None
    assert changes == ["h9", "h9"]


@on_a_virtual_clock
async def test_no_two_hosts_have_one_address():
    directory = MemoryDirectory()
    await directory.publish_host(host("h1", 1, OUTSIDE))
    with pytest.raises(Conflict, match=r"h1 of site bj has the address 172\.16\.0\.1"):
        await directory.publish_host(host("h2", 1))
    with pytest.raises(Conflict, match=r"public address 198\.51\.100\.1"):
        await directory.publish_host(host("w1", 1, OUTSIDE, site="va"))
    await directory.publish_host(host("w2", 1, site="va"))  # sites may use the same addresses


@on_a_virtual_clock
async def test_an_endpoint_that_moves_is_told_to_those_who_watch_it():
    directory = MemoryDirectory()
    addresses = (read_address("10.0.0.1"), read_address("fd00::1"))
    here = Endpoint("web1", "acme", "web", bytes(6), addresses, "h1")
    there = Endpoint("web1", "acme", "web", bytes(6), addresses, "h2")
    changes: list[int] = []
    unwatch = directory.watch_endpoint("acme", addresses[1], lambda: changes.append(1))
    await directory.publish_endpoint(here)
    await directory.publish_endpoint(here)
    await directory.publish_endpoint(there)
    await directory.withdraw_endpoint(here)  # it is not there any more
    assert await directory.endpoint("acme", addresses[0]) == there
    assert len(changes) == 2
    unwatch()
    await directory.withdraw_endpoint(there)
    assert len(changes) == 2
    assert await directory.endpoint("acme", addresses[1]) is None


@on_a_virtual_clock
async def test_a_port_of_a_gateway_is_published_once():
    directory = MemoryDirectory()
    web = Service("acme", read_address("10.0.0.1"), 80, 6, "h9", 8080)
    await directory.publish_service(web)
    await directory.publish_service(web)
    with pytest.raises(Conflict, match="port 8080 of gateway h9"):
        await directory.publish_service(Service("globex", read_address("10.0.0.1"), 80, 6, "h9", 8080))
    assert await directory.services("h9") == (web,)
    await directory.withdraw_service(web)
    assert await directory.services("h9") == ()
