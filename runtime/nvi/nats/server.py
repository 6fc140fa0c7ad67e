"""NATS servers of a farm: their configuration, and the keys by which they know who is who.

Each host has an nkey (an Ed25519 key pair): the server's configuration holds public keys only, and who connects proves
that it has the seed, which never leaves its host. A farm is an account of its own, so nothing of it is heard by other
users of the same servers.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import nkeys
from msgspec import Struct

from .layout import DOMAIN, Layout, Permissions, host_permissions, site_permissions, token

PROGRAM = "nats-server"

_ROUTE_USER = "server"

ANSWER_SECONDS = 5
"""For how long a request may be answered, by whoever it went to."""


class Cluster(Struct, frozen=True):
    """That a server is one of several which hold a farm together."""

    listen: str
    """`ADDRESS:PORT` for the other servers."""
    routes: tuple[str, ...]
    """`ADDRESS:PORT` of all of them."""
    password: str
    """By which they know each other."""


class Leaf(Struct, frozen=True):
    """That a server is a site's own: a leaf node of the servers that hold the farm's buckets."""

    url: str
    """`nats-leaf://ADDRESS:PORT`, or `tls://...`, of their port for leaf nodes."""
    site: str
    password: str
    """By which they know this site's server."""


class Server(Struct, frozen=True):
    """One NATS server."""

    name: str
    listen: str
    """`ADDRESS:PORT` for agents."""
    store: str
    """The directory in which it keeps what is published."""
    cluster: Cluster | None = None
    leaf: Leaf | None = None
    """It keeps no buckets itself then."""
    leaf_nodes: str | None = None
    """`ADDRESS:PORT` for the servers of other sites."""
    sites: Mapping[str, str] = {}
    """By site that has a server of its own: its password."""
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    """Paths (PEM): encrypts what agents say, and with `ca` they need certificates of their own, too."""
    ports: str | None = None
    """A directory in which it writes its ports, for those who let it choose (`ADDRESS:-1`)."""


class Member(Struct, frozen=True):
    """A host as the servers know it."""

    public: str
    """Of its nkey."""
    site: str
    tenants: tuple[str, ...]
    """Those whose endpoints it may have."""


def find() -> str | None:
    """The path of nats-server; None if this machine has none."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(PROGRAM, path=os.pathsep.join((os.environ.get("PATH", ""), beside, "/usr/sbin")))


def new_key(path: Path) -> str:
    """Make an nkey, keep its seed in a file that only its owner may read, and return its public part.

    The seed of a file that is there already is used again. Raises OSError, ValueError.
    """
    try:
        seed = path.read_bytes().strip()
    except FileNotFoundError:
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(seed + b"\n")
    try:
        public: bytes = nkeys.from_seed(bytearray(seed)).public_key
    except (nkeys.NkeysError, ValueError) as error:
        raise ValueError(
            f"{path} is not the seed of an nkey ({error}); move it away, and another one is made"
        ) from None
    return public.decode()


def configuration(server: Server, layout: Layout, operator: str, hosts: Mapping[str, Member]) -> bytes:
    """The configuration file of a server. `operator`: public key of whoever runs the farm.

    It holds no secret but the passwords by which servers know each other.
    """
    users: list[dict[str, Any]] = [{"nkey": operator}]
    for name, member in sorted(hosts.items()):
        permissions = host_permissions(layout, token(name), member.site, member.tenants)
        users.append({"nkey": member.public, "permissions": _permissions(permissions)})
    for site, password in server.sites.items():
        there = {name: member for name, member in hosts.items() if member.site == site}
        others = hosts.keys() - there.keys()
        permissions = site_permissions(layout, {name: each.tenants for name, each in there.items()}, others, site)
        users.append({"user": f"site-{site}", "password": password, "permissions": _allowed(permissions)})
    account: dict[str, Any] = {"users": users}
    config: dict[str, Any] = {
        "server_name": server.name,
        "listen": server.listen,
        "accounts": {layout.farm: account, "SYS": {"users": []}},
        "system_account": "SYS",
    }
    if server.leaf is None:
        config["jetstream"] = {"store_dir": server.store, "domain": DOMAIN}
        account["jetstream"] = "enabled"
    else:
        scheme, _, address = server.leaf.url.partition("://")
        url = f"{scheme}://site-{server.leaf.site}:{server.leaf.password}@{address}"
        config["leafnodes"] = {"remotes": [{"urls": [url], "account": layout.farm}], "reconnect": 1}
    if server.leaf_nodes is not None:
        config["leafnodes"] = {"listen": server.leaf_nodes}
    if server.ports is not None:
        config["ports_file_dir"] = server.ports
    if server.certificate is not None:
        config["tls"] = {"cert_file": server.certificate, "key_file": server.key}
        if server.ca is not None:
            config["tls"] |= {"ca_file": server.ca, "verify": True}
    if server.cluster is not None:
        config["cluster"] = {
            "name": layout.farm,
            "listen": server.cluster.listen,
            "authorization": {"user": _ROUTE_USER, "password": server.cluster.password, "timeout": 2},
            "routes": [f"nats://{_ROUTE_USER}:{server.cluster.password}@{route}" for route in server.cluster.routes],
        }
    return msgspec.json.format(msgspec.json.encode(config), indent=1) + b"\n"


def _allowed(permissions: Permissions) -> dict[str, Any]:
    return {
        "publish": {"allow": list(permissions.publish), "deny": list(permissions.never)},
        "subscribe": {"allow": list(permissions.subscribe)},
    }


def _permissions(permissions: Permissions) -> dict[str, Any]:
    return _allowed(permissions) | {
        # Only who was asked may publish to where the answer goes, once, and for a while.
        "allow_responses": {"max": 1, "expires": f"{ANSWER_SECONDS}s"},
    }
