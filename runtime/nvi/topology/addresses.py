"""Addresses as people write them in topologies and commands. All functions raise ValueError with a sentence."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, ip_address, ip_interface

from ..model import Mac, read_mac


def underlay_interface(text: str) -> IPv4Interface:
    """A host's address in the underlay with its prefix length: `172.16.1.1/24`."""
    interface = _interface(text, "underlays")
    _check_unicast(interface.ip)
    if interface.ip.is_link_local:  # those number the links between the routers
        raise ValueError(f"{text} is a link-local address, which is not routed")
    network = interface.network
    if network.prefixlen < 31 and interface.ip in (network[0], network[-1]):
        raise ValueError(f"{text} is the address of the subnet itself or its broadcast address")
    return interface


def overlay_network(text: str) -> IPv4Network:
    """A network's CIDR: `10.0.1.0/24`."""
    interface = _interface(text, "networks")
    network = interface.network
    if interface.ip != network.network_address:
        raise ValueError(f"{text} is an address inside the network {network}, not the network")
    if network.prefixlen > 30:
        raise ValueError(f"{text} has no room for a gateway and an endpoint")
    _check_unicast(network[1])
    return network


def overlay_address(text: str, cidr: IPv4Network | None) -> IPv4Address:
    """An address that a machine can have in a network (None: the network is not known)."""
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        raise ValueError(f"{text}: IPv6 addresses are not supported yet")
    if cidr is not None and address not in cidr:
        raise ValueError(f"{address} is outside its network ({cidr})")
    if cidr is not None and address in (cidr[0], cidr[-1]):
        raise ValueError(f"{address} is the address of the network itself or its broadcast address ({cidr})")
    return address


def unicast_mac(text: str) -> Mac:
    """A MAC that a machine can have."""
    try:
        mac = read_mac(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a MAC address") from None
    if mac[0] & 1 or not any(mac):
        raise ValueError(f"{text} is a group address or none at all, which no machine can have")
    return mac


def _interface(text: str, noun: str) -> IPv4Interface:
    if "/" not in text:
        raise ValueError(f"{text!r} has no prefix length")
    interface = ip_interface(text)
    if isinstance(interface, IPv6Interface):
        raise ValueError(f"{text}: IPv6 {noun} are not supported yet")
    return interface


def _check_unicast(address: IPv4Address) -> None:
    if address.is_multicast or address.is_loopback or address.packed[0] == 0 or address.packed[0] >= 240:
        raise ValueError(f"{address} is not an address that a machine can have on a network")
