"""What would happen to an endpoint's packet, and why, hop by hop, without sending it. No I/O.

It asks what the agents on the way would ask: the directory, the policy, the routes between hosts. What only they know
(keys that are free, a switch that is full, a host that does not answer) it cannot foresee.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from .model import Address, ConnectionId, Endpoint, Flow, Host, Protocol, Tenant, show_address, show_protocol
from .outside import not_outside, not_reached
from .packets import ECHO_PORT, EXTENSION_HEADERS, echo_port, is_single
from .policy import judge
from .route import NoWay, choose_exit, choose_gateway, gateways_needed, meet
from .switch import PORT_EXTERNAL

SCHEMA = 1
"""Of `Trace.shown`. What is added to it leaves it as it is."""

_LONGEST_ROUTE = 4
"""Hosts: two, and a gateway for each."""


class Question(Struct, frozen=True):
    """A first packet."""

    destination: Address
    protocol: int
    port: int = 0
    """The destination's; 0 for protocols without ports, and for echo."""
    source_port: int | None = None
    """Its own, or the identifier of an echo. It has a say in which of several gateways the connection takes."""


class Known(Struct, frozen=True):
    """What the directory says."""

    tenant: Tenant
    source: Endpoint
    destination: Endpoint | None
    """Who has the destination address among the tenant's endpoints."""
    hosts: dict[str, Host]
    """Those of both endpoints, by name, as far as they are there."""
    gateways: dict[str, tuple[Host, ...]]
    """Of the sites of these hosts."""
    destination_host: Host | None = None
    """Who has the destination address on the underlay of the source's site."""
    destination_gateway: Host | None = None
    """Whose public address the destination address is."""


class Hop(Struct, frozen=True):
    """What one host does."""

    host: str
    does: str
    """For people."""
    source: str | None = None
    """What its packets carry from there on."""
    destination: str | None = None
    wire: Literal["endpoint", "underlay", "external"] | None = None
    """Where they leave."""
    instead: tuple[str, ...] = ()
    """Hosts that would do the same for connections with other ports."""


class Trace(Struct, frozen=True):
    """The answer."""

    verdict: Literal["delivered", "answered", "refused", "dropped"]
    """`answered` by the router itself; `refused` with an ICMP error or a reset, `dropped` without."""
    reason: str
    rule: str | None
    """Of the policy, if it was asked."""
    hops: tuple[Hop, ...]

    def shown(self) -> dict[str, Any]:
        """Ready for JSON: the schema of `nvi trace --json`."""
        hops = [{name: getattr(hop, name) for name in Hop.__struct_fields__} for hop in self.hops]
        return {"schema": SCHEMA, "verdict": self.verdict, "reason": self.reason, "rule": self.rule, "hops": hops}


def trace(question: Question, known: Known) -> Trace:
    """What would become of the packet."""
    tenant, source = known.tenant, known.source
    shown = show_address(question.destination)
    here = Hop(source.host, f"{source.name} sends {_what(question)} to {shown}")

    def end(verdict: Literal["answered", "refused", "dropped"], reason: str, rule: str | None = None) -> Trace:
        return Trace(verdict, reason, rule, (here,))

    network, own = tenant.networks.get(source.network), source.address_like(question.destination)
    if network is None:
        return end("dropped", f"tenant {tenant.name} has no network {source.network} any more")
    if own is None:
        return end("dropped", f"{source.name} has no address of the family of {shown}, so it is not admitted")
    if not is_single(question.destination):
        return end("dropped", f"{shown} is a group or nobody: broadcast and multicast are not carried")
    if question.destination == own:
        return end("refused", f"{shown} is the address of {source.name} itself")
    if question.destination == network.gateway_for(own):
        if question.protocol in (Protocol.ICMP, Protocol.ICMPV6):
            return end("answered", f"the router of network {network.name} answers ping")
        return end("refused", f"{shown} is the router of network {network.name}, which serves nothing")
    if known.destination is None and tenant.holds(question.destination):
        return end("refused", f"tenant {tenant.name} has no endpoint {shown}")

    responder = known.destination or Endpoint.outside(tenant.name, question.destination, source.host)
    verdict = judge(tenant, source, responder, question.protocol, question.port or _stand_in(question))
    if not verdict.allowed:
        return end("refused", f"the policy does not allow {source.name} to connect to {responder.name}", verdict.rule)
    try:
        if known.destination is None:
            hops, reason = _outwards(question, known, own)
        else:
            hops, reason = _across(question, known, own, known.destination)
    except NoWay as error:
        return end("refused", str(error), verdict.rule)
    return Trace("delivered", reason, verdict.rule, (here, *hops))


