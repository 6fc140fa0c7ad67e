"""What is outside: which destinations an endpoint may reach by way of a gateway's external side. No I/O.

A gateway lends its endpoints an address that others trust more than they trust a workload: its host's. So it must not
carry them to what is reachable only because the gateway itself can: its own stack, other hosts, the underlay.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

from .model import Address, External, Host, show_address

_NOT_OUTSIDE = tuple(
    (ip_network(prefix), what)
    for prefix, what in (
        ("0.0.0.0/8", "of this host (RFC 1122)"),
        ("127.0.0.0/8", "a loopback address"),
        ("169.254.0.0/16", "a link-local address"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "reserved (RFC 1112), or the broadcast address"),
        ("::/128", "the unspecified address"),
        ("::1/128", "a loopback address"),
        ("::ffff:0:0/96", "an IPv4 address in the clothes of IPv6 (RFC 4291)"),
        ("fe80::/10", "a link-local address"),
        ("ff00::/8", "a multicast address"),
    )
)


def not_outside(destination: Address) -> str | None:
    """Why no gateway carries anything to this address, whatever it is connected to; None if one may."""
    address = IPv4Address(destination) if len(destination) == 4 else IPv6Address(destination)
    for network, what in _NOT_OUTSIDE:
        if address in network:
            return f"{address} is {what}"
    return None


def not_reached(destination: Address, external: External, host: Host | None, gateway: Host | None) -> str | None:
    """Why the gateway with this external side does not carry packets to an address of the Internet; None if it does.

    `host`: who has the address on the underlay of the gateway's site; `gateway`: who has it as the public one.
    Published services of any gateway are reached by another way (hairpin), which does not ask here.
    """
    shown = show_address(destination)
    if (reason := not_outside(destination)) is not None:
        return reason
    if destination in (external.address, external.public):
        return f"{shown} is the gateway's own"
    if host is not None:
        return f"{shown} is an underlay address of host {host.name}"
    if gateway is not None:
        return f"{shown} is the public address of host {gateway.name}, which publishes no such service"
    if len(destination) != len(external.address):
        return f"{shown} is of another family than the gateway's external address {show_address(external.address)}"
    return None
