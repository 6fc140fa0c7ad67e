"""Who may talk to whom, and which rule says so."""

import pytest

from nvi.model import Endpoint, Network, Tenant
from nvi.policy import judge


def network(name: str, third: int) -> Network:
    return Network(name, bytes([10, 0, third, 0]), 24, bytes([10, 0, third, 254]))


def endpoint(name: str, net: str, tenant: str = "acme") -> Endpoint:
    return Endpoint(name, tenant, net, bytes(6), b"\x0a\0\0\1", "h1")


ACME = Tenant(
    "acme",
    {"web": network("web", 1), "db": network("db", 2), "lab": network("lab", 3)},
    {"backend": ("web", "db1")},
)


@pytest.mark.parametrize(
    ("initiator", "responder", "allowed", "rule"),
    [
        (endpoint("web1", "web"), endpoint("web2", "web"), True, "same network web"),
        (endpoint("web1", "web"), endpoint("db1", "db"), True, "common group backend"),
        (endpoint("db1", "db"), endpoint("web1", "web"), True, "common group backend"),
        (endpoint("web1", "web"), endpoint("db2", "db"), False, "no rule allows it"),
        (endpoint("web1", "web"), endpoint("lab1", "lab"), False, "no rule allows it"),
        (endpoint("web1", "web"), endpoint("web1", "web", "globex"), False, "another tenant"),
        (endpoint("web1", "web", "globex"), endpoint("web2", "web"), False, "another tenant"),
    ],
)
def test_judge(initiator, responder, allowed, rule):
    verdict = judge(ACME, initiator, responder)
    assert (verdict.allowed, verdict.rule) == (allowed, rule)
