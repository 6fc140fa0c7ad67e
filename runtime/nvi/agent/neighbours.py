"""Who answers for an address inside a network: a cache in the switch, filled when an endpoint asks."""

from __future__ import annotations

import asyncio

from ..model import Address, Endpoint
from ..packets import MalformedPacket, parse_arp_request
from ..switch import NeighbourEntry, Operation, SwitchError, Update, WriteFailed
from .connections import Attachment
from .local import Local, Refused

LIFETIME = 60.0
"""Seconds for which the switch answers without asking again."""


class Neighbours:
    """The entries of `neighbours` of one switch, and the numbers of the networks in it."""

    def __init__(self, local: Local) -> None:
        """Start with none."""
        self._local = local
        self._held: dict[tuple[int, Address], asyncio.TimerHandle] = {}
        self._networks: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        """Entries in the switch."""
        return len(self._held)

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
        """Answer an ARP request, if there is an answer: silence for what does not exist."""
        local = self._local
        try:
            request = parse_arp_request(frame)
        except MalformedPacket:
            local.events["malformed"] += 1
            return
        endpoint = asker.endpoint
        if request.target == endpoint.address:
            return
        try:
            tenant = await local.tenant(endpoint.tenant)
            if request.target == tenant.networks[endpoint.network].gateway_for(request.target):
                mac = tenant.gateway_mac(endpoint.network)
            else:
                owner = await local.directory.endpoint(endpoint.tenant, request.target)
                if owner is None or owner.network != endpoint.network:
                    local.events["neighbour unknown"] += 1
                    return
                mac = owner.mac
            entry = NeighbourEntry(self.network(endpoint), request.target, mac)
            # Also if we have written it before: the switch asks, so it is not there any more.
            self._drop(entry)
            expiry = asyncio.get_running_loop().call_later(LIFETIME, self._expire, entry)
            self._held[entry.network, entry.address] = expiry
            await self._put(entry)
            local.switch.reinject(asker.port, frame)
        except (Refused, SwitchError) as error:
            local.log.warning("neighbour not resolved", error=str(error))

    async def forget_all(self, in_switch: list[NeighbourEntry]) -> None:
        """Empty the switch's table, which holds `in_switch`. Raises SwitchError."""
        for timer in self._held.values():
            timer.cancel()
        self._held.clear()
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
        if (timer := self._held.pop((entry.network, entry.address), None)) is not None:
            timer.cancel()

    def _expire(self, entry: NeighbourEntry) -> None:
        if self._held.pop((entry.network, entry.address), None) is not None:
            self._local.spawn(self._delete(entry))

    async def _delete(self, entry: NeighbourEntry) -> None:
        try:
            await self._local.switch.write([Update(Operation.DELETE, entry)])
        except SwitchError as error:
            self._local.log.warning("neighbour not taken back", error=str(error))
