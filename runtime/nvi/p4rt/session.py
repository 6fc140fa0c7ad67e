"""An agent's session with its switch: kept up, whatever happens to the switch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TypeVar

import structlog

from ..rows import CONNECTIONS, CONNECTIONS6, GUARD, NEIGHBOURS, SERVICES
from ..switch import (
    Condition,
    ConnectionEntry,
    ConnectionKey,
    DropReason,
    GuardEntry,
    NeighbourEntry,
    NotPrimary,
    Punt,
    ServiceEntry,
    State,
    SwitchError,
    Update,
    Usage,
    WriteFailed,
)
from .arbitration import Arbitration
from .codec import Codec
from .conversation import Conversation, Counts
from .link import DEADLINE, TABLE_DEADLINE, ElectionIdTaken, Link, Unsuitable
from .messages import p4r
from .pipeline import Pipeline, nvi_pipeline
from .writer import Writer

CHUNK = 200
"""Entities per keyed read. A read holds up all writes: 200 entries take 2 ms on BMv2, a whole table half a second."""
BACKOFF_FIRST, BACKOFF_LAST = 0.1, 2.0
"""Seconds between attempts to reach a switch that is gone: doubled each time."""

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class Session:
    """Implements `nvi.switch.Switch` for any P4Runtime server.

    Whenever the agent becomes primary, with the first connect or later, the session sees to it that the switch has
    the right pipeline, and then calls `on_primary(True)`. When somebody else takes the role, or the switch is gone, it
    calls `on_primary(False)` and stays, as a backup, or connects again as soon as a switch is there.
    """

    def __init__(
        self,
        address: str,
        device_id: int,
        election_id: int,
        *,
        on_punt: Callable[[Punt], None] = lambda _: None,
        on_primary: Callable[[bool], None] = lambda _: None,
        pipeline: Pipeline | None = None,
    ) -> None:
        """`address`: gRPC's, such as `unix:/run/nvi/bj1.sock` or `127.0.0.1:9559`.

        `election_id`: 128 bits; the highest one is primary. The low bits are the session's, which raises the id when
        it has to. `pipeline`: None for the one that this package comes with.
        """
        self.on_punt = on_punt
        self.on_primary = on_primary
        self.fresh = False
        """Whether the switch was given its pipeline before the last `on_primary(True)`: all that this agent had
        written earlier is gone. If False it may still be that a rival has changed something: read."""
        self.counts = Counts()
        self._address = address
        self._device_id = device_id
        self._pipeline = pipeline or nvi_pipeline()
        self._codec = Codec(self._pipeline)
        self._arbitration = Arbitration(device_id, election_id)
        self._state = State(Condition.CONNECTING, f"no answer from {address} yet: is a switch there?")
        self._conversation: Conversation | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._settled: asyncio.Future[None] | None = None
        self._pushed = False

    # Life.

    async def start(self, patience: float = 5.0) -> bool:
        """Connect, enter the election, and see to the pipeline. Returns `fresh`.

        A switch that is not there yet is waited for, `patience` seconds long. Returns also if another controller is
        primary; `state` tells. Raises SwitchError, and has given up then.
        """
        self._settled = settled = asyncio.get_running_loop().create_future()
        self._supervisor = asyncio.create_task(self._supervise(settled), name=f"p4runtime {self._address}")
        try:
            async with asyncio.timeout(patience):
                await settled
        except TimeoutError:
            text = self._state.text
            await self.close()
            self._state = State(Condition.UNREACHABLE, text)
            raise SwitchError(text) from None
        except BaseException:
            await self.close()
            raise
        return self.fresh

    async def close(self) -> None:
        """Leave the switch as it is. The callbacks are not called."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait((self._supervisor,))
        self._state = State(Condition.CLOSED, f"the session with {self._address} is closed")

    @property
    def state(self) -> State:
        """For people."""
        return self._state

    @property
    def election_id(self) -> int:
        """The id with which this session enters elections now."""
        return self._arbitration.election_id

    # The seam: nvi.switch.Switch says what these do.

    async def write(self, updates: Sequence[Update]) -> None:
        encode = self._codec.encode
        failures = await self._writer().write([encode(update) for update in updates])
        if failures:
            raise WriteFailed([(updates[index], error.status, error.message) for index, error in failures])

    def reinject(self, port: int, packet: bytes) -> None:
        self._send(self._codec.reinject, port, packet)

    def send(self, port: int, packet: bytes) -> None:
        self._send(self._codec.send, port, packet)

    async def usage(self, keys: Sequence[ConnectionKey]) -> list[Usage | None]:
        found: dict[ConnectionKey, Usage] = {}
        for chunk in _chunks(keys):
            for entity in await self._read(self._codec.encode_usage_request(chunk)):
                key, usage = self._codec.decode_usage(entity.table_entry)
                found[key] = usage
        return [found.get(key) for key in keys]

    async def read_connections(self) -> list[ConnectionEntry]:
        return await self._read_table(self._codec.all_entries(CONNECTIONS, CONNECTIONS6), self._codec.decode_connection)

    async def read_guard(self) -> list[GuardEntry]:
        return await self._read_table(self._codec.all_entries(GUARD), self._codec.decode_guard)

    async def read_neighbours(self) -> list[NeighbourEntry]:
        return await self._read_table(self._codec.all_entries(NEIGHBOURS), self._codec.decode_neighbour)

    async def read_services(self) -> list[ServiceEntry]:
        return await self._read_table(self._codec.all_entries(SERVICES), self._codec.decode_service)

    async def read_drops(self, ports: Sequence[int]) -> dict[int, dict[DropReason, int]]:
        drops: dict[int, dict[DropReason, int]] = {port: {} for port in ports}
        for chunk in _chunks(ports, CHUNK // len(DropReason)):
            for entity in await self._read(self._codec.encode_drops_request(chunk)):
                port, reason, packets = self._codec.decode_drops(entity.counter_entry)
                if packets:
                    drops[port][reason] = packets
        return drops

    async def set_punt_limit(self, port: int, rate: int, burst: int) -> None:
        for _, error in await self._writer().write([self._codec.encode_punt_limit(port, rate, burst)]):
            raise SwitchError(
                f"the switch at {self._address} refused to limit port {port} to {rate} punts per second, "
                f"{burst} at once: {error.status} {error.message}"
            )

    # What they have in common.

    def _writer(self) -> Writer:
        if self._conversation is None or self._conversation.writer is None:
            kind = NotPrimary if self._state.condition is Condition.BACKUP else SwitchError
            raise kind(self._state.text)
        return self._conversation.writer

    def _send(self, order: int, port: int, packet: bytes) -> None:
        if self._conversation is None:
            self.counts.packets_out_discarded += 1
        else:
            self._conversation.send(self._codec.encode_packet_out(order, port, packet))

    def _answer(self, entities: bytes, deadline: float = DEADLINE) -> AsyncIterator[Sequence[p4r.Entity]]:
        if self._conversation is None:
            raise SwitchError(self._state.text)
        return self._conversation.link.read(entities, deadline)

    async def _read(self, entities: bytes) -> list[p4r.Entity]:
        return [entity async for message in self._answer(entities) for entity in message]

    async def _read_table(self, entities: bytes, decode: Callable[[p4r.TableEntry], _T]) -> list[_T]:
        entries: list[_T] = []
        try:
            async for message in self._answer(entities, TABLE_DEADLINE):
                for chunk in _chunks(message):
                    entries.extend([decode(entity.table_entry) for entity in chunk])
                    await asyncio.sleep(0)  # a full table takes a second, and the stream must be drained meanwhile
        except (ValueError, LookupError) as error:
            raise SwitchError(
                f"the switch at {self._address} holds an entry that no agent has written ({error}): delete it"
            ) from error
        return entries

    # Keeping it up.

    async def _supervise(self, settled: asyncio.Future[None]) -> None:
        """Converse with the switch, and with the next one when it is gone."""
        delay = BACKOFF_FIRST
        while True:
            # A new channel each time: a new switch behind the same path is a new connection.
            link = Link(self._address, self._device_id)
            connects = self.counts.connects
            self._conversation = Conversation(link, self._arbitration, self._pipeline, self, self.counts)
            try:
                await self._conversation.run()
            except SwitchError as error:
                if isinstance(error, ElectionIdTaken):
                    self._arbitration.taken()
                if isinstance(error, Unsuitable) and not settled.done():
                    settled.set_exception(error)
                    return
                self._enter(Condition.UNREACHABLE, str(error))
            except Exception as defect:
                _log.exception("session", address=self._address)
                self._enter(
                    Condition.UNREACHABLE, f"a defect of NVI's ended the session with {self._address}: {defect}"
                )
            finally:
                self._conversation = None
            if self.counts.connects > connects:
                delay = BACKOFF_FIRST
            await asyncio.sleep(delay)
            delay = min(2 * delay, BACKOFF_LAST)

    def _enter(self, condition: Condition, text: str) -> None:
        """Change the state, and tell the agent if it gains or loses the role."""
        before, self._state = self._state, State(condition, text)
        if before.condition is not condition:
            _log.info("switch", address=self._address, condition=condition.value, reason=text)
        was, is_ = before.condition is Condition.PRIMARY, condition is Condition.PRIMARY
        if was != is_:
            try:
                self.on_primary(is_)
            except Exception:
                # Whatever the agent makes of it, the switch must be attended to.
                _log.exception("on_primary", address=self._address)

    def _settle(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    # What the conversation reports (conversation.Listener).

    def pushed(self) -> None:
        self._pushed = True

    def elected(self) -> None:
        self.fresh, self._pushed = self._pushed, False
        self._enter(Condition.PRIMARY, f"primary with election id {self._arbitration.election_id}")
        self._settle()

    def deposed(self, rival: int) -> None:
        who = f"the controller with election id {rival} is" if rival else "nobody is"
        self._enter(Condition.BACKUP, f"{who} the primary of the switch at {self._address}")
        if rival:
            self._settle()

    def punted(self, packet: p4r.PacketIn) -> None:
        self.counts.punts += 1
        try:
            self.on_punt(self._codec.decode_packet_in(packet))
        except Exception:
            # Whatever a packet brings about, the next one must be read.
            self.counts.punts_discarded += 1
            _log.exception("punt", address=self._address)


def _chunks(items: Sequence[_T], size: int = CHUNK) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
