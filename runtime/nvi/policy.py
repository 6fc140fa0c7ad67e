"""Who may talk to whom. No I/O.

Every verdict names the rule that made it, so a refusal can be explained. Precedence, as far as this version has it:
same network, then common group, then deny. Another tenant is never even a candidate: endpoints are looked up within
their tenant.
"""

from __future__ import annotations

from msgspec import Struct

from .model import Endpoint, Tenant


class Verdict(Struct, frozen=True):
    """What the policy says of a connection, and why."""

    allowed: bool
    rule: str


def judge(tenant: Tenant, initiator: Endpoint, responder: Endpoint) -> Verdict:
    """May `initiator` open a connection to `responder`? Both are the tenant's."""
    if initiator.tenant != tenant.name or responder.tenant != tenant.name:
        return Verdict(False, "another tenant")
    if initiator.network == responder.network:
        return Verdict(True, f"same network {initiator.network}")
    for name, members in tenant.groups.items():
        if _among(initiator, members) and _among(responder, members):
            return Verdict(True, f"common group {name}")
    return Verdict(False, "no rule allows it")


def _among(endpoint: Endpoint, members: tuple[str, ...]) -> bool:
    return endpoint.network in members or endpoint.name in members
