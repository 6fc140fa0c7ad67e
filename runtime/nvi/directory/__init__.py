"""The directory answers "where is this endpoint?".

Agents publish only what they own and ask only for what a connection needs. One small interface; `memory` implements
it for the agents of one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..model import Address, Endpoint, Host, Tenant


class DirectoryError(Exception):
    """The directory cannot answer now. The text names it and the remedy."""


class Conflict(DirectoryError):
    """Somebody else has published that already."""


class Directory(Protocol):
    """What an agent may ask and publish. Every call may raise DirectoryError."""

    async def endpoint(self, tenant: str, address: Address) -> Endpoint | None:
        """The tenant's endpoint with this address; None if there is none."""

    async def host(self, name: str) -> Host | None:
        """The host with this name; None if there is none."""

    async def host_at(self, site: str, address: Address) -> Host | None:
        """The host with this underlay address in the site; None if there is none."""

    async def tenant(self, name: str) -> Tenant | None:
        """The tenant's networks and policy; None if there is none."""

    def watch_tenant(self, name: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called whenever the tenant is published anew. Returns what ends that."""

    async def publish_host(self, host: Host) -> None:
        """Say that a host exists. Raises Conflict if another one of its site has one of its addresses."""

    async def publish_tenant(self, tenant: Tenant) -> None:
        """Say what a tenant's networks and policy are, in place of what was said before."""

    async def publish_endpoint(self, endpoint: Endpoint) -> None:
        """Say where an endpoint is. Raises Conflict if another one of its tenant has its address."""

    async def withdraw_endpoint(self, endpoint: Endpoint) -> None:
        """Take back what was published; nothing happens if somebody else has published the address since."""
