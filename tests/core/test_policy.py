"""Who may talk to whom, and which rule says so."""

import pytest

from nvi.model import Endpoint, Network, Rule, Subnet, Tenant, pair_of
from nvi.policy import Verdict, ambiguities, describe, judge


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


OPEN = Network("open", (Subnet(bytes([10, 0, 4, 0]), 24, bytes([10, 0, 4, 254])),), internet=True)
OPEN1 = endpoint("open1", "open")
PEER = Endpoint.outside("acme", b"\xcb\0\x71\7", "e9")


def connected(rules=()):
    return Tenant("acme", {**ACME.networks, "open": OPEN}, ACME.groups, tuple(rules))


@pytest.mark.parametrize(
    ("rules", "initiator", "port", "allowed", "rule"),
    [
        ([], WEB1, 80, False, "network web does not say internet: allow"),
        ([], OPEN1, 80, True, "network open says internet: allow"),
        ([Rule("web1", "internet", True, 6, (80,))], WEB1, 80, True, "rule 1: allow web1 -> internet tcp 80"),
        ([Rule("web1", "internet", True, 6, (80,))], WEB1, 22, False, "network web does not say internet: allow"),
        ([Rule("backend", "internet", False)], WEB1, 80, False, "rule 1: deny backend -> internet"),
        ([Rule("open", "internet", False, 6, (25,))], OPEN1, 25, False, "rule 1: deny open -> internet tcp 25"),
        ([Rule("internet", "open", False)], OPEN1, 80, True, "network open says internet: allow"),
        ([Rule("open", "web", False)], OPEN1, 80, True, "network open says internet: allow"),
    ],
)
def test_the_internet_is_reached_by_a_rule_or_else_if_the_network_says_so(rules, initiator, port, allowed, rule):
    assert judge(connected(rules), initiator, PEER, 6, port) == Verdict(allowed, rule)


@pytest.mark.parametrize(
    ("rules", "published", "allowed", "rule"),
    [
        ([], True, True, "a published service"),
        ([], False, False, "not published"),
        ([Rule("internet", "web1", False)], True, False, "rule 1: deny internet -> web1"),
        ([Rule("internet", "web2", False)], True, True, "a published service"),
        ([Rule("web1", "internet", True)], False, False, "not published"),
    ],
)
def test_the_internet_reaches_what_is_published_unless_a_rule_denies_it(rules, published, allowed, rule):
    assert judge(connected(rules), PEER, WEB1, 6, 80, published=published) == Verdict(allowed, rule)


def test_who_is_outside_of_the_networks():
    assert not any(connected().holds(address) for address in (b"\x0a\0\5\1", b"\xcb\0\x71\7", bytes(16)))
    assert connected().holds(b"\x0a\0\4\7")


def test_icmp_means_ping_in_both_families():
    denied = tenant([Rule("web", "web", False, 1)])
    assert not judge(denied, WEB1, WEB2, 1, 0x0800).allowed
    assert not judge(denied, WEB1, WEB2, 58, 0x0800).allowed
    only6 = tenant([Rule("web", "web", False, 58)])
    assert judge(only6, WEB1, WEB2, 1, 0x0800).allowed
    assert not judge(only6, WEB1, WEB2, 58, 0x0800).allowed


@pytest.mark.parametrize(("protocol", "name"), [(47, "gre"), (132, "sctp"), (253, "253"), (58, "icmpv6")])
def test_a_rule_for_any_protocol_can_be_shown(protocol, name):
    assert describe(Rule("web", "db", True, protocol)) == f"allow web -> db {name}"
    assert judge(tenant([Rule("web", "db", True, protocol)]), WEB1, DB1, protocol, 0).allowed


def test_a_name_that_means_two_things_is_an_error():
    twice = Tenant("acme", ACME.networks, {"web": ("db",)})
    assert ambiguities(twice) == ["'web' is both network and group for tenant acme: rename the former"]
    assert ambiguities(ACME, ["web1", "db"]) == ["'db' is both network and endpoint for tenant acme: rename the former"]
    assert ambiguities(Tenant("acme", {"internet": network("internet", 1)})) == [
        "'internet' is both network and the Internet for tenant acme: rename the former"
    ]
    assert ambiguities(ACME, ["web1"]) == []
