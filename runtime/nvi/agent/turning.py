"""Hairpins: an endpoint that connects to a service which its own gateway has published.

To both ends it is as if the packets left the gateway and came back (RFC 4787 REQ-9, RFC 5382 REQ-8): the client sees
the public address, the service the client's external address and port. They are two connections, of two tenants
perhaps, that the gateway joins without the wire between: each side's segment with the other's.
"""

from __future__ import annotations

from ..formulation import Side, endpoint_side, join, link_side
from ..model import End, Endpoint, FirstPacket, Service, show_address
from ..switch import DropReason
from .connections import Attachment, Connection, Link, Outlet, Turn
from .joining import Call, Denied, Joiner
from .local import Local, Refused
from .offering import Offerer, Proposal
from .outlets import Outlets, connection_of


class Turner:
    """Makes the hairpins of one gateway."""

    def __init__(self, local: Local, joiner: Joiner, offerer: Offerer, outlets: Outlets) -> None:
        """Start with none."""
        self._local = local
        self._joiner = joiner
        self._offerer = offerer
        self._outlets = outlets

    async def join(self, call: Call, outlet: Outlet, client: Attachment | Link, client_side: Side) -> Connection:
        """Join a client's side of the gateway with that of the service that it calls.

        Raises Denied, Refused, NoAnswer, NoRoute, NoWay, Exhausted, SwitchError, DirectoryError.
        """
        local, me = self._local, self._local.host
        external, protocol = me.external, call.identity.protocol
        service = self._outlets.services.by_port.get((protocol, outlet.pair.peer))
        if external is None or service is None:
            raise Denied(DropReason.UNREACHABLE, f"port {outlet.pair.peer} of {me.name} is published no more")
        shown = End(external.public, outlet.pair.local)
        identity, _ = connection_of(service.tenant, protocol, End(service.endpoint, service.port), shown)
        tenant, server = await local.tenant(service.tenant), await self._server(service)
        whoever = Endpoint.outside(service.tenant, shown.address, me.name)
        verdict = await local.verdict(tenant, whoever, server, protocol, service.port)
        if not verdict.allowed or tenant.holds(shown.address):
            raise Denied(DropReason.DENIED, verdict.rule)
        first = FirstPacket(call.first.ttl - 1, call.first.flow_label, call.first.dont_fragment)
        there: Attachment | Link
        if server.host == me.name:
            there = local.by_name[server.name]
            flow = identity.flow_from(identity.other(shown))
            side = endpoint_side(tenant, server, there.port, whoever, flow, first)
        else:
            target = await local.directory.host(server.host)
            if target is None:
                raise Refused(f"host {server.host} is not in the directory")
            proposal = Proposal(identity, shown, first, call.resumes, opened_here=True, exit=me.name)
            agreement = await self._offerer.offer(proposal, target, lambda: False)
            if agreement is None:
                raise Refused("joined meanwhile")
            there, hop = agreement.link, agreement.hop
            side = link_side(there.wire, there.outgoing, hop.source_mac, hop.destination_mac, hop.mtu, call.first)
        client_host = client.endpoint.host if isinstance(client, Attachment) else call.far.host
        turn = Turn(identity, shown, outlet, (client_host, server.host))
        entries = join(client_side, side, local.idle_timeout, (0, 0))
        sides = (client, there)
        connection = Connection(call.identity, call.initiator, call.first, sides, entries, exit=me.name, turn=turn)
        await self._joiner.join_turned(connection)
        return connection

    async def _server(self, service: Service) -> Endpoint:
        local = self._local
        server = await local.directory.endpoint(service.tenant, service.endpoint)
        if server is None or (server.host == local.host.name and server.name not in local.by_name):
            raise Denied(DropReason.UNREACHABLE, f"{show_address(service.endpoint)}, which is published, is nowhere")
        return server