def _across(question: Question, known: Known, own: Address, responder: Endpoint) -> tuple[list[Hop], str]:
    """The hosts between two endpoints, the last one's delivery included. Raises NoWay."""
    here, target = (_host(known, each.host) for each in (known.source, responder))
    port = question.source_port or 0
    l4 = (port, _stand_in(question)) if _stand_in(question) else (port if question.port else 0, question.port)
    identity = ConnectionId.of(known.tenant.name, Flow(own, question.destination, question.protocol, *l4))
    hops: list[Hop] = []
    instead: tuple[str, ...] = ()
    while here.name != target.name:
        site = gateways_needed(here, target)
        others: Sequence[Host] = ()
        peer = target
        if site is not None:
            others = known.gateways.get(site, ())
            peer = choose_gateway(here, site, others, identity)
        wire, address = meet(here, peer, identity.low.address)
        mine = next((each for each in here.addresses if len(each) == len(address)), here.addresses[0])
        if wire == PORT_EXTERNAL and here.external is not None:
            mine = here.external.address
        if question.protocol in EXTENSION_HEADERS and len(address) < len(own):
            raise NoWay(f"extension headers of IPv6 cannot be carried over {show_address(address)}")
        translated = "" if len(address) == len(own) else ", as a packet of the other family"
        hops.append(
            Hop(
                here.name,
                f"its switch rewrites it for the segment to host {peer.name}{translated}",
                show_address(mine),
                show_address(address),
                "external" if wire == PORT_EXTERNAL else "underlay",
                instead,
            )
        )
        assert len(hops) < _LONGEST_ROUTE, "a route has two gateways at most"
        instead = tuple(each.name for each in others if each.name != peer.name)
        here = peer
    routed = responder.network != known.source.network
    hops.append(
        Hop(
            target.name,
            f"its switch restores it for {responder.name}" + (", with a TTL that is one less" if routed else ""),
            show_address(own),
            show_address(question.destination),
            "endpoint",
        )
    )
    ways = f"over {len(hops)} hosts" if len(hops) > 1 else f"within host {target.name}"
    return hops, f"it reaches {responder.name} {ways}"


def _outwards(question: Question, known: Known, own: Address) -> tuple[list[Hop], str]:
    """The hosts between an endpoint and the Internet. Raises NoWay."""
    here, destination = _host(known, known.source.host), question.destination
    if (reason := not_outside(destination)) is not None:
        raise NoWay(f"nothing is carried there: {reason}")
    own_side = here.external is not None and len(here.external.address) == len(destination)
    gateways = [here] if own_side else known.gateways.get(here.site, ())
    exit = choose_exit(gateways, known.tenant.name, own, destination)
    if exit is None:
        raise NoWay(f"site {here.site} has no live gateway with an external address of this family; give it one")
    assert exit.external is not None, "that makes it a gateway"
    if (
        reason := not_reached(destination, exit.external, known.destination_host, known.destination_gateway)
    ) is not None:
        raise NoWay(f"nothing is carried there: {reason}")
    hops: list[Hop] = []
    if exit.name != here.name:
        _, address = meet(here, exit, own)
        mine = next((each for each in here.addresses if len(each) == len(address)), here.addresses[0])
        does = f"its switch rewrites it for the segment to gateway {exit.name}"
        hops.append(Hop(here.name, does, show_address(mine), show_address(address), "underlay"))
    does = "its switch gives it the gateway's external address, and a port of its own (SNAT)"
    outside = show_address(exit.external.address), show_address(destination)
    hops.append(Hop(exit.name, does, *outside, "external"))
    return hops, f"it leaves for the Internet at host {exit.name}"


def _host(known: Known, name: str) -> Host:
    if name not in known.hosts:
        raise NoWay(f"host {name} is not in the directory, or its lease has run out; see whether its agent runs")
    return known.hosts[name]


def _stand_in(question: Question) -> int:
    """What stands for the port of whoever answers an echo; 0 for other protocols."""
    if question.protocol not in (Protocol.ICMP, Protocol.ICMPV6):
        return 0
    return echo_port(question.source_port) if question.source_port is not None else ECHO_PORT


def _what(question: Question) -> str:
    name = show_protocol(question.protocol)
    return f"{name} port {question.port}" if question.port else name
