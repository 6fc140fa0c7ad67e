"""Which subject and which bucket of NATS holds what, and which host may touch it. No I/O.

    bucket nvi_FARM_leases          HOST                               what a host says of itself, while it lives
    bucket nvi_FARM_hosts           at.SITE.ADDRESS.HOST               a claim: this underlay address is mine
                                    gateway.SITE.HOST                  a claim: I am a gateway of this site
                                    public.ADDRESS.HOST                a claim: this public address is mine
                                    service.HOST.PROTOCOL.PORT         published at this gateway
    bucket nvi_FARM_tenant_TENANT   policy                             the tenant's networks and policy
                                    endpoint.ADDRESS.HOST              a claim: I have the endpoint with this address

    nvi.FARM.watch.>                what a bucket has stored, as it stores it (republished by JetStream)
    nvi.FARM.offer.RECEIVER.SENDER  offers, questions and releases of one agent to another
    nvi.FARM.alive.HOST             is an agent running for this host?
    nvi.FARM.inbox.HOST.>           answers to this host

The name of whoever writes or asks is a token of the subject. A server lets each user publish under its own name only,
so names are authenticated by the transport, and nothing in a message has to be believed.

A bucket is a JetStream key-value bucket: the stream KV_bucket with the subjects $KV.bucket.key (ADR-8 of NATS).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from msgspec import Struct

from ..model import Address, show_address

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,63}")
_REMEMBERED = 4096
"""Names and addresses: each connection looks up the same few a dozen times."""

DOMAIN = "nvi"
"""The JetStream domain of the servers that hold buckets: by it leaf nodes reach them, too."""

API = f"$JS.{DOMAIN}.API"
"""Prefix of all that is asked of JetStream."""

POLICY = "policy"
"""Key of a tenant's networks and policy."""

OPERATOR = "_operator"
"""The user who runs the farm: makes its buckets, says what tenants there are. No host can have this name."""


class NameUnfit(ValueError):
    """A name that cannot be part of a subject. The text says which, and what would do."""


@lru_cache(_REMEMBERED)
def token(name: str) -> str:
    """A name as a token of a subject. Raises NameUnfit."""
    if _TOKEN.fullmatch(name) is None:
        raise NameUnfit(f"the name {name!r} cannot be part of a NATS subject; use letters, digits, '-' and '_' only")
    return name


@lru_cache(_REMEMBERED)
def address_token(address: Address) -> str:
    """`10-0-1-1`, `fd00--1`: the usual notation, with characters that subjects and keys may have."""
    return show_address(address).replace(".", "-").replace(":", "-")


class Bucket(Struct, frozen=True):
    """A key-value bucket of a farm."""

    name: str
    watched: str
    """Prefix of the subjects under which its changes are heard."""

    @property
    def stream(self) -> str:
        """The JetStream stream that holds it."""
        return f"KV_{self.name}"

    def subject(self, key: str) -> str:
        """Where a value of the key is published. The key may have wildcards."""
        return f"$KV.{self.name}.{key}"

    def watch_subject(self, key: str) -> str:
        """Where a change of the key is heard, once it is stored. The key may have wildcards."""
        return f"{self.watched}.{key}"


class Layout(Struct, frozen=True):
    """The subjects and buckets of one farm."""

    farm: str

    def __post_init__(self) -> None:
        """Raises NameUnfit."""
        token(self.farm)

    @property
    def leases(self) -> Bucket:
        """Of all hosts that live."""
        return Bucket(f"nvi_{self.farm}_leases", f"nvi.{self.farm}.watch.leases")

    @property
    def hosts(self) -> Bucket:
        """Where hosts are found by address or role."""
        return Bucket(f"nvi_{self.farm}_hosts", f"nvi.{self.farm}.watch.hosts")

    def tenant(self, name: str) -> Bucket:
        """All that is one tenant's."""
        return Bucket(f"nvi_{self.farm}_tenant_{token(name)}", f"nvi.{self.farm}.watch.tenant.{name}")

    def offer(self, receiver: str, sender: str) -> str:
        """Of the messages of one agent to another; `*` as the sender for all of them."""
        return f"nvi.{self.farm}.offer.{token(receiver)}.{sender if sender == '*' else token(sender)}"

    def alive(self, host: str) -> str:
        """Where the agent of a host answers that there is one."""
        return f"nvi.{self.farm}.alive.{token(host)}"

    def inbox(self, name: str) -> str:
        """Prefix of the subjects on which answers come."""
        return f"nvi.{self.farm}.inbox.{token(name)}"


