"""A farm's servers read their configuration again: whoever is permitted more may use it at once."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from nvi.directory.nats import NatsDirectory
from nvi.emulation import messaging
from nvi.emulation.messaging import Messaging, MessagingError
from nvi.model import Host
from nvi.nats import server as nats_server
from nvi.nats.connection import Connection
from nvi.nats.layout import Layout
from nvi.topology import load

from .farm import endpoint

TENANTS = [f"t{number}" for number in range(6)]
NETWORKS = "{networks: {web: {cidr: 10.0.0.0/24, gateway: 10.0.0.254}}}"
FILE = f"""
name: test
sites: {{here: {{}}}}
hosts:
  h1: {{site: here, underlay: 172.16.0.1/24}}
  h2: {{site: here, underlay: 172.16.0.2/24}}
tenants: {{{", ".join(f"{name}: {NETWORKS}" for name in TENANTS)}}}
endpoints:
  e: {{tenant: t0, network: web, ip: 10.0.0.1, host: h1}}
"""


@asynccontextmanager
async def _farm(path: Path, servers: int) -> AsyncIterator[tuple[Messaging, NatsDirectory]]:
    """A farm's messaging, and the directory as the agent of h2 sees it: a host without endpoints."""
    if nats_server.find() is None:
        pytest.skip("there is no nats-server: scripts/setup.sh gets it on Debian and Ubuntu")
    file = path / "farm.yaml"
    file.write_text(FILE)
    topology = load(file)
    messages = Messaging(topology, path, lambda _: None, lambda _: None, servers)
    connection = Connection(messages.config("h2"), "h2", Layout("test").inbox("h2"))
    directory = NatsDirectory(connection, Layout("test"))
    try:
        await messages.start(dict(topology.tenants))
        connection.start()
        directory.start()
        await connection.ready(30.0)
        await directory.publish_host(Host("h2", "here", (bytes([172, 16, 0, 2]),)))
        yield messages, directory
    finally:
        await directory.stop()
        await connection.stop()
        await messages.stop()


@pytest.mark.parametrize("servers", [1, 3])
async def test_what_is_permitted_holds_at_once(tmp_path: Path, servers: int) -> None:
    async with _farm(tmp_path, servers) as (messages, directory):
        for number, name in enumerate(TENANTS):
            await messages.permit("h2", name)
            moved = endpoint("e", "h2", f"10.0.0.{number + 1}", tenant=name)
            await directory.publish_endpoint(moved)
            assert await directory.endpoint(name, moved.address) == moved


async def test_a_server_that_does_not_read_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _farm(tmp_path, 1) as (messages, _):
        monkeypatch.setattr(messaging, "_PATIENCE", 0.5)
        pid = messages.servers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(MessagingError, match="NATS server 1 does not let host h2 have endpoints of t1"):
                await messages.permit("h2", "t1")
        finally:
            os.kill(pid, signal.SIGCONT)
        monkeypatch.undo()
        await messages.permit("h2", "t1")
