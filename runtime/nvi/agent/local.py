"""What the parts of one agent share: its host, its way to the world, and what it holds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from ..directory import Directory
from ..keys import Keys
from ..model import Address, Endpoint, Host, Mac, Network, Tenant
from ..offers import Offers, Stamp
from ..policy import Verdict, judge
from ..switch import ConnectionEntry, ConnectionKey, Operation, Switch, Update, WriteFailed
from .connections import Attachment, Connections, Unknown
from .underlay import NextHop, NoRoute, Underlay

log = structlog.get_logger()

CONNECTIONS_SIZE = 65536
"""Entries that the table `connections` has room for (`p4src/ids.p4`)."""


_STRIDE = 1009
"""Keys between where an agent begins to search in one life and in the next."""


class Refused(Exception):
    """A connection that will not be. The text says why."""


class Local:
    """One host, as its agent sees it."""

    def __init__(
        self,
        host: Host,
        switch: Switch,
        directory: Directory,
        offers: Offers,
        wires: dict[int, Underlay],
        epoch: int,
        idle_timeout: float,
    ) -> None:
        """`wires`: by the switch's port; `epoch`: how many times the agent has started; `idle_timeout`: seconds."""
        self.host = host
        self.switch = switch
        self.directory = directory
        self.offers = offers
        self.wires = wires
        self.idle_timeout = idle_timeout
        self.ready = False
        """Whether the switch is ours, and holds what we think that it holds."""
        self.connections = Connections()
        self.unknown: dict[ConnectionKey, Unknown] = {}
        """Entries that a gateway has found in its switch, and asks about."""
        self.keys = Keys(quarantine=max(2 * idle_timeout, 60.0), start=epoch * _STRIDE)
        self.by_port: dict[int, Attachment] = {}
        self.by_name: dict[str, Attachment] = {}
        self.by_address: dict[tuple[str, Address], Attachment] = {}
        self.tenants: dict[str, Tenant] = {}
        """Those that have endpoints here, as the directory said last."""
        self.events: Counter[str] = Counter()
        """What happened, by kind, since the agent started."""
        self.on_reinject: Callable[[int, bytes], None] = lambda *_: None
        """Called after a packet has been handed back to the switch."""
        self.log = log.bind(host=host.name)
        self._stamp = Stamp(epoch, 0)
        self._tasks: set[asyncio.Task[Any]] = set()

    def stamp(self) -> Stamp:
        """A stamp later than all before, also those of the agent's earlier lives."""
        self._stamp = Stamp(self._stamp.epoch, self._stamp.counter + 1)
        return self._stamp

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background. What goes wrong there is logged and counted, never lost."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.events["failures"] += 1
            self.log.error("unexpected failure", error=repr(error), exc_info=error)

    async def stop(self) -> None:
        """End everything that runs in the background."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def tenant(self, name: str) -> Tenant:
        """A tenant that has endpoints here. Raises Refused if the directory has lost it."""
        tenant = await self.directory.tenant(name)
        if tenant is None:
            raise Refused(f"the directory knows no tenant {name}")
        return tenant

    async def party(self, tenant: str, address: Address, exit: str) -> Endpoint | None:
        """Who is at one end of a connection: an endpoint of the tenant, or somebody outside, at the gateway `exit`.

        `exit` is empty if both ends are endpoints.
        """
        found = await self.directory.endpoint(tenant, address)
        if found is not None or not exit:
            return found
        known = await self.directory.tenant(tenant)
        return None if known is None or known.holds(address) else Endpoint.outside(tenant, address, exit)

    async def verdict(
        self, tenant: Tenant, initiator: Endpoint, responder: Endpoint, protocol: int, port: int
    ) -> Verdict:
        """What the policy says of a connection. `port`: the responder's."""
        published = False
        if initiator.is_outside:
            services = await self.directory.services(initiator.host)
            wanted = (tenant.name, protocol, port)
            published = any(
                (each.tenant, each.protocol, each.port) == wanted and each.endpoint in responder.addresses
                for each in services
            )
        return judge(tenant, initiator, responder, protocol, port, published=published)

    async def next_hop(self, wire: int, peer: Address) -> NextHop:
        """How packets to an address leave by a wire. Raises NoRoute."""
        underlay = self.wires.get(wire)
        if underlay is None:
            raise NoRoute(f"host {self.host.name} has no external side; give it an external address")
        return await underlay.next_hop(peer)

    async def put(self, entries: Sequence[ConnectionEntry]) -> None:
        """Have these entries in the switch, whether or not it has entries with their keys. Raises SwitchError."""
        try:
            await self.switch.write([Update(Operation.INSERT, entry) for entry in entries])
        except WriteFailed as failure:
            if any(status != "ALREADY_EXISTS" for _, status, _ in failure.failures):
                await self.take_away([entry.key for entry in entries])
                raise
            await self.switch.write([Update(Operation.MODIFY, update.entry) for update, _, _ in failure.failures])

    async def take_away(self, keys: Sequence[ConnectionKey]) -> None:
        """Have no entries with these keys in the switch. Raises SwitchError."""
        if not keys:
            return
        try:
            await self.switch.write([Update(Operation.DELETE, ConnectionEntry(key)) for key in keys])
        except WriteFailed as failure:
            if any(status != "NOT_FOUND" for _, status, _ in failure.failures):
                raise

    def reinject(self, port: int, frame: bytes) -> None:
        """Have the switch process a packet again, which it has handed to us."""
        self.switch.reinject(port, frame)
        self.on_reinject(port, frame)

    def is_here(self, attachment: Attachment) -> bool:
        """Whether the endpoint is still at its port: another one may be there by now, even another tenant's."""
        return attachment.endpoint.is_outside or self.by_port.get(attachment.port) is attachment

    def network_of(self, endpoint: Endpoint) -> Network | None:
        """The network of an endpoint here; None as long as the directory does not know it."""
        tenant = self.tenants.get(endpoint.tenant)
        return tenant.networks.get(endpoint.network) if tenant is not None else None

    def router_of(self, endpoint: Endpoint, is_ipv6: bool) -> tuple[Address, Mac] | None:
        """(address, MAC) of the router of an endpoint's network; None if the network does not have the family."""
        network = self.network_of(endpoint)
        address = network.gateway_for(bytes(16 if is_ipv6 else 4)) if network is not None else None
        return (address, self.tenants[endpoint.tenant].gateway_mac(endpoint.network)) if address is not None else None

    def endpoint_entries(self, endpoint: Endpoint) -> int:
        """Entries that the connections of a local endpoint take up."""
        return 2 * len(self.connections.of_port(self.by_name[endpoint.name].port))
