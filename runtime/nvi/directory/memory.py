"""The directory of the agents of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..model import Address, Endpoint, Host, Service, Tenant, show_address
from . import LEASE, Conflict, Unwatch


class MemoryDirectory:
    """A Directory in dictionaries. Work and memory of a look-up do not depend on the size of the farm."""

    def __init__(self) -> None:
        """Start empty."""
        self._endpoints: dict[tuple[str, Address], Endpoint] = {}
        self._hosts: dict[str, Host] = {}
        self._hosts_at: dict[tuple[str, Address], Host] = {}
        self._gateways: dict[str, dict[str, Host]] = {}
        """By site, then by name."""
        self._gateways_at: dict[Address, Host] = {}
        self._leases: dict[str, asyncio.TimerHandle] = {}
        self._tenants: dict[str, Tenant] = {}
        self._services: dict[str, dict[tuple[int, int], Service]] = {}
        """By gateway, then by (protocol, external port)."""
        self._watchers: dict[tuple[object, ...], list[Callable[[], None]]] = {}

    @property
    def state(self) -> str:
        """See Directory."""
        return "in this process"

    async def endpoint(self, tenant: str, address: Address) -> Endpoint | None:
        """See Directory."""
        return self._endpoints.get((tenant, address))

    async def host(self, name: str) -> Host | None:
        """See Directory."""
        return self._hosts.get(name)

    async def host_at(self, site: str, address: Address) -> Host | None:
        """See Directory."""
        return self._hosts_at.get((site, address))

    async def gateways(self, site: str) -> tuple[Host, ...]:
        """See Directory."""
        return tuple(host for _, host in sorted(self._gateways.get(site, {}).items()))

    async def gateway_at(self, public: Address) -> Host | None:
        """See Directory."""
        return self._gateways_at.get(public)

    async def tenant(self, name: str) -> Tenant | None:
        """See Directory."""
        return self._tenants.get(name)

    async def services(self, via: str) -> tuple[Service, ...]:
        """See Directory."""
        return tuple(service for _, service in sorted(self._services.get(via, {}).items()))

    def watch_endpoint(self, tenant: str, address: Address, changed: Callable[[], None]) -> Unwatch:
        """See Directory."""
        return self._watch(("endpoint", tenant, address), changed)

    def watch_host(self, name: str, changed: Callable[[], None]) -> Unwatch:
        """See Directory."""
        return self._watch(("host", name), changed)

    def watch_tenant(self, name: str, changed: Callable[[], None]) -> Unwatch:
        """See Directory."""
        return self._watch(("tenant", name), changed)

    def watch_services(self, via: str, changed: Callable[[], None]) -> Unwatch:
        """See Directory."""
        return self._watch(("services", via), changed)

    async def publish_host(self, host: Host) -> None:
        """See Directory."""
        self._check_host(host)
        before = self._hosts.get(host.name)
        if (lease := self._leases.pop(host.name, None)) is not None:
            lease.cancel()
        self._leases[host.name] = asyncio.get_running_loop().call_later(LEASE, self._expire, host.name)
        if host == before:
            return
        self._forget(before)
        self._hosts[host.name] = host
        self._hosts_at.update(((host.site, address), host) for address in (*host.addresses, *host.pool))
        if host.external is not None:
            self._gateways.setdefault(host.site, {})[host.name] = host
            self._gateways_at[host.external.public] = host
        self._changed("host", host.name)

    async def publish_tenant(self, tenant: Tenant) -> None:
        """See Directory."""
        self._tenants[tenant.name] = tenant
        self._changed("tenant", tenant.name)

    async def publish_endpoint(self, endpoint: Endpoint) -> None:
        """See Directory."""
        keys = [(endpoint.tenant, address) for address in endpoint.addresses]
        for key in keys:
            other = self._endpoints.get(key)
            if other is not None and other.name != endpoint.name:
                raise Conflict(
                    f"endpoint {other.name} of tenant {endpoint.tenant} on host {other.host} "
                    f"has the address {show_address(key[1])} already"
                )
        for key in keys:
            if self._endpoints.get(key) != endpoint:
                self._endpoints[key] = endpoint
                self._changed("endpoint", *key)

    async def withdraw_endpoint(self, endpoint: Endpoint) -> None:
        """See Directory."""
        for address in endpoint.addresses:
            key = (endpoint.tenant, address)
            if self._endpoints.get(key) == endpoint:
                del self._endpoints[key]
                self._changed("endpoint", *key)

    async def publish_service(self, service: Service) -> None:
        """See Directory."""
        key = (service.protocol, service.external_port)
        other = self._services.setdefault(service.via, {}).setdefault(key, service)
        if other != service:
            raise Conflict(
                f"port {service.external_port} of gateway {service.via} is published for "
                f"{show_address(other.endpoint)} of tenant {other.tenant} already"
            )
        self._changed("services", service.via)

    async def withdraw_service(self, service: Service) -> None:
        """See Directory."""
        published = self._services.get(service.via, {})
        key = (service.protocol, service.external_port)
        if published.get(key) == service:
            del published[key]
            self._changed("services", service.via)

    def _check_host(self, host: Host) -> None:
        for address in (*host.addresses, *host.pool):
            other = self._hosts_at.get((host.site, address))
            if other is not None and other.name != host.name:
                raise Conflict(f"host {other.name} of site {host.site} has the address {show_address(address)} already")
        if host.external is not None:
            other = self._gateways_at.get(host.external.public)
            if other is not None and other.name != host.name:
                public = show_address(host.external.public)
                raise Conflict(f"gateway {other.name} of site {other.site} has the public address {public} already")

    def _expire(self, name: str) -> None:
        del self._leases[name]
        self._forget(self._hosts.pop(name))
        self._changed("host", name)

    def _forget(self, host: Host | None) -> None:
        if host is None:
            return
        for address in (*host.addresses, *host.pool):
            self._hosts_at.pop((host.site, address), None)
        if host.external is not None:
            self._gateways[host.site].pop(host.name, None)
            self._gateways_at.pop(host.external.public, None)

    def _watch(self, key: tuple[object, ...], changed: Callable[[], None]) -> Unwatch:
        self._watchers.setdefault(key, []).append(changed)

        def unwatch() -> None:
            watchers = self._watchers[key]
            watchers.remove(changed)
            if not watchers:
                del self._watchers[key]

        return unwatch

    def _changed(self, *key: object) -> None:
        for changed in list(self._watchers.get(key, ())):
            changed()
