"""ICMP errors that the switch leaves to its agent: those that must be told in the other family."""

from __future__ import annotations

from ..model import FirstPacket
from ..packets import MalformedPacket, ethernet, parse_error, translate_error
from ..switch import NO_MAC, PORT_FIRST_ENDPOINT, ConnectionKey, Rewrite
from .local import Local


class Errors:
    """Passes errors on along the connections of one host."""

    def __init__(self, local: Local) -> None:
        """There is nothing to remember."""
        self._local = local

    def pass_on(self, port: int, frame: bytes) -> None:
        """An error came in at a port. If it is about a packet of a connection, its sender hears of it."""
        local = self._local
        try:
            error = parse_error(frame)
        except MalformedPacket:
            local.events["malformed"] += 1
            return
        is_endpoints = port >= PORT_FIRST_ENDPOINT
        near = local.by_port.get(port)
        if is_endpoints and (near is None or error.outer.source not in near.endpoint.addresses):
            local.events["errors of others"] += 1
            return
        # The packet that it is about went out here: so it belongs to what comes in here with the reverse flow.
        key = ConnectionKey(port, frame[6:12] if is_endpoints else NO_MAC, error.flow.reversed())
        connection = local.connections.at(key)
        if connection is None:
            local.events["errors about nothing"] += 1
            return
        action = next(entry.action for entry in connection.entries if entry.key == key)
        assert isinstance(action, Rewrite)
        # As the switch does it (p4src/errors.p4): a quoted TTL of 0 says that it was not the far end, but on the way.
        from_far_end = error.outer.source == key.flow.source and error.quoted.ttl > 0
        source = action.flow.source if from_far_end or action.router is None else action.router
        quoted_ttl = action.ttl if from_far_end or action.router is not None else 0
        shown = FirstPacket(action.ttl, action.flow_label, action.dont_fragment)
        sent = action.flow.reversed()
        packet = translate_error(error, frame, sent, source, action.flow.destination, shown, quoted_ttl)
        if packet is None:
            local.events["errors without a translation"] += 1
            return
        local.events["errors translated"] += 1
        local.switch.send(action.egress_port, ethernet(action.ethernet_destination, action.ethernet_source, packet))
