"""Who may talk to whom, and which rule says so."""

import pytest

from nvi.model import Endpoint, Network, Rule, Subnet, Tenant, pair_of
from nvi.policy import Verdict, judge


def network(name: str, third: int) -> Network:
    return Network(name, (Subnet(bytes([10, 0, third, 0]), 24, bytes([10, 0, third, 254])),))


def endpoint(name: str, net: str, tenant: str = "acme") -> Endpoint:
    return Endpoint(name, tenant, net, bytes(6), (b"\x0a\0\0\1",), "h1")


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
    verdict = judge(ACME, initiator, responder, 6, 80)
    assert (verdict.allowed, verdict.rule) == (allowed, rule)


def tenant(rules=(), pairs=None):
    return Tenant("acme", ACME.networks, ACME.groups, tuple(rules), pairs or {})


WEB1, WEB2, DB1, LAB1 = (
    endpoint(name, net) for name, net in [("web1", "web"), ("web2", "web"), ("db1", "db"), ("lab1", "lab")]
)


@pytest.mark.parametrize(
    ("rules", "protocol", "port", "allowed", "rule"),
    [
        ([Rule("web", "db1", False)], 6, 80, False, "rule 1: deny web -> db1"),
        ([Rule("web", "db1", False)], 1, 0x0800, False, "rule 1: deny web -> db1"),
        ([Rule("web", "db1", False, 6, (80, 443))], 6, 443, False, "rule 1: deny web -> db1 tcp 80,443"),
        ([Rule("web", "db1", False, 6, (80, 443))], 6, 22, True, "common group backend"),
        ([Rule("web", "db1", False, 6)], 17, 80, True, "common group backend"),
        ([Rule("web", "db1", False, None, (80,))], 1, 80, True, "common group backend"),
        ([Rule("db1", "web", False)], 6, 80, True, "common group backend"),
        ([Rule("web1", "backend", True), Rule("web", "db", False)], 6, 80, True, "rule 1: allow web1 -> backend"),
        ([Rule("web", "db", False), Rule("web1", "backend", True)], 6, 80, False, "rule 1: deny web -> db"),
        ([Rule("web2", "db", False), Rule("web1", "lab", True)], 6, 80, True, "common group backend"),
    ],
)
def test_the_first_rule_that_matches_decides_before_networks_and_groups(rules, protocol, port, allowed, rule):
    verdict = judge(tenant(rules), WEB1, DB1, protocol, port)
    assert (verdict.allowed, verdict.rule) == (allowed, rule)


def test_a_pair_decides_before_all_else_in_both_orientations():
    cut = tenant([Rule("web", "web", True)], {pair_of("web2", "web1"): False})
    drawn = tenant([Rule("web", "lab", False)], {pair_of("web1", "lab1"): True})
    for one, other in ((WEB1, WEB2), (WEB2, WEB1)):
        assert judge(cut, one, other, 6, 80) == Verdict(False, "disconnect web1 web2")
    for one, other in ((WEB1, LAB1), (LAB1, WEB1)):
        assert judge(drawn, one, other, 6, 80) == Verdict(True, "connect lab1 web1")
