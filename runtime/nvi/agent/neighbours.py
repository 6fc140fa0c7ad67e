"""Who answers for an address inside a network: a cache in the switch, filled when an endpoint asks.

ARP and neighbour discovery alike. The cache has room for so many answers to each endpoint's questions; beyond that the
oldest answer to its own questions goes, and to nobody else's.
"""

from __future__ import annotations

import asyncio

from ..directory import DirectoryError
from ..model import Address, Endpoint, Mac, Tenant, interface_address
from ..packets import ETHERTYPE_IPV6, MalformedPacket, parse_arp_request, parse_neighbour_solicitation
from ..switch import NeighbourEntry, Operation, SwitchError, Update, WriteFailed
from .connections import Attachment
from .local import Local, Refused

LIFETIME = 60.0
"""Seconds for which the switch answers without asking again."""

PER_ENDPOINT = 1024
"""Answers that the switch keeps to one endpoint's questions."""

PER_HOST = 16384
"""Answers that it has room for (`p4src/ids.p4`)."""

_LINK_LOCAL = b"\xfe\x80" + bytes(14)
_ANY = {4: bytes(4), 16: bytes(16)}
"""By length of address: what the sender of a probe has (RFC 5227, RFC 4862)."""


def own_addresses(endpoint: Endpoint) -> list[Address]:
    """What an endpoint may send as: its addresses, the link-local one of its MAC if it has IPv6, and none at all."""
    own = [*endpoint.addresses, *(_ANY[len(address)] for address in endpoint.addresses)]
    if endpoint.address_like(_LINK_LOCAL) is not None:
        own.append(interface_address(_LINK_LOCAL, endpoint.mac))
    return own


def _target(frame: bytes) -> Address:
    """The address that is asked for, in either family. Raises MalformedPacket."""
    if frame[12:14] == ETHERTYPE_IPV6:
        return parse_neighbour_solicitation(frame).target
    return parse_arp_request(frame).target


class Neighbours:
    """The entries of `neighbours` of one switch, and the numbers of the networks in it."""

    def __init__(self, local: Local) -> None:
        """Start with none."""
        self._local = local
        self._held: dict[tuple[int, Address], tuple[NeighbourEntry, int, asyncio.TimerHandle]] = {}
        """By (network, address): the entry, the port of who asked for it, and what ends it."""
        self._asked: dict[int, dict[tuple[int, Address], None]] = {}
        """By port, in the order in which they were answered."""
        self._networks: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        """Entries in the switch."""
        return len(self._held)

    def count(self, port: int) -> int:
        """Entries that answer the questions of the endpoint at this port."""
        return len(self._asked.get(port, ()))

    def network(self, endpoint: Endpoint) -> int:
        """The number by which this switch knows the endpoint's network."""
        key = (endpoint.tenant, endpoint.network)
        if key not in self._networks:
            taken = set(self._networks.values())
            self._networks[key] = next(number for number in range(1, 1 << 16) if number not in taken)
        return self._networks[key]

    def adopt_network(self, endpoint: Endpoint, number: int) -> None:
        """The switch knows the endpoint's network by this number already."""
        if number not in self._networks.values():
            self._networks.setdefault((endpoint.tenant, endpoint.network), number)

    async def resolve(self, asker: Attachment, frame: bytes) -> None:
        """Answer a question who has an address, if there is an answer: silence for what does not exist."""
        local = self._local
        try:
            target = _target(frame)
        except MalformedPacket:
            local.events["malformed"] += 1
            return
        endpoint = asker.endpoint
        if target in own_addresses(endpoint):
            return
        try:
            tenant = await local.tenant(endpoint.tenant)
            mac, is_router = await self._owner(tenant, endpoint, target)
            if mac is None:
                local.events["neighbour unknown"] += 1
                return
            entry = NeighbourEntry(self.network(endpoint), target, mac, is_router)
            await self._make_room(asker.port)
            # Also if we have written it before: the switch asks, so it is not there any more.
            self._drop(entry)
            expiry = asyncio.get_running_loop().call_later(LIFETIME, self._expire, entry)
            self._held[entry.network, entry.address] = (entry, asker.port, expiry)
            self._asked.setdefault(asker.port, {})[entry.network, entry.address] = None
            await self._put(entry)
            local.switch.reinject(asker.port, frame)
        except (Refused, SwitchError, DirectoryError) as error:
            local.log.warning("neighbour not resolved", error=str(error))

    async def _owner(self, tenant: Tenant, asker: Endpoint, target: Address) -> tuple[Mac | None, bool]:
        """(MAC of who has the address in the asker's network, whether that is the router)."""
        gateway_mac = tenant.gateway_mac(asker.network)
        network = tenant.networks.get(asker.network)
        router = network.gateway_for(target) if network is not None else None
        if target in (router, interface_address(_LINK_LOCAL, gateway_mac)):
            return gateway_mac, True
        owner = await self._local.directory.endpoint(tenant.name, target)
        return (owner.mac if owner is not None and owner.network == asker.network else None), False

    async def _make_room(self, port: int) -> None:
        """Let the oldest answer to this port's questions go, if there are as many as may be.

        Raises SwitchError, Refused.
        """
        own = self._asked.get(port, {})
        if len(own) < PER_ENDPOINT and len(self._held) < PER_HOST:
            return
        self._local.events["neighbours over the limit"] += 1
        if not own:
            raise Refused(f"the switch of host {self._local.host.name} has no room for another neighbour")
        entry, _, _ = self._held[next(iter(own))]
        self._drop(entry)
        await self._local.switch.write([Update(Operation.DELETE, entry)])

    async def forget_all(self, in_switch: list[NeighbourEntry]) -> None:
        """Empty the switch's table, which holds `in_switch`. Raises SwitchError."""
        for _, _, timer in self._held.values():
            timer.cancel()
        self._held.clear()
        self._asked.clear()
        if in_switch:
            await self._local.switch.write([Update(Operation.DELETE, entry) for entry in in_switch])

    async def _put(self, entry: NeighbourEntry) -> None:
        try:
            await self._local.switch.write([Update(Operation.INSERT, entry)])
        except WriteFailed as failure:
            if failure.failures[0][1] != "ALREADY_EXISTS":
                self._drop(entry)
                raise
            await self._local.switch.write([Update(Operation.MODIFY, entry)])

    def _drop(self, entry: NeighbourEntry) -> None:
        key = (entry.network, entry.address)
        if (held := self._held.pop(key, None)) is None:
            return
        _, port, timer = held
        timer.cancel()
        del self._asked[port][key]
        if not self._asked[port]:
            del self._asked[port]

    def _expire(self, entry: NeighbourEntry) -> None:
        self._drop(entry)
        self._local.spawn(self._delete(entry))

    async def _delete(self, entry: NeighbourEntry) -> None:
        try:
            await self._local.switch.write([Update(Operation.DELETE, entry)])
        except SwitchError as error:
            self._local.log.warning("neighbour not taken back", error=str(error))
