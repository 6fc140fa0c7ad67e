"""Offers beside NATS, while it is away: only the agents of hosts whose leases are known are heard, and believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from nvi.directory.nats import NatsDirectory
from nvi.model import FirstPacket, Host
from nvi.offers import Accept, NoAnswer, Release, Released, Reply, Request
from nvi.offers.direct import Direct, Unreached
from nvi.offers.identity import Identity
from nvi.offers.nats import NatsOffers
from nvi.offers.wire import LARGEST

from .farm import LAYOUT, Nats, until
from .test_offers import ENDS, IDENTITY, MINE, OFFER, VERSION, YOURS

ACCEPT = Accept(YOURS, ENDS[0], FirstPacket(64))
PATIENCE = 10.0


def _host(name: str) -> Host:
    return Host(name, "here", (bytes([127, 0, 0, 10 + int(name[1:])]),))


class Agent:
    """What the agent of a host says and hears."""

    def __init__(self, directory: NatsDirectory, offers: NatsOffers, direct: Direct, host: Host) -> None:
        self.directory, self.offers, self.direct, self.host = directory, offers, direct, host
        self.heard: list[tuple[str, Request]] = []
        offers.serve(host.name, self._answer)

    async def _answer(self, sender: str, request: Request) -> Reply:
        self.heard.append((sender, request))
        return Released() if isinstance(request, Release) else ACCEPT

    async def knows(self, other: Agent) -> bool:
        return await self.directory.host(other.host.name) == other.host


@asynccontextmanager
async def agent(nats: Nats, name: str) -> AsyncIterator[Agent]:
    async with nats.connection(name) as connection:
        directory = NatsDirectory(connection, LAYOUT)
        direct = Direct(_host(name), None, directory.known_host)
        offers = NatsOffers(connection, LAYOUT, direct, timeout=PATIENCE)
        directory.start()
        host = msgspec.structs.replace(_host(name), contact=await direct.listen(0))
        await directory.publish_host(host)
        try:
            yield Agent(directory, offers, direct, host)
        finally:
            await offers.stop()
            await direct.stop()
            await directory.stop()


async def test_agents_that_know_each_other_agree_while_nats_is_away(nats: Nats) -> None:
    await nats.prepare()
    async with agent(nats, "h1") as one, agent(nats, "h2") as other, agent(nats, "h3") as stranger:
        await until(lambda: one.knows(other), "h1 knows h2")
        await until(lambda: other.knows(one), "h2 knows h1")
        nats.kill()
        agents = one, other, stranger
        await until(lambda: not any(each.offers._connection.connected for each in agents), "NATS is away")
        for _ in range(2):  # once by a new way, once by what is there
            assert await one.offers.request("h1", "h2", OFFER) == ACCEPT
            assert await other.offers.request("h2", "h1", Release(VERSION, IDENTITY, YOURS, MINE)) == Released()
        assert {sender for sender, _ in other.heard} == {"h1"}
        assert {sender for sender, _ in one.heard} == {"h2"}
        with pytest.raises(NoAnswer, match=r"trying again; nor directly: nothing is known of host h3"):
            await one.offers.request("h1", "h3", OFFER)
        assert stranger.heard == []


async def test_a_server_that_hangs_does_not_keep_them_apart(nats: Nats) -> None:
    await nats.prepare()
    async with agent(nats, "h1") as one, agent(nats, "h2") as other:
        await until(lambda: one.knows(other), "h1 knows h2")
        await until(lambda: other.knows(one), "h2 knows h1")
        one.offers._timeout = 1.0
        nats.hang()
        assert await one.offers.request("h1", "h2", OFFER) == ACCEPT


class Pair:
    """h1 listens; who it knows is said here."""

    def __init__(self) -> None:
        self.known: dict[str, Host] = {}
        self.heard: list[tuple[str, bytes]] = []
        self.one = Direct(_host("h1"), None, self.known.get)
        self.one.serve(self._answer)

    async def _answer(self, sender: str, data: bytes) -> bytes:
        self.heard.append((sender, data))
        return data

    async def direct(self, name: str) -> Direct:
        """Another agent, which h1 knows from now on by this name."""
        direct = Direct(_host(name), None, self.known.get)
        self.known[name] = msgspec.structs.replace(_host(name), contact=await direct.listen(0))
        return direct


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    pair.known["h1"] = msgspec.structs.replace(_host("h1"), contact=await pair.one.listen(0))
    yield pair
    await pair.one.stop()


async def test_who_asks_in_another_s_name_is_not_heard(pair: Pair) -> None:
    """h2's agent has its own certificate, and says that it is h3."""
    thief, robbed = await pair.direct("h2"), await pair.direct("h3")
    assert await thief.request("h1", b"as myself", PATIENCE) == b"as myself"
    thief._host = _host("h3")
    thief._channels.clear()
    with pytest.raises(Unreached):
        await thief.request("h1", b"as another", PATIENCE)
    # A certificate of its own making, with the other's name in it.
    thief._identity = Identity("h3")
    with pytest.raises(Unreached):
        await thief.request("h1", b"as another", PATIENCE)
    assert pair.heard == [("h2", b"as myself")]
    await thief.stop()
    await robbed.stop()


