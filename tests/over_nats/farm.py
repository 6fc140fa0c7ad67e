"""A farm's NATS server on a loopback port, and those who connect to it."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from nvi.directory import LEASE
from nvi.directory.nats import NatsDirectory
from nvi.model import Endpoint, External, Host, Network, Subnet, Tenant, derive_mac, read_address
from nvi.nats.buckets import prepare
from nvi.nats.connection import Connection, NatsConfig
from nvi.nats.layout import OPERATOR, Layout
from nvi.nats.server import Member, Server, configuration, new_key
from nvi.offers.nats import NatsOffers

PATIENCE = 30.0
LAYOUT = Layout("test")
TENANTS = {"h1": ("acme", "globex"), "h2": ("acme",), "h3": ("acme", "globex")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Nats:
    """One server, its keys, and what it keeps."""

    def __init__(self, directory: Path, program: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.log = directory / "nats.log"
        self.keys = {name: new_key(directory / f"{name}.nk") for name in (*TENANTS, OPERATOR)}
        self.members = {name: Member(self.keys[name], "here", tenants) for name, tenants in TENANTS.items()}
        self.server = Server("n1", f"127.0.0.1:{self.port}", str(directory / "store"))
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self, path: Path | None = None) -> None:
        """`path`: of another configuration than this server's own."""
        if path is None:
            path = self.directory / "nats.conf"
            path.write_bytes(configuration(self.server, LAYOUT, self.keys[OPERATOR], self.members))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([self._program, "-c", str(path)], stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self._process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.02)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self._process.pid}/task")
        while any((each / "stat").read_text().rpartition(")")[2].split()[0] != "T" for each in threads.iterdir()):
            time.sleep(0.01)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self.kill()

    def config(self, user: str) -> NatsConfig:
        return NatsConfig((self.url,), nkey=str(self.directory / f"{user}.nk"))

    @asynccontextmanager
    async def connection(self, user: str, layout: Layout = LAYOUT) -> AsyncIterator[Connection]:
        connection = Connection(self.config(user), user, layout.inbox(user))
        connection.start()
        try:
            yield connection
        finally:
            await connection.stop()

    @asynccontextmanager
    async def directory_of(self, user: str, layout: Layout = LAYOUT) -> AsyncIterator[NatsDirectory]:
        async with self.connection(user, layout) as connection:
            directory = NatsDirectory(connection, layout)
            directory.start()
            try:
                yield directory
            finally:
                await directory.stop()

    @asynccontextmanager
    async def offers_of(self, user: str) -> AsyncIterator[NatsOffers]:
        async with self.connection(user) as connection:
            offers = NatsOffers(connection, LAYOUT)
            try:
                yield offers
            finally:
                await offers.stop()

    async def prepare(self, lease: float = LEASE) -> None:
        async with self.directory_of(OPERATOR) as operator, self.connection(OPERATOR) as connection:
            await prepare(connection, LAYOUT, ["acme", "globex"], lease=lease)
            for name in ("acme", "globex"):
                await operator.publish_tenant(tenant(name))


def tenant(name: str, **more: object) -> Tenant:
    gateway = read_address("10.0.0.254")
    return Tenant(name, {"web": Network("web", (Subnet(read_address("10.0.0.0"), 24, gateway),))}, **more)  # type: ignore[arg-type]


def host(name: str, external: str | None = None, number: int | None = None, site: str = "here") -> Host:
    side = None if external is None else External(read_address(external), read_address(external))
    return Host(name, site, (bytes([172, 16, 0, number or int(name[1:])]),), external=side)


def endpoint(name: str, at: str, *addresses: str, tenant: str = "acme") -> Endpoint:
    packed = tuple(read_address(address) for address in addresses)
    return Endpoint(name, tenant, "web", derive_mac("endpoint", tenant, name), packed, at)


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str, patience: float = PATIENCE) -> None:
    """Wait for something that will happen."""
    deadline = time.monotonic() + patience
    while True:
        met = condition()
        if met is True or (not isinstance(met, bool) and await met):
            return
        assert time.monotonic() < deadline, f"after {patience:g} s still not: {what}"
        await asyncio.sleep(0.02)
