"""What people write in the rules of a policy, read strictly. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from ..keys import KEY_FIRST, KEY_LAST
from ..model import Protocol, Tenant
from ..policy import INTERNET
from ..suggest import suggest


def named(tenant: Tenant, endpoints: Iterable[str], name: str) -> str:
    """A name in a rule, if it means one thing. Raises ValueError."""
    kinds = {"endpoint": list(endpoints), "network": list(tenant.networks), "group": list(tenant.groups)}
    kinds["the Internet"] = [INTERNET]
    found = [kind for kind, names in kinds.items() if name in names]
    if len(found) > 1:
        raise ValueError(f"{name!r} is both {found[0]} and {found[1]} for tenant {tenant.name!r}: rename the former")
    if not found:
        known = [each for names in kinds.values() for each in names]
        hint = suggest(name, known, noun="endpoint, network or group")
        raise ValueError(f"tenant {tenant.name!r} has no endpoint, network or group {name!r}; {hint}")
    return name


def protocol_of(name: str | None) -> int | None:
    """The number of a protocol that a rule may name. Raises ValueError."""
    if name is None:
        return None
    try:
        return int(Protocol[name.upper()])
    except KeyError:
        raise ValueError(f"unknown protocol {name!r}: use tcp, udp or icmp, or none for all") from None


def ports_of(ports: Iterable[str], protocol: str | None) -> tuple[int, ...]:
    """The ports of a rule. Raises ValueError."""
    numbers = tuple(service_port(text.strip()) for text in ports)
    if numbers and protocol not in ("tcp", "udp"):
        raise ValueError("ports are those of a protocol: say tcp or udp")
    return numbers


def service_port(text: str) -> int:
    """A port of TCP or UDP. Raises ValueError."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise ValueError(f"{text!r} is not a port: use numbers from 1 to 65535")
    return int(text)


def external_port(text: str) -> int:
    """A port of a gateway at which a service can be published. Raises ValueError."""
    port = service_port(text)
    if KEY_FIRST <= port <= KEY_LAST:
        raise ValueError(f"{port} is among the keys of connections: use one outside {KEY_FIRST}-{KEY_LAST}")
    return port
