"""`nvi nats`: what a farm on real machines needs of NATS, made from its topology."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from ..agent.hostfile import write_host_file
from ..config import AgentConfig
from ..directory import LEASE, DirectoryError
from ..directory.nats import NatsDirectory
from ..model import Tenant
from ..nats import server
from ..nats.buckets import prepare as prepare_buckets
from ..nats.connection import Away, Connection, NatsConfig
from ..nats.layout import OPERATOR, Layout, NameUnfit
from ..topology import Topology
from .bring_up import load_topology
from .errors import MISUSE, CommandError


def config(file: Path, directory: Path, listen: str, servers: list[str], *, every_tenant: bool) -> None:
    """Write a server's configuration, the keys, and each agent's configuration. Raises CommandError."""
    topology = load_topology(file)
    layout = _layout(topology)
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        keys = {name: server.new_key(directory / f"{name}.nk") for name in (OPERATOR, *topology.hosts)}
        members = {
            name: server.Member(keys[name], host.site, _tenants_of(topology, name, every_tenant))
            for name, host in topology.hosts.items()
        }
        nats_server = server.Server("nats", listen, "/var/lib/nats")
        _write(directory / "nats.conf", server.configuration(nats_server, layout, keys[OPERATOR], members))
        for name, host in topology.hosts.items():
            nats = NatsConfig(tuple(servers), nkey=f"/etc/nvi/{name}.nk")
            agent = AgentConfig(
                host=host.host,
                p4runtime="unix:/run/nvi/p4rt.sock",
                device_id=1,
                api="/run/nvi/agent.sock",
                state="/var/lib/nvi/agent.json",
            )
            described = write_host_file(agent, topology.name, nats, topology.idle_timeout, topology.punt_rate)
            _write(directory / f"{name}.yaml", described)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise CommandError(str(error)) from None


def prepare(file: Path, servers: list[str], key: Path, replicas: int) -> None:
    """Make a farm's buckets, and publish its tenants. Raises CommandError."""
    topology = load_topology(file)
    layout = _layout(topology)
    try:
        nats = NatsConfig(tuple(servers), nkey=str(key))
    except ValueError as error:
        raise CommandError(str(error), MISUSE) from None
    try:
        asyncio.run(_prepare(Connection(nats, "operator", layout.inbox(OPERATOR)), layout, topology.tenants, replicas))
    except (Away, DirectoryError) as error:
        raise CommandError(f"the farm {topology.name!r} is not prepared: {error}") from None


async def _prepare(connection: Connection, layout: Layout, tenants: dict[str, Tenant], replicas: int) -> None:
    connection.start()
    directory = NatsDirectory(connection, layout)
    try:
        await prepare_buckets(connection, layout, tenants, lease=LEASE, replicas=replicas)
        for tenant in tenants.values():
            await directory.publish_tenant(tenant)
    finally:
        await directory.stop()
        await connection.stop()


def _layout(topology: Topology) -> Layout:
    try:
        return Layout(topology.name)
    except NameUnfit as error:
        raise CommandError(f"the farm's name does not do for NATS: {error}", MISUSE) from None


def _tenants_of(topology: Topology, host: str, every_tenant: bool) -> tuple[str, ...]:
    if every_tenant:
        return tuple(topology.tenants)
    return tuple({endpoint.tenant for endpoint in topology.endpoints_of(host)})


def _write(path: Path, contents: bytes) -> None:
    """For its owner only: a cluster's configuration holds a password."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(contents)
