"""What the credentials of one host are good for at a real server, and what not: h2's are stolen.

h2 may have endpoints of tenant acme only.
"""

from __future__ import annotations

import asyncio

import nats.aio.client
import nats.errors
import pytest

from nvi.directory import Conflict, DirectoryError
from nvi.model import Service, read_address
from nvi.nats.connection import Away
from nvi.nats.layout import POLICY, at_key, endpoint_key, service_key
from nvi.nats.server import new_key
from nvi.offers import NoAnswer

from .farm import LAYOUT, Nats, endpoint, host, tenant, until
from .test_offers import OFFER

WEB1 = read_address("10.0.0.1")
ACME, GLOBEX = LAYOUT.tenant("acme"), LAYOUT.tenant("globex")
NOT_PERMITTED = "NATS does not permit us"


async def test_no_other_host_s_records_can_be_written(nats: Nats) -> None:
    await nats.prepare()
    async with nats.directory_of("h1") as one, nats.connection("h2") as thief:
        await one.publish_host(host("h1", external="198.51.100.1"))
        await one.publish_endpoint(endpoint("web1", "h1", "10.0.0.1"))
        for subject in (
            LAYOUT.leases.subject("h1"),
            LAYOUT.hosts.subject(at_key("here", bytes([172, 16, 0, 1]), "h1")),
            LAYOUT.hosts.subject(at_key("there", bytes([172, 16, 0, 1]), "h2")),  # not its site
            LAYOUT.hosts.subject(service_key("h1", 6, 8080)),
            ACME.subject(endpoint_key(WEB1, "h1")),
            ACME.subject(POLICY),
            GLOBEX.subject(endpoint_key(WEB1, "h2")),
            GLOBEX.subject(POLICY),
        ):
            with pytest.raises(Away, match=NOT_PERMITTED):
                await thief.write(subject, b"forged")
        with pytest.raises(Away, match=NOT_PERMITTED):  # as if the bucket had said so
            await thief.request(ACME.watch_subject(endpoint_key(WEB1, "h1")), b"forged")
        assert await one.endpoint("acme", WEB1) == endpoint("web1", "h1", "10.0.0.1")


async def test_another_host_s_endpoint_cannot_be_claimed(nats: Nats) -> None:
    """Not even by somebody who does not ask first: the claim that came first holds, under whatever name."""
    await nats.prepare()
    async with nats.directory_of("h1") as one, nats.directory_of("h2") as thief, nats.directory_of("h3") as other:
        for directory, name in ((one, "h1"), (thief, "h2"), (other, "h3")):
            await directory.publish_host(host(name))
        await one.publish_endpoint(endpoint("web1", "h1", "10.0.0.1"))
        with pytest.raises(Conflict):
            await thief.publish_endpoint(endpoint("evil", "h2", "10.0.0.1"))
        async with nats.connection("h2") as raw:
            for name in ("evil", "web1"):
                for at in ("h2", "h1"):
                    forged = thief._encode(endpoint(name, at, "10.0.0.1"))
                    await raw.write(ACME.subject(endpoint_key(WEB1, "h2")), forged)
                    for directory in (one, other):
                        assert await directory.endpoint("acme", WEB1) == endpoint("web1", "h1", "10.0.0.1")
            # An address of another host's is as little to be had.
            forged = thief._encode("h2")
            await raw.write(LAYOUT.hosts.subject(at_key("here", bytes([172, 16, 0, 1]), "h2")), forged)
            assert await other.host_at("here", bytes([172, 16, 0, 1])) == host("h1")


async def test_the_bucket_cannot_be_emptied(nats: Nats) -> None:
    """A roll-up of its own key would take everybody's records away, if the bucket allowed it."""
    await nats.prepare()
    async with nats.directory_of("h1") as one, nats.connection("h2") as thief:
        await one.publish_host(host("h1"))
        await one.publish_endpoint(endpoint("web1", "h1", "10.0.0.1"))
        await thief.ready()
        assert thief._client is not None
        for scope in ("all", "sub"):
            with pytest.raises((nats_error, asyncio.TimeoutError)):
                await thief._client.jetstream(timeout=2.0).publish(
                    ACME.subject(endpoint_key(WEB1, "h2")), b"", headers={"Nats-Rollup": scope}
                )
        async with nats.directory_of("h3") as fresh:
            assert await fresh.endpoint("acme", WEB1) == endpoint("web1", "h1", "10.0.0.1")
            assert await fresh.tenant("acme") == tenant("acme")
        for request in ("STREAM.PURGE", "STREAM.DELETE", "STREAM.UPDATE", "STREAM.MSG.DELETE", "STREAM.INFO"):
            with pytest.raises(Away, match=NOT_PERMITTED):
                await thief.request(f"$JS.API.{request}.{ACME.stream}", b"{}")
        with pytest.raises(Away, match=NOT_PERMITTED):
            await thief.request(f"$JS.API.CONSUMER.CREATE.{ACME.stream}", b"{}")


