"""Endpoints in the notation of people: in the state file and in the local API."""

from __future__ import annotations

from msgspec import Struct

from ..model import Endpoint, read_address, read_mac, show_address, show_mac


class EndpointProperties(Struct, frozen=True, forbid_unknown_fields=True):
    """What an orchestrator says of an endpoint, whose name and host are known from elsewhere."""

    tenant: str
    network: str
    mac: str
    address: str
    port: int

    def read(self, name: str, host: str) -> tuple[Endpoint, int]:
        """(the endpoint, its port on the host's switch). Raises ValueError with a sentence that names the property."""
        try:
            mac = read_mac(self.mac)
        except ValueError:
            raise ValueError(f"mac: {self.mac!r} is not a MAC address; write it like 02:00:00:00:00:01") from None
        try:
            address = read_address(self.address)
        except ValueError:
            raise ValueError(f"address: {self.address!r} is not an IP address; write it like 10.0.0.1") from None
        return Endpoint(name, self.tenant, self.network, mac, (address,), host), self.port


class NamedEndpoint(EndpointProperties, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An endpoint, where it is, and at which port."""

    name: str
    host: str

    @classmethod
    def of(cls, endpoint: Endpoint, port: int) -> NamedEndpoint:
        """In the notation of people."""
        return cls(
            name=endpoint.name,
            host=endpoint.host,
            tenant=endpoint.tenant,
            network=endpoint.network,
            mac=show_mac(endpoint.mac),
            address=show_address(endpoint.address),
            port=port,
        )
