"""Who may talk to whom. No I/O.

Precedence: a pair (`connect`, `disconnect`), then the rules in the order of the file, the first match deciding, then
same network, then common group, then deny. Every verdict names what made it, so a refusal can be explained. Another
tenant is never even a candidate: endpoints are looked up within their tenant.
"""

from __future__ import annotations

from msgspec import Struct

from .model import Endpoint, Protocol, Rule, Tenant, pair_of

_WITH_PORTS = (Protocol.TCP, Protocol.UDP)


class Verdict(Struct, frozen=True):
    """What the policy says of a connection, and why."""

    allowed: bool
    rule: str


def judge(tenant: Tenant, initiator: Endpoint, responder: Endpoint, protocol: int, port: int) -> Verdict:
    """May `initiator` open a connection to `responder`? Both are the tenant's. `port`: the responder's."""
    if initiator.tenant != tenant.name or responder.tenant != tenant.name:
        return Verdict(False, "another tenant")
    pair = pair_of(initiator.name, responder.name)
    if tenant.pairs and (connected := tenant.pairs.get(pair)) is not None:
        return Verdict(connected, f"{'connect' if connected else 'disconnect'} {pair}")
    for number, rule in enumerate(tenant.rules, 1):
        if _matches(tenant, rule, initiator, responder, protocol, port):
            return Verdict(rule.allow, f"rule {number}: {describe(rule)}")
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
        words.append(Protocol(rule.protocol).name.lower())
    if rule.ports:
        words.append(",".join(map(str, rule.ports)))
    return " ".join(words)


def _matches(tenant: Tenant, rule: Rule, initiator: Endpoint, responder: Endpoint, protocol: int, port: int) -> bool:
    if rule.protocol is not None and rule.protocol != protocol:
        return False
    if rule.ports and (protocol not in _WITH_PORTS or port not in rule.ports):
        return False
    return _is(tenant, rule.initiator, initiator) and _is(tenant, rule.responder, responder)


def _is(tenant: Tenant, name: str, endpoint: Endpoint) -> bool:
    """Whether a name (of an endpoint, a network or a group) means this endpoint."""
    return name in (endpoint.name, endpoint.network) or _among(endpoint, tenant.groups.get(name, ()))


def _among(endpoint: Endpoint, members: tuple[str, ...]) -> bool:
    return endpoint.network in members or endpoint.name in members
