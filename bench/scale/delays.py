"""Directory and offers as they are over a network: each takes its time, and is counted.

What an agent watches, it knows, and need not ask for; that is what the `nats` directory does, which keeps even more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from nvi.directory import Directory, Unwatch
from nvi.model import Address, Endpoint, Host, Service, Tenant
from nvi.offers import Handler, Offers, Reply, Request
from nvi.simulation import Farm, FarmSwitch
from nvi.switch import Switch

DIRECTORY_SECONDS = 0.0005
"""From a question to its answer."""
ONE_WAY_SECONDS = 0.0005
"""Of an offer, and again of what is answered."""


class DistantDirectory:
    """A Directory that is elsewhere, as one agent sees it."""

    def __init__(self, directory: Directory, requests: Counter[str]) -> None:
        """`directory`: the one that answers in the end; `requests`: where they are counted, by kind."""
        self._directory = directory
        self._requests = requests
        self._watched: Counter[tuple[str | Address, ...]] = Counter()

    async def _travel(self, kind: str, *key: str | Address) -> None:
        if (kind, *key) not in self._watched:
            self._requests[kind] += 1
            await asyncio.sleep(DIRECTORY_SECONDS)

    def _watch(self, unwatch: Unwatch, *key: str | Address) -> Unwatch:
        self._requests["watch"] += 1
        self._watched[key] += 1

        def end() -> None:
            unwatch()
            self._watched[key] -= 1
            if not self._watched[key]:
                del self._watched[key]

        return end

    @property
    def state(self) -> str:
        """See Directory."""
        return self._directory.state

    async def endpoint(self, tenant: str, address: Address) -> Endpoint | None:
        """See Directory."""
        await self._travel("endpoint", tenant, address)
        return await self._directory.endpoint(tenant, address)

    async def host(self, name: str) -> Host | None:
        """See Directory."""
        await self._travel("host", name)
        return await self._directory.host(name)

    async def host_at(self, site: str, address: Address) -> Host | None:
        """See Directory."""
        await self._travel("host")
        return await self._directory.host_at(site, address)

    async def gateways(self, site: str) -> tuple[Host, ...]:
        """See Directory."""
        await self._travel("gateways")
        return await self._directory.gateways(site)

    async def gateway_at(self, public: Address) -> Host | None:
        """See Directory."""
        await self._travel("gateways")
        return await self._directory.gateway_at(public)

    async def tenant(self, name: str) -> Tenant | None:
        """See Directory."""
        await self._travel("tenant", name)
        return await self._directory.tenant(name)

    async def services(self, via: str) -> tuple[Service, ...]:
        """See Directory."""
        await self._travel("services", via)
        return await self._directory.services(via)

    def watch_endpoint(self, tenant: str, address: Address, changed: Callable[[], None]) -> Unwatch:
        """See Directory."""
        return self._watch(self._directory.watch_endpoint(tenant, address, changed), "endpoint", tenant, address)

    def watch_host(self, name: str, changed: Callable[[], None]) -> Unwatch:
        """See Directory."""
        return self._watch(self._directory.watch_host(name, changed), "host", name)

    def watch_tenant(self, name: str, changed: Callable[[], None]) -> Unwatch:
        """See Directory."""
        return self._watch(self._directory.watch_tenant(name, changed), "tenant", name)

    def watch_services(self, via: str, changed: Callable[[], None]) -> Unwatch:
        """See Directory."""
        return self._watch(self._directory.watch_services(via, changed), "services", via)

    async def publish_host(self, host: Host) -> None:
        """See Directory."""
        await self._travel("lease")
        await self._directory.publish_host(host)

    async def publish_tenant(self, tenant: Tenant) -> None:
        """See Directory."""
        await self._travel("publish")
        await self._directory.publish_tenant(tenant)

    async def publish_endpoint(self, endpoint: Endpoint) -> None:
        """See Directory."""
        await self._travel("publish")
        await self._directory.publish_endpoint(endpoint)

    async def withdraw_endpoint(self, endpoint: Endpoint) -> None:
        """See Directory."""
        await self._travel("publish")
        await self._directory.withdraw_endpoint(endpoint)

    async def publish_service(self, service: Service) -> None:
        """See Directory."""
        await self._travel("publish")
        await self._directory.publish_service(service)

    async def withdraw_service(self, service: Service) -> None:
        """See Directory."""
        await self._travel("publish")
        await self._directory.withdraw_service(service)


class DistantOffers:
    """Offers between agents that are not in one place."""

    def __init__(self, offers: Offers) -> None:
        """`offers`: what carries them in the end."""
        self._offers = offers
        self.messages = 0
        """Requests and answers."""

    async def request(self, sender: str, receiver: str, message: Request) -> Reply:
        """See Offers."""
        self.messages += 2
        await asyncio.sleep(ONE_WAY_SECONDS)
        reply = await self._offers.request(sender, receiver, message)
        await asyncio.sleep(ONE_WAY_SECONDS)
        return reply

    def serve(self, host: str, handler: Handler) -> None:
        """See Offers."""
        self._offers.serve(host, handler)

    def leave(self, host: str) -> None:
        """See Offers."""
        self._offers.leave(host)


class DistantFarm(Farm):
    """A farm of which nothing is in one place."""

    def __init__(self, directory: Directory, requests: Counter[str], offers: Offers, *, idle_timeout: float) -> None:
        """`directory`, `requests`: see DistantDirectory."""
        super().__init__(directory=directory, offers=offers, idle_timeout=idle_timeout)
        self._requests = requests

    def reach(self, host: Host, switch: FarmSwitch) -> tuple[Switch, Directory, Offers]:
        """Each has its own way to the directory."""
        switch_of, directory, offers = super().reach(host, switch)
        return switch_of, DistantDirectory(directory, self._requests), offers
