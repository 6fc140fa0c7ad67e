"""The embedded switch as its agent's own object: no process, no sockets, no messages.

For tests and simulations. The packets go through the same pipeline as everywhere else; only P4Runtime is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files

from ..deltas import checksum_deltas
from ..model import Address, Flow, Mac
from ..switch import (
    PORT_CPU,
    Condition,
    ConnectionEntry,
    ConnectionKey,
    Drop,
    DropReason,
    Entry,
    GuardEntry,
    NeighbourEntry,
    Operation,
    Punt,
    PuntReason,
    Rewrite,
    ServiceEntry,
    State,
    SwitchError,
    Update,
    Usage,
    WriteFailed,
    require_supported,
)
from . import ir
from .engine import Engine
from .matching import DuplicateEntry, Key, NoSuchEntry, TableFull
from .matching import Entry as EngineEntry
from .meters import MeterConfig
from .program import load

CONNECTIONS = "NviIngress.connections.connections"
GUARD = "NviIngress.edge.guard.guard"
NEIGHBOURS = "NviIngress.edge.neighbours.neighbours"
REWRITE, DROP = "NviIngress.connections.rewrite", "NviIngress.connections.drop"
ADMIT, REPLY = "NviIngress.edge.guard.admit", "NviIngress.edge.neighbours.reply"
DROPS, PUNTS = "NviIngress.drops.drops", "NviIngress.punt.punts"

_REINJECT, _SEND = 0, 1
_STATUS: dict[type[Exception], str] = {
    DuplicateEntry: "ALREADY_EXISTS",
    NoSuchEntry: "NOT_FOUND",
    TableFull: "RESOURCE_EXHAUSTED",
}


@cache
def nvi_program() -> ir.Program:
    """The committed pipeline, ready for any number of engines."""
    return load((files("nvi") / "compiled/nvi.json").read_bytes())


class MemorySwitch:
    """A Switch (see nvi.switch) around an Engine."""

    def __init__(
        self,
        program: ir.Program,
        clock: Callable[[], int],
        transmit: Callable[[int, bytes], None],
    ) -> None:
        """`clock`: monotonic ns; `transmit(port, packet)`: takes what leaves the switch."""
        self._program = program
        self._clock = clock
        self.restart()
        self.on_punt: Callable[[Punt], None] = _ignore
        self.on_primary: Callable[[bool], None] = _ignore
        self._transmit = transmit
        self._actions = {
            name: self.engine.action_id(name, table)
            for name, table in ((REWRITE, CONNECTIONS), (DROP, CONNECTIONS), (ADMIT, GUARD), (REPLY, NEIGHBOURS))
        }

    def restart(self) -> None:
        """Begin anew, with nothing in the tables."""
        self.engine = Engine(self._program, self._clock)

    @property
    def state(self) -> State:
        """See Switch."""
        return State(Condition.PRIMARY, "the switch is this process's own")

    def receive(self, port: int, packet: bytes) -> None:
        """A packet arrives at a port."""
        for egress, out in self.engine.process(port, packet):
            if egress != PORT_CPU:
                self._transmit(egress, out)
            else:
                header = int.from_bytes(out[:2], "big")
                self.on_punt(Punt(header >> 7, PuntReason(header & 0x7F), out[2:]))

    def reinject(self, port: int, packet: bytes) -> None:
        """See Switch."""
        self.receive(PORT_CPU, (port << 7 | _REINJECT).to_bytes(2, "big") + packet)

    def send(self, port: int, packet: bytes) -> None:
        """See Switch."""
        self.receive(PORT_CPU, (port << 7 | _SEND).to_bytes(2, "big") + packet)

    async def write(self, updates: Sequence[Update]) -> None:
        """See Switch. Yields once, as a switch that is elsewhere would."""
        await asyncio.sleep(0)
        failures = []
        for update in updates:
            require_supported(update.entry)
            try:
                self._do(update)
            except (DuplicateEntry, NoSuchEntry, TableFull) as error:
                failures.append((update, _STATUS[type(error)], ""))
        if failures:
            raise WriteFailed(failures)

    def _do(self, update: Update) -> None:
        table, key, action, args, timeout, tag = self._encode(update.entry)
        if update.operation is Operation.DELETE:
            self.engine.remove(table, key)
            return
        change = self.engine.insert if update.operation is Operation.INSERT else self.engine.modify
        change(table, key, action, args, timeout=timeout).extra = tag

    def _encode(self, entry: Entry) -> tuple[str, Key, int, tuple[int, ...], int, int]:
        match entry:
            case ConnectionEntry(key, action, idle_timeout, tag):
                timeout = int(idle_timeout * 1e9)
                match action:
                    case Rewrite():
                        return CONNECTIONS, _key(key), self._actions[REWRITE], _rewrite(key, action), timeout, tag
                    case Drop(reason):
                        return CONNECTIONS, _key(key), self._actions[DROP], (reason,), timeout, tag
                    case None:
                        return CONNECTIONS, _key(key), 0, (), 0, 0
            case GuardEntry(port, mac, address, network):
                return GUARD, ((port,), (_int(mac),), (_int(address),)), self._actions[ADMIT], (network,), 0, 0
            case NeighbourEntry(network, address, mac, _):
                return NEIGHBOURS, ((network,), (_int(address),)), self._actions[REPLY], (_int(mac),), 0, 0
            case ServiceEntry():
                raise SwitchError("the compiled pipeline has no table for published services yet")

    async def usage(self, keys: Sequence[ConnectionKey]) -> list[Usage | None]:
        """See Switch."""
        await asyncio.sleep(0)
        entries = self.engine.tables[CONNECTIONS].entries
        now = self._clock()
        found = (entries.get((_key(key), 0)) for key in keys)
        return [None if e is None else Usage(max(now - e.stamp, 0) / 1e9, e.packets, e.octets) for e in found]

    async def read_connections(self) -> list[ConnectionEntry]:
        """See Switch."""
        return [self._connection(entry) for entry in self.engine.tables[CONNECTIONS].all()]

    async def read_guard(self) -> list[GuardEntry]:
        """See Switch."""
        return [
            GuardEntry(e.key[0][0], _mac(e.key[1][0]), _address(e.key[2][0]), e.args[0])
            for e in self.engine.tables[GUARD].all()
        ]

    async def read_neighbours(self) -> list[NeighbourEntry]:
        """See Switch."""
        return [
            NeighbourEntry(e.key[0][0], _address(e.key[1][0]), _mac(e.args[0]))
            for e in self.engine.tables[NEIGHBOURS].all()
        ]

    async def read_services(self) -> list[ServiceEntry]:
        """See Switch."""
        return []  # require_supported has refused them all

    async def read_drops(self, ports: Sequence[int]) -> dict[int, dict[DropReason, int]]:
        """See Switch."""
        cells = self.engine.counters[DROPS]
        drops = {port: {reason: cells.packets[32 * port + reason] for reason in DropReason} for port in ports}
        return {port: {reason: count for reason, count in reasons.items() if count} for port, reasons in drops.items()}

    async def set_punt_limit(self, port: int, rate: int, burst: int) -> None:
        """See Switch."""
        self.engine.configure_meter(PUNTS, port, MeterConfig(rate, burst, rate, burst))

    def _connection(self, entry: EngineEntry) -> ConnectionEntry:
        scope, mac, source, destination, protocol, l4_source, l4_destination = (match[0] for match in entry.key)
        flow = Flow(_address(source), _address(destination), protocol, l4_source, l4_destination)
        key = ConnectionKey(scope, _mac(mac), flow)
        action: Rewrite | Drop
        if entry.action == self._actions[DROP]:
            action = Drop(DropReason(entry.args[0]))
        else:
            smac, dmac, source, destination, l4_source, l4_destination, ttl, _, _, port = entry.args
            out = Flow(_address(source), _address(destination), protocol, l4_source, l4_destination)
            action = Rewrite(_mac(smac), _mac(dmac), out, ttl, port)
        tag = entry.extra if isinstance(entry.extra, int) else 0
        return ConnectionEntry(key, action, entry.timeout / 1e9, tag)


def _ignore(_: object) -> None:
    """Until an agent has taken the switch over."""


def _key(key: ConnectionKey) -> Key:
    flow = key.flow
    return (
        (key.scope,),
        (_int(key.source_mac),),
        (_int(flow.source),),
        (_int(flow.destination),),
        (flow.protocol,),
        (flow.l4_source,),
        (flow.l4_destination,),
    )


def _rewrite(key: ConnectionKey, action: Rewrite) -> tuple[int, ...]:
    flow = action.flow
    ipv4_delta, l4_delta = checksum_deltas(key.flow, flow, action.ttl)
    return (
        _int(action.ethernet_source),
        _int(action.ethernet_destination),
        _int(flow.source),
        _int(flow.destination),
        flow.l4_source,
        flow.l4_destination,
        action.ttl,
        ipv4_delta,
        l4_delta,
        action.egress_port,
    )


def _int(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _mac(value: int) -> Mac:
    return value.to_bytes(6, "big")


def _address(value: int) -> Address:
    return value.to_bytes(4, "big")
