"""What the agents of one process are told when they start, by whoever runs them (the emulation, an operator)."""

from __future__ import annotations

from msgspec import Struct

from .model import Host, Tenant


class AgentConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One host's agent."""

    host: Host
    p4runtime: str
    """gRPC address of the switch: `unix:/path` or `127.0.0.1:9559`."""
    device_id: int
    api: str
    """Path of the UNIX socket on which the agent serves its local API."""
    state: str
    """Path of the file in which it keeps what it must not forget (epoch, endpoints)."""
    netns: str | None = None
    """Path of the host's network namespace (`/proc/PID/ns/net`); None if it is the agent's own."""
    underlay: str = "nvi0"
    """The interface that carries the host's underlay addresses."""
    external: str = "nvi1"
    """The interface that carries a gateway's external address."""


class FarmConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The agents of one process, which share a `memory` directory, and what that directory holds from the start."""

    farm: str
    agents: tuple[AgentConfig, ...]
    tenants: tuple[Tenant, ...] = ()
    idle_timeout: float = 30.0
    """Seconds without a packet after which a connection leaves nothing behind."""
    punt_rate: int = 5000
    """Packets per second that one port may punt."""
