"""Changes of a tenant's policy, as commands ask for them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from ..model import Endpoint, Rule, Tenant, pair_of
from ..suggest import suggest
from ..topology.rules import named, ports_of, protocol_of
from .placement import Conflict, Misuse


class PairChange(Struct, frozen=True, forbid_unknown_fields=True, tag="pair"):
    """`nvi connect`, `disconnect`, `clear`."""

    one: str
    other: str
    connected: bool | None
    """None to take back what was said."""


class RuleAdded(Struct, frozen=True, forbid_unknown_fields=True, tag="add"):
    """`nvi policy add`."""

    tenant: str
    initiator: str = msgspec.field(name="from")
    responder: str = msgspec.field(name="to")
    action: Literal["allow", "deny"]
    protocol: str | None = None
    ports: str = ""
    """Numbers with commas between them."""
    first: bool = False


class RuleRemoved(Struct, frozen=True, forbid_unknown_fields=True, tag="remove"):
    """`nvi policy remove`."""

    tenant: str
    number: int
    """From 1."""


PolicyChange = PairChange | RuleAdded | RuleRemoved


def changed(tenants: Mapping[str, Tenant], endpoints: Iterable[Endpoint], change: PolicyChange) -> Tenant:
    """The tenant that a change is about, as it is then. Raises Misuse or Conflict."""
    owners = {endpoint.name: endpoint.tenant for endpoint in endpoints}
    match change:
        case PairChange(one, other, connected):
            return _pair(tenants, owners, one, other, connected)
        case RuleAdded():
            tenant = _tenant(tenants, change.tenant)
            mine = [name for name, owner in owners.items() if owner == tenant.name]
            try:
                rule = Rule(
                    named(tenant, mine, change.initiator),
                    named(tenant, mine, change.responder),
                    change.action == "allow",
                    protocol_of(change.protocol),
                    ports_of([port for port in change.ports.split(",") if port.strip()], change.protocol),
                )
            except ValueError as error:
                raise Misuse(str(error)) from None
            rules = (rule, *tenant.rules) if change.first else (*tenant.rules, rule)
            return msgspec.structs.replace(tenant, rules=rules)
        case RuleRemoved(name, number):
            tenant = _tenant(tenants, name)
            if not 1 <= number <= len(tenant.rules):
                has = f"it has {len(tenant.rules)}" if tenant.rules else "it has none"
                raise Misuse(f"tenant {name!r} has no rule {number}: {has}; 'nvi policies' lists them")
            rules = tenant.rules[: number - 1] + tenant.rules[number:]
            return msgspec.structs.replace(tenant, rules=rules)


def _tenant(tenants: Mapping[str, Tenant], name: str) -> Tenant:
    if name not in tenants:
        raise Misuse(f"there is no tenant {name!r}; {suggest(name, list(tenants), noun='tenant')}")
    return tenants[name]


def _pair(
    tenants: Mapping[str, Tenant], owners: Mapping[str, str], one: str, other: str, connected: bool | None
) -> Tenant:
    for name in (one, other):
        if name not in owners:
            raise Misuse(f"there is no endpoint {name!r}; {suggest(name, list(owners), noun='endpoint')}")
    if one == other:
        raise Misuse(f"{one!r} and {other!r} are one endpoint: name two")
    if owners[one] != owners[other]:
        raise Conflict(
            f"{one!r} belongs to tenant {owners[one]!r} and {other!r} to {owners[other]!r}: tenants are never connected"
        )
    tenant = tenants[owners[one]]
    pairs = {pair: value for pair, value in tenant.pairs.items() if pair != pair_of(one, other)}
    if connected is not None:
        pairs[pair_of(one, other)] = connected
    return msgspec.structs.replace(tenant, pairs=pairs)
