"""The directory answers "where is this endpoint?".

Agents publish only what they own and ask only for what a connection needs. One small interface with two
implementations: `memory` for the agents of one process, `nats` for a farm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..model import Address, Endpoint, Host, Service, Tenant


class DirectoryError(Exception):
    """The directory cannot answer now. The text names it and the remedy."""


class Conflict(DirectoryError):
    """Somebody else has published that already."""


LEASE = 10.0
"""Seconds after which a host that has not published itself again is taken to be gone."""

Unwatch = Callable[[], None]
"""Ends a watch."""


class Directory(Protocol):
    """What an agent may ask and publish. Every call may raise DirectoryError.

    A watch calls back, without arguments, when what it watches may have changed; its owner then asks again.
    """

    @property
    def state(self) -> str:
        """How it is, for people: where it is kept, and what keeps it from answering, if anything does."""

    async def endpoint(self, tenant: str, address: Address) -> Endpoint | None:
        """The tenant's endpoint with this address; None if there is none."""

    async def host(self, name: str) -> Host | None:
        """The host with this name; None if there is none, or its lease has run out."""

    async def host_at(self, site: str, address: Address) -> Host | None:
        """The host with this underlay address (or one in its pool) in the site; None if there is none."""

    async def gateways(self, site: str) -> tuple[Host, ...]:
        """The gateways of a site, by name; those whose leases have run out are left out."""

    async def gateway_at(self, public: Address) -> Host | None:
        """The gateway, of whatever site, whose public address this is; None if there is none."""

    async def tenant(self, name: str) -> Tenant | None:
        """The tenant's networks and policy; None if there is none."""

    async def services(self, via: str) -> tuple[Service, ...]:
        """What is published at a gateway, by protocol and external port."""

    def watch_endpoint(self, tenant: str, address: Address, changed: Callable[[], None]) -> Unwatch:
        """Of the location of an endpoint."""

    def watch_host(self, name: str, changed: Callable[[], None]) -> Unwatch:
        """Of a host: what it says of itself, and whether its lease runs."""

    def watch_tenant(self, name: str, changed: Callable[[], None]) -> Unwatch:
        """Of a tenant's networks and policy."""

    def watch_services(self, via: str, changed: Callable[[], None]) -> Unwatch:
        """Of what is published at a gateway."""

    async def publish_host(self, host: Host) -> None:
        """Say that a host exists; again within LEASE, as long as it does.

        Raises Conflict if another one of its site has one of its addresses, or another gateway its public one.
        """

    async def publish_tenant(self, tenant: Tenant) -> None:
        """Say what a tenant's networks and policy are, in place of what was said before."""

    async def publish_endpoint(self, endpoint: Endpoint) -> None:
        """Say where an endpoint is. Raises Conflict if another one of its tenant has one of its addresses."""

    async def withdraw_endpoint(self, endpoint: Endpoint) -> None:
        """Take back what was published; nothing happens if somebody else has published the address since."""

    async def publish_service(self, service: Service) -> None:
        """Publish a service. Raises Conflict if the gateway's port has another one."""

    async def withdraw_service(self, service: Service) -> None:
        """Take a service back; nothing happens if it is not published."""