nats_error = nats.errors.Error


async def test_nobody_else_s_offers_are_asked_or_answered(nats: Nats) -> None:
    async with nats.offers_of("h1") as one, nats.connection("h2") as thief:
        with pytest.raises(Away, match=NOT_PERMITTED):  # in another's name
            await thief.request(LAYOUT.offer("h1", "h3"), b"")
        stolen: list[bytes] = []

        async def hear(message: nats.aio.client.Msg) -> None:
            stolen.append(message.data)
            await message.respond(b"mine")

        for subject in (
            LAYOUT.offer("h3", "*"),
            f"nvi.{LAYOUT.farm}.offer.>",
            f"{LAYOUT.inbox('h1')}.>",
            f"nvi.{LAYOUT.farm}.>",
            ">",
            "$KV.>",
            GLOBEX.watch_subject(">"),
        ):
            await thief.subscribe(subject, hear)
        await until(lambda: len(thief._denied) >= 7, "every subscription is denied")
        with pytest.raises(NoAnswer, match="no agent answers for host h3"):
            await one.request("h1", "h3", OFFER)
        async with nats.directory_of("h3") as three:
            await nats.prepare()
            await three.publish_host(host("h3"))
            await three.publish_endpoint(endpoint("g1", "h3", "10.0.0.1", tenant="globex"))
        assert stolen == []


async def test_the_answer_to_somebody_else_cannot_be_given(nats: Nats) -> None:
    async with nats.connection("h1") as one, nats.connection("h2") as thief:
        answers: list[bytes] = []

        async def hear(message: nats.aio.client.Msg) -> None:
            answers.append(message.data)

        inbox = f"{LAYOUT.inbox('h1')}.x"
        await one.ready()
        await one.subscribe(inbox, hear)
        await thief.ready()
        assert thief._client is not None
        await thief._client.publish(inbox, b"forged")
        await until(lambda: len(thief._denied) == 1, "it is denied")
        assert answers == []


async def test_another_tenant_s_policy_and_endpoints_are_not_shown(nats: Nats) -> None:
    await nats.prepare()
    async with nats.directory_of("h2") as thief, nats.directory_of("h1") as one:
        assert await one.tenant("globex") == tenant("globex")
        assert await thief.tenant("acme") == tenant("acme")
        for question in (thief.tenant("globex"), thief.endpoint("globex", WEB1)):
            with pytest.raises(DirectoryError, match=NOT_PERMITTED):
                await question
        with pytest.raises(DirectoryError, match=NOT_PERMITTED):
            await thief.publish_tenant(tenant("acme", pairs={"web1 web2": True}))
        with pytest.raises(DirectoryError, match=NOT_PERMITTED):
            await thief.publish_service(Service("acme", WEB1, 22, 6, "h1", 22))


async def test_without_a_key_that_the_server_knows_nobody_gets_in(
    nats: Nats, capsys: pytest.CaptureFixture[str]
) -> None:
    new_key(nats.directory / "stranger.nk")
    seed = (nats.directory / "stranger.nk").read_text().strip()
    async with nats.connection("stranger") as stranger:
        await until(lambda: "Authorization" in stranger.state, "it is refused")
        assert nats.url in stranger.state
        assert "check that the server's configuration has this host's user" in stranger.state
        with pytest.raises(Away, match="Authorization"):
            await stranger.ready(0.1)
    said = capsys.readouterr().out
    assert said.count("Authorization Violation") == 1, "it is said once, however often it is tried"
    assert seed not in said
    assert (nats.directory / "stranger.nk").stat().st_mode & 0o777 == 0o600
    config = (nats.directory / "nats.conf").read_text()
    assert not any((nats.directory / f"{name}.nk").read_text().strip() in config for name in nats.keys)
