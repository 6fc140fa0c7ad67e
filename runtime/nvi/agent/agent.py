"""The agent of one host: the only one that writes to its switch, and the one that answers for its endpoints."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ..config import AgentConfig
from ..directory import LEASE, Conflict, Directory, DirectoryError
from ..mappings import Change, Mappings
from ..model import Endpoint, Service, Tenant, show_address
from ..offers import Offers
from ..policy import ambiguities
from ..switch import (
    PORT_EXTERNAL,
    PORT_FIRST_ENDPOINT,
    PORT_UNDERLAY,
    GuardEntry,
    Operation,
    Punt,
    PuntReason,
    Switch,
    SwitchError,
    Update,
)
from ..trace import Question, trace
from . import fragments, joining, neighbours, refusals
from .adopting import Adopter
from .answering import Answerer
from .arriving import Arrivals
from .connecting import IN_FLIGHT, Connector
from .connections import Attachment, Connection
from .erring import Errors
from .exits import Exits
from .explaining import Explainer
from .fragments import Fragments
from .joining import Joiner
from .journal import Journal
from .local import CONNECTIONS_SIZE, Local, Refused
from .neighbours import Neighbours, own_addresses
from .offering import Offerer
from .outlets import Outlets
from .refusals import Refusals
from .relaying import Relay
from .router import Router
from .services import Services
from .state import StateFile
from .strays import Strays
from .tracing import gather
from .turning import Turner
from .underlay import NoRoute, Underlay
from .views import connection_view
from .watching import Watching

AGEING_INTERVAL = 1.0
"""Seconds between two looks at the connections that may be idle."""

BACKLOG = 1024
"""Punted packets kept while the agent takes over its switch."""

_PUNTS = {reason: f"punts {reason.name.lower()}" for reason in PuntReason}
"""What they are counted as."""


class Agent:
    """Wires the parts of an agent together, and takes over its switch whenever it becomes the primary there."""

    def __init__(
        self,
        config: AgentConfig,
        switch: Switch,
        directory: Directory,
        offers: Offers,
        underlay: Underlay,
        state: StateFile,
        *,
        external: Underlay | None = None,
        journal: Journal[Change] | None = None,
        idle_timeout: float = 30.0,
        punt_rate: int = 5000,
    ) -> None:
        """`external`: a gateway's other wire; `journal`: of its mappings, None for one in memory.

        `idle_timeout`: seconds; `punt_rate`: punts per second of one port.
        """
        self.config = config
        self._state = state
        self._punt_rate = punt_rate
        wires = {PORT_UNDERLAY: underlay}
        if external is not None:
            wires[PORT_EXTERNAL] = external
        self._local = Local(config.host, switch, directory, offers, wires, state.epoch, idle_timeout)
        self._explainer = Explainer(self._local)
        self._refusals = Refusals(self._local, self._explainer)
        self._router = Router(self._local, self._explainer)
        self._errors = Errors(self._local)
        self._fragments = Fragments(self._local)
        self._local.on_reinject = self._fragments.passed
        self._neighbours = Neighbours(self._local)
        self._joiner = Joiner(self._local, self._refusals)
        self._exits = Exits(self._local)
        journal = journal or Journal(None, Change)
        mappings = Mappings(journal.append)
        self._services = Services(self._local, self._joiner, mappings)
        self._outlets = Outlets(self._local, mappings, journal, self._services)
        offerer = Offerer(self._local, self._joiner)
        turner = Turner(self._local, self._joiner, offerer, self._outlets)
        self._connector = Connector(
            self._local, self._explainer, self._refusals, self._joiner, offerer, self._exits, self._outlets, turner
        )
        relay = Relay(self._local, self._joiner, offerer)
        self._answerer = Answerer(self._local, self._joiner, relay, self._outlets, turner)
        self._arrivals = Arrivals(self._local, self._joiner, self._connector, self._outlets)
        self._strays = Strays(self._local, self._joiner, self._answerer, self._arrivals)
        self._adopter = Adopter(self._local, self._joiner, relay, self._outlets)
        self._watching = Watching(self._local, self._joiner, self._connector, relay)
        self._backlog: deque[Punt] = deque(maxlen=BACKLOG)
        self._primary = False
        self._unwatch: dict[str, Callable[[], None]] = {}
        """By tenant with endpoints here: what ends the watch of its policy."""
        switch.on_punt = self._on_punt
        switch.on_primary = self._on_primary
        self._unclean: set[int] = set()
        """Ports at which the switch still has something of an endpoint that is gone."""
        self._unread: set[int] = set()
        """Ports of endpoints that went before it was known what the switch has of them."""
        self._has_read = False
        """Whether it is known what the switch had when this agent began."""
        self._local.connections.on_held = self._exits.used
        self._local.connections.on_forgotten = self._forgotten
        for wire, way in wires.items():
            way.on_change = partial(self._on_next_hop_change, wire)

    async def start(self) -> None:
        """Publish what this host has, and answer other agents. The switch is taken over when it says so."""
        local = self._local
        await self._outlets.start()
        await self._services.start()
        for endpoint, _ in list(self._state.endpoints.values()):
            # Before this host is there again: then its older claims would count.
            if await self._has_moved(endpoint):
                local.log.info("endpoint has moved while its agent was away", endpoint=endpoint.name)
                await local.directory.withdraw_endpoint(endpoint)
                self._state.remove(endpoint.name)
        await local.directory.publish_host(local.host)
        for endpoint, port in list(self._state.endpoints.values()):
            try:
                await local.directory.publish_endpoint(endpoint)
            except Conflict as conflict:
                local.log.error("endpoint left out", endpoint=endpoint.name, reason=str(conflict))
            else:
                self._attach(Attachment(endpoint, port))
                await self._learn(endpoint.tenant)
        local.offers.serve(local.host.name, self._answerer.answer)
        local.spawn(self._age())
        local.spawn(self._keep_lease())

    async def stop(self) -> None:
        """Fall silent. The switch keeps its entries, and its connections go on."""
        for unwatch in self._unwatch.values():
            unwatch()
        self._unwatch.clear()
        self._watching.stop()
        self._outlets.stop()
        self._services.stop()
        self._local.offers.leave(self._local.host.name)
        await self._local.stop()
        self._fragments.stop()
        self._refusals.forget_all()
        await self._neighbours.forget_all([])

    # ---- endpoints, as the orchestrator tells us ------------------------------------------------------------------

    def endpoints(self) -> list[tuple[Endpoint, int]]:
        """The endpoints of this host and their ports, by name."""
        return [(each.endpoint, each.port) for _, each in sorted(self._local.by_name.items())]

    async def add_endpoint(self, endpoint: Endpoint, port: int) -> None:
        """An endpoint is at a port of the switch now. Raises ValueError if it cannot be. Idempotent."""
        local = self._local
        attachment = Attachment(endpoint, port)
        if local.by_name.get(endpoint.name) == attachment:
            return
        await self._check_endpoint(endpoint, port)
        self._state.put(endpoint, port)
        try:
            await local.directory.publish_endpoint(endpoint)
        except DirectoryError as error:
            self._state.remove(endpoint.name)
            if isinstance(error, Conflict):
                raise ValueError(str(error)) from None
            raise
        self._attach(attachment)
        await self._learn(endpoint.tenant)
        if self._local.ready:
            try:
                await self._open_port(attachment)
            except SwitchError as error:
                # The agent does it again when it takes over the switch.
                local.log.warning("endpoint not admitted yet", endpoint=endpoint.name, error=str(error))

    async def remove_endpoint(self, name: str) -> None:
        """An endpoint is not at this host any more. Raises KeyError if it was not.

        If it has been added at another host before, it has moved, and its connections go on there. Else they end.
        Raises DirectoryError if nobody can be told; then it is here still, and the call is to be repeated.
        """
        local = self._local
        attachment = local.by_name[name]
        endpoint, port = attachment.endpoint, attachment.port
        # First of all, and forgotten last: should this agent end meanwhile, its successor is told to remove it again.
        await local.directory.withdraw_endpoint(endpoint)
        # Not before: a directory may hold it to be here as long as this host does.
        moved = await self._has_moved(endpoint)
        if local.by_name.get(name) is not attachment:
            return  # somebody else's call has done it meanwhile
        del local.by_name[name], local.by_port[port]
        self._unclean.add(port)
        for address in endpoint.addresses:
            del local.by_address[endpoint.tenant, address]
        if all(each.endpoint.tenant != endpoint.tenant for each in local.by_port.values()):
            self._unwatch.pop(endpoint.tenant)()
            local.tenants.pop(endpoint.tenant, None)
        self._explainer.forget(port)
        connections = list(local.connections.of_port(port))
        try:
            if moved:
                self._watching.follow(connections, attachment)
                await self._joiner.close([each for each in connections if each.turn is not None])
                await self._joiner.abandon([each for each in connections if each.turn is None])
            else:
                await self._joiner.close(connections)
            await self._refusals.flush(port)
            await local.switch.write([Update(Operation.DELETE, entry) for entry in self._guard_of(attachment)])
        except SwitchError as error:
            # What is left is nobody's, and deleted when the agent takes over the switch.
            local.log.warning("endpoint not shut out yet", endpoint=name, error=str(error))
        else:
            self._unclean.discard(port)
            if not self._has_read:
                self._unread.add(port)
        self._state.remove(name)

    async def _has_moved(self, endpoint: Endpoint) -> bool:
        """Whether another host, which is there, has published an endpoint of ours as its own."""
        directory = self._local.directory
        there = await directory.endpoint(endpoint.tenant, endpoint.address)
        if there is None or there.name != endpoint.name or there.host == endpoint.host:
            return False
        return await directory.host(there.host) is not None

    async def publish_tenant(self, tenant: Tenant) -> None:
        """A tenant's networks and policy, in place of what they were. They hold at once, for what is live, too.

        Raises ValueError if a name in them means two things.
        """
        if problems := ambiguities(tenant):
            raise ValueError("; ".join(problems))
        await self._local.directory.publish_tenant(tenant)

    # ---- published services ---------------------------------------------------------------------------------------

    async def services(self) -> tuple[Service, ...]:
        """What is published at this gateway."""
        return await self._services.published()

    async def publish_service(self, service: Service) -> None:
        """Publish an endpoint's port at this gateway. Raises ValueError if that cannot be. Idempotent."""
        await self._services.publish(service)

    async def unpublish_service(self, protocol: int, external_port: int) -> None:
        """Publish a service no more; its connections end. Raises KeyError if this gateway has none at the port."""
        await self._services.unpublish(protocol, external_port)

    def _forgotten(self, connection: Connection, successor: Connection | None) -> None:
        self._outlets.forgotten(connection, successor)
        self._exits.forgotten(connection, successor)

    async def _check_endpoint(self, endpoint: Endpoint, port: int) -> None:
        local = self._local
        name, host = endpoint.name, local.host.name
        if name in local.by_name:
            raise ValueError(f"endpoint {name} is on host {host} already, with other properties: remove it first")
        if port < PORT_FIRST_ENDPOINT:
            raise ValueError(f"port {port} is not an endpoint's: those begin at {PORT_FIRST_ENDPOINT}")
        if port in self._unclean or port in self._unread:
            raise ValueError(
                f"port {port} of host {host} still has entries of the endpoint that was there before, for the switch "
                "is not this agent's at the moment: use another port, or try again later"
            )
        if port in local.by_port:
            raise ValueError(f"port {port} of host {host} is taken by endpoint {local.by_port[port].endpoint.name}")
        tenant = await local.directory.tenant(endpoint.tenant)
        if tenant is None:
            raise ValueError(f"there is no tenant {endpoint.tenant}")
        network = tenant.networks.get(endpoint.network)
        if network is None:
            raise ValueError(
                f"tenant {tenant.name} has no network {endpoint.network}: it has {', '.join(tenant.networks)}"
            )
        if problems := set(ambiguities(tenant, [name])).difference(ambiguities(tenant)):
            raise ValueError("; ".join(problems))
        for address in endpoint.addresses:
            subnet = network.subnet_of(address)
            if subnet is None or address == subnet.gateway:
                cidrs = ", ".join(each.cidr for each in network.subnets)
                raise ValueError(
                    f"{show_address(address)} is not an address for an endpoint of network {network.name} ({cidrs})"
                )

    def _attach(self, attachment: Attachment) -> None:
        local, endpoint = self._local, attachment.endpoint
        if endpoint.tenant not in self._unwatch:
            self._unwatch[endpoint.tenant] = local.directory.watch_tenant(
                endpoint.tenant, lambda: local.spawn(self._enforce(endpoint.tenant))
            )
        local.by_port[attachment.port] = attachment
        local.by_name[endpoint.name] = attachment
        for address in endpoint.addresses:
            local.by_address[endpoint.tenant, address] = attachment

    async def _learn(self, tenant: str) -> None:
        """Know what the directory says of a tenant now."""
        if (known := await self._local.directory.tenant(tenant)) is not None:
            self._local.tenants[tenant] = known

    async def _enforce(self, tenant: str) -> None:
        """The tenant's policy has changed: it holds for what is live, and for what was refused."""
        local = self._local
        try:
            await self._learn(tenant)
            await self._joiner.enforce(tenant)
            for attachment in list(local.by_port.values()):
                if attachment.endpoint.tenant == tenant:
                    await self._refusals.flush(attachment.port)
        except (SwitchError, DirectoryError) as error:
            local.log.warning("policy not enforced yet", tenant=tenant, error=str(error))
            await asyncio.sleep(1.0)
            local.spawn(self._enforce(tenant))

    def _guard_of(self, attachment: Attachment) -> list[GuardEntry]:
        endpoint, port = attachment.endpoint, attachment.port
        network = self._neighbours.network(endpoint)
        return [GuardEntry(port, endpoint.mac, address, network) for address in own_addresses(endpoint)]

    async def _open_port(self, attachment: Attachment) -> None:
        local = self._local
        await local.switch.set_punt_limit(attachment.port, self._punt_rate, self._punt_rate)
        await local.switch.write([Update(Operation.INSERT, entry) for entry in self._guard_of(attachment)])

    # ---- the switch -----------------------------------------------------------------------------------------------

    def _on_punt(self, punt: Punt) -> None:
        if not self._local.ready:
            self._backlog.append(punt)
            return
        self._local.events[_PUNTS[punt.reason]] += 1
        port, packet = punt.port, punt.packet
        near = self._local.by_port.get(port)
        match punt.reason:
            case PuntReason.MISS if near is not None and self._router.is_for_us(near, packet):
                self._router.answer(near, packet)
            case PuntReason.MISS:
                self._fragments.first_waits(port, packet)
                self._connector.miss(port, packet)
            case PuntReason.STRAY:
                self._fragments.first_waits(port, packet)
                self._strays.stray(port, packet)
            case PuntReason.SERVICE:
                self._fragments.first_waits(port, packet)
                self._arrivals.of_service(port, packet)
            case PuntReason.FRAGMENT:
                self._fragments.hold(port, packet)
            case PuntReason.ERROR:
                self._errors.pass_on(port, packet)
            case PuntReason.TOO_BIG:
                self._router.too_big(port, packet)
            case _ if near is None:
                self._local.events["no endpoint at port"] += 1
            case PuntReason.NEIGHBOUR:
                self._local.spawn(self._neighbours.resolve(near, packet))
            case PuntReason.TTL:
                self._explainer.time_exceeded(near, packet)
            case PuntReason.LOCAL:
                self._router.answer_local(near, packet)

    def _on_primary(self, primary: bool) -> None:
        self._primary = primary
        self._local.ready = False
        if primary:
            self._local.spawn(self._take_over())

    async def _take_over(self) -> None:
        """Make the switch hold what it should: adopt what is there, write what is missing, delete the rest."""
        local, unclean = self._local, set(self._unclean)
        try:
            ports = await self._take_over_ports()
            await self._neighbours.forget_all(await local.switch.read_neighbours())
            self._refusals.forget_all()
            await self._services.take_over()
            taken = await self._adopter.take_over()
            self._unclean -= unclean
            while ports != local.by_port:  # endpoints came or went meanwhile, and nobody else has told the switch
                ports = await self._take_over_ports()
        except (SwitchError, DirectoryError) as error:
            local.log.warning("switch not taken over", error=str(error))
            if self._primary:
                await asyncio.sleep(1.0)
                local.spawn(self._take_over())
            return
        if not self._primary:
            return
        self._unread.clear()
        self._has_read = True
        self._local.ready = True
        local.log.info("switch taken over", adopted=taken.adopted, rewritten=taken.rewritten, deleted=taken.deleted)
        while self._backlog:
            self._on_punt(self._backlog.popleft())
        # What was adopted was written when policy, underlay and directory may have been others; now they are watched.
        for tenant in self._unwatch:
            local.spawn(self._enforce(tenant))
        for wire, peer in local.connections.peers():
            local.spawn(self._redirect(wire, peer))
        self._watching.look_at(local.connections)

    async def _take_over_ports(self) -> dict[int, Attachment]:
        """Guard and punt limits. Returns the endpoints that they are for."""
        local = self._local
        ports = dict(local.by_port)
        there = await local.switch.read_guard()
        for entry in there:
            attachment = local.by_port.get(entry.port)
            if attachment is not None and attachment.endpoint.mac == entry.mac:
                self._neighbours.adopt_network(attachment.endpoint, entry.network)
        wanted = [entry for attachment in ports.values() for entry in self._guard_of(attachment)]
        wrong = [Update(Operation.DELETE, entry) for entry in there if entry not in wanted]
        missing = [Update(Operation.INSERT, entry) for entry in wanted if entry not in there]
        if wrong or missing:
            await local.switch.write([*wrong, *missing])
        for port in (*local.wires, *ports):
            await local.switch.set_punt_limit(port, self._punt_rate, self._punt_rate)
        return ports

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 3)
            try:
                await self._local.directory.publish_host(self._local.host)
            except DirectoryError as error:
                self._local.log.warning("host not published again", error=str(error))

    async def _age(self) -> None:
        while True:
            await asyncio.sleep(AGEING_INTERVAL)
            if self._local.ready:
                try:
                    await self._joiner.age()
                    self._outlets.age()
                    self._exits.age()
                except SwitchError as error:
                    self._local.log.warning("ageing failed", error=str(error))
                except Exception:
                    # Whatever it was, connections must go on ageing.
                    self._local.events["failures"] += 1
                    self._local.log.exception("unexpected failure")

    def _on_next_hop_change(self, wire: int, peer: bytes) -> None:
        if self._local.ready:
            self._local.spawn(self._redirect(wire, peer))

    async def _redirect(self, wire: int, peer: bytes) -> None:
        try:
            await self._joiner.redirect(wire, peer)
        except (SwitchError, NoRoute) as error:
            self._local.log.warning("connections not redirected", peer=show_address(peer), error=str(error))

    # ---- what people see ------------------------------------------------------------------------------------------

    async def connections(self) -> list[dict[str, Any]]:
        """Every connection that this host holds, in the schema of `nvi connections --json`."""
        local = self._local
        held = list(local.connections)
        usages = await local.switch.usage([key for connection in held for key in connection.keys])
        names = {
            (each.id.tenant, end.address): await local.directory.endpoint(each.id.tenant, end.address)
            for each in held
            for end in (each.id.low, each.id.high)
        }
        return [
            connection_view(local.host.name, each, names, used)
            for each, *used in zip(held, usages[::2], usages[1::2], strict=True)
        ]

    async def trace(self, name: str, question: Question) -> dict[str, Any]:
        """What would happen to a packet of an endpoint here, in the schema of `nvi trace --json`.

        Raises KeyError if it is not here, DirectoryError.
        """
        source = self._local.by_name[name].endpoint
        try:
            return trace(question, await gather(self._local, source, question)).shown()
        except Refused as error:
            raise DirectoryError(str(error)) from None

    def _fullness(self) -> dict[str, Any]:
        """How much is used of what is limited, by this host and by each endpoint (docs/edge.md)."""
        local = self._local

        def of(attachment: Attachment) -> dict[str, dict[str, int]]:
            endpoint, port = attachment.endpoint, attachment.port
            return {
                "connections": _gauge(local.endpoint_entries(endpoint), joining.PER_ENDPOINT),
                "refusals": _gauge(self._refusals.count(port), refusals.PER_ENDPOINT),
                "neighbours": _gauge(self._neighbours.count(port), neighbours.PER_ENDPOINT),
                "waiting": _gauge(self._connector.count(port), IN_FLIGHT),
                "fragments": _gauge(self._fragments.count(port), fragments.PER_PORT),
            }

        return {
            "connections": _gauge(
                2 * len(local.connections) + len(local.unknown) + len(self._refusals), CONNECTIONS_SIZE
            ),
            "neighbours": _gauge(len(self._neighbours), neighbours.PER_HOST),
            "endpoints": {name: of(attachment) for name, attachment in sorted(local.by_name.items())},
        }

    async def status(self) -> dict[str, Any]:
        """How the agent is, what it holds, and what it has seen."""
        local = self._local
        standing = local.switch.state
        state = "taking over" if self._primary and not self._local.ready else standing.condition.value
        try:
            drops = await local.switch.read_drops([*local.wires, *local.by_port]) if self._local.ready else {}
        except SwitchError:
            drops = {}
        names = {PORT_UNDERLAY: "underlay", PORT_EXTERNAL: "external"}
        names.update((port, attachment.endpoint.name) for port, attachment in local.by_port.items())
        return {
            "host": local.host.name,
            "state": state,
            "message": standing.text,
            "directory": local.directory.state,
            "pid": os.getpid(),
            "entries": {
                "connections": 2 * len(local.connections) + len(local.unknown) + len(self._refusals),
                "guard": sum(len(own_addresses(each.endpoint)) for each in local.by_port.values()),
                "neighbours": len(self._neighbours),
            },
            "keys": len(local.keys),
            "limits": self._fullness(),
            "drops": {
                names[port]: {reason.name.lower(): count for reason, count in reasons.items()}
                for port, reasons in drops.items()
            },
            "events": dict(sorted(local.events.items())),
        }


def _gauge(used: int, limit: int) -> dict[str, int]:
    return {"used": used, "limit": limit}
