"""Endpoints in the notation of people: in the state file and in the local API."""

from __future__ import annotations

from msgspec import Struct

from ..model import (
    Address,
    Endpoint,
    Protocol,
    Service,
    read_address,
    read_mac,
    read_protocol,
    show_address,
    show_mac,
)
from ..trace import Question


class EndpointProperties(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an orchestrator says of an endpoint, whose name and host are known from elsewhere."""

    tenant: str
    network: str
    mac: str
    address: str
    port: int
    address6: str | None = None
    """A second one, of IPv6, beside an IPv4 `address`."""

    def read(self, name: str, host: str) -> tuple[Endpoint, int]:
        """(the endpoint, its port on the host's switch). Raises ValueError with a sentence that names the property."""
        try:
            mac = read_mac(self.mac)
        except ValueError:
            raise ValueError(f"mac: {self.mac!r} is not a MAC address; write it like 02:00:00:00:00:01") from None
        addresses = [self._read_address("address", self.address)]
        if self.address6 is not None:
            addresses.append(self._read_address("address6", self.address6))
            if [len(address) for address in addresses] != [4, 16]:
                raise ValueError(
                    f"address6: {self.address6!r} is not an IPv6 address beside an IPv4 one in address; "
                    "write the only address of an endpoint as address"
                )
        return Endpoint(name, self.tenant, self.network, mac, tuple(addresses), host), self.port

    def _read_address(self, key: str, text: str) -> Address:
        try:
            return read_address(text)
        except ValueError:
            example = "fd00::1" if key == "address6" else "10.0.0.1"
            raise ValueError(f"{key}: {text!r} is not an IP address; write it like {example}") from None


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
            address6=show_address(endpoint.addresses[1]) if len(endpoint.addresses) > 1 else None,
        )


PUBLISHED: dict[str, int] = {"tcp": Protocol.TCP, "udp": Protocol.UDP}
"""Protocols of which a service can be."""


class ServiceProperties(Struct, frozen=True, forbid_unknown_fields=True):
    """Which endpoint's port is published."""

    tenant: str
    address: str
    port: int

    def read(self, via: str, protocol: int, external_port: int) -> Service:
        """The service at a gateway's port. Raises ValueError with a sentence that names the property."""
        try:
            address = read_address(self.address)
        except ValueError:
            raise ValueError(f"address: {self.address!r} is not an IP address; write it like 10.0.0.1") from None
        return Service(self.tenant, address, self.port, protocol, via, external_port)


class NamedService(ServiceProperties, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A published service, and where it is published."""

    protocol: str
    via: str
    external_port: int

    @classmethod
    def of(cls, service: Service) -> NamedService:
        """In the notation of people."""
        return cls(
            tenant=service.tenant,
            address=show_address(service.endpoint),
            port=service.port,
            protocol=Protocol(service.protocol).name.lower(),
            via=service.via,
            external_port=service.external_port,
        )


class TraceQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """What people ask of a packet that they do not send."""

    source: str
    """Name of an endpoint here."""
    destination: str
    protocol: str = "tcp"
    port: int = 0
    source_port: int | None = None

    def read(self) -> Question:
        """Raises ValueError with a sentence that names the property."""
        destination = read_address(self.destination)
        protocol = read_protocol(self.protocol)
        for port in (self.port, self.source_port or 0):
            if not 0 <= port <= 0xFFFF:
                raise ValueError(f"{port} is not a port: use numbers up to 65535")
        if protocol in (Protocol.TCP, Protocol.UDP) and not self.port:
            raise ValueError(f"port: {self.protocol} needs the destination's; say which")
        if protocol not in (Protocol.TCP, Protocol.UDP) and self.port:
            raise ValueError(f"port: {self.protocol} has none; leave it out")
        if protocol == Protocol.ICMP and len(destination) == 16:
            protocol = Protocol.ICMPV6
        return Question(destination, protocol, self.port, self.source_port)
