"""What a target must do for its agent: the one seam between the agent and any switch.

The entries are those of `p4src/`, in its vocabulary. An implementation is `nvi.p4rt.session` (any P4Runtime server)
or `nvi.embedded.memory` (the embedded switch in this process, for tests and simulations).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum, StrEnum
from typing import Protocol

from msgspec import Struct

from .model import Address, Flow, Mac

PORT_UNDERLAY = 1
"""The wire to the other hosts of the site."""
PORT_HOST_STACK = 2
"""The host's underlay stack."""
PORT_EXTERNAL = 3
"""The wire of a gateway's external side."""
PORT_EXTERNAL_STACK = 4
"""The host's external stack."""
PORT_FIRST_ENDPOINT = 16
PORT_CPU = 510
NO_MAC = bytes(6)
"""What stands for the source MAC in the key of a packet that came from a wire: underlay or external side."""


class PuntReason(IntEnum):
    """Why the switch hands a packet to the agent (`p4src/ids.p4`)."""

    MISS = 1
    """An endpoint's packet of a flow that `connections` does not hold."""
    STRAY = 2
    """A packet from a wire (underlay or external side), in NVI's key range, that `connections` does not hold."""
    NEIGHBOUR = 3
    """An ARP request or neighbour solicitation that `neighbours` does not hold."""
    TTL = 4
    """A packet of a connection across a router, whose TTL or hop limit ends there."""
    TOO_BIG = 5
    """A packet of a connection that is longer than its entry's `max_length`."""
    FRAGMENT = 6
    """A later fragment of a datagram whose first fragment has not been seen."""
    ERROR = 7
    """An ICMP error about a packet of a connection, that the switch does not translate itself."""
    LOCAL = 8
    """An endpoint's broadcast or multicast that its agent answers: DHCP, router solicitation."""
    SERVICE = 9
    """A packet from the external side for a published service, of a flow that `connections` does not hold."""


class DropReason(IntEnum):
    """Why a packet was dropped (`p4src/ids.p4`)."""

    SPOOFED = 1
    MALFORMED = 2
    UNSUPPORTED = 3
    GROUP = 4
    OPTIONS = 5
    FRAGMENT = 6
    PUNT_LIMIT = 7
    NEIGHBOUR_SELF = 8
    REINJECTED = 9
    UNKNOWN = 10
    DENIED = 11
    UNREACHABLE = 12
    EXHAUSTED = 13
    ERROR = 14
    """An endpoint's ICMP error about nothing that it was sent."""
    NEIGHBOUR = 15
    """Neighbour discovery or ARP that no endpoint may send: for others' addresses, advertisements, redirects."""
    EXTENSION = 16
    """IPv6 extension headers that NVI does not carry."""
    FAMILY = 17
    """What the other family has no header for, in a connection across families."""
    QUOTA = 18
    """Refused by the agent: the endpoint has all that it may have."""
    FILTERED = 19
    """Refused by the agent: no mapping of the external side admits it."""


class ConnectionKey(Struct, frozen=True, gc=False):
    """The key of `connections`."""

    scope: int
    """The port at which the packet comes in."""
    source_mac: Mac
    """The endpoint's, or NO_MAC where the scope is a wire."""
    flow: Flow


class Rewrite(Struct, frozen=True, gc=False):
    """The action `rewrite`: what the packet looks like on the next segment. The checksum deltas follow from it."""

    ethernet_source: Mac
    ethernet_destination: Mac
    flow: Flow
    """May be of the other family than the key's: then the header is translated."""
    ttl: int
    """TTL or hop limit with which it leaves."""
    egress_port: int
    router: Address | None = None
    """The source that an ICMP error shows which somebody else than the flow's source has sent; None: that source."""
    routed: bool = False
    """Whether a router lies between: a packet that comes with a TTL of 1 is punted as TTL instead."""
    max_length: int = 0
    """Longer IP packets, in bytes as they come in, are punted as TOO_BIG; 0 for no limit."""
    flow_label: int = 0
    """That of IPv6 packets which are made of IPv4 ones."""
    dont_fragment: bool = True
    """That of IPv4 packets which are made of IPv6 ones."""


class Drop(Struct, frozen=True, gc=False):
    """The action `drop`."""

    reason: DropReason


class ConnectionEntry(Struct, frozen=True, gc=False):
    """An entry of `connections`."""

    key: ConnectionKey
    action: Rewrite | Drop | None = None
    """None where only the key matters: in a DELETE."""
    idle_timeout: float = 0.0
    """Seconds; 0 for none."""
    tag: int = 0
    """64 bits of the agent's own, kept with the entry (P4Runtime's controller_metadata)."""