async def test_who_answers_in_another_s_name_is_not_asked(pair: Pair) -> None:
    """Somebody else listens where h1's agent should."""
    asker, thief = await pair.direct("h2"), await pair.direct("h3")
    contact, at = pair.known["h1"].contact, pair.known["h3"].contact
    assert contact is not None and at is not None
    pair.known["h1"] = msgspec.structs.replace(
        pair.known["h3"], name="h1", contact=msgspec.structs.replace(contact, port=at.port)
    )
    stolen: list[bytes] = []

    async def steal(_: str, data: bytes) -> bytes:
        stolen.append(data)
        return b"mine"

    thief.serve(steal)
    with pytest.raises(Unreached, match="does not show the certificate of h1"):
        await asker.request("h1", b"secret", PATIENCE)
    assert stolen == []
    await asker.stop()
    await thief.stop()


async def test_a_lease_that_has_ended_closes_what_is_open(pair: Pair) -> None:
    other = await pair.direct("h2")
    assert await other.request("h1", b"1", PATIENCE) == b"1"
    there = pair.known.pop("h2")
    with pytest.raises(Unreached):
        await other.request("h1", b"2", PATIENCE)
    with pytest.raises(Unreached):
        await other.request("h1", b"3", PATIENCE)
    pair.known["h2"] = there
    assert await other.request("h1", b"4", PATIENCE) == b"4"
    assert [data for _, data in pair.heard] == [b"1", b"4"]
    await other.stop()


async def test_a_restarted_agent_is_known_by_its_new_lease_only(pair: Pair) -> None:
    before = await pair.direct("h2")
    assert await before.request("h1", b"1", PATIENCE) == b"1"
    after = await pair.direct("h2")
    assert await after.request("h1", b"2", PATIENCE) == b"2"
    with pytest.raises(Unreached):
        await before.request("h1", b"3", PATIENCE)
    await before.stop()
    await after.stop()


async def test_without_tls_or_a_name_nobody_is_heard(pair: Pair) -> None:
    other = await pair.direct("h2")
    contact = pair.known["h1"].contact
    assert contact is not None
    where = "127.0.0.11", contact.port
    reader, writer = await asyncio.open_connection(*where)
    writer.write(b"\0\0\0\1\0\0\0\0x")
    assert await asyncio.wait_for(reader.read(), PATIENCE) in (b"", b"\x15\x03\x01\x00\x02\x02\x46"), "an alert at most"
    writer.close()
    context = other._identity.towards(contact.certificate)
    for name in ("h9", "example.org"):
        with pytest.raises((OSError, EOFError)):
            reader, writer = await asyncio.open_connection(*where, ssl=context, server_hostname=name)
            writer.write(b"\0\0\0\1\0\0\0\0x")
            assert await reader.readexactly(1) == b"", "it is closed"
    assert pair.heard == []
    await other.stop()


async def test_an_absurd_message_ends_the_connection(pair: Pair) -> None:
    other = await pair.direct("h2")
    with pytest.raises(Unreached):
        await other.request("h1", b"x" * (LARGEST + 1), PATIENCE)
    assert await other.request("h1", b"x" * LARGEST, PATIENCE) == b"x" * LARGEST
    await other.stop()


async def test_requests_do_not_wait_for_each_other(pair: Pair) -> None:
    together = asyncio.Barrier(3)

    async def wait(_: str, data: bytes) -> bytes:
        await together.wait()
        return data

    pair.one.serve(wait)
    other = await pair.direct("h2")
    replies = await asyncio.gather(*(other.request("h1", data, PATIENCE) for data in (b"1", b"2", b"3")))
    assert replies == [b"1", b"2", b"3"]
    assert len(other._channels) == 1
    await other.stop()


async def test_a_port_that_is_taken_is_named(pair: Pair) -> None:
    contact = pair.known["h1"].contact
    assert contact is not None
    with pytest.raises(OSError, match=rf"cannot listen at 127\.0\.0\.11 port {contact.port}: Address already in use"):
        await Direct(_host("h1"), None, pair.known.get).listen(contact.port)


def test_the_key_is_nowhere_on_disk_nor_shown() -> None:
    identity = Identity("h1")
    assert b"PRIVATE KEY" not in identity.certificate
    assert "PRIVATE" not in repr(identity)