def read_subject(stream: str, *, leader: bool) -> str:
    """Where a stream is read: from the server that leads it, or from any that holds it."""
    return f"{API}.{'STREAM.MSG' if leader else 'DIRECT'}.GET.{stream}"


def write_subject(subject: str) -> str:
    """Where a bucket's subject is written, also from a leaf node."""
    return f"{API}.{subject}"


def within_domain(subject: str) -> str:
    """What a server of the domain makes of a subject before it looks whether it is permitted."""
    inside = subject.removeprefix(f"{API}.")
    if inside == subject or inside.startswith("$KV."):
        return inside
    return f"$JS.API.{inside}"


def at_key(site: str, address: Address, host: str) -> str:
    """Of a claim of an underlay address; `*` as the host for all of them."""
    return f"at.{token(site)}.{address_token(address)}.{_owner(host)}"


def gateway_key(site: str, host: str) -> str:
    """Of a claim to be a gateway; `*` as the host for all of them."""
    return f"gateway.{token(site)}.{_owner(host)}"


def public_key(address: Address, host: str) -> str:
    """Of a claim of a public address; `*` as the host for all of them."""
    return f"public.{address_token(address)}.{_owner(host)}"


def endpoint_key(address: Address, host: str) -> str:
    """Of a claim of an overlay address, in its tenant's bucket; `*` as the host for all of them."""
    return f"endpoint.{address_token(address)}.{_owner(host)}"


def service_key(via: str, protocol: int | None, port: int | None) -> str:
    """Of a published service; None for all of a gateway's."""
    return f"service.{token(via)}.{'*' if protocol is None else protocol}.{'*' if port is None else port}"


def _owner(host: str) -> str:
    return host if host == "*" else token(host)


class Permissions(Struct, frozen=True):
    """What a user may do at a server: subjects, possibly with wildcards."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    never: tuple[str, ...] = ()
    """What of the former it may not publish."""


def host_permissions(layout: Layout, host: str, site: str, tenants: Iterable[str]) -> Permissions:
    """What the agent of a host needs, and nothing else. `tenants`: those whose endpoints it may have."""
    buckets = [layout.leases, layout.hosts]
    written = [
        layout.leases.subject(token(host)),
        *(layout.hosts.subject(key) for key in (f"at.{token(site)}.*.{host}", gateway_key(site, host))),
        layout.hosts.subject(f"public.*.{host}"),
        layout.hosts.subject(service_key(host, None, None)),
    ]
    publish = [
        f"nvi.{layout.farm}.offer.*.{host}",
        layout.alive(host),
    ]
    subscribe = [
        f"{layout.inbox(host)}.>",
        layout.offer(host, "*"),
        layout.alive(host),
        layout.leases.watch_subject(">"),
        layout.hosts.watch_subject(">"),
    ]
    for name in sorted(tenants):
        tenant = layout.tenant(name)
        buckets.append(tenant)
        written.append(tenant.subject(f"endpoint.*.{host}"))
        subscribe.append(tenant.watch_subject(">"))
    stored = [write_subject(subject) for subject in written]
    stored += [read_subject(bucket.stream, leader=leader) for bucket in buckets for leader in (True, False)]
    # Servers of the domain look at what they have made of a subject, leaf nodes at what it was.
    return Permissions((*publish, *stored, *map(within_domain, stored)), tuple(subscribe))


def site_permissions(
    layout: Layout, hosts: Mapping[str, Iterable[str]], others: Iterable[str], site: str
) -> Permissions:
    """What a site's own server may pass on to the others: what its hosts may.

    `hosts`: theirs, each with its tenants; `others`: hosts of other sites, in whose names nothing is passed on.
    """
    each = [host_permissions(layout, host, site, tenants) for host, tenants in hosts.items()]
    publish = {subject for one in each for subject in one.publish}
    # That somebody listens to all offers is told to a leaf node only if it may publish all of them.
    publish |= {f"nvi.{layout.farm}.offer.*.*", f"nvi.{layout.farm}.inbox.>"}
    never = tuple(f"nvi.{layout.farm}.offer.*.{token(host)}" for host in sorted(others))
    subscribe = {subject for one in each for subject in one.subscribe}
    return Permissions(tuple(sorted(publish)), tuple(sorted(subscribe)), never)
