"""What the directory says that a trace must know."""

from __future__ import annotations

from ..model import Endpoint
from ..trace import Known, Question
from .local import Local


async def gather(local: Local, source: Endpoint, question: Question) -> Known:
    """What is known of the way of a packet from an endpoint here. Raises Refused, DirectoryError."""
    directory = local.directory
    tenant = await local.tenant(source.tenant)
    destination = await directory.endpoint(tenant.name, question.destination)
    hosts, gateways = {}, {}
    for name in {source.host, destination.host if destination is not None else source.host}:
        if (host := await directory.host(name)) is not None:
            hosts[name] = host
            gateways[host.site] = await directory.gateways(host.site)
    return Known(
        tenant,
        source,
        destination,
        hosts,
        gateways,
        await directory.host_at(local.host.site, question.destination),
        await directory.gateway_at(question.destination),
    )
