"""What a rewrite does to a packet's checksums: the parameters of `rewrite` that follow from the others. No I/O."""

from __future__ import annotations

from .checksum import change
from .model import Flow, Protocol
from .packets import echo_port


def checksum_deltas(old: Flow, new: Flow, ttl: int) -> tuple[int, int]:
    """`ipv4_delta` and `l4_delta` of the action `rewrite`, as p4src/connections.p4 defines them (RFC 1624).

    The first leaves out the old TTL, which only the switch knows. The second covers what the transport checksum does:
    for TCP and UDP the addresses of the pseudo header and the ports, for an ICMP echo only its identifier.
    """
    old_addresses = int.from_bytes(old.source + old.destination)
    new_addresses = int.from_bytes(new.source + new.destination)
    ipv4_delta = change(new_addresses + (ttl << 8), old_addresses)
    if old.protocol != Protocol.ICMP:
        # The place of a word in a sum does not matter: the ports need not be appended to the addresses.
        l4_delta = change(
            new_addresses + new.l4_source + new.l4_destination, old_addresses + old.l4_source + old.l4_destination
        )
    elif old.l4_destination == echo_port(old.l4_source):  # a request: the source identifies
        l4_delta = change(new.l4_source, old.l4_source)
    else:
        l4_delta = change(new.l4_destination, old.l4_destination)
    return ipv4_delta, l4_delta
