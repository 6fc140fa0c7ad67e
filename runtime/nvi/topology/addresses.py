"""Addresses as people write them in topologies and commands. All functions raise ValueError with a sentence."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

from ..model import Mac, Subnet, read_mac
from .model import IPAddress, IPInterface, IPNetwork

LARGEST_POOL = 256
"""Addresses in one entry of a host's pool."""


def attached_interface(text: str) -> IPInterface:
    """A host's address with its prefix length, in the underlay or on the external side: `172.16.1.1/24`."""
    interface = _interface(text)
    _check_unicast(interface.ip)
    if interface.ip.is_link_local:  # those number the links between the routers
        raise ValueError(f"{text} is a link-local address, which is not routed")
    _check_machine(interface.ip, interface.network)
    return interface


def pool_network(text: str, subnets: tuple[IPNetwork, ...]) -> IPNetwork:
    """Further addresses of a host, inside its subnets: `172.16.2.64/29`."""
    network = _network(text)
    if network.num_addresses > LARGEST_POOL:
        raise ValueError(f"{text} has more than {LARGEST_POOL} addresses")
    within = next((subnet for subnet in subnets if _inside(network, subnet)), None)
    if within is None:
        raise ValueError(f"{text} is outside the host's underlay ({', '.join(map(str, subnets))})")
    for address in (network[0], network[-1]):
        _check_machine(address, within)
    return network


def outside_address(text: str) -> IPAddress:
    """An address that a machine in the outside world can have."""
    address = ip_address(text)
    _check_unicast(address)
    if address.is_link_local:
        raise ValueError(f"{text} is a link-local address, which is not routed")
    return address


def overlay_network(text: str, version: int) -> IPNetwork:
    """A network's CIDR of one family: `10.0.1.0/24`."""
    network = _network(text)
    if network.version != version:
        raise ValueError(f"{text} is IPv{network.version}, which belongs to {'cidr6' if version == 4 else 'cidr'!r}")
    if network.prefixlen > network.max_prefixlen - 2:
        raise ValueError(f"{text} has no room for a gateway and an endpoint")
    _check_unicast(network[1])
    if network.is_link_local:
        raise ValueError(f"{text} is link-local, which every machine has by itself")
    return network


def overlay_address(text: str, subnets: tuple[Subnet, ...]) -> IPAddress:
    """An address that a machine can have in a network."""
    address = ip_address(text)
    mine = [ip_network(subnet.cidr) for subnet in subnets]
    subnet = next((subnet for subnet in mine if address in subnet), None)
    if subnet is None:
        raise ValueError(f"{address} is outside its network ({', '.join(map(str, mine))})")
    _check_machine(address, subnet)
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


def last_address(network: IPNetwork) -> IPAddress:
    """The last address of a network that a machine can have."""
    ipv4_broadcast = network.version == 4 and network.prefixlen < 31
    return network[-2] if ipv4_broadcast else network[-1]


def first_address(network: IPNetwork) -> IPAddress:
    """The first address of a network that a machine can have."""
    return network[1] if network.prefixlen < network.max_prefixlen - 1 else network[0]


def _interface(text: str) -> IPInterface:
    if "/" not in text:
        raise ValueError(f"{text!r} has no prefix length")
    return ip_interface(text)


def _network(text: str) -> IPNetwork:
    interface = _interface(text)
    if interface.ip != interface.network.network_address:
        raise ValueError(f"{text} is an address inside the network {interface.network}, not the network")
    return interface.network


def _inside(network: IPNetwork, subnet: IPNetwork) -> bool:
    return network.version == subnet.version and network[0] in subnet and network[-1] in subnet


def _check_machine(address: IPAddress, network: IPNetwork) -> None:
    if not first_address(network) <= address <= last_address(network):  # type: ignore[operator]  # of one family
        kind = "or its broadcast address" if network.version == 4 else "(its routers' anycast address)"
        raise ValueError(f"{address} is the address of the network itself {kind} ({network})")


def _check_unicast(address: IPAddress) -> None:
    reserved = address.version == 4 and (address.packed[0] == 0 or address.packed[0] >= 240)
    mapped = address.version == 6 and address.packed[:12] in (bytes(12), bytes(10) + b"\xff\xff")
    if address.is_multicast or address.is_loopback or reserved or mapped:
        raise ValueError(f"{address} is not an address that a machine can have on a network")
