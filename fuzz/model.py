"""What is true of a farm whatever its agents think: who is where, who may talk to whom, and who can have heard of it.

Written down anew, and simply, from the design; nothing of it is computed by the code that it is compared with.
"""

from __future__ import annotations

from enum import StrEnum

from nvi.model import Address, Endpoint, External, Host, Network, Subnet, Tenant, derive_mac, pair_of

TENANTS = ("acme", "globex")
NETWORKS = ("web", "db")

HEARD = 1.0
"""Seconds within which an agent that can hear has made a change of the policy hold."""


class Invariant(StrEnum):
    """What must hold, whatever happens (section 8 of the design)."""

    TENANTS = "no packet reaches another tenant"
    CONTENT = "what arrives equals what was sent"
    SEGMENTS = "the addresses of a packet on a segment are the segment's own"
    POLICY = "what the policy forbids does not pass"
    ESTABLISHED = "the loss of an agent or of a message breaks no established connection"
    KEYS = "a pair of keys names one connection of two hosts, and is free at neither while the other uses it"
    RECOVERY = "every allowed connection can be used again soon after the last fault"
    NOTHING_LEFT = "with no traffic all tables become empty, and all keys free"
    FAILURES = "nothing fails unexpectedly"


class Broken(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: Invariant, text: str) -> None:
        """`text`: what was seen."""
        super().__init__(invariant, text)
        self.invariant, self.text = invariant, text

    def __str__(self) -> str:
        """The invariant, and what was seen."""
        return f"{self.invariant.name}: {self.invariant}: {self.text}"


def expect(holds: bool, invariant: Invariant, text: str) -> None:
    """Raises Broken unless it holds."""
    if not holds:
        raise Broken(invariant, text)


def allows(tenant: Tenant, initiator: Endpoint, responder: Endpoint) -> bool:
    """The policy, as the design says it: pairs, rules, the same network, a common group; never another tenant."""
    if not initiator.tenant == responder.tenant == tenant.name:
        return False
    if (connected := tenant.pairs.get(pair_of(initiator.name, responder.name))) is not None:
        return connected
    groups = tenant.groups

    def means(name: str, endpoint: Endpoint) -> bool:
        return bool({endpoint.name, endpoint.network} & {name, *groups.get(name, ())})

    for rule in tenant.rules:
        if means(rule.initiator, initiator) and means(rule.responder, responder):
            return rule.allow
    return initiator.network == responder.network or any(
        means(name, initiator) and means(name, responder) for name in groups
    )


def make_networks(names: tuple[str, ...]) -> dict[str, Network]:
    """10.0.1.0/24, 10.0.2.0/24 ..., the same for every tenant."""
    prefixes = {name: bytes([10, 0, third, 0]) for third, name in enumerate(names, 1)}
    return {name: Network(name, (Subnet(prefix, 24, prefix[:3] + b"\xfe"),)) for name, prefix in prefixes.items()}


def make_host(number: int, sites: int) -> Host:
    """Sites have the same underlay addresses. If there are several, the first host of each is its gateway, and every
    other site's gateway is behind a 1:1 NAT."""
    site, place = number % sites, number // sites
    external = None
    if sites > 1 and not place:
        public = bytes([198, 51, 100, 1 + site])
        external = External(bytes([10, 99, 0, 1]) if site % 2 else public, public)
    subnet = bytes([172, 16, place // 250])
    address, pool = subnet + bytes([1 + place % 250]), (b"\xac\x11" + subnet[2:] + bytes([1 + place % 250]),)
    return Host(f"h{number}", f"s{site}", (address,), pool, external=external)


class Model:
    """One farm."""

    def __init__(self, hosts: list[Host]) -> None:
        """Tenants have the same networks; nobody is anywhere yet."""
        self.now = 0.0
        """Seconds: to be set by who lets time pass."""
        self.host = {host.name: host for host in hosts}
        self.tenants = {name: Tenant(name, make_networks(NETWORKS)) for name in TENANTS}
        self._policies = [(0.0, dict(self.tenants))]
        """With the time since when each has held, the present one last."""
        self.placed: dict[tuple[str, int], Endpoint] = {}
        """Who is at which port of which host, at this moment."""
        self._name_at = {(h.site, address): h.name for h in hosts for address in (*h.addresses, *h.pool)}
        self._name_outside = {host.external.public: host.name for host in hosts if host.external is not None}
        self._deaf: dict[str, float] = {}
        """Hosts whose agents do not hear of changes: since when."""
        self._heard: dict[str, tuple[float, float]] = {}
        """Hosts whose agents hear again: (since when they had not, from when on they do)."""

    def endpoint(self, tenant: str, network: str, number: int, host: str, suffix: str = "") -> Endpoint:
        """MACs and addresses are the same in every tenant."""
        address = self.tenants[tenant].networks[network].subnets[0].prefix[:3] + bytes([number])
        mac = derive_mac("endpoint", network, str(number))
        return Endpoint(f"{tenant}-{network}{number}{suffix}", tenant, network, mac, (address,), host)

    def host_at(self, host: str, address: Address, outside: bool) -> str | None:
        """Which host has an address, as seen from a wire of another one."""
        return self._name_outside.get(address) if outside else self._name_at.get((self.host[host].site, address))

    def way(self, one: str, other: str) -> tuple[str, ...]:
        """The hosts that packets between endpoints of two hosts pass."""
        here, there = self.host[one], self.host[other]
        if here.site == there.site:
            return (one, other)
        gateways = {host.site: host.name for host in self.host.values() if host.external is not None}
        return (one, gateways[here.site], gateways[there.site], other)

    # ---- the policy -----------------------------------------------------------------------------------------------

    def change_policy(self, tenant: Tenant) -> None:
        """It holds from now on."""
        self.tenants[tenant.name] = tenant
        self._policies.append((self.now, dict(self.tenants)))

    def allowed(self, one: Endpoint, other: Endpoint) -> bool:
        """Whether the policy allows connections of two endpoints, whoever opens them."""
        tenant = self.tenants[one.tenant]
        return allows(tenant, one, other) and allows(tenant, other, one)

    def deaf(self, host: str) -> None:
        """From now on its agent hears of no change."""
        self._deaf.setdefault(host, self.now)

    def hears(self, host: str) -> None:
        """From now on it does."""
        if (since := self._deaf.pop(host, None)) is not None:
            # Who was deaf again before it could catch up has missed all since the first time.
            before, until = self._heard.get(host, (since, 0.0))
            self._heard[host] = (before if until > since else since, self.now + HEARD)

    def _knows_since(self, host: str) -> float:
        """The time of the oldest policy that its agent may hold to."""
        since = self.now - HEARD
        before, until = self._heard.get(host, (0.0, 0.0))
        if until > self.now:
            since = min(since, before - HEARD)
        if host in self._deaf:
            since = min(since, self._deaf[host] - HEARD)
            if until > self._deaf[host]:
                since = min(since, before - HEARD)
        return since

    def lately_allowed(self, one: Endpoint, other: Endpoint) -> bool:
        """Whether a packet could pass either way, by the policy as the hosts of both can have known it last.

        Each of the two enforces it, so it is enough that one of them knows.
        """
        since = max(self._knows_since(one.host), self._knows_since(other.host))
        starts = [start for start, _ in self._policies[1:]] + [float("inf")]
        lately = [tenants for (_, tenants), until in zip(self._policies, starts, strict=True) if until > since]
        return any(allows(tenants[one.tenant], *ends) for tenants in lately for ends in ((one, other), (other, one)))