class GuardEntry(Struct, frozen=True):
    """An entry of `guard`: what an endpoint may send as."""

    port: int
    mac: Mac
    address: Address
    network: int


class NeighbourEntry(Struct, frozen=True):
    """An entry of `neighbours`: the switch answers ARP or neighbour solicitations for this address."""

    network: int
    address: Address
    mac: Mac
    router: bool = False
    """Whether it is the network's gateway, as neighbour advertisements must say (RFC 4861 section 4.4)."""


class ServiceEntry(Struct, frozen=True):
    """An entry of `services`: what comes to it from the external side, and misses, is punted as SERVICE."""

    address: Address
    """The gateway's own, as packets on its external wire carry it."""
    protocol: int
    port: int


Entry = ConnectionEntry | GuardEntry | NeighbourEntry | ServiceEntry


class Operation(IntEnum):
    """What to do with an entry (p4.v1.Update.Type). Deleting looks only at the key."""

    INSERT = 1
    MODIFY = 2
    DELETE = 3


class Update(Struct, frozen=True, gc=False):
    """One change of one entry."""

    operation: Operation
    entry: Entry


class Usage(Struct, frozen=True, gc=False):
    """What the switch knows of the use of one entry of `connections`."""

    idle: float
    """Seconds since a packet last hit it (within the target's resolution)."""
    packets: int
    bytes: int


class Punt(Struct, frozen=True, gc=False):
    """A packet that the switch hands to the agent."""

    port: int
    """Where it came in."""
    reason: PuntReason
    packet: bytes


class Condition(StrEnum):
    """How an agent stands with its switch."""

    CONNECTING = "connecting"
    PRIMARY = "primary"
    BACKUP = "backup"
    """Somebody else is primary, or nobody."""
    UNREACHABLE = "unreachable"
    CLOSED = "closed"


class State(Struct, frozen=True):
    """How an agent stands with its switch, and why."""

    condition: Condition
    text: str


class SwitchError(Exception):
    """The switch is not there, or does not do what it should. The text names its address and the remedy."""


class NotPrimary(SwitchError):
    """Somebody else writes to the switch now."""


class WriteFailed(SwitchError):
    """Some updates of a write failed; the others are done."""

    def __init__(self, failures: Sequence[tuple[Update, str, str]]) -> None:
        """`failures`: (update, gRPC status name such as "ALREADY_EXISTS", message)."""
        self.failures = list(failures)
        update, status, message = self.failures[0]
        more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
        super().__init__(f"{update.operation.name} of {update.entry}: {status} {message}{more}")


class Switch(Protocol):
    """A switch as its agent uses it. Every call may raise SwitchError."""

    on_punt: Callable[[Punt], None]
    """Called for each punted packet, from the event loop; it must not block."""
    on_primary: Callable[[bool], None]
    """Called when this agent becomes the one that may write (True) or ceases to be it (False)."""

    @property
    def state(self) -> State:
        """How the agent stands with the switch, for people."""

    async def write(self, updates: Sequence[Update]) -> None:
        """Do all updates, in order. Raises WriteFailed if some could not be done, NotPrimary if none may."""

    def reinject(self, port: int, packet: bytes) -> None:
        """Process the packet as if it had just arrived at `port`. All writes awaited before are in effect."""

    def send(self, port: int, packet: bytes) -> None:
        """Send the packet out of `port` as it is."""

    async def usage(self, keys: Sequence[ConnectionKey]) -> list[Usage | None]:
        """Read the entries with these keys, by key; None for one that is not there."""

    async def read_connections(self) -> list[ConnectionEntry]:
        """All entries of `connections`."""

    async def read_guard(self) -> list[GuardEntry]:
        """All entries of `guard`."""

    async def read_neighbours(self) -> list[NeighbourEntry]:
        """All entries of `neighbours`."""

    async def read_services(self) -> list[ServiceEntry]:
        """All entries of `services`."""

    async def read_drops(self, ports: Sequence[int]) -> dict[int, dict[DropReason, int]]:
        """Packets dropped so far, by port and reason; reasons that never occurred are left out."""

    async def set_punt_limit(self, port: int, rate: int, burst: int) -> None:
        """Let at most `rate` packets per second of this port be punted, with bursts of up to `burst` packets."""
