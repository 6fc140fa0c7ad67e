"""Entries as rows of the pipeline's tables, and back: which table and action, and every value in order. No I/O.

A value is `bytes` where it is an address or a MAC, else a number. How they travel to a switch is its driver's business
(`nvi.p4rt.codec`, `nvi.embedded.memory`); what they mean is said in `p4src/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .deltas import checksum_deltas
from .model import Address, Flow, Protocol
from .switch import (
    ConnectionEntry,
    ConnectionKey,
    Drop,
    DropReason,
    Entry,
    GuardEntry,
    NeighbourEntry,
    Rewrite,
    ServiceEntry,
)

Value = int | bytes

CONNECTIONS, CONNECTIONS6 = "connections", "connections6"
GUARD, NEIGHBOURS, SERVICES = "guard", "neighbours", "services"

_FLOW = ("scope", "source_mac", "source", "destination", "protocol", "l4_source", "l4_destination")
KEYS: dict[str, tuple[str, ...]] = {
    CONNECTIONS: _FLOW,
    CONNECTIONS6: _FLOW,
    GUARD: ("port", "mac", "address"),
    NEIGHBOURS: ("network", "address"),
    SERVICES: ("address", "protocol", "port"),
}
"""The match fields of each table, in the order of `Row.key`."""

_MACS = ("ethernet_source", "ethernet_destination")
_NEW = (*_MACS, "source", "destination", "l4_source", "l4_destination")
_LIMITS = ("routed", "max_length")
PARAMETERS: dict[str, tuple[str, ...]] = {
    "rewrite": (*_NEW, "ttl", "ipv4_delta", "l4_delta", "egress_port", "router"),
    "rewrite_limited": (*_NEW, "ttl", "ipv4_delta", "l4_delta", "egress_port", "router", *_LIMITS),
    "rewrite6": (*_NEW, "hop_limit", "l4_delta", "egress_port", "router"),
    "rewrite6_limited": (*_NEW, "hop_limit", "l4_delta", "egress_port", "router", *_LIMITS),
    "translate": (*_NEW, "hop_limit", "l4_delta", "egress_port", *_LIMITS, "flow_label"),
    "translate6": (*_NEW, "ttl", "l4_delta", "egress_port", *_LIMITS, "flags"),
    "drop": ("reason",),
    "admit": ("network",),
    "reply": ("mac", "router"),
    "serve": (),
}
"""The parameters of each action, in the order of `Row.parameters`."""

ACTIONS: dict[str, tuple[str, ...]] = {
    CONNECTIONS: ("rewrite", "rewrite_limited", "translate", "drop"),
    CONNECTIONS6: ("rewrite6", "rewrite6_limited", "translate6", "drop"),
    GUARD: ("admit",),
    NEIGHBOURS: ("reply",),
    SERVICES: ("serve",),
}
"""What an entry of each table may do."""

_OTHER_FAMILY: dict[int, int] = {Protocol.ICMP: Protocol.ICMPV6, Protocol.ICMPV6: Protocol.ICMP}
_IPV4_MAPPED = bytes(10) + b"\xff\xff"
_DONT_FRAGMENT = 0x4000
_LONGEST = 0xFFFF
_NO_LIMITS = (0, _LONGEST)


class Row(NamedTuple):
    """An entry of a table."""

    table: str
    key: tuple[Value, ...]
    action: str
    """Any of the table's where only the key matters."""
    parameters: tuple[Value, ...]


def row(entry: Entry) -> Row:
    """The row that holds the entry."""
    if type(entry) is ConnectionEntry:  # not a case of `match`, which takes its time
        key, action = entry.key, entry.action
        if type(action) is Rewrite:
            return Row(table_of(key), connection_key(key), *_rewrite(key.flow, action))
        return Row(table_of(key), connection_key(key), "drop", (action.reason,) if isinstance(action, Drop) else ())
    match entry:
        case GuardEntry(port, mac, address, network):
            return Row(GUARD, (port, mac, _wide(address)), "admit", (network,))
        case NeighbourEntry(network, address, mac, router):
            return Row(NEIGHBOURS, (network, _wide(address)), "reply", (mac, int(router)))
        case ServiceEntry(address, protocol, port):
            return Row(SERVICES, (_wide(address), protocol, port), "serve", ())
    raise TypeError(f"not an entry: {entry!r}")


def table_of(key: ConnectionKey) -> str:
    """`connections` of the family of the flow."""
    return CONNECTIONS if len(key.flow.source) == 4 else CONNECTIONS6


def connection_key(key: ConnectionKey) -> tuple[Value, ...]:
    """`Row.key` of an entry of `connections` or `connections6`."""
    flow = key.flow
    return (
        key.scope,
        key.source_mac,
        flow.source,
        flow.destination,
        flow.protocol,
        flow.l4_source,
        flow.l4_destination,
    )


