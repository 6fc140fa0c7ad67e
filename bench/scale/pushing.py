"""The peer: a farm with an orchestrator that tells every agent of everything, as is usual.

The agents are ours, and so is the pipeline. But each has a copy of all that there is in the farm, which is pushed to it
when an endpoint appears, wherever that is; so it need not ask, and a first packet waits for the offer only. It is put
at its best: what it is told stays in the agent (others write it into the switch as well), one message tells of an
endpoint and its host, leases are not passed on, and the telling takes no virtual time.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from nvi.directory import Directory
from nvi.directory.memory import MemoryDirectory
from nvi.model import Address, Endpoint, Host, Tenant
from nvi.offers import Offers
from nvi.simulation import Farm, FarmSwitch
from nvi.switch import Switch


class Announcement(Struct, array_like=True, frozen=True):
    """What the centre says of an endpoint."""

    endpoint: Endpoint
    host: Host


class Centre:
    """The orchestrator."""

    def __init__(self, tenants: list[Tenant]) -> None:
        """Nobody has joined."""
        self.tenants = tenants
        self.messages = 0
        self._copies: list[Copy] = []
        self._said: list[bytes] = []

    def join(self, copy: Copy) -> None:
        """One more is told everything from now on, and what has been said before."""
        self._copies.append(copy)
        for message in self._said:
            self._tell(copy, message)

    def announce(self, endpoint: Endpoint, host: Host) -> None:
        """Tell everybody."""
        message = msgspec.msgpack.encode(Announcement(endpoint, host))
        self._said.append(message)
        for copy in self._copies:
            self._tell(copy, message)

    def _tell(self, copy: Copy, message: bytes) -> None:
        self.messages += 1
        copy.told(message)


class Copy(MemoryDirectory):
    """The Directory of one agent, in the agent itself."""

    def __init__(self, centre: Centre) -> None:
        """`centre`: who knows of all the others."""
        super().__init__()
        self._centre = centre
        self._decode = msgspec.msgpack.Decoder(Announcement).decode
        self._tenants.update((tenant.name, tenant) for tenant in centre.tenants)
        centre.join(self)

    async def publish_endpoint(self, endpoint: Endpoint) -> None:
        """See Directory."""
        await super().publish_endpoint(endpoint)
        self._centre.announce(endpoint, self._hosts[endpoint.host])

    def told(self, message: bytes) -> None:
        """The centre says where an endpoint is."""
        said = self._decode(message)
        host, endpoint = said.host, said.endpoint
        if host.name not in self._hosts:
            self._hosts[host.name] = host
            self._hosts_at.update(((host.site, address), host) for address in host.addresses)
        for address in endpoint.addresses:
            key: tuple[str, Address] = (endpoint.tenant, address)
            self._endpoints[key] = endpoint
            self._changed("endpoint", *key)


class PushingFarm(Farm):
    """Hosts that know everything."""

    def __init__(self, centre: Centre, offers: Offers, *, idle_timeout: float) -> None:
        """`centre`: who tells them."""
        super().__init__(offers=offers, idle_timeout=idle_timeout)
        self._centre = centre

    def reach(self, host: Host, switch: FarmSwitch) -> tuple[Switch, Directory, Offers]:
        """Each has a directory of its own."""
        switch_of, _, offers = super().reach(host, switch)
        return switch_of, Copy(self._centre), offers
