"""What people and programs are shown of a connection. The schema is that of `nvi connections --json`. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..model import Address, End, Endpoint, SegmentEnd, show_address, show_protocol
from ..switch import Usage
from .connections import Connection, Link, Outlet


def connection_view(
    host: str,
    connection: Connection,
    endpoints: Mapping[tuple[str, Address], Endpoint | None],
    usages: Sequence[Usage | None],
) -> dict[str, Any]:
    """One connection, as the host that holds it sees it."""
    identity = connection.id
    responder = identity.other(connection.initiator)
    used = [usage for usage in usages if usage is not None]

    def end(end: End) -> dict[str, Any]:
        endpoint = endpoints.get((identity.tenant, end.address))
        return {
            "endpoint": endpoint.name if endpoint is not None else None,
            "address": show_address(end.address),
            "port": end.port,
        }

    segments = []
    for place, side in enumerate(connection.sides):
        if isinstance(side, Outlet):
            path = side.pair.path
            ours = {"host": host, "address": show_address(path.local), "port": side.pair.local}
            theirs = {"host": None, "address": show_address(path.peer), "port": side.pair.peer}
            from_outside = connection.initiator.address in side.endpoint.addresses
            segments.append({"from": theirs, "to": ours} if from_outside else {"from": ours, "to": theirs})
        if isinstance(side, Link):
            # At a gateway the first leads to the initiator; at an end the only one leads away from its endpoint.
            near = connection.near if connection.turn is None else []
            towards_initiator = connection.initiator.address not in near[0].endpoint.addresses if near else place == 0
            first, second = (side.yours, side.mine) if towards_initiator else (side.mine, side.yours)
            segments.append({"from": _segment_end(first), "to": _segment_end(second)})
    return {
        "id": identity.short(),
        "tenant": identity.tenant,
        "protocol": show_protocol(identity.protocol),
        "initiator": end(connection.initiator),
        "responder": end(responder),
        "segments": segments,
        "hosts": {
            host: {
                "packets": sum(usage.packets for usage in used),
                "bytes": sum(usage.bytes for usage in used),
                "idle_seconds": round(min((usage.idle for usage in used), default=0.0), 3),
            }
        },
    }


def _segment_end(end: SegmentEnd) -> dict[str, Any]:
    return {"host": end.host, "address": show_address(end.address), "port": end.port}