def _rewrite(old: Flow, action: Rewrite) -> tuple[str, tuple[Value, ...]]:
    new, ttl, port = action.flow, action.ttl, action.egress_port
    source, is_ipv4 = new.source, len(new.source) == 4
    ipv4_delta, l4_delta = checksum_deltas(old, new, ttl)
    common = (
        action.ethernet_source,
        action.ethernet_destination,
        source,
        new.destination,
        new.l4_source,
        new.l4_destination,
        ttl,
    )
    limits = (int(action.routed), action.max_length or _LONGEST)
    if len(old.source) != len(source):
        if is_ipv4:
            return "translate6", (*common, l4_delta, port, *limits, _DONT_FRAGMENT if action.dont_fragment else 0)
        return "translate", (*common, l4_delta, port, *limits, action.flow_label)
    router = action.router or source
    rest = (ipv4_delta, l4_delta, port, router) if is_ipv4 else (l4_delta, port, router)
    if limits == _NO_LIMITS:
        return "rewrite" if is_ipv4 else "rewrite6", common + rest
    return "rewrite_limited" if is_ipv4 else "rewrite6_limited", common + rest + limits


def connection(
    key: Sequence[Value], action: str, parameters: Sequence[Value], timeout: float, tag: int
) -> ConnectionEntry:
    """The entry of `connections` or `connections6` that a row holds. `timeout`: its idle timeout in seconds."""
    held = connection_key_of(key)
    if action == "drop":
        return ConnectionEntry(held, Drop(DropReason(_int(parameters[0]))), timeout, tag)
    if action == "rewrite":  # as nearly all are
        return ConnectionEntry(held, _plain_rewrite(held.flow.protocol, parameters), timeout, tag)
    value = dict(zip(PARAMETERS[action], parameters, strict=True))
    source, destination = _bytes(value["source"]), _bytes(value["destination"])
    protocol = held.flow.protocol
    if len(source) != len(held.flow.source):
        protocol = _OTHER_FAMILY.get(protocol, protocol)
    flow = Flow(source, destination, protocol, _int(value["l4_source"]), _int(value["l4_destination"]))
    longest = _int(value.get("max_length", _LONGEST))
    router = _bytes(value.get("router", source))
    rewrite = Rewrite(
        _bytes(value["ethernet_source"]),
        _bytes(value["ethernet_destination"]),
        flow,
        _int(value["ttl" if "ttl" in value else "hop_limit"]),
        _int(value["egress_port"]),
        None if router == source else router,
        bool(value.get("routed", 0)),
        0 if longest == _LONGEST else longest,
        _int(value.get("flow_label", 0)),
        bool(value.get("flags", _DONT_FRAGMENT)),
    )
    return ConnectionEntry(held, rewrite, timeout, tag)


def _plain_rewrite(protocol: int, parameters: Sequence[Any]) -> Rewrite:
    """The action `rewrite` with its parameters, by their places."""
    source_mac, destination_mac, source, destination, l4_source, l4_destination, ttl, _, _, port, router = parameters
    flow = Flow(source, destination, protocol, l4_source, l4_destination)
    return Rewrite(source_mac, destination_mac, flow, ttl, port, None if router == source else router)


def connection_key_of(key: Sequence[Any]) -> ConnectionKey:
    """The opposite of `connection_key`."""
    scope, mac, source, destination, protocol, l4_source, l4_destination = key
    return ConnectionKey(scope, mac, Flow(source, destination, protocol, l4_source, l4_destination))


def guard(key: Sequence[Value], parameters: Sequence[Value]) -> GuardEntry:
    """The entry of `guard` that a row holds."""
    port, mac, address = key
    return GuardEntry(_int(port), _bytes(mac), _narrow(_bytes(address)), _int(parameters[0]))


def neighbour(key: Sequence[Value], parameters: Sequence[Value]) -> NeighbourEntry:
    """The entry of `neighbours` that a row holds."""
    network, address = key
    return NeighbourEntry(_int(network), _narrow(_bytes(address)), _bytes(parameters[0]), bool(parameters[1]))


def service(key: Sequence[Value]) -> ServiceEntry:
    """The entry of `services` that a row holds."""
    address, protocol, port = key
    return ServiceEntry(_narrow(_bytes(address)), _int(protocol), _int(port))


def is_bytes(bits: int) -> bool:
    """Whether values of fields so wide are `bytes`: IPv4 addresses, MACs, IPv6 addresses."""
    return bits in (32, 48, 128)


def _wide(address: Address) -> bytes:
    """As the tables of both families hold it: IPv4 as ::ffff:a.b.c.d."""
    return _IPV4_MAPPED + address if len(address) == 4 else address


def _narrow(address: bytes) -> Address:
    return address[12:] if address.startswith(_IPV4_MAPPED) else address


def _int(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _bytes(value: Value) -> bytes:
    assert isinstance(value, bytes)
    return value
