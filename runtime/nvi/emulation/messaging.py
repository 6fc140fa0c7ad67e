"""The NATS servers of a farm whose agents are processes of their own: they live and die with the farm.

They listen on loopback ports of this machine's own namespace, and know each host by an nkey: as on real machines.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from ..directory import LEASE, DirectoryError
from ..directory.nats import NatsDirectory
from ..model import Tenant
from ..nats import server as nats_server
from ..nats.buckets import prepare
from ..nats.connection import Away, Connection, NatsConfig
from ..nats.layout import OPERATOR, Layout
from ..topology import Topology
from .processes import ProcessId, Service

_PATIENCE = 30.0
_POLL = 0.05


class MessagingError(Exception):
    """The farm's NATS servers do not do what they should. The text says what to do."""


class _Ports(Struct, frozen=True):
    clients: int
    cluster: int


class Messaging:
    """A farm's NATS servers, and its operator's connection to them."""

    def __init__(
        self, topology: Topology, path: Path, say: Callable[[str], None], after: Callable[[ProcessId], None], count: int
    ) -> None:
        """`path`: of the farm's run directory; `after`: told of each process; `count`: of servers."""
        program = nats_server.find()
        if program is None:
            raise MessagingError(
                "agents as processes need nats-server, which this machine does not have; "
                "run 'make setup', which gets it, or use --agents memory"
            )
        self._topology = topology
        self._path = path / "nats"
        self._path.mkdir(mode=0o700)
        self._layout = Layout(re.sub(r"[^A-Za-z0-9_-]", "-", topology.name)[:32])
        self._tenants = {host: {each.tenant for each in topology.endpoints_of(host)} for host in topology.hosts}
        """By host: the tenants whose endpoints it may have."""
        self._keys = {name: nats_server.new_key(self._key(name)) for name in (OPERATOR, *topology.hosts)}
        self._ports = [_Ports(*_free_ports(2)) for _ in range(count)]
        self._password = secrets.token_urlsafe(24)
        self.servers = [
            Service(
                f"NATS server {number}",
                [program, "-c", str(self._path / f"{number}.conf")],
                self._path / f"{number}.log",
                say,
                after=after,
            )
            for number in range(1, count + 1)
        ]
        self._connection = Connection(self.config(OPERATOR), "operator", self._layout.inbox(OPERATOR))
        self._directory = NatsDirectory(self._connection, self._layout)

    async def start(self, tenants: dict[str, Tenant]) -> None:
        """Return when agents may come. Raises MessagingError."""
        self._write()
        await asyncio.gather(*(server.start() for server in self.servers))
        self._connection.start()
        self._directory.start()
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            try:
                replicas = len(self.servers)
                await prepare(self._connection, self._layout, tenants, lease=LEASE, replicas=replicas)
                for tenant in tenants.values():
                    await self.publish_tenant(tenant)
                return
            except (Away, MessagingError) as error:  # a cluster takes a moment to choose its leaders
                if asyncio.get_running_loop().time() > deadline:
                    words = self.servers[0].last_words()
                    raise MessagingError(f"{error}; the end of the log of NATS server 1:\n{words}") from None
            await asyncio.sleep(_POLL)

    async def stop(self) -> None:
        """End the servers."""
        await self._directory.stop()
        await self._connection.stop()
        await asyncio.gather(*(server.stop() for server in self.servers))

    async def publish_tenant(self, tenant: Tenant) -> None:
        """See Directory. Raises MessagingError."""
        try:
            await self._directory.publish_tenant(tenant)
        except DirectoryError as error:
            raise MessagingError(f"the policy of tenant {tenant.name} is not published: {error}") from None

    async def permit(self, host: str, tenant: str) -> None:
        """The host may have endpoints of this tenant, once this returns. Raises MessagingError: then it may not."""
        if tenant in self._tenants[host]:
            return
        self._tenants[host].add(tenant)
        self._write()
        try:
            # A server that is not running reads it when it starts.
            running = [each for each in zip(self.servers, self._ports, strict=True) if each[0].pid is not None]
            await asyncio.gather(*(self._reload(*each, host, tenant) for each in running))
        except MessagingError:
            self._tenants[host].discard(tenant)
            self._write()
            raise

    async def _reload(self, server: Service, ports: _Ports, host: str, tenant: str) -> None:
        """Have a server read its configuration, and wait until it does what that says: it does not tell by itself."""
        bucket, old = self._layout.tenant(tenant), server.pid
        config = NatsConfig((_url(ports),), nkey=str(self._key(host)))
        connection = Connection(config, "operator, as a host", self._layout.inbox(host))
        connection.start()
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        try:
            # Connected before: so what holds for this connection holds for those of agents, which were there as well.
            with suppress(Away):
                await connection.ready()
            server.reload()
            while server.pid == old:  # whoever starts anew reads it
                why = "it does not read its configuration again"
                try:
                    if await connection.may_read(bucket.stream):
                        return
                except Away as away:  # JetStream is away for a moment while the server does
                    why = str(away)
                if asyncio.get_running_loop().time() > deadline:
                    raise MessagingError(f"{server.name} does not let host {host} have endpoints of {tenant}: {why}")
                await asyncio.sleep(_POLL)
        finally:
            await connection.stop()

    @property
    def farm(self) -> str:
        """The name of the farm in NATS."""
        return self._layout.farm

    def config(self, user: str) -> NatsConfig:
        """How a host's agent, or the operator, reaches the servers."""
        return NatsConfig(tuple(map(_url, self._ports)), nkey=str(self._key(user)))

    def _key(self, user: str) -> Path:
        return self._path / f"{user}.nk"

    def _write(self) -> None:
        hosts = {
            name: nats_server.Member(self._keys[name], host.site, tuple(self._tenants[name]))
            for name, host in self._topology.hosts.items()
        }
        for number, ports in enumerate(self._ports, 1):
            cluster = None
            if len(self._ports) > 1:
                routes = tuple(f"127.0.0.1:{each.cluster}" for each in self._ports)
                cluster = nats_server.Cluster(f"127.0.0.1:{ports.cluster}", routes, self._password)
            server = nats_server.Server(
                f"n{number}", f"127.0.0.1:{ports.clients}", str(self._path / f"{number}.store"), cluster
            )
            path = self._path / f"{number}.conf"
            new = path.with_suffix(".new")
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(nats_server.configuration(server, self._layout, self._keys[OPERATOR], hosts))
            new.replace(path)


def _url(ports: _Ports) -> str:
    return f"nats://127.0.0.1:{ports.clients}"


def _free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody has now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
