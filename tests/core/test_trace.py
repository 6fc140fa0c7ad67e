"""What would happen to a packet, and why, as the rules say it."""

import json

import pytest

from nvi.model import Endpoint, External, Host, Network, Rule, Subnet, Tenant, read_address
from nvi.trace import Known, Question, trace


def at(text: str) -> bytes:
    return read_address(text)


def subnet(n: int) -> Subnet:
    return Subnet(bytes([10, 0, n, 0]), 24, bytes([10, 0, n, 254]))


WEB = Network("web", (subnet(1), Subnet(at("fd00:1::"), 64, at("fd00:1::ffff"))), internet=True)
DB = Network("db", (subnet(2),))
ACME = Tenant("acme", {"web": WEB, "db": DB}, rules=(Rule("web", "db", True, 6, (5432,)),))


def endpoint(name: str, network: str, host: str, *addresses: str) -> Endpoint:
    return Endpoint(name, "acme", network, b"\2\0\0\0\0\1", tuple(map(at, addresses)), host)


WEB1 = endpoint("web1", "web", "e1", "10.0.1.1", "fd00:1::1")
WEB2 = endpoint("web2", "web", "e2", "10.0.1.2", "fd00:1::2")
WEB3 = endpoint("web3", "web", "e1", "10.0.1.3")
DB1 = endpoint("db1", "db", "w1", "10.0.2.1")

E1 = Host("e1", "east", (at("172.16.1.1"),))
E2 = Host("e2", "east", (at("172.16.2.1"),))
E8 = Host("e8", "east", (at("172.16.1.8"),), external=External(at("198.51.100.8"), at("198.51.100.8")))
E9 = Host("e9", "east", (at("172.16.1.9"),), external=External(at("198.51.100.1"), at("198.51.100.1")))
W1 = Host("w1", "west", (at("172.16.1.1"),))
W9 = Host("w9", "west", (at("172.16.1.9"),), external=External(at("10.99.0.2"), at("198.51.100.2")))
HOSTS = {host.name: host for host in (E1, E2, W1)}
GATEWAYS = {"east": (E9,), "west": (W9,)}


def ask(source, destination, question, **known):
    hosts = {name: HOSTS[name] for name in {source.host, destination.host if destination else source.host}}
    fields = {"hosts": hosts, "gateways": GATEWAYS} | known
    return trace(question, Known(ACME, source, destination, **fields))


def path_of(answer) -> list[tuple[str, str | None, str | None]]:
    return [(hop.host, hop.wire, hop.destination) for hop in answer.hops[1:]]


def test_within_a_host():
    answer = ask(WEB1, WEB3, Question(at("10.0.1.3"), 6, 80))
    assert (answer.verdict, answer.rule) == ("delivered", "same network web")
    assert path_of(answer) == [("e1", "endpoint", "10.0.1.3")]


def test_within_a_site():
    answer = ask(WEB1, WEB2, Question(at("10.0.1.2"), 17, 53))
    assert path_of(answer) == [("e1", "underlay", "172.16.2.1"), ("e2", "endpoint", "10.0.1.2")]
    assert answer.hops[1].source == "172.16.1.1"
    assert answer.reason == "it reaches web2 over 2 hosts"


def test_ipv6_over_ipv4():
    answer = ask(WEB1, WEB2, Question(at("fd00:1::2"), 58))
    assert path_of(answer) == [("e1", "underlay", "172.16.2.1"), ("e2", "endpoint", "fd00:1::2")]
    assert "of the other family" in answer.hops[1].does


def test_through_two_gateways_one_behind_a_nat():
    answer = ask(WEB1, DB1, Question(at("10.0.2.1"), 6, 5432))
    assert (answer.verdict, answer.rule) == ("delivered", "rule 1: allow web -> db tcp 5432")
    assert path_of(answer) == [
        ("e1", "underlay", "172.16.1.9"),
        ("e9", "external", "198.51.100.2"),
        ("w9", "underlay", "172.16.1.1"),
        ("w1", "endpoint", "10.0.2.1"),
    ]
    assert "a TTL that is one less" in answer.hops[-1].does


