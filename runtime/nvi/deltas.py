"""What a rewrite does to a packet's checksums: the parameters of `rewrite` that follow from the others. No I/O."""

from __future__ import annotations

from .checksum import change
from .model import Flow, Protocol
from .packets import echo_port

_WITH_PSEUDO_HEADER = frozenset((int(Protocol.TCP), int(Protocol.UDP)))
_ECHO_TYPES = {4: (0x0800, 0x0000), 16: (0x8000, 0x8100)}
"""Type and code of an echo request and reply, by the size of the addresses (RFC 792, RFC 4443 section 4)."""


def checksum_deltas(old: Flow, new: Flow, ttl: int) -> tuple[int, int]:
    """`ipv4_delta` and `l4_delta` of the rewriting actions, as p4src/connections.p4 defines them (RFC 1624).

    The first leaves out the old TTL, which only the switch knows; it is 0 where a header is not IPv4's. The second
    covers what the transport checksum does: for TCP and UDP the addresses of the pseudo header and the ports, for an
    ICMP echo only its identifier, for one of ICMPv6 also the addresses. Between the families an echo changes its type,
    and gains or loses a pseudo header, of which only the switch knows the length. It is 0 for protocols without ports.
    """
    old_addresses = int.from_bytes(old.source + old.destination)
    new_addresses = int.from_bytes(new.source + new.destination)
    both_ipv4 = len(old.source) == len(new.source) == 4
    ipv4_delta = change(new_addresses + (ttl << 8), old_addresses) if both_ipv4 else 0
    if old.protocol in _WITH_PSEUDO_HEADER:
        # The place of a word in a sum does not matter: the ports need not be appended to the addresses.
        return ipv4_delta, change(
            new_addresses + new.l4_source + new.l4_destination, old_addresses + old.l4_source + old.l4_destination
        )
    if old.protocol not in (Protocol.ICMP, Protocol.ICMPV6):
        return ipv4_delta, 0
    is_request = old.l4_destination == echo_port(old.l4_source)
    return ipv4_delta, change(
        _echo(new, new_addresses, is_request, len(old.source)), _echo(old, old_addresses, is_request, len(new.source))
    )


def _echo(flow: Flow, addresses: int, is_request: bool, other: int) -> int:
    """What an echo's checksum covers of its addresses and identifier, and of what they imply."""
    total = flow.l4_source if is_request else flow.l4_destination
    if len(flow.source) != 4:
        total += addresses
    if len(flow.source) != other:
        total += _ECHO_TYPES[len(flow.source)][0 if is_request else 1]
        total += Protocol.ICMPV6 if len(flow.source) != 4 else 0
    return total
