"""The directory of a farm, in key-value buckets of NATS (`nvi.nats.layout`).

A host writes under its own name only, so nobody is believed about anybody else. What only one may have (an address)
is claimed: each claimant writes a claim of its own, the bucket puts them in order, and the first one of a living host
holds. So a later claim takes nothing away, whoever makes it, until the first is withdrawn or its host is gone. That
is also how an endpoint moves: its new host claims, its old one withdraws.

That a host lives is a value that it stores again and again. NATS drops it when it is not (the bucket's age limit), and
who watches it sees by its own clock that it was not. No clock is compared with another.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar, cast

import msgspec
import structlog
from msgspec import Struct
from nats.aio.msg import Msg

from ..model import Address, Endpoint, Host, Service, Tenant, show_address
from ..nats.connection import Away, Connection, NobodyThere, NoBucket, Raced, Stored, Subscription
from ..nats.layout import (
    POLICY,
    Bucket,
    Layout,
    at_key,
    endpoint_key,
    gateway_key,
    public_key,
    service_key,
)
from ..nats.watched import Watched
from . import LEASE, Conflict, DirectoryError, Unwatch

SCHEMA = 1
"""Of what is stored. What is added to it with a default leaves it as it is."""

_ALIVE_SECONDS = 1.0
"""Within which another agent for the same host says that it is there."""

_DECODED = 8192
"""Records that are kept as they were understood."""

_SAID = 1024
"""Complaints that are remembered, so that each is made once."""

_T = TypeVar("_T")

_log = structlog.get_logger()


class _Head(Struct):
    """What tells whether the rest can be understood."""

    schema: int
    farm: str


class _Record(Struct, Generic[_T], frozen=True):
    """What is stored."""

    schema: int
    farm: str
    value: _T


class _Lease(Struct, frozen=True):
    """That a host lives."""

    host: Host
    agent: str
    """Which of the agents that this host has had says so."""


_LEASE_RECORD = msgspec.json.Decoder(_Record[_Lease])
_TENANT_RECORD = msgspec.json.Decoder(_Record[Tenant])
_ENDPOINT_RECORD = msgspec.json.Decoder(_Record[Endpoint])
_SERVICE_RECORD = msgspec.json.Decoder(_Record[Service])
_HEAD = msgspec.json.Decoder(_Head)


class NatsDirectory:
    """A Directory in NATS, as one agent (or whoever runs the farm) sees it."""

    def __init__(self, connection: Connection, layout: Layout) -> None:
        """Nothing is asked before `start`."""
        self._connection = connection
        self._layout = layout
        self._agent = uuid.uuid4().hex
        self._watched = Watched(connection, lambda bucket: LEASE if bucket == layout.leases else None)
        self._lease: int | None = None
        """Sequence of our lease; None if we have none."""
        self._claimed: Host | None = None
        """The state of our host whose addresses are claimed."""
        self._published: dict[str, Endpoint] = {}
        self._services: dict[Service, None] = {}
        self._guards: dict[tuple[str, Address], Unwatch] = {}
        """By tenant and address of our endpoints: what ends the watch for other claims."""
        self._turn = asyncio.Lock()
        self._alive: Subscription | None = None
        """By which we say that there is an agent; while we have a lease."""
        self._decoded: dict[str, tuple[int, Any]] = {}
        """By subject: sequence, and what was stored then."""
        self._said: set[str] = set()
        connection.on_connect.append(lambda: self._watched.spawn(self._publish_again()))

    def start(self) -> None:
        """Use the connection, which need not be there yet."""
        self._watched.start()

    async def stop(self) -> None:
        """Forget everything. What is published stays: a restarted agent finds it, and the lease ends by itself."""
        await self._watched.stop()

    @property
    def state(self) -> str:
        """See Directory."""
        return self._connection.state

    # ---- looking up -------------------------------------------------------------------------------------------------

    async def endpoint(self, tenant: str, address: Address) -> Endpoint | None:
        """See Directory."""
        claims = await self._endpoints(tenant, address)
        if len(claims) < 2:
            return claims[0] if claims else None
        for claim in claims:
            if await self.host(claim.host) is not None:
                return claim
        return claims[0]

    async def host(self, name: str) -> Host | None:
        """See Directory."""
        return self._host_in(await self._get(self._layout.leases, name), name)

    def known_host(self, name: str) -> Host | None:
        """The host with this name, as far as it is known without asking; None if it is not, or is gone."""
        return self._host_in(self._watched.known(self._layout.leases, name), name)

    def _host_in(self, leases: list[Stored], name: str) -> Host | None:
        for found in leases:
            record = self._read(_LEASE_RECORD, found)
            if record is not None and self._right(found, record.value.host.name == name):
                return record.value.host
        return None

    async def host_at(self, site: str, address: Address) -> Host | None:
        """See Directory."""
        for claim in await self._get(self._layout.hosts, at_key(site, address, "*")):
            host = await self.host(_owner(claim))
            if host is not None and host.site == site and address in (*host.addresses, *host.pool):
                return host
        return None

    async def gateways(self, site: str) -> tuple[Host, ...]:
        """See Directory."""
        claims = await self._get(self._layout.hosts, gateway_key(site, "*"))
        hosts = [await self.host(_owner(claim)) for claim in claims]
        there = [host for host in hosts if host is not None and host.site == site and host.external is not None]
        return tuple(sorted(there, key=lambda host: host.name))

    async def gateway_at(self, public: Address) -> Host | None:
        """See Directory."""
        for claim in await self._get(self._layout.hosts, public_key(public, "*")):
            host = await self.host(_owner(claim))
            if host is not None and host.external is not None and host.external.public == public:
                return host
        return None

    async def tenant(self, name: str) -> Tenant | None:
        """See Directory."""
        for found in await self._get(self._layout.tenant(name), POLICY):
            record = self._read(_TENANT_RECORD, found)
            if record is not None and self._right(found, record.value.name == name):
                return record.value
        return None

    async def services(self, via: str) -> tuple[Service, ...]:
        """See Directory."""
        services = []
        for found in await self._get(self._layout.hosts, service_key(via, None, None)):
            record = self._read(_SERVICE_RECORD, found)
            if record is not None and self._right(found, found.subject == self._service_subject(record.value)):
                services.append(record.value)
        return tuple(sorted(services, key=lambda service: (service.protocol, service.external_port)))

    # ---- watching ---------------------------------------------------------------------------------------------------

    def watch_endpoint(self, tenant: str, address: Address, changed: Callable[[], None]) -> Unwatch:
        """See Directory."""
        return self._watched.watch(self._layout.tenant(tenant), endpoint_key(address, "*"), changed)

    def watch_host(self, name: str, changed: Callable[[], None]) -> Unwatch:
        """See Directory."""
        return self._watched.watch(self._layout.leases, name, changed)

    def watch_tenant(self, name: str, changed: Callable[[], None]) -> Unwatch:
        """See Directory."""
        return self._watched.watch(self._layout.tenant(name), POLICY, changed)

    def watch_services(self, via: str, changed: Callable[[], None]) -> Unwatch:
        """See Directory."""
        return self._watched.watch(self._layout.hosts, service_key(via, None, None), changed)

    # ---- publishing -------------------------------------------------------------------------------------------------

    async def publish_host(self, host: Host) -> None:
        """See Directory. Raises Conflict also if another agent runs for this host."""
        async with self._turn:
            if self._lease is None:
                await self._alone(host)
            await self._renew(host)
            if self._claimed != host:
                try:
                    await self._claim_host(host)
                except Conflict:
                    await self._write(self._layout.leases, host.name, None, expected=self._lease)
                    await self._lose_lease()
                    raise
                self._claimed = host

    async def publish_tenant(self, tenant: Tenant) -> None:
        """See Directory. Only whoever runs the farm may."""
        await self._write(self._layout.tenant(tenant.name), POLICY, tenant)

    async def publish_endpoint(self, endpoint: Endpoint) -> None:
        """See Directory. What another host has, too, is there as long as that host lives and does not withdraw it."""
        bucket = self._layout.tenant(endpoint.tenant)
        claimed: list[Address] = []
        try:
            for address in endpoint.addresses:
                await self._claim_endpoint(bucket, endpoint, address)
                claimed.append(address)
        except Conflict:
            for address in claimed:
                await self._write(bucket, endpoint_key(address, endpoint.host), None)
            raise
        self._published[endpoint.name] = endpoint
        for address in endpoint.addresses:
            self._guard(endpoint, address)

    async def withdraw_endpoint(self, endpoint: Endpoint) -> None:
        """See Directory."""
        self._published.pop(endpoint.name, None)
        for address in endpoint.addresses:
            if (unguard := self._guards.pop((endpoint.tenant, address), None)) is not None:
                unguard()
            bucket = self._layout.tenant(endpoint.tenant)
            await self._write(bucket, endpoint_key(address, endpoint.host), None)
            # So that whoever asks next knows who has it now: if it has moved, its new host.
            await self._get(bucket, endpoint_key(address, "*"), again=True)

    async def publish_service(self, service: Service) -> None:
        """See Directory. Only the gateway itself may, and whoever runs the farm."""
        hosts = self._layout.hosts
        key = service_key(service.via, service.protocol, service.external_port)
        there = await self._there(hosts, key)
        taken = f"port {service.external_port} of gateway {service.via} is published"
        if there is not None and there.value is not None:
            record = self._read(_SERVICE_RECORD, there)
            if record is None:
                raise Conflict(f"{taken} for something that this version does not understand; withdraw it first")
            if record.value != service:
                other = record.value
                raise Conflict(f"{taken} for {show_address(other.endpoint)} of tenant {other.tenant} already")
        else:
            try:
                await self._write(hosts, key, service, expected=0 if there is None else there.sequence)
            except Raced:
                raise Conflict(
                    f"{taken} by somebody else at this very moment; look what it is, and try again"
                ) from None
        self._services[service] = None

    async def withdraw_service(self, service: Service) -> None:
        """See Directory."""
        self._services.pop(service, None)
        if service in await self.services(service.via):
            key = service_key(service.via, service.protocol, service.external_port)
            await self._write(self._layout.hosts, key, None)

    # ---- that our host lives ----------------------------------------------------------------------------------------

    async def _alone(self, host: Host) -> None:
        """Raises Conflict if another agent runs for our host."""
        try:
            answer = await self._connection.request(self._layout.alive(host.name), b"", patience=_ALIVE_SECONDS)
        except NobodyThere:
            return
        except Away as away:
            if not self._connection.connected:
                raise DirectoryError(str(away)) from None
            return  # whoever listens there hangs: it is replaced, and learns of it when it wakes
        raise _another(host.name, answer.decode(errors="replace"))

    async def _renew(self, host: Host) -> None:
        """Store our lease, unless another agent has stored its own since."""
        leases, lease = self._layout.leases, _Lease(host, self._agent)
        try:
            if self._lease is not None:
                self._lease = await self._write(leases, host.name, lease, expected=self._lease)
                return
        except Raced:
            there = await self._there(leases, host.name)
            record = None if there is None else self._read(_LEASE_RECORD, there)
            if record is not None and record.value.agent != self._agent:
                await self._lose_lease()
                raise _another(host.name, "it has taken over") from None
        there = await self._there(leases, host.name)
        try:
            self._lease = await self._write(leases, host.name, lease, expected=0 if there is None else there.sequence)
        except Raced:
            raise _another(host.name, "it has started at the same time") from None
        if self._alive is None:
            self._alive = await self._connection.subscribe(self._layout.alive(host.name), self._say_alive)

    async def _lose_lease(self) -> None:
        self._lease = self._claimed = None
        if self._alive is not None:
            await self._alive.end()
            self._alive = None

    async def _say_alive(self, message: Msg) -> None:
        await self._connection.answer(message, f"pid {os.getpid()} on {socket.gethostname()}".encode())

    # ---- claims -----------------------------------------------------------------------------------------------------

    async def _claim_host(self, host: Host) -> None:
        for address in (*host.addresses, *host.pool):
            what = f"address {show_address(address)}"
            await self._claim(self._layout.hosts, partial(at_key, host.site, address), host.name, host.name, what)
        if host.external is not None:
            what = f"public address {show_address(host.external.public)}"
            key = partial(public_key, host.external.public)
            await self._claim(self._layout.hosts, key, host.name, host.name, what)
            await self._write_once(self._layout.hosts, gateway_key(host.site, host.name), host.name)

    async def _claim(
        self, bucket: Bucket, key: Callable[[str], str], owner: str, value: object, what: str, shared: str = ""
    ) -> None:
        """Raises Conflict if another host that lives has claimed it before.

        `key`: of the claim of a host; `shared`: the endpoint that several hosts may claim, as it moves.
        """
        mine = bucket.subject(key(owner))
        data = self._encode(value)
        written = False
        while True:
            for claim in await self._get(bucket, key("*"), again=True):
                if claim.subject == mine:
                    if claim.value == data:
                        return
                    break
                holder = await self._holder(claim, shared)
                if holder is not None:
                    if written:
                        await self._write(bucket, key(owner), None)
                    raise Conflict(f"{holder} has the {what} already")
            # Written, and then read once more: of two who claim at the same time, the first one in the bucket holds.
            await self._write_data(bucket, key(owner), data)
            written = True

    async def _holder(self, claim: Stored, shared: str) -> str | None:
        """Who holds what a claim is about, for people; None if nobody, or the endpoint `shared` itself does."""
        owner = _owner(claim)
        host = await self.host(owner)
        if host is None:
            return None
        if not shared:
            return f"host {owner} of site {host.site}"
        record = self._read(_ENDPOINT_RECORD, claim)
        if record is None:
            return f"host {owner}"
        return None if record.value.name == shared else f"endpoint {record.value.name} on host {owner}"

    async def _claim_endpoint(self, bucket: Bucket, endpoint: Endpoint, address: Address) -> None:
        what = f"address {show_address(address)} of tenant {endpoint.tenant}"
        await self._claim(bucket, partial(endpoint_key, address), endpoint.host, endpoint, what, shared=endpoint.name)

    def _guard(self, endpoint: Endpoint, address: Address) -> None:
        """Say so if another endpoint is claimed to have our endpoint's address."""
        if (unguard := self._guards.pop((endpoint.tenant, address), None)) is not None:
            unguard()

        async def look() -> None:
            with suppress(DirectoryError):
                for claim in await self._endpoints(endpoint.tenant, address):
                    if claim.name != endpoint.name:
                        self._say_once(
                            f"host {claim.host} claims {show_address(address)} of tenant {endpoint.tenant} for its "
                            f"endpoint {claim.name}, but {endpoint.name} on this host has it; remove one of them"
                        )

        changed = partial(_spawn, self._watched, look)
        self._guards[endpoint.tenant, address] = self._watched.watch(
            self._layout.tenant(endpoint.tenant), endpoint_key(address, "*"), changed
        )

    async def _publish_again(self) -> None:
        """NATS may have lost what we had published; or, while it was away, our lease has ended."""
        host, self._claimed = self._claimed, None
        try:
            if host is not None:
                await self.publish_host(host)
            for endpoint in list(self._published.values()):
                await self.publish_endpoint(endpoint)
            for service in list(self._services):
                await self.publish_service(service)
        except DirectoryError as error:
            _log.warning("not published again", reason=str(error))

    # ---- reading and writing ----------------------------------------------------------------------------------------

    async def _endpoints(self, tenant: str, address: Address) -> list[Endpoint]:
        """All that are claimed to have the address, the first claim first."""
        endpoints = []
        for claim in await self._get(self._layout.tenant(tenant), endpoint_key(address, "*")):
            record = self._read(_ENDPOINT_RECORD, claim)
            if record is None:
                continue
            endpoint = record.value
            said = (endpoint.tenant, endpoint.host) == (tenant, _owner(claim)) and address in endpoint.addresses
            if self._right(claim, said):
                endpoints.append(endpoint)
        return endpoints

    async def _get(self, bucket: Bucket, key: str, *, again: bool = False) -> list[Stored]:
        try:
            return await self._watched.get(bucket, key, again=again)
        except NoBucket as error:
            if bucket in (self._layout.leases, self._layout.hosts):
                raise self._unprepared(error) from None
            return []  # there is no such tenant
        except Away as away:
            raise DirectoryError(str(away)) from None

    async def _there(self, bucket: Bucket, key: str) -> Stored | None:
        """What is there now, also if it was taken back."""
        try:
            return await self._connection.read(bucket.stream, bucket.subject(key))
        except NoBucket as error:
            raise self._unprepared(error) from None
        except Away as away:
            raise DirectoryError(str(away)) from None

    async def _write(self, bucket: Bucket, key: str, value: object, expected: int | None = None) -> int:
        """Store a value, None to take it back. Raises Raced only if something is `expected`."""
        return await self._write_data(bucket, key, None if value is None else self._encode(value), expected)

    async def _write_once(self, bucket: Bucket, key: str, value: object) -> None:
        there = await self._there(bucket, key)
        if there is None or there.value != self._encode(value):
            await self._write(bucket, key, value)

    async def _write_data(self, bucket: Bucket, key: str, data: bytes | None, expected: int | None = None) -> int:
        try:
            return await self._connection.write(bucket.subject(key), data, expected)
        except NoBucket as error:
            raise self._unprepared(error) from None
        except Away as away:
            raise DirectoryError(str(away)) from None

    def _unprepared(self, error: NoBucket) -> DirectoryError:
        farm = self._layout.farm
        return DirectoryError(
            f"{error}: these servers do not hold the farm {farm!r}, or not this part of it; "
            "correct nats.servers, or make its buckets with 'nvi nats prepare'"
        )

    def _encode(self, value: object) -> bytes:
        return msgspec.json.encode(_Record(SCHEMA, self._layout.farm, value))

    def _read(self, decoder: msgspec.json.Decoder[_Record[_T]], found: Stored) -> _Record[_T] | None:
        """A record; None (and said, once) if it is not understood."""
        known = self._decoded.get(found.subject)
        if known is not None and known[0] == found.sequence:
            return cast(_Record[_T], known[1])
        if found.value is None:
            return None
        try:
            head = _HEAD.decode(found.value)
            if head.farm != self._layout.farm:
                self._say_once(f"{found.subject} is of farm {head.farm!r}, not {self._layout.farm!r}; remove it")
                return None
            if head.schema != SCHEMA:
                remedy = "upgrade this agent" if head.schema > SCHEMA else "upgrade whoever wrote it"
                self._say_once(f"{found.subject} has schema {head.schema}, this agent reads {SCHEMA}; {remedy}")
                return None
            record = decoder.decode(found.value)
        except ValueError as error:  # msgspec's errors are ValueErrors, too
            self._say_once(f"{found.subject} is not understood: {error}; remove it, or upgrade whoever wrote it")
            return None
        if len(self._decoded) >= _DECODED:
            self._decoded.clear()
        self._decoded[found.subject] = (found.sequence, record)
        return record

    def _right(self, found: Stored, right: bool) -> bool:
        """Whether a record says what its key says; if not, that is said, once."""
        if not right:
            self._say_once(f"{found.subject} says something else than its key does: ignored; remove it")
        return right

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            if len(self._said) >= _SAID:
                self._said.clear()
            self._said.add(text)
            _log.error(text)

    def _service_subject(self, service: Service) -> str:
        return self._layout.hosts.subject(service_key(service.via, service.protocol, service.external_port))


def _owner(claim: Stored) -> str:
    """Whose claim it is: the last token of its subject, which nobody else may write."""
    return claim.subject.rpartition(".")[2]


def _another(host: str, which: str) -> Conflict:
    return Conflict(f"another agent runs for host {host} ({which}); stop it, or give this one another host")


def _spawn(watched: Watched, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    watched.spawn(work())
