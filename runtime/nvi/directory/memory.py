"""The directory of the agents of one process."""

from __future__ import annotations

from collections.abc import Callable

from ..model import Address, Endpoint, Host, Tenant, show_address
from . import Conflict


class MemoryDirectory:
    """A Directory in dictionaries. Work and memory of a look-up do not depend on the size of the farm."""

    def __init__(self) -> None:
        """Start empty."""
        self._endpoints: dict[tuple[str, Address], Endpoint] = {}
        self._hosts: dict[str, Host] = {}
        self._hosts_at: dict[tuple[str, Address], Host] = {}
        self._tenants: dict[str, Tenant] = {}
        self._watchers: dict[str, list[Callable[[], None]]] = {}

    async def endpoint(self, tenant: str, address: Address) -> Endpoint | None:
        """See Directory."""
        return self._endpoints.get((tenant, address))

    async def host(self, name: str) -> Host | None:
        """See Directory."""
        return self._hosts.get(name)

    async def host_at(self, site: str, address: Address) -> Host | None:
        """See Directory."""
        return self._hosts_at.get((site, address))

    async def tenant(self, name: str) -> Tenant | None:
        """See Directory."""
        return self._tenants.get(name)

    async def publish_host(self, host: Host) -> None:
        """See Directory."""
        for address in host.addresses:
            other = self._hosts_at.get((host.site, address))
            if other is not None and other.name != host.name:
                raise Conflict(f"host {other.name} of site {host.site} has the address {show_address(address)} already")
        self._hosts[host.name] = host
        self._hosts_at.update(((host.site, address), host) for address in host.addresses)

    async def publish_tenant(self, tenant: Tenant) -> None:
        """See Directory."""
        self._tenants[tenant.name] = tenant
        for changed in list(self._watchers.get(tenant.name, ())):
            changed()

    def watch_tenant(self, name: str, changed: Callable[[], None]) -> Callable[[], None]:
        """See Directory."""
        watchers = self._watchers.setdefault(name, [])
        watchers.append(changed)
        return lambda: watchers.remove(changed)

    async def publish_endpoint(self, endpoint: Endpoint) -> None:
        """See Directory."""
        other = self._endpoints.setdefault((endpoint.tenant, endpoint.address), endpoint)
        if other.name != endpoint.name:
            raise Conflict(
                f"endpoint {other.name} of tenant {endpoint.tenant} on host {other.host} "
                f"has the address {show_address(endpoint.address)} already"
            )
        self._endpoints[endpoint.tenant, endpoint.address] = endpoint

    async def withdraw_endpoint(self, endpoint: Endpoint) -> None:
        """See Directory."""
        key = (endpoint.tenant, endpoint.address)
        if self._endpoints.get(key) == endpoint:
            del self._endpoints[key]
