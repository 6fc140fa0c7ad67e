"""The directory in NATS: what each host sees of what the others publish."""

from __future__ import annotations

import pytest

from nvi.directory import Conflict
from nvi.model import Service, read_address
from nvi.nats.layout import OPERATOR

from .farm import Nats, endpoint, host, tenant, until

WEB1 = read_address("10.0.0.1")
V6 = read_address("fd00::1")
OUTSIDE = read_address("198.51.100.1")


async def test_what_one_host_publishes_the_others_find(nats: Nats) -> None:
    await nats.prepare()
    async with nats.directory_of("h1") as one, nats.directory_of("h2") as other:
        await one.publish_host(host("h1", external="198.51.100.1"))
        web1 = endpoint("web1", "h1", "10.0.0.1", "fd00::1")
        await one.publish_endpoint(web1)
        assert await other.endpoint("acme", WEB1) == web1
        assert await other.endpoint("acme", V6) == web1
        assert await other.endpoint("acme", read_address("10.0.0.2")) is None
        assert await other.host("h1") == host("h1", external="198.51.100.1")
        assert await other.host("h2") is None
        assert await other.host_at("here", bytes([172, 16, 0, 1])) == host("h1", external="198.51.100.1")
        assert await other.host_at("there", bytes([172, 16, 0, 1])) is None
        assert await other.gateways("here") == (host("h1", external="198.51.100.1"),)
        assert await other.gateway_at(OUTSIDE) == host("h1", external="198.51.100.1")
        assert await other.tenant("acme") == tenant("acme")
        await one.withdraw_endpoint(web1)
        await until(lambda: _none(other.endpoint("acme", WEB1)), "the endpoint is gone")
        assert await other.endpoint("acme", V6) is None


async def _none(question) -> bool:  # type: ignore[no-untyped-def]
    return await question is None


async def test_changes_are_told_to_those_who_watch(nats: Nats) -> None:
    await nats.prepare()
    async with (
        nats.directory_of("h1") as one,
        nats.directory_of("h2") as other,
        nats.directory_of(OPERATOR) as boss,
    ):
        told: list[str] = []
        await one.publish_host(host("h1"))
        assert await other.host("h1") == host("h1")
        assert await other.endpoint("acme", WEB1) is None
        unwatch = other.watch_endpoint("acme", WEB1, lambda: told.append("endpoint"))
        other.watch_host("h1", lambda: told.append("host"))
        other.watch_tenant("acme", lambda: told.append("tenant"))
        assert await other.tenant("acme") == tenant("acme")
        await one.publish_host(host("h1"))
        await one.publish_endpoint(endpoint("web1", "h1", "10.0.0.1"))
        await until(lambda: "endpoint" in told, "the endpoint is told")
        assert "host" not in told, "to renew a lease is no change"
        assert await other.endpoint("acme", WEB1) == endpoint("web1", "h1", "10.0.0.1")
        before = told.count("tenant")
        await boss.publish_tenant(tenant("acme", pairs={"a b": False}))
        await until(lambda: told.count("tenant") > before, "the policy is told")
        assert await other.tenant("acme") == tenant("acme", pairs={"a b": False})
        unwatch()
        count = told.count("endpoint")
        await one.withdraw_endpoint(endpoint("web1", "h1", "10.0.0.1"))
        await until(lambda: _none(other.endpoint("acme", WEB1)), "the endpoint is gone")
        assert told.count("endpoint") == count