def test_several_gateways_share_and_the_trace_says_so():
    gateways = {"east": (E8, E9), "west": (W9,)}
    seen = set()
    for port in range(1000, 1020):
        answer = ask(WEB1, DB1, Question(at("10.0.2.1"), 6, 5432, port), gateways=gateways)
        chosen = answer.hops[2]
        assert {chosen.host, *chosen.instead} == {"e8", "e9"}
        seen.add(chosen.host)
    assert seen == {"e8", "e9"}


def test_what_the_policy_denies_names_its_rule():
    answer = ask(WEB1, DB1, Question(at("10.0.2.1"), 6, 22))
    assert (answer.verdict, answer.rule) == ("refused", "no rule allows it")
    assert answer.reason == "the policy does not allow web1 to connect to db1"
    assert len(answer.hops) == 1


@pytest.mark.parametrize(
    ("destination", "protocol", "verdict", "reason"),
    [
        ("10.0.1.254", 1, "answered", "the router of network web answers ping"),
        ("10.0.1.254", 6, "refused", "10.0.1.254 is the router of network web, which serves nothing"),
        ("10.0.1.1", 6, "refused", "10.0.1.1 is the address of web1 itself"),
        ("10.0.2.9", 6, "refused", "tenant acme has no endpoint 10.0.2.9"),
        ("224.0.0.5", 17, "dropped", "224.0.0.5 is a group or nobody"),
        ("255.255.255.255", 17, "dropped", "255.255.255.255 is a group or nobody"),
        ("169.254.1.1", 6, "refused", "nothing is carried there: 169.254.1.1 is a link-local address"),
    ],
)
def test_what_goes_nowhere(destination, protocol, verdict, reason):
    answer = ask(WEB1, None, Question(at(destination), protocol, 80 if protocol != 1 else 0))
    assert answer.verdict == verdict
    assert answer.reason.startswith(reason)


def test_a_family_that_the_sender_does_not_have_is_not_admitted():
    answer = ask(WEB3, WEB2, Question(at("fd00:1::2"), 6, 80))
    assert (answer.verdict, answer.reason[:28]) == ("dropped", "web3 has no address of the f")


def test_a_host_whose_lease_has_run_out():
    answer = ask(WEB1, WEB2, Question(at("10.0.1.2"), 6, 80), hosts={"e1": E1})
    assert (answer.verdict, answer.rule) == ("refused", "same network web")
    assert answer.reason.startswith("host e2 is not in the directory")


def test_a_site_without_a_gateway():
    answer = ask(WEB1, DB1, Question(at("10.0.2.1"), 6, 5432), gateways={"west": (W9,)})
    assert (answer.verdict, answer.reason[:37]) == ("refused", "site east has no live gateway; give o")


def test_to_the_internet():
    answer = ask(WEB1, None, Question(at("203.0.113.7"), 6, 443))
    assert (answer.verdict, answer.rule) == ("delivered", "network web says internet: allow")
    assert path_of(answer) == [("e1", "underlay", "172.16.1.9"), ("e9", "external", "203.0.113.7")]
    assert answer.hops[-1].source == "198.51.100.1"
    assert ask(DB1, None, Question(at("203.0.113.7"), 6, 443)).rule == "network db does not say internet: allow"
    own = ask(WEB1, None, Question(at("198.51.100.2"), 6, 22), destination_gateway=W9)
    assert (own.verdict, "public address of host w9" in own.reason) == ("refused", True)
    host = ask(WEB1, None, Question(at("172.16.2.1"), 6, 22), destination_host=E2)
    assert (host.verdict, "underlay address of host e2" in host.reason) == ("refused", True)


def test_extension_headers_are_not_carried_across_families():
    answer = ask(WEB1, WEB2, Question(at("fd00:1::2"), 60))
    assert (answer.verdict, "extension headers" in answer.reason) == ("refused", True)


def test_its_schema():
    shown = ask(WEB1, WEB2, Question(at("10.0.1.2"), 6, 80)).shown()
    assert list(shown) == ["schema", "verdict", "reason", "rule", "hops"]
    assert (shown["schema"], list(shown["hops"][0])) == (
        1,
        ["host", "does", "source", "destination", "wire", "instead"],
    )
    assert json.loads(json.dumps(shown))["hops"][1]["destination"] == "172.16.2.1"
