"""Topology files: what they mean, and everything that can be wrong with them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from nvi.model import External, Rule, Service, Subnet, derive_mac, read_address, read_mac
from nvi.topology import TopologyError, load, loads

ROOT = Path(__file__).parents[2]

GOOD = """\
name: farm
idle_timeout: 12.5
sites: {dc: {}}
hosts:
  h1: {site: dc, underlay: 172.16.1.1/24}
  h2: {site: dc, underlay: [172.16.2.1/24, 172.16.2.2/24]}
tenants:
  red:
    networks:
      web: {cidr: 10.0.1.0/24, gateway: 10.0.1.254}
      db: {cidr: 10.0.2.0/24, gateway: 10.0.2.254, internet: deny}
    groups:
      all: [web, b]
  blue:
    networks:
      web: {cidr: 10.0.1.0/24, gateway: 10.0.1.254}
endpoints:
  a: {tenant: red, network: web, ip: 10.0.1.1, host: h1}
  b: {tenant: red, network: db, ip: 10.0.2.1, host: h2, mac: "02:00:00:00:00:0b"}
  c: {tenant: blue, network: web, ip: 10.0.1.1, host: h1}
policies: []
"""


def policy(text: str) -> str:
    """The section with one rule of tenant red, on line 22."""
    return f"policies:\n  - {{tenant: red, {text}}}"


def problems(text: str) -> list[tuple[int, str]]:
    """(line, rest of the message) of everything that is wrong."""
    try:
        loads(text, Path("f.yaml"))
    except TopologyError as error:
        lines = str(error).splitlines()
        assert len(lines) == len(error.problems)
        assert all("; " in line for line in lines), "each says what to do"
        split = [line.split(":", 2) for line in lines]
        assert all(file == "f.yaml" for file, _, _ in split)
        return [(int(line), rest) for _, line, rest in split]
    return []


EXAMPLES = sorted(path.stem for path in (ROOT / "topologies").glob("*.yaml"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_load(name: str) -> None:
    assert load(ROOT / "topologies" / f"{name}.yaml").name == name


def test_rules_are_in_the_order_of_the_file() -> None:
    rules = (
        "policies:\n"
        "  - {tenant: red, from: web, to: b, protocol: tcp, ports: [80, 443], action: allow}\n"
        "  - {tenant: red, from: a, to: all, protocol: icmp, action: deny}\n"
        "  - {tenant: blue, from: c, to: web, action: deny}\n"
    )
    tenants = loads(GOOD.replace("policies: []", rules), Path("f.yaml")).tenants
    assert tenants["red"].rules == (Rule("web", "b", True, 6, (80, 443)), Rule("a", "all", False, 1))
    assert tenants["blue"].rules == (Rule("c", "web", False),)


def test_what_a_file_means() -> None:
    topology = loads(GOOD, Path("f.yaml"))
    assert (topology.name, topology.idle_timeout, list(topology.sites)) == ("farm", 12.5, ["dc"])
    assert topology.hosts["h2"].host.addresses == (read_address("172.16.2.1"), read_address("172.16.2.2"))
    assert topology.hosts["h1"].subnets == (ip_network("172.16.1.0/24"),)
    red = topology.tenants["red"]
    assert red.groups == {"all": ("web", "b")}
    assert red.networks["db"].subnets[0].cidr == "10.0.2.0/24"
    a, b = topology.endpoints["a"], topology.endpoints["b"]
    assert a.mac == derive_mac("endpoint", "red", "a")
    assert b.mac == read_mac("02:00:00:00:00:0b")
    assert [endpoint.name for endpoint in topology.endpoints_of("h1")] == ["a", "c"]


# Each: what to replace in the file above, by what, the line of the problem, and a part of what is said of it.
CASES = [
    ("sites: {dc: {}}", "sites: {dc: {}}\nsite: x", 4, "unknown key 'site'; did you mean 'sites'?"),
    ("host: h1}\n  b", "hots: h1}\n  b", 18, "unknown key 'hots'; did you mean 'host'?"),
    ("idle_timeout: 12.5", "idle_timeout: 0", 2, "0 is not between"),
    ("idle_timeout: 12.5", "idle_timeout: -1", 2, "-1 is not between"),
    ("idle_timeout: 12.5", "idle_timeout: .nan", 2, "'.nan' is not a number"),
    ("idle_timeout: 12.5", "idle_timeout: inf", 2, "inf is not between"),
    ("idle_timeout: 12.5", "idle_timeout: 30s", 2, "'30s' is not a number"),
    ("idle_timeout: 12.5", "idle_timeout: [1]", 2, "must be a single value"),
    ("idle_timeout: 12.5", "punt_rate: 0", 2, "'0' is not a whole number from 1 to"),
    ("idle_timeout: 12.5", "punt_rate: 1e3", 2, "'1e3' is not a whole number from 1 to"),
    ("name: farm", "nam: farm", 1, "has no 'name'"),
    ("name: farm", "name: my farm", 1, "'my farm' would not work"),
    ("sites: {dc: {}}", "sites: {}", 3, "has no 'sites'"),
    ("sites: {dc: {}}", "sites: {dc: {mtu: 1279}}", 3, "'1279' is not between 1280 and 1500 bytes"),
    ("sites: {dc: {}}", "sites: {dc: {mtu: big}}", 3, "'big' is not between 1280 and 1500 bytes"),
    ("sites: {dc: {}}", "sites: {dc: {x: 1}}", 3, "unknown key 'x'"),
    ("h1: {site: dc,", "h1: {site: cd,", 5, "unknown site 'cd'"),
    ("h1: {site: dc, underlay: 172.16.1.1/24}", "h1: {site: dc}", 5, "has no 'underlay'"),
    ("172.16.1.1/24", "172.16.1.1", 5, "has no prefix length"),
    ("172.16.1.1/24", "172.16.1.1/33", 5, "'172.16.1.1/33'"),
    ("172.16.1.1/24", "172.16.1.0/24", 5, "the network itself or its broadcast"),
    ("172.16.1.1/24", "172.16.1.255/24", 5, "the network itself or its broadcast"),
    ("172.16.1.1/24", "224.0.0.1/24", 5, "not an address that a machine can have"),
    ("172.16.1.1/24", "127.0.0.1/24", 5, "not an address that a machine can have"),
    ("172.16.1.1/24", "169.254.1.1/24", 5, "link-local"),
    ("172.16.1.1/24", '"fd00::/64"', 5, "its routers' anycast address"),
    ("172.16.1.1/24", '"fe80::1/64"', 5, "link-local"),
    ("172.16.1.1/24", '"::ffff:1.2.3.4/64"', 5, "not an address that a machine can have"),
    ("172.16.1.1/24", '"fd00::ffff:ffff:ffff:ffff/64"', 5, "it has the address of its subnet's router"),
    ("172.16.1.1/24", "172.16.2.1/24", 6, "172.16.2.1 is the address of host 'h1' (line 5)"),
    ("172.16.2.2/24", "172.16.2.1/24", 6, "172.16.2.1 appears twice"),
    ("172.16.2.2/24", "172.16.3.2/24", 6, "two subnets of one family (172.16.2.0/24 and 172.16.3.0/24)"),
    ("172.16.1.1/24", "172.16.1.254/24", 5, "cannot reach its site 'dc': it has the address of its subnet's router"),
    ("172.16.1.1/24", "172.16.1.1/32", 5, "cannot reach its site 'dc': its subnet 172.16.1.1/32 has no room"),
    ("172.16.1.1/24", "172.16.0.1/16", 6, "172.16.2.0/24 overlaps with 172.16.0.0/16 of host 'h1' (line 5)"),
    ("h2: {site", "h1: {site", 6, "'h1' appears twice (first on line 5)"),
    ("h2: {site", "h 2: {site", 6, "'h 2' would not work"),
    ("h2: {site", "-h2: {site", 6, "'-h2' would not work"),
    ("h2: {site", "../h2: {site", 6, "'../h2' would not work"),
    ("172.16.1.1/24}", "172.16.1.1/24, pool: 172.16.1.65/29}", 5, "an address inside the network 172.16.1.64/29"),
    ("172.16.1.1/24}", "172.16.1.1/24, pool: 172.16.3.64/29}", 5, "outside the host's underlay (172.16.1.0/24)"),
    ("172.16.1.1/24}", "172.16.1.1/24, pool: 172.16.1.0/29}", 5, "the address of the network itself"),
    ("172.16.1.1/24}", "172.16.1.1/24, pool: 172.16.1.252/31}", 0, ""),
    ("172.16.1.1/24}", "172.16.1.1/24, pool: 172.16.1.253/32}", 0, ""),
    (
        "172.16.1.1/24}",
        "172.16.1.1/24, pool: 172.16.1.254/32}",
        5,
        "172.16.1.254 of its pool is the address of its subn",
    ),
    (
        "172.16.1.1/24}",
        "172.16.1.1/24, pool: [172.16.1.1/32]}",
        5,
        "172.16.1.1 of its pool is the address of host 'h1'",
    ),
    ("172.16.1.1/24}", "172.16.1.1/16, pool: 172.16.8.0/23}", 5, "more than 256 addresses"),
    ("172.16.1.1/24}", "172.16.1.1/24, external: 198.51.100.1/24}", 5, "must be a group of keys"),
    ("172.16.1.1/24}", "172.16.1.1/24, external: {public: 198.51.100.1}}", 5, "has no 'address'"),
    ("172.16.1.1/24}", "172.16.1.1/24, external: {address: 198.51.100.1}}", 5, "has no prefix length"),
    ("172.16.1.1/24}", "172.16.1.1/24, external: {address: 198.51.100.254/24}}", 5, "cannot reach the outside world"),
    ("172.16.1.1/24}", "172.16.1.1/24, external: {address: 198.51.100.1/32}}", 5, "has no room for a router"),
    ("172.16.1.1/24}", "172.16.1.1/24, external: {address: 172.16.1.8/29}}", 5, "the address of the network itself"),
    ("172.16.1.1/24}", "172.16.1.1/24, external: {address: 172.16.1.9/29}}", 5, "overlaps with the underlay of its si"),
    ("172.16.1.1/24}", "172.16.1.1/24, external: {address: 10.9.0.1/24, public: '::5:6'}}", 5, "not an address that"),
    (
        "172.16.1.1/24}",
        "172.16.1.1/24, external: {address: 10.9.0.1/24, public: 'fd00::1'}}",
        5,
        "cannot become fd00::1",
    ),
    ("10.0.2.0/24, g", "10.0.1.0/25, g", 11, "10.0.1.0/25 overlaps with 10.0.1.0/24 of red/web (line 10)"),
    ("10.0.2.0/24, g", "10.0.2.3/24, g", 11, "an address inside the network 10.0.2.0/24"),
    ("10.0.2.0/24, g", "10.0.2.0/31, g", 11, "no room for a gateway and an endpoint"),
    ("10.0.2.0/24, g", '"fd00::/64", g', 11, "is IPv6, which belongs to 'cidr6'"),
    ("cidr: 10.0.2.0/24, gateway: 10.0.2.254", "internet: deny", 11, "has no 'cidr'"),
    ("10.0.2.254, i", "10.0.2.254, gateway6: 'fd00::1', i", 11, "has 'gateway6' and no 'cidr6'"),
    ("10.0.2.254, i", "10.0.2.254, cidr6: 'fd00::/64', i", 11, "has no 'gateway6'"),
    ("10.0.2.254, i", "10.0.2.254, cidr6: 'fd00::/64', gateway6: 'fd01::1', i", 11, "fd01::1 is outside its network"),
    ("10.0.2.254, i", "10.0.2.254, cidr6: 'fe80::/64', gateway6: 'fe80::1', i", 11, "link-local"),
    ("10.0.2.254, i", "10.0.2.254, dns: [10.0.2.253, x], i", 11, "'x'"),
    ("gateway: 10.0.2.254", "gateway: 10.0.3.254", 11, "10.0.3.254 is outside its network"),
    ("gateway: 10.0.2.254", "gateway: 10.0.2.1", 19, "10.0.2.1 is the gateway of red/db"),
    ("gateway: 10.0.2.254", "gateway: 10.0.2.255", 11, "its broadcast address"),
    (", gateway: 10.0.2.254", "", 11, "has no 'gateway'"),
    ("internet: deny", "internet: alow", 11, "did you mean 'allow'?"),
    ("[web, b]", "[web, bb]", 13, "unknown member 'bb'; did you mean 'b'?"),
    ("[web, b]", "[web, c]", 13, "unknown member 'c'"),
    ("[web, b]", "{web: b}", 13, "must be a list"),
    ("tenant: red, network: web", "tenant: rde, network: web", 18, "unknown tenant 'rde'; did you mean 'red'?"),
    ("tenant: red, network: web", "tenant: red, network: wbe", 18, "unknown network 'wbe'; did you mean 'web'?"),
    ("10.0.1.1, host: h1}\n  b", "10.0.9.1, host: h1}\n  b", 18, "10.0.9.1 is outside its network (10.0.1.0/24)"),
    ("10.0.1.1, host: h1}\n  b", "10.0.1.300, host: h1}\n  b", 18, "'10.0.1.300'"),
    ("10.0.1.1, host: h1}\n  b", "10.0.1.1, ip6: 'fd00::1', host: h1}\n  b", 18, "its network has no IPv6"),
    ("ip: 10.0.1.1, host: h1}\n  b", "host: h1}\n  b", 18, "has no 'ip'"),
    (", host: h2", "", 19, "is on no host"),
    (", host: h2", ", host: h3", 19, "unknown host 'h3'"),
    ("02:00:00:00:00:0b", "02:00:00:00:00", 19, "is not a MAC address"),
    ("02:00:00:00:00:0b", "03:00:00:00:00:0b", 19, "group address"),
    ("  c: {tenant: blue", "  c: {tenant: red", 20, "10.0.1.1 is the address of endpoint 'a' (line 18)"),
    ("  c: {", "  a: {", 20, "'a' appears twice (first on line 18)"),
    ("  c: {", "  h1: {", 20, "a host has this name too (line 5)"),
    ("ip: 10.0.1.1, host: h1}\n  b", "ip: 10.0.1.1, ip: 10.0.1.2, host: h1}\n  b", 18, "'ip' appears twice"),
    ("policies: []", "policies: [{action: allow}]", 21, "has no 'tenant'"),
    ("policies: []", policy("from: web, to: b, action: perhaps"), 22, "unknown action 'perhaps'"),
    ("policies: []", policy("from: web, to: b"), 22, "has no 'action'"),
    ("policies: []", policy("from: wbe, to: b, action: deny"), 22, "'wbe'; did you mean 'web'?"),
    (
        "policies: []",
        policy("from: web, to: c, action: deny"),
        22,
        "tenant 'red' has no endpoint, network or group 'c'",
    ),
    ("policies: []", policy("from: internet, to: internet, action: deny"), 22, "has the Internet at both ends"),
    ("policies: []", policy("from: web, to: b, action: deny, protocol: gre"), 22, "unknown protocol 'gre'"),
    ("policies: []", policy("from: web, to: b, action: deny, ports: [80]"), 22, "say tcp or udp"),
    ("policies: []", policy("from: web, to: b, action: deny, protocol: tcp, ports: [0]"), 22, "'0' is not a port"),
    (
        "policies: []",
        policy("from: web, to: b, action: deny, port: 80"),
        22,
        "unknown key 'port'; did you mean 'ports'?",
    ),
    ("policies: []", "publish: [{port: 80}]", 21, "published service: has no 'endpoint'"),
    ("policies: []", "publish: [{endpoint: aa, port: 80, via: h1}]", 21, "unknown endpoint 'aa'; did you mean 'a'?"),
    (
        "policies: []",
        "publish: [{endpoint: a, port: 80, via: h1}]",
        21,
        "unknown gateway 'h1'; there is no gateway yet",
    ),
    ("policies: []", "publish: [{endpoint: a, port: 80x, via: h1}]", 21, "'80x' is not a port"),
    ("policies: []", "publish: [{endpoint: a, port: 80, via: h1, external_port: 20000}]", 21, "among the keys"),
    ("policies: []", "publish: [{endpoint: a, port: 30000, via: h1}]", 21, "'external_port': 30000 is among the keys"),
    ("policies: []", "publish: [{endpoint: a, port: 80, via: h1, protocol: icmp}]", 21, "unknown protocol 'icmp'"),
    ("policies: []", "internet: {outside: 203.0.113.7/24}", 21, "'203.0.113.7/24'"),
    ("policies: []", "internet: {outside: 224.0.0.1}", 21, "not an address that a machine can have"),
    ("policies: []", "internet: {outside: {a: 1}}", 21, "outside host 'outside' must be an address"),
    ("policies: []", "internet: {h1: 203.0.113.7}", 21, "a host has the name 'h1' too (line 5)"),
    ("policies: []", "internet: {x: 203.0.113.7, y: 203.0.113.7}", 21, "203.0.113.7 is the external address of 'x'"),
    ("policies: []", "nonsense", 21, "not valid YAML"),
    ("name: farm", "name: &x [*x]", 1, "contains itself"),
    ("name: farm", "name: [farm", 2, "not valid YAML"),
    ("name: farm", "name: \t\x07", 1, "not valid YAML"),
]


@pytest.mark.parametrize(("old", "new", "line", "said"), CASES)
def test_problems_are_told_with_their_line(old: str, new: str, line: int, said: str) -> None:
    assert old in GOOD
    found = problems(GOOD.replace(old, new, 1))
    if said:
        assert any(at == line and said in what for at, what in found), found
    else:
        assert not found


CLOUDS = """\
name: clouds
sites: {east: {}, west: {mtu: 1400}}
hosts:
  e1: {site: east, underlay: 172.16.1.1/24}
  e2: {site: east, underlay: [172.16.1.2/24, "fd00:e::2/64"], pool: [172.16.1.64/31, "fd00:e::40/127"]}
  e9: {site: east, underlay: 172.16.1.9/24, external: {address: 198.51.100.1/24}}
  w9: {site: west, underlay: 172.16.1.1/24, external: {address: 10.99.0.2/24, public: 198.51.100.2}}
