"""The agent of one host: the only one that writes to its switch, and the one that answers for its endpoints."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Any

from ..config import AgentConfig
from ..directory import LEASE, Conflict, Directory, DirectoryError
from ..formulation import pair_up, untag
from ..keys import Pair, Path
from ..model import ConnectionId, End, Endpoint, Flow, SegmentEnd, Tenant, show_address
from ..offers import Offers
from ..policy import ambiguities
from ..switch import (
    PORT_FIRST_ENDPOINT,
    PORT_UNDERLAY,
    ConnectionEntry,
    GuardEntry,
    Operation,
    Punt,
    PuntReason,
    Rewrite,
    Switch,
    SwitchError,
    Update,
)
from .answering import Answerer
from .connecting import Connector
from .connections import Attachment, Connection, Link
from .erring import Errors
from .explaining import Explainer
from .fragments import Fragments
from .joining import Joiner
from .local import Local
from .neighbours import Neighbours
from .refusals import Refusals
from .router import Router
from .state import StateFile
from .strays import Strays
from .underlay import NoRoute, Underlay
from .views import connection_view

AGEING_INTERVAL = 1.0
"""Seconds between two looks at the connections that may be idle."""

BACKLOG = 1024
"""Punted packets kept while the agent takes over its switch."""

ANY_ADDRESS = bytes(4)
"""Sender of an address probe (RFC 5227)."""


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
        idle_timeout: float = 30.0,
        punt_rate: int = 5000,
    ) -> None:
        """`idle_timeout`: seconds; `punt_rate`: packets per second that one port may punt."""
        self.config = config
        self._state = state
        self._punt_rate = punt_rate
        self._local = Local(config.host, switch, directory, offers, underlay, state.epoch, idle_timeout)
        self._explainer = Explainer(self._local)
        self._refusals = Refusals(self._local, self._explainer)
        self._router = Router(self._local, self._explainer)
        self._errors = Errors(self._local)
        self._fragments = Fragments(self._local)
        self._local.on_reinject = self._fragments.passed
        self._neighbours = Neighbours(self._local)
        self._joiner = Joiner(self._local, self._refusals)
        self._connector = Connector(self._local, self._refusals, self._joiner)
        self._answerer = Answerer(self._local, self._joiner)
        self._strays = Strays(self._local, self._joiner, self._answerer)
        self._backlog: deque[Punt] = deque(maxlen=BACKLOG)
        self._primary = False
        self._unwatch: dict[str, Callable[[], None]] = {}
        """By tenant with endpoints here: what ends the watch of its policy."""
        switch.on_punt = self._on_punt
        switch.on_primary = self._on_primary
        underlay.on_change = self._on_underlay_change

    async def start(self) -> None:
        """Publish what this host has, and answer other agents. The switch is taken over when it says so."""
        local = self._local
        await local.directory.publish_host(local.host)
        for endpoint, port in self._state.endpoints.values():
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
        except Conflict as conflict:
            self._state.remove(endpoint.name)
            raise ValueError(str(conflict)) from None
        self._attach(attachment)
        await self._learn(endpoint.tenant)
        if self._local.ready:
            try:
                await self._open_port(attachment)
            except SwitchError as error:
                # The agent does it again when it takes over the switch.
                local.log.warning("endpoint not admitted yet", endpoint=endpoint.name, error=str(error))

    async def remove_endpoint(self, name: str) -> None:
        """An endpoint of this host is no more; neither are its connections. Raises KeyError if it is not here."""
        local = self._local
        attachment = local.by_name.pop(name)
        endpoint, port = attachment.endpoint, attachment.port
        del local.by_port[port]
        for address in endpoint.addresses:
            del local.by_address[endpoint.tenant, address]
        self._state.remove(name)
        if all(each.endpoint.tenant != endpoint.tenant for each in local.by_port.values()):
            self._unwatch.pop(endpoint.tenant)()
            local.tenants.pop(endpoint.tenant, None)
        self._explainer.forget(port)
        await local.directory.withdraw_endpoint(endpoint)
        try:
            await self._joiner.close(list(local.connections.of_port(port)))
            await self._refusals.flush(port)
            await local.switch.write([Update(Operation.DELETE, entry) for entry in self._guard_of(attachment)])
        except SwitchError as error:
            # What is left is nobody's, and deleted when the agent takes over the switch.
            local.log.warning("endpoint not shut out yet", endpoint=name, error=str(error))

    async def publish_tenant(self, tenant: Tenant) -> None:
        """A tenant's networks and policy, in place of what they were. They hold at once, for what is live, too.

        Raises ValueError if a name in them means two things.
        """
        if problems := ambiguities(tenant):
            raise ValueError("; ".join(problems))
        await self._local.directory.publish_tenant(tenant)

    async def _check_endpoint(self, endpoint: Endpoint, port: int) -> None:
        local = self._local
        name, host = endpoint.name, local.host.name
        if name in local.by_name:
            raise ValueError(f"endpoint {name} is on host {host} already, with other properties: remove it first")
        if port < PORT_FIRST_ENDPOINT:
            raise ValueError(f"port {port} is not an endpoint's: those begin at {PORT_FIRST_ENDPOINT}")
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
        return [GuardEntry(port, endpoint.mac, address, network) for address in (endpoint.address, ANY_ADDRESS)]

    async def _open_port(self, attachment: Attachment) -> None:
        local = self._local
        await local.switch.set_punt_limit(attachment.port, self._punt_rate, self._punt_rate)
        await local.switch.write([Update(Operation.INSERT, entry) for entry in self._guard_of(attachment)])

    # ---- the switch -----------------------------------------------------------------------------------------------

    def _on_punt(self, punt: Punt) -> None:
        if not self._local.ready:
            self._backlog.append(punt)
            return
        self._local.events[f"punts {punt.reason.name.lower()}"] += 1
        port, packet = punt.port, punt.packet
        near = self._local.by_port.get(port)
        match punt.reason:
            case PuntReason.STRAY:
                self._fragments.first_waits(port, packet)
                self._strays.stray(packet)
            case PuntReason.FRAGMENT:
                self._fragments.hold(port, packet)
            case PuntReason.ERROR:
                self._errors.pass_on(port, packet)
            case PuntReason.TOO_BIG:
                self._router.too_big(port, packet)
            case _ if near is None:
                self._local.events["no endpoint at port"] += 1
            case PuntReason.MISS if self._router.is_for_us(near, packet):
                self._router.answer(near, packet)
            case PuntReason.MISS:
                self._fragments.first_waits(port, packet)
                self._connector.miss(port, packet)
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
        local = self._local
        try:
            ports = await self._take_over_ports()
            await self._neighbours.forget_all(await local.switch.read_neighbours())
            adopted, rewritten, deleted = await self._take_over_connections()
            while ports != local.by_port:  # endpoints came or went meanwhile, and nobody else has told the switch
                ports = await self._take_over_ports()
        except SwitchError as error:
            local.log.warning("switch not taken over", error=str(error))
            if self._primary:
                await asyncio.sleep(1.0)
                local.spawn(self._take_over())
            return
        if not self._primary:
            return
        self._local.ready = True
        local.log.info("switch taken over", adopted=adopted, rewritten=rewritten, deleted=deleted)
        while self._backlog:
            self._on_punt(self._backlog.popleft())
        # What was adopted was written when the underlay may have been another one; from now on it is watched.
        for peer in {each.link.yours.seen_address for each in local.connections if each.link is not None}:
            local.spawn(self._redirect(peer))

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
        for port in (PORT_UNDERLAY, *ports):
            await local.switch.set_punt_limit(port, self._punt_rate, self._punt_rate)
        return ports

    async def _take_over_connections(self) -> tuple[int, int, int]:
        """Returns how many connections were adopted, how many entries written again, how many deleted."""
        local = self._local
        there = {entry.key: entry for entry in await local.switch.read_connections()}
        self._refusals.forget_all()
        missing: list[Update] = []
        for connection in local.connections:
            for entry in connection.entries:
                held = there.pop(entry.key, None)
                if held is None:
                    missing.append(Update(Operation.INSERT, entry))
                elif held.action != entry.action:
                    missing.append(Update(Operation.MODIFY, entry))
        pairs, orphans = pair_up(there.values())
        before = len(local.connections)
        for pair in pairs:
            adopted = await self._recognise(*pair)
            if adopted is None:
                orphans.extend(pair)
            else:
                adopted.due = asyncio.get_running_loop().time() + local.idle_timeout
                local.connections.add(adopted)
        updates = [*missing, *(Update(Operation.DELETE, entry) for entry in orphans)]
        if updates:
            await local.switch.write(updates)
        return len(local.connections) - before, len(missing), len(orphans)

    async def _recognise(self, out: ConnectionEntry, back: ConnectionEntry) -> Connection | None:
        """The connection that two joined entries are of, if it is one that this host may have."""
        local = self._local
        near = local.by_port.get(out.key.scope)
        if near is None or (near.endpoint.mac, near.endpoint.address) != (out.key.source_mac, out.key.flow.source):
            return None
        flow = out.key.flow
        told = untag(out.tag, near.endpoint.tenant)
        if told is None:
            return None
        from_initiator, first_ttl = told
        opener = flow if from_initiator else flow.reversed()
        identity = ConnectionId.of(near.endpoint.tenant, flow)
        initiator = End(opener.source, opener.l4_source)
        assert isinstance(out.action, Rewrite)
        if out.action.egress_port != PORT_UNDERLAY:
            there = local.by_port.get(out.action.egress_port)
            if there is None or (there.endpoint.tenant, there.endpoint.address) != (identity.tenant, flow.destination):
                return None
            return Connection(identity, initiator, first_ttl, (near, there), None, (out, back))
        link = await self._recognise_link(out.action.flow)
        if link is None or not local.keys.take(link.pair):
            return None
        return Connection(identity, initiator, first_ttl, (near,), link, (out, back))

    async def _recognise_link(self, flow: Flow) -> Link | None:
        me = self._local.host
        peer = await self._local.directory.host_at(me.site, flow.destination)
        if peer is None or flow.source not in me.addresses:
            return None
        mine = SegmentEnd(me.name, me.site, flow.source, flow.source, flow.l4_source)
        yours = SegmentEnd(peer.name, peer.site, flow.destination, flow.destination, flow.l4_destination)
        path = Path(flow.source, flow.destination, flow.protocol)
        return Link(peer.name, mine, yours, Pair(path, flow.l4_source, flow.l4_destination))

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
                except SwitchError as error:
                    self._local.log.warning("ageing failed", error=str(error))
                except Exception:
                    # Whatever it was, connections must go on ageing.
                    self._local.events["failures"] += 1
                    self._local.log.exception("unexpected failure")

    def _on_underlay_change(self, peer: bytes) -> None:
        if self._local.ready:
            self._local.spawn(self._redirect(peer))

    async def _redirect(self, peer: bytes) -> None:
        try:
            await self._joiner.redirect(peer)
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

    async def status(self) -> dict[str, Any]:
        """How the agent is, what it holds, and what it has seen."""
        local = self._local
        standing = local.switch.state
        state = "taking over" if self._primary and not self._local.ready else standing.condition.value
        try:
            drops = await local.switch.read_drops([PORT_UNDERLAY, *local.by_port]) if self._local.ready else {}
        except SwitchError:
            drops = {}
        names = {port: attachment.endpoint.name for port, attachment in local.by_port.items()}
        return {
            "host": local.host.name,
            "state": state,
            "message": standing.text,
            "directory": local.directory.state,
            "pid": os.getpid(),
            "entries": {
                "connections": 2 * len(local.connections) + len(self._refusals),
                "guard": 2 * len(local.by_port),
                "neighbours": len(self._neighbours),
            },
            "keys": len(local.keys),
            "drops": {
                names.get(port, "underlay"): {reason.name.lower(): count for reason, count in reasons.items()}
                for port, reasons in drops.items()
            },
            "events": dict(sorted(local.events.items())),
        }
