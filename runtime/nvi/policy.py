"""Who may talk to whom. No I/O.

Precedence: a pair (`connect`, `disconnect`), then the rules in the order of the file, the first match deciding, then
same network, then common group, then deny. Every verdict names what made it, so a refusal can be explained. Another
tenant is never even a candidate: endpoints are looked up within their tenant.

Whoever is outside of the tenant's networks is the `internet` of its rules. Without a rule that matches, an endpoint may
connect to it if its network says `internet: allow`, and be connected to by it where a service is published.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from .model import Endpoint, Protocol, Rule, Tenant, pair_of, show_protocol

INTERNET = "internet"
"""What rules call whoever is outside."""

_WITH_PORTS = (Protocol.TCP, Protocol.UDP)


class Verdict(Struct, frozen=True, gc=False):
    """What the policy says of a connection, and why."""

    allowed: bool
    rule: str


def judge(
    tenant: Tenant, initiator: Endpoint, responder: Endpoint, protocol: int, port: int, *, published: bool = False
) -> Verdict:
    """May `initiator` open a connection to `responder`?

    Both are the tenant's, or one is outside. `port`: the responder's; `published`: as a service.
    """
    if initiator.tenant != tenant.name or responder.tenant != tenant.name:
        return Verdict(False, "another tenant")
    if tenant.pairs:
        pair = pair_of(initiator.name, responder.name)
        if (connected := tenant.pairs.get(pair)) is not None:
            return Verdict(connected, f"{'connect' if connected else 'disconnect'} {pair}")
    for number, rule in enumerate(tenant.rules, 1):
        if _matches(tenant, rule, initiator, responder, protocol, port):
            return Verdict(rule.allow, f"rule {number}: {describe(rule)}")
    if responder.is_outside:
        network = tenant.networks.get(initiator.network)
        allowed = network is not None and network.internet
        return Verdict(allowed, f"network {initiator.network} {'says' if allowed else 'does not say'} internet: allow")
    if initiator.is_outside:
        return Verdict(published, "a published service" if published else "not published")
    if initiator.network == responder.network:
        return Verdict(True, f"same network {initiator.network}")
    for name, members in tenant.groups.items():
        if _among(initiator, members) and _among(responder, members):
            return Verdict(True, f"common group {name}")
    return Verdict(False, "no rule allows it")


def describe(rule: Rule) -> str:
    """A rule as people read it: `allow web -> db1 tcp 80,443`."""
    words = ["allow" if rule.allow else "deny", rule.initiator, "->", rule.responder]
    if rule.protocol is not None:
        words.append(show_protocol(rule.protocol))
    if rule.ports:
        words.append(",".join(map(str, rule.ports)))
    return " ".join(words)


def ambiguities(tenant: Tenant, endpoints: Iterable[str] = ()) -> list[str]:
    """Why names in a tenant's policy could mean two things: sentences for users.

    `endpoints`: names of endpoints of the tenant, as far as they are known.
    """
    kinds: dict[str, Iterable[str]] = {
        "network": tenant.networks,
        "group": tenant.groups,
        "endpoint": set(endpoints),
        "the Internet": (INTERNET,),
    }
    meanings: dict[str, list[str]] = {}
    for kind, names in kinds.items():
        for name in names:
            meanings.setdefault(name, []).append(kind)
    return [
        f"{name!r} is both {kinds_of[0]} and {kinds_of[1]} for tenant {tenant.name}: rename the former"
        for name, kinds_of in sorted(meanings.items())
        if len(kinds_of) > 1
    ]


def _matches(tenant: Tenant, rule: Rule, initiator: Endpoint, responder: Endpoint, protocol: int, port: int) -> bool:
    # People who say icmp mean ping, in whichever family.
    if rule.protocol not in (None, protocol) and (rule.protocol, protocol) != (Protocol.ICMP, Protocol.ICMPV6):
        return False
    if rule.ports and (protocol not in _WITH_PORTS or port not in rule.ports):
        return False
    return _is(tenant, rule.initiator, initiator) and _is(tenant, rule.responder, responder)


def _is(tenant: Tenant, name: str, endpoint: Endpoint) -> bool:
    """Whether a name (of an endpoint, a network or a group, or `internet`) means this endpoint."""
    if endpoint.is_outside:
        return name == INTERNET
    return name in (endpoint.name, endpoint.network) or _among(endpoint, tenant.groups.get(name, ()))


def _among(endpoint: Endpoint, members: tuple[str, ...]) -> bool:
    return endpoint.network in members or endpoint.name in members
