"""A site with a NATS server of its own: a leaf node, through which only that site's hosts are heard."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nvi.directory import DirectoryError
from nvi.directory.nats import NatsDirectory
from nvi.model import FirstPacket, read_address
from nvi.nats import server as nats_server
from nvi.nats.connection import Away, Connection
from nvi.nats.layout import OPERATOR, endpoint_key
from nvi.nats.server import Leaf, Member, Server
from nvi.offers import VERSION, Accept, NoAnswer, Reply, Request
from nvi.offers.nats import NatsOffers
from nvi.offers.wire import encode_request

from .farm import LAYOUT, Nats, endpoint, free_port, host, until
from .test_offers import ENDS, OFFER, YOURS

WEB1 = read_address("10.0.0.1")
SITES = {"h1": "here", "h2": "there", "h3": "there"}


class Sites:
    """The server that holds the farm, of site `here`; and the one of site `there`, which is its leaf node."""

    def __init__(self, directory: Path, program: str) -> None:
        for name in ("hub", "leaf"):
            (directory / name).mkdir()
        self.hub, self.leaf = Nats(directory / "hub", program), Nats(directory / "leaf", program)
        # The same hosts with the same keys, by site.
        self.leaf.keys = self.hub.keys
        for name in (*SITES, OPERATOR):
            (directory / "leaf" / f"{name}.nk").write_bytes((directory / "hub" / f"{name}.nk").read_bytes())
        members = {name: Member(self.hub.keys[name], site, ("acme",)) for name, site in SITES.items()}
        self.hub.members = members
        self.leaf.members = {name: member for name, member in members.items() if member.site == "there"}
        port = free_port()
        listen = f"127.0.0.1:{port}"
        self.hub.server = Server(
            "hub",
            f"127.0.0.1:{self.hub.port}",
            str(directory / "hub" / "store"),
            leaf_nodes=listen,
            sites={"there": "between-us"},
        )
        leaf = Leaf(f"nats-leaf://{listen}", "there", "between-us")
        self.leaf.server = Server("leaf", f"127.0.0.1:{self.leaf.port}", str(directory / "leaf" / "store"), leaf=leaf)


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Sites]:
    program = nats_server.find()
    if program is None:
        pytest.skip("there is no nats-server: scripts/setup.sh gets it on Debian and Ubuntu")
    sites = Sites(tmp_path, program)
    try:
        sites.hub.start()
        sites.leaf.start()
        yield sites
    finally:
        sites.leaf.close()
        sites.hub.close()


@contextlib.asynccontextmanager
async def agent(
    nats: Nats, name: str, senders: list[str] | None = None
) -> AsyncIterator[tuple[NatsDirectory, NatsOffers, Connection]]:
    """`senders`: those whose offers are heard are appended to it."""

    async def accept(sender: str, _: Request) -> Reply:
        if senders is not None:
            senders.append(sender)
        return Accept(YOURS, ENDS[0], FirstPacket(64))

    async with nats.connection(name) as connection:
        directory, offers = NatsDirectory(connection, LAYOUT), NatsOffers(connection, LAYOUT)
        directory.start()
        offers.serve(name, accept)
        try:
            yield directory, offers, connection
        finally:
            await offers.stop()
            await directory.stop()


async def _published(directory: NatsDirectory, name: str) -> bool:
    try:
        await directory.publish_host(host(name, site=SITES[name]))
    except DirectoryError:
        return False  # the leaf node is not connected yet
    return True


async def _reaches(offers: NatsOffers, sender: str, receiver: str) -> bool:
    try:
        return isinstance(await offers.request(sender, receiver, OFFER), Accept)
    except NoAnswer:
        return False


async def test_two_sites_are_one_farm(sites: Sites) -> None:
    await sites.hub.prepare()
    async with (
        agent(sites.hub, "h1") as (one, one_offers, _),
        agent(sites.leaf, "h2") as (two, two_offers, raw),
        agent(sites.leaf, "h3") as (three, three_offers, _),
    ):
        for directory, name in ((one, "h1"), (two, "h2"), (three, "h3")):
            await until(lambda directory=directory, name=name: _published(directory, name), f"{name} is published")  # type: ignore[misc]
        await one.publish_endpoint(endpoint("web1", "h1", "10.0.0.1"))
        assert await two.endpoint("acme", WEB1) == endpoint("web1", "h1", "10.0.0.1")
        await two.publish_endpoint(endpoint("web2", "h2", "10.0.0.2"))
        found = endpoint("web2", "h2", "10.0.0.2")
        assert await one.endpoint("acme", read_address("10.0.0.2")) == found
        told: list[str] = []
        two.watch_endpoint("acme", WEB1, lambda: told.append("web1"))
        await one.withdraw_endpoint(endpoint("web1", "h1", "10.0.0.1"))
        await until(lambda: bool(told), "what changes at one site is told at the other")
        for offers, sender, receiver in ((one_offers, "h1", "h2"), (two_offers, "h2", "h1"), (two_offers, "h2", "h3")):
            await until(lambda o=offers, s=sender, r=receiver: _reaches(o, s, r), f"{sender} reaches {receiver}")  # type: ignore[misc]

        # The site's own server is its leaf node's user, and may pass on no more than its hosts may say.
        assert await three.endpoint("acme", read_address("10.0.0.2")) == found
        sites.hub.kill()
        await until(lambda: _reaches(three_offers, "h3", "h2"), "hosts of one site reach each other without the other")
        assert await three.endpoint("acme", read_address("10.0.0.2")) == found, "and know what they knew"
        assert not await _reaches(two_offers, "h2", "h1")
        sites.hub.start()
        await until(lambda: _reaches(two_offers, "h2", "h1"), "both sites reach each other again")
        await until(lambda: _published(two, "h2"), "it is published again")
        del raw


@contextlib.asynccontextmanager
async def _disguised(nats: Nats) -> AsyncIterator[Connection]:
    """Somebody whom that site's server lets do anything, and who gets the answers to h2."""
    connection = Connection(nats.config(OPERATOR), "evil", LAYOUT.inbox("h2"))
    connection.start()
    try:
        yield connection
    finally:
        await connection.stop()


async def test_a_site_s_server_speaks_for_its_own_hosts_only(sites: Sites) -> None:
    """Even if somebody has taken that server over, and lets everybody in."""
    bucket = LAYOUT.tenant("acme")
    senders: list[str] = []
    thief = sites.leaf
    thief.kill()
    thief.members = {name: Member(thief.keys[name], SITES[name], ("acme",)) for name in SITES}
    thief.start()
    await sites.hub.prepare()
    async with agent(sites.hub, "h1", senders) as (one, _, _), _disguised(sites.leaf) as evil:
        await one.publish_host(host("h1"))
        await one.publish_endpoint(endpoint("web1", "h1", "10.0.0.1"))

        async def passes(subject: str) -> bool:
            with contextlib.suppress(Exception):
                await evil.write(subject, b"{}")
                return True
            return False

        await until(lambda: passes(bucket.subject(endpoint_key(WEB1, "h2"))), "the leaf node is connected")
        assert not await passes(bucket.subject(endpoint_key(WEB1, "h1")))
        assert not await passes(bucket.subject("policy"))
        assert not await passes(LAYOUT.leases.subject("h1"))
        for sender, heard in (("h2", True), ("h1", False)):
            with contextlib.suppress(Away):
                await evil.request(LAYOUT.offer("h1", sender), encode_request(OFFER, VERSION))
            assert (sender in senders) is heard
        assert await one.endpoint("acme", WEB1) == endpoint("web1", "h1", "10.0.0.1")
