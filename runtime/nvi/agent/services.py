"""Services that a gateway publishes: endpoints' ports, reached from the outside at ports of its public address.

The directory says which they are; the switch hands to the agent what comes for one of them and has no entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..directory import Conflict, DirectoryError
from ..keys import KEY_FIRST, KEY_LAST
from ..mappings import Mappings
from ..model import ConnectionId, End, Protocol, Service, show_address
from ..switch import Operation, ServiceEntry, SwitchError, Update
from .connections import Connection
from .joining import Joiner
from .local import Local


class Services:
    """Those of one host; a host that is no gateway has none."""

    def __init__(self, local: Local, joiner: Joiner, mappings: Mappings) -> None:
        """`mappings`: of the same external address, whose ports are not for services."""
        self._local = local
        self._joiner = joiner
        self._mappings = mappings
        self.by_port: dict[tuple[int, int], Service] = {}
        """By protocol and external port."""
        self._unwatch: Callable[[], None] = lambda: None
        self._one_at_a_time = asyncio.Lock()
        """Who compares the switch with what is published, and mends it, is not to be overtaken."""

    async def start(self) -> None:
        """Follow what the directory says. Raises DirectoryError."""
        local = self._local
        if local.host.external is None:
            return
        self.stop()  # if it was begun before, and not finished
        self._unwatch = local.directory.watch_services(local.host.name, lambda: local.spawn(self._follow()))
        await self._read()

    def stop(self) -> None:
        """Follow nothing any more."""
        self._unwatch()
        self._unwatch = lambda: None

    async def published(self) -> tuple[Service, ...]:
        """What is published at this gateway. Raises DirectoryError."""
        return await self._local.directory.services(self._local.host.name)

    async def publish(self, service: Service) -> None:
        """Publish an endpoint's port at this gateway. Raises ValueError if that cannot be. Idempotent."""
        local = self._local
        if service in await self.published():
            return
        name, protocol = local.host.name, service.protocol
        if local.host.external is None or service.via != name:
            raise ValueError(f"host {name} is not the gateway to publish it at: that must be {service.via}'s agent")
        if protocol not in (Protocol.TCP, Protocol.UDP):
            raise ValueError(f"protocol {protocol} has no ports: publish tcp or udp")
        for port in (service.port, service.external_port):
            if not 0 < port < 65536:
                raise ValueError(f"{port} is not a port: those are 1 to 65535")
        endpoint = await local.directory.endpoint(service.tenant, service.endpoint)
        if endpoint is None:
            raise ValueError(f"tenant {service.tenant} has no endpoint {show_address(service.endpoint)}")
        if len(service.endpoint) != len(local.host.external.address):
            raise ValueError(f"{show_address(service.endpoint)} is not of the family of the external address of {name}")
        if self._mappings.in_use(protocol, service.external_port):
            raise ValueError(
                f"port {service.external_port} of {name} stands for an endpoint's at the moment: "
                f"choose one that is not between {KEY_FIRST} and {KEY_LAST}"
            )
        try:
            await local.directory.publish_service(service)
        except Conflict as conflict:
            raise ValueError(str(conflict)) from None

    async def unpublish(self, protocol: int, external_port: int) -> None:
        """Publish a service no more; its connections end. Raises KeyError if this gateway has none at the port."""
        for service in await self.published():
            if (service.protocol, service.external_port) == (protocol, external_port):
                await self._local.directory.withdraw_service(service)
                return
        raise KeyError(external_port)

    async def take_over(self) -> None:
        """Have the switch hand us what comes for published services. Raises SwitchError."""
        external = self._local.host.external
        if external is None:
            return
        async with self._one_at_a_time:
            wanted = {ServiceEntry(external.address, protocol, port) for protocol, port in self.by_port}
            there = set(await self._local.switch.read_services())
            updates = [Update(Operation.DELETE, entry) for entry in there - wanted]
            updates += [Update(Operation.INSERT, entry) for entry in wanted - there]
            if updates:
                await self._local.switch.write(updates)

    async def _follow(self) -> None:
        local = self._local
        try:
            async with self._one_at_a_time:
                before = await self._read()
            withdrawn = [service for key, service in before.items() if self.by_port.get(key) != service]
            if local.ready:
                await self.take_over()
        except DirectoryError as error:
            # The directory tells again when it is back.
            local.log.warning("published services not followed", error=str(error))
            return
        except SwitchError as error:
            # The same happens when the switch is taken over.
            local.log.warning("published services not in the switch yet", error=str(error))
        for service in withdrawn:
            self._end(service)

    async def _read(self) -> dict[tuple[int, int], Service]:
        """Raises DirectoryError. Returns what was published before."""
        local, before, services = self._local, self.by_port, {}
        for service in await local.directory.services(local.host.name):
            key = (service.protocol, service.external_port)
            if key not in before and self._mappings.in_use(*key):
                local.log.error("service left out: a mapping has its port", protocol=key[0], port=key[1])
            else:
                services[key] = service
        self.by_port = services
        self._mappings.reserve(services)
        return before

    def _end(self, service: Service) -> None:
        """It is published no more: its connections end."""
        inside = service.tenant, service.protocol, End(service.endpoint, service.port)
        ended = [
            each
            for each in self._local.connections
            if (each.outlet is not None and each.outlet.mapping is None and _serves(each.id, inside))
            or (each.turn is not None and _serves(each.turn.identity, inside))
        ]
        if ended:
            self._local.spawn(self._close(ended))

    async def _close(self, connections: list[Connection]) -> None:
        try:
            await self._joiner.close(connections)
        except SwitchError as error:
            # What is left is nobody's, and deleted when the agent takes over the switch.
            self._local.log.warning("connections not taken from the switch yet", error=str(error))


def _serves(identity: ConnectionId, inside: tuple[str, int, End]) -> bool:
    """Whether a connection is one with this (tenant, protocol, end)."""
    tenant, protocol, end = inside
    return (identity.tenant, identity.protocol) == (tenant, protocol) and end in (identity.low, identity.high)