async def test_a_host_that_falls_silent_is_gone(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvi.directory.nats.LEASE", 1.0)
    await nats.prepare(lease=1.0)
    async with nats.directory_of("h2") as other:
        async with nats.directory_of("h1") as one:
            await one.publish_host(host("h1", external="198.51.100.1"))
            assert await other.host("h1") is not None
        told: list[str] = []
        other.watch_host("h1", lambda: told.append("host"))
        await until(lambda: bool(told), "the host is gone")
        assert await other.host("h1") is None
        assert await other.host_at("here", bytes([172, 16, 0, 1])) is None
        assert await other.gateways("here") == ()
        assert await other.gateway_at(OUTSIDE) is None


async def test_of_two_who_claim_one_address_the_first_keeps_it(nats: Nats) -> None:
    await nats.prepare()
    async with nats.directory_of("h1") as one, nats.directory_of("h2") as other:
        await one.publish_host(host("h1", external="198.51.100.1"))
        with pytest.raises(Conflict, match=r"h1 of site here has the address 172\.16\.0\.1"):
            await other.publish_host(host("h2", number=1))
        with pytest.raises(Conflict, match=r"h1 of site here has the public address 198\.51\.100\.1"):
            await other.publish_host(host("h2", external="198.51.100.1"))
        assert await one.host("h2") is None, "a host that was refused is not there"
        await other.publish_host(host("h2"))
        web1 = endpoint("web1", "h1", "10.0.0.1")
        await one.publish_endpoint(web1)
        with pytest.raises(Conflict, match=r"endpoint web1 on host h1 has the address 10\.0\.0\.1 of tenant acme"):
            await other.publish_endpoint(endpoint("evil", "h2", "10.0.0.9", "10.0.0.1"))
        assert await other.endpoint("acme", WEB1) == web1
        assert await one.endpoint("acme", read_address("10.0.0.9")) is None, "half a claim is none"


async def test_an_endpoint_moves_when_its_old_host_lets_it_go(nats: Nats) -> None:
    await nats.prepare()
    async with nats.directory_of("h1") as one, nats.directory_of("h2") as two, nats.directory_of("h3") as three:
        for directory, name in ((one, "h1"), (two, "h2"), (three, "h3")):
            await directory.publish_host(host(name))
        here, there = endpoint("web1", "h1", "10.0.0.1"), endpoint("web1", "h2", "10.0.0.1")
        await one.publish_endpoint(here)
        assert await three.endpoint("acme", WEB1) == here
        told: list[str] = []
        three.watch_endpoint("acme", WEB1, lambda: told.append("moved"))
        await two.publish_endpoint(there)
        assert await one.endpoint("acme", WEB1) == here, "until it is let go"
        await one.withdraw_endpoint(here)
        await until(lambda: _is(three.endpoint("acme", WEB1), there), "it has moved")
        assert told
        await one.withdraw_endpoint(here)  # it is not there any more
        assert await three.endpoint("acme", WEB1) == there
        await one.publish_endpoint(here)  # and back
        await two.withdraw_endpoint(there)
        await until(lambda: _is(three.endpoint("acme", WEB1), here), "it is back")


async def _is(question, value: object) -> bool:  # type: ignore[no-untyped-def]
    return bool(await question == value)


async def test_a_port_of_a_gateway_is_published_once(nats: Nats) -> None:
    await nats.prepare()
    async with (
        nats.directory_of("h1") as one,
        nats.directory_of("h2") as other,
        nats.directory_of(OPERATOR) as boss,
    ):
        web = Service("acme", WEB1, 80, 6, "h1", 8080)
        await one.publish_service(web)
        await one.publish_service(web)
        with pytest.raises(Conflict, match=r"port 8080 of gateway h1 is published for 10\.0\.0\.1 of tenant acme"):
            await boss.publish_service(Service("globex", WEB1, 80, 6, "h1", 8080))
        await boss.publish_service(Service("globex", WEB1, 80, 6, "h1", 8081))
        assert await other.services("h1") == (web, Service("globex", WEB1, 80, 6, "h1", 8081))
        await one.withdraw_service(web)
        await until(lambda: _is(other.services("h1"), (Service("globex", WEB1, 80, 6, "h1", 8081),)), "withdrawn")
        await one.publish_service(web)
        assert web in await one.services("h1")


async def test_one_host_has_one_agent(nats: Nats) -> None:
    await nats.prepare()
    async with nats.directory_of("h1") as one:
        await one.publish_host(host("h1"))
        async with nats.directory_of("h1") as second:
            with pytest.raises(Conflict, match=r"another agent runs for host h1 \(pid \d+ on "):
                await second.publish_host(host("h1"))
        await one.publish_host(host("h1"))
    async with nats.directory_of("h1") as restarted:
        await restarted.publish_host(host("h1"))  # the lease of the one before has not ended
