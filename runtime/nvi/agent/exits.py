"""By which gateway the connections of this host's endpoints leave for the outside.

An endpoint has one gateway at a time, so that it has one address outside (RFC 4787 REQ-2); and what a gateway's clients
have opened goes back through that gateway.
"""

from __future__ import annotations

import asyncio

from msgspec import Struct

from ..mappings import TCP_SECONDS, lifetime
from ..model import Address, ConnectionId, End, Flow, Host, Protocol
from ..packets import Packet
from ..route import NoWay, choose_exit
from .connections import Attachment, Connection
from .local import Local

REMEMBERED = 65536
"""Connections whose gateway is remembered; beyond them the oldest are forgotten."""


class Known(Struct, frozen=True):
    """What is remembered of a connection that is not held any more."""

    exit: str
    initiator: End
    answered: bool
    """Whether packets have gone both ways."""
    until: float
    """Seconds on the loop's clock."""


class Way(Struct, frozen=True):
    """How a packet leaves for the outside."""

    exit: str
    """The gateway."""
    initiator: End | None
    """Who opened the connection; None if nobody knows yet."""


class Exits:
    """What one host knows of the gateways that its endpoints use."""

    def __init__(self, local: Local) -> None:
        """Start with nothing."""
        self._local = local
        self._of_endpoint: dict[tuple[str, Address], tuple[str, float]] = {}
        """By endpoint: its gateway, and until when it may have mappings there that it has not used."""
        self._of_connection: dict[ConnectionId, Known] = {}

    async def find(self, tenant: str, packet: Packet, before: Connection | None) -> Way:
        """By which gateway an endpoint's packet leaves, and who opened its connection, if that is known.

        `before`: what is held of the connection. Raises NoWay, DirectoryError.
        """
        flow = packet.flow
        if before is not None:
            return Way(before.exit, before.initiator)
        if flow.protocol != Protocol.TCP or not packet.opens:
            known = self._of_connection.get(ConnectionId.of(tenant, flow))
            now = asyncio.get_running_loop().time()
            if known is not None and known.until > now and await self._local.directory.host(known.exit) is not None:
                return Way(known.exit, known.initiator)
            if (exit := await self._publishing(tenant, flow)) is not None:
                # Whatever a service sends, whoever remembers it: to its clients it has but one address.
                return Way(exit, End(flow.destination, flow.l4_destination))
        return Way((await self.choose(tenant, flow.source, flow.destination)).name, None)

    async def _publishing(self, tenant: str, flow: Flow) -> str | None:
        """The gateway of the site at which the port that a packet comes from is published, if it is."""
        directory = self._local.directory
        service = tenant, flow.source, flow.l4_source, flow.protocol
        for gateway in await directory.gateways(self._local.host.site):
            for each in await directory.services(gateway.name):
                if (each.tenant, each.endpoint, each.port, each.protocol) == service:
                    return gateway.name
        return None

    async def choose(self, tenant: str, address: Address, like: Address) -> Host:
        """The gateway by which an endpoint leaves: where it has mappings, else our own side, else one of the site's.

        `like`: an address of the family in question. Raises NoWay, DirectoryError.
        """
        local, me = self._local, self._local.host
        name, until = self._of_endpoint.get((tenant, address), ("", 0.0))
        if until > asyncio.get_running_loop().time():
            used = await local.directory.host(name)
            if used is not None and used.external is not None and len(used.external.address) == len(like):
                return used
        if me.external is not None and len(me.external.address) == len(like):
            return me
        gateways = await local.directory.gateways(me.site)
        chosen = choose_exit(gateways, tenant, address, like)
        if chosen is None:
            raise NoWay(f"site {me.site} has no live gateway with an external address of this family; give it one")
        return chosen

    def used(self, connection: Connection) -> None:
        """If an endpoint of ours has a connection with somebody outside, its others leave by the same gateway."""
        if connection.exit and _opened_inside(connection):
            now = asyncio.get_running_loop().time()
            for near in connection.near:
                if not near.endpoint.is_outside:
                    key = (connection.id.tenant, _inside(connection, near).address)
                    self._of_endpoint[key] = (connection.exit, now + self._local.idle_timeout + TCP_SECONDS)

    def forgotten(self, connection: Connection, successor: Connection | None) -> None:
        """A connection is not held any more: what must be known if it goes on is remembered."""
        if successor is not None or not connection.exit or all(each.endpoint.is_outside for each in connection.near):
            return
        self.used(connection)
        before = self._of_connection.pop(connection.id, None)
        answered = connection.answered or (before is not None and before.answered)
        if len(self._of_connection) >= REMEMBERED:
            del self._of_connection[next(iter(self._of_connection))]
        until = asyncio.get_running_loop().time() + lifetime(connection.id.protocol, answered)
        self._of_connection[connection.id] = Known(connection.exit, connection.initiator, answered, until)

    def age(self) -> None:
        """Forget what is of no use any more."""
        now = asyncio.get_running_loop().time()
        self._of_connection = {key: known for key, known in self._of_connection.items() if known.until > now}
        self._of_endpoint = {key: known for key, known in self._of_endpoint.items() if known[1] > now}


def _inside(connection: Connection, near: Attachment) -> End:
    low = connection.id.low
    return low if low.address in near.endpoint.addresses else connection.id.high


def _opened_inside(connection: Connection) -> bool:
    """Whether an endpoint has opened a connection with somebody outside, rather than been opened to."""
    return any(
        not near.endpoint.is_outside and connection.initiator.address in near.endpoint.addresses
        for near in connection.near
    )
