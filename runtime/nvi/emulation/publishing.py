"""Services that are published while the farm runs: do they make sense? No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct

from ..model import Endpoint, Protocol, Service, show_address, show_protocol
from ..suggest import suggest
from ..topology import TopologyHost
from ..topology.rules import external_port, service_port
from .placement import Conflict, Misuse
from .views import SCHEMA


class Publication(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for by `nvi publish` and `nvi unpublish`."""

    endpoint: str
    port: str
    via: str
    external_port: str
    protocol: Literal["tcp", "udp"] = "tcp"


def service_of(wanted: Publication, endpoints: Mapping[str, Endpoint], hosts: Mapping[str, TopologyHost]) -> Service:
    """The service that is meant. Raises Misuse."""
    endpoint = endpoints.get(wanted.endpoint)
    if endpoint is None:
        remedy = suggest(wanted.endpoint, endpoints, noun="endpoint")
        raise Misuse(f"there is no endpoint {wanted.endpoint!r}; {remedy}")
    gateways = {name: host.external for name, host in hosts.items() if host.external is not None}
    uplink = gateways.get(wanted.via)
    if uplink is None:
        remedy = suggest(wanted.via, gateways, noun="gateway")
        raise Misuse(f"there is no gateway {wanted.via!r}; {remedy}")
    try:
        port, external = service_port(wanted.port), external_port(wanted.external_port)
    except ValueError as error:
        raise Misuse(str(error)) from None
    address = endpoint.address_like(uplink.public.packed) or endpoint.address
    protocol = int(Protocol[wanted.protocol.upper()])
    return Service(endpoint.tenant, address, port, protocol, wanted.via, external)


def check_free(service: Service, published: Iterable[Service]) -> None:
    """Raises Conflict if somebody has that port of the gateway already."""
    for other in published:
        same = (other.via, other.protocol, other.external_port) == (
            service.via,
            service.protocol,
            service.external_port,
        )
        if same:
            port = f"{show_protocol(service.protocol)} port {service.external_port} of {service.via}"
            raise Conflict(
                f"{port} is published for {show_address(other.endpoint)}:{other.port} of tenant {other.tenant}; use "
                "another port, or unpublish that first"
            )


def services_view(
    services: Iterable[Service], endpoints: Iterable[Endpoint], hosts: Mapping[str, TopologyHost]
) -> dict[str, Any]:
    """`nvi services --json`."""
    names = {(endpoint.tenant, address): endpoint.name for endpoint in endpoints for address in endpoint.addresses}
    listed = []
    for service in services:
        uplink = hosts[service.via].external
        assert uplink is not None, "services are published at gateways"
        listed.append(
            {
                "tenant": service.tenant,
                "endpoint": names.get((service.tenant, service.endpoint)),
                "address": show_address(service.endpoint),
                "port": service.port,
                "protocol": show_protocol(service.protocol),
                "via": service.via,
                "public": str(uplink.public),
                "external_port": service.external_port,
            }
        )
    return {"schema": SCHEMA, "services": listed}