internet: {outside: [203.0.113.7, "2001:db8::7"]}
tenants:
  red:
    networks:
      web: {cidr: 10.0.1.0/24, gateway: 10.0.1.254, cidr6: "fd00:1::/64", gateway6: "fd00:1::fe", internet: allow}
      six: {cidr6: "fd00:2::/64", gateway6: "fd00:2::fe", dns: ["fd00:2::53"]}
endpoints:
  a: {tenant: red, network: web, ip6: "fd00:1::1", ip: 10.0.1.1, host: e1}
  b: {tenant: red, network: six, ip6: "fd00:2::1", host: w9}
policies:
  - {tenant: red, from: web, to: internet, action: deny}
publish:
  - {endpoint: a, port: 80, via: e9, external_port: 8080}
  - {endpoint: a, port: 53, protocol: udp, via: w9}
"""


def test_what_a_file_of_several_sites_means() -> None:
    topology = loads(CLOUDS, Path("f.yaml"))
    assert {name: site.mtu for name, site in topology.sites.items()} == {"east": 1500, "west": 1400}
    e2, e9, w9 = (topology.hosts[name].host for name in ("e2", "e9", "w9"))
    assert e2.addresses == (read_address("172.16.1.2"), read_address("fd00:e::2"))
    pool = ("172.16.1.64", "172.16.1.65", "fd00:e::40", "fd00:e::41")
    assert e2.pool == tuple(map(read_address, pool))
    assert e9.external == External(read_address("198.51.100.1"), read_address("198.51.100.1"))
    assert w9.external == External(read_address("10.99.0.2"), read_address("198.51.100.2"))
    assert topology.outside == {"outside": (ip_address("203.0.113.7"), ip_address("2001:db8::7"))}
    web, six = topology.tenants["red"].networks.values()
    assert web.internet
    assert web.subnets[1] == Subnet(read_address("fd00:1::"), 64, read_address("fd00:1::fe"))
    assert (six.internet, six.dns) == (False, (read_address("fd00:2::53"),))
    a, b = topology.endpoints.values()
    assert a.addresses == (read_address("10.0.1.1"), read_address("fd00:1::1"))
    assert b.addresses == (read_address("fd00:2::1"),)
    assert topology.tenants["red"].rules == (Rule("web", "internet", False),)
    assert topology.services == (
        Service("red", read_address("10.0.1.1"), 80, 6, "e9", 8080),
        Service("red", read_address("10.0.1.1"), 53, 17, "w9", 53),
    )


def test_the_mtu_of_endpoints_leaves_room_for_a_longer_header() -> None:
    assert loads(CLOUDS, Path("f.yaml")).mtu_of("red", "web") == 1500
    only_ipv6 = loads(CLOUDS.replace("underlay: 172.16.1.1/24}", 'underlay: "fd00:e::1/64"}', 1), Path("f.yaml"))
    assert only_ipv6.mtu_of("red", "web") == 1472
    assert only_ipv6.mtu_of("red", "six") == 1500


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("198.51.100.1/24", "198.51.100.2/24", 7, "198.51.100.2 is the external address of host 'e9' (line 6) too"),
        ("public: 198.51.100.2", "public: 198.51.100.254", 7, "is the address of the router of 198.51.100.0/24"),
        ("public: 198.51.100.2", "public: 172.16.1.77", 7, "lies in the underlay of site 'east' (172.16.1.0/24)"),
        ("10.99.0.2/24", "10.99.0.254/24", 7, "cannot reach the outside world: it has the address of its subnet's"),
        ("203.0.113.7,", "198.51.100.2,", 8, "'outside': 198.51.100.2 is the external address of 'w9' (line 7)"),
        ("203.0.113.7,", "198.51.100.254,", 8, "is the address of the router of 198.51.100.0/24"),
        ("172.16.1.1/24, e", "172.16.1.1/24, pool: 172.16.1.1/32, e", 7, "of its pool is the address of host 'w9'"),
        ('"fd00:e::2/64"', '"fd00:e::2/64", "fd00:f::2/64"', 5, "one family (fd00:e::/64 and fd00:f::/64)"),
        ('"fd00:e::40/127"', '"fd00:f::40/127"', 5, "outside the host's underlay (172.16.1.0/24, fd00:e::/64)"),
        ("172.16.1.64/31", "172.16.1.8/31", 5, "172.16.1.9 of its pool is the address of host 'e9' (line 6)"),
        ('ip6: "fd00:2::1"', 'ip6: "fd00:1::2"', 16, "fd00:1::2 is outside its network (fd00:2::/64)"),
        ('ip6: "fd00:2::1"', 'ip6: "fd00:2::fe"', 16, "fd00:2::fe is the gateway of red/six"),
        ('ip6: "fd00:2::1"', "ip: 10.0.1.2", 16, "its network has no IPv4"),
        ('cidr6: "fd00:2::/64"', 'cidr6: "fd00:1::/60"', 13, "fd00:1::/60 overlaps with fd00:1::/64 of red/web"),
        ("  b: {", "  outside: {", 16, "a host has this name too (line 8)"),
        ("from: web, to: int", "from: internet, to: int", 18, "has the Internet at both ends"),
        ("network: web, ip6", "network: wbe, ip6", 15, "unknown network 'wbe'; did you mean 'web'?"),
        ("protocol: udp, via: w9", "via: e9, external_port: 8080", 21, "tcp port 8080 of 'e9' is taken (line 20)"),
        ("via: w9", "via: e1", 21, "unknown gateway 'e1'; use one of: e9, w9"),
    ],
)  # fmt: skip
def test_problems_of_several_sites(old: str, new: str, line: int, said: str) -> None:
    assert old in CLOUDS
    found = problems(CLOUDS.replace(old, new, 1))
    assert any(at == line and said in what for at, what in found), found


def test_a_name_for_the_internet_is_ambiguous_in_a_rule() -> None:
    text = GOOD.replace("all: [web, b]", "internet: [web, b]")
    rule = policy("from: web, to: internet, action: deny")
    assert not problems(text)
    ((line, what),) = problems(text.replace("policies: []", rule))
    assert (line, "both group and the Internet" in what) == (22, True)


def test_same_mac_in_one_network() -> None:
    text = GOOD.replace(
        "policies: []", '  d: {tenant: red, network: db, ip: 10.0.2.2, host: h1, mac: "02:00:00:00:00:0b"}'
    )
    assert [line for line, what in problems(text) if "is the MAC of endpoint 'b' (line 19)" in what] == [21]
    assert not problems(text.replace("network: db, ip: 10.0.2.2", "network: web, ip: 10.0.1.2"))


def test_the_gateways_mac_is_taken() -> None:
    mac = derive_mac("gateway", "red", "db").hex(":")
    assert problems(GOOD.replace("02:00:00:00:00:0b", mac))[0][0] == 19


def test_all_problems_at_once() -> None:
    text = GOOD
    for old, new in (("10.0.2.1,", "10.0.3.1,"), ("host: h2", "host: hh"), ("farm", "a b"), ("12.5", "no")):
        text = text.replace(old, new, 1)
    assert [line for line, _ in problems(text)] == [1, 2, 19, 19]


def test_something_else_than_a_topology() -> None:
    for text in ("", "# only a comment", "3", "[]", "[1, 2]", "name", "--- a\n--- b", "null"):
        assert problems(text), text


def test_files_that_are_not_text(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(b"name: x\nsites: \xff\xfe")
    with pytest.raises(TopologyError, match=r"f.yaml:2: not text in UTF-8"):
        load(file)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.yaml")
    with pytest.raises(IsADirectoryError):
        load(tmp_path)
