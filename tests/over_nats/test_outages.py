"""NATS absent, killed, hung, emptied, full; another farm's data, another version's."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from nvi.directory import DirectoryError
from nvi.directory.nats import NatsDirectory
from nvi.model import Endpoint, read_address
from nvi.nats.connection import NatsConfig
from nvi.nats.layout import OPERATOR, Layout, endpoint_key
from nvi.offers import NoAnswer

from .farm import LAYOUT, Nats, endpoint, host, tenant, until
from .test_offers import OFFER

WEB1, WEB2 = read_address("10.0.0.1"), read_address("10.0.0.2")
NEW = endpoint("web2", "h1", "10.0.0.2")


async def found(directory: NatsDirectory, address: bytes, expected: Endpoint | None) -> bool:
    """Whether a look-up finds this; while NATS is away there may be no answer."""
    try:
        return await directory.endpoint("acme", address) == expected
    except DirectoryError:
        return False


async def test_nats_that_is_not_there_yet(nats: Nats, capsys: pytest.CaptureFixture[str]) -> None:
    nats.kill()
    async with nats.directory_of("h1") as one, nats.offers_of("h1") as offers:
        await until(lambda: "nothing listens there" in one.state, "it is said")
        assert nats.url in one.state
        assert "start that server, or correct nats.servers" in one.state
        with pytest.raises(DirectoryError, match="nothing listens there"):
            await one.publish_host(host("h1"))
        with pytest.raises(NoAnswer, match="nothing listens there"):
            await offers.request("h1", "h2", OFFER)
        assert capsys.readouterr().out.count("nothing listens there") == 2, "said once by each connection"
        nats.start()
        await nats.prepare()
        await one.publish_host(host("h1"))
        assert one.state == f"connected to {nats.url}"


async def test_what_is_known_is_known_while_nats_is_away(nats: Nats) -> None:
    await nats.prepare()
    async with nats.directory_of("h1") as one, nats.directory_of("h2") as other:
        await one.publish_host(host("h1", external="198.51.100.1"))
        web1 = endpoint("web1", "h1", "10.0.0.1")
        await one.publish_endpoint(web1)
        assert await other.endpoint("acme", WEB1) == web1
        assert await other.gateways("here") == (host("h1", external="198.51.100.1"),)
        assert await other.tenant("acme") == tenant("acme")
        told: list[str] = []
        other.watch_tenant("acme", lambda: told.append("tenant"))
        nats.kill()
        await until(lambda: not other._connection.connected, "the loss is noticed")
        assert await other.endpoint("acme", WEB1) == web1
        assert await other.gateways("here") == (host("h1", external="198.51.100.1"),)
        assert await other.tenant("acme") == tenant("acme")
        with pytest.raises(DirectoryError, match=nats.url):
            await other.endpoint("acme", WEB2)
        nats.start()
        async with nats.directory_of(OPERATOR) as operator:
            await operator.publish_tenant(tenant("acme", pairs={"web1 web2": False}))
        await until(lambda: bool(told), "what changed meanwhile is told")
        assert await other.tenant("acme") == tenant("acme", pairs={"web1 web2": False})
        await one.publish_host(host("h1", external="198.51.100.1"))
        await one.publish_endpoint(NEW)
        await until(lambda: found(other, WEB2, NEW), "new things are found")


async def test_what_nats_has_lost_is_published_again(nats: Nats) -> None:
    await nats.prepare()
    async with nats.directory_of("h1") as one:
        await one.publish_host(host("h1"))
        await one.publish_endpoint(NEW)
        nats.kill()
        shutil.rmtree(nats.directory / "store")
        await until(lambda: not one._connection.connected, "the loss is noticed")
        nats.start()
        await nats.prepare()
        # Whether it connected before the buckets were made, or after: at the latest with the next lease.
        await one.publish_host(host("h1"))
        await one.publish_endpoint(NEW)
        async with nats.directory_of("h2") as other:
            await until(lambda: found(other, WEB2, NEW), "all is there again")
            assert await other.host("h1") == host("h1")
            assert await other.host_at("here", bytes([172, 16, 0, 1])) == host("h1")


async def test_a_server_that_hangs(nats: Nats) -> None:
    await nats.prepare()
    async with nats.directory_of("h1") as one, nats.directory_of("h2") as other:
        await one.publish_host(host("h1"))
        await one.publish_endpoint(endpoint("web1", "h1", "10.0.0.1"))
        assert await other.endpoint("acme", WEB1) is not None
        nats.hang()
        assert await other.endpoint("acme", WEB1) is not None
        with pytest.raises(DirectoryError, match="no answer at"):
            await other.endpoint("acme", WEB2)
        nats.go_on()
        await until(lambda: found(other, WEB2, None), "it answers again")


async def test_a_second_server_takes_over(nats: Nats) -> None:
    """The one named first is away: the next one will do."""
    config = NatsConfig(("nats://127.0.0.1:1", nats.url), nkey=str(nats.directory / "h1.nk"))
    nats.config = lambda _: config  # type: ignore[method-assign]
    async with nats.connection("h1") as connection:
        await connection.ready(10.0)
        assert connection.state == f"connected to {nats.url}"


async def test_another_farm_s_servers(nats: Nats) -> None:
    await nats.prepare()
    async with nats.connection(OPERATOR) as connection:
        for layout in (Layout("other"), LAYOUT):
            directory = NatsDirectory(connection, layout)
            directory.start()
            if layout == LAYOUT:
                assert await directory.host("h1") is None
            else:
                with pytest.raises(DirectoryError, match="these servers do not hold the farm 'other'"):
                    await directory.host("h1")
                with pytest.raises(DirectoryError, match="nvi nats prepare"):
                    await directory.publish_host(host("h1"))
                assert await directory.tenant("acme") is None
            await directory.stop()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((b'"schema":1', b'"schema":2'), "has schema 2, this agent reads 1; upgrade this agent"),
        ((b'"schema":1', b'"schema":0'), "has schema 0, this agent reads 1; upgrade whoever wrote it"),
        ((b'"farm":"test"', b'"farm":"other"'), "is of farm 'other', not 'test'"),
        ((b'"network":"web"', b'"network":7'), "is not understood: Expected `str`, got `int` - at `$.value.network`"),
        ((b"{", b""), "is not understood"),
        ((b'"host":"h2"', b'"host":"h1"'), "says something else than its key does"),
        ((b'"tenant":"acme"', b'"tenant":"globex"'), "says something else than its key does"),
    ],
)
async def test_records_that_are_not_understood_are_passed_over(
    nats: Nats, capsys: pytest.CaptureFixture[str], change: tuple[bytes, bytes], says: str
) -> None:
    await nats.prepare()
    async with nats.directory_of("h1") as one, nats.connection("h2") as raw:
        data = one._encode(endpoint("web2", "h2", "10.0.0.2")).replace(*change)
        await raw.write(LAYOUT.tenant("acme").subject(endpoint_key(WEB2, "h2")), data)
        for _ in range(2):
            assert await one.endpoint("acme", WEB2) is None
        said = capsys.readouterr().out
        assert said.count(says) == 1
        assert LAYOUT.tenant("acme").subject(endpoint_key(WEB2, "h2")) in said


async def test_a_bucket_that_is_full(nats: Nats) -> None:
    await nats.prepare()
    async with nats.connection(OPERATOR) as operator, nats.directory_of("h1") as one:
        jetstream = await operator.jetstream()
        info = await jetstream.stream_info(LAYOUT.tenant("acme").stream)
        info.config.max_bytes = info.state.bytes + 10
        await jetstream.update_stream(info.config)
        await one.publish_host(host("h1"))
        with pytest.raises(DirectoryError, match="maximum bytes exceeded"):
            await one.publish_endpoint(NEW)
        info.config.max_bytes = -1
        await jetstream.update_stream(info.config)
        await one.publish_endpoint(NEW)


async def test_many_look_ups_are_kept_within_bounds(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvi.nats.watched.LIMIT", 20)
    await nats.prepare()
    async with nats.directory_of("h1") as one:
        await one.publish_host(host("h1"))
        for last in range(1, 100):
            one.watch_endpoint("acme", WEB1, lambda: None) if last == 1 else None
            await one.endpoint("acme", bytes([10, 0, 0, last]))
            assert len(one._watched) <= 20
        await asyncio.sleep(0.2)
        subscriptions = len(one._connection.subscriptions)
        assert subscriptions <= 22
        kept = [each.key for each in one._watched._kept.values()]
        assert endpoint_key(WEB1, "*") in kept, "what is watched stays"
