"""What endpoints say to each other, and how they go on when it does not arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, repeat

from nvi.model import Endpoint

from . import wire
from .model import Broken, Invariant, Model
from .witness import Witness

PATIENCE = 0.75
"""Seconds in which a packet arrives, if it arrives: also the first one, for which messages have to be exchanged."""

PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Seconds before a packet is sent again; the last goes on."""

SAYS_ON = 2.0
"""Seconds after which a connection that the policy has ended is tried, by its ends that have not heard of it."""

NEVER = -1.0


@dataclass(eq=False)
class Talk:
    """A connection of two endpoints, as they see it."""

    one: Endpoint
    """Who opened it."""
    other: Endpoint
    ports: wire.Ports
    """As `one` sends them."""
    proven: float = NEVER
    """When the last round began in which everything arrived: seconds."""
    rounds: int = 0
    """That were completed."""
    over: bool = False
    forbidden: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def turns(self) -> tuple[tuple[Endpoint, Endpoint, wire.Ports, int], ...]:
        """The packets of the next round: who sends, to whom, and what."""
        there, back = (self.one, self.other, self.ports), (self.other, self.one, self.ports.reversed())
        match self.ports.protocol:
            case wire.ICMP:
                return (*there, wire.ECHO_REQUEST), (*back[:2], self.ports, wire.ECHO_REPLY)
            case wire.TCP if not self.rounds:
                return (*there, wire.SYN), (*back, wire.SYN_ACK), (*there, wire.ACK)
            case wire.TCP if self.rounds % 2:
                return (*back, wire.ACK), (*there, wire.ACK)
            case _:
                return (*there, wire.ACK), (*back, wire.ACK)


class Talkers:
    """The endpoints of a farm."""

    def __init__(
        self, model: Model, witness: Witness, emit: Callable[[Endpoint, bytes], None], clock: Callable[[], float]
    ) -> None:
        """`emit`: sends a packet of an endpoint; `clock`: seconds."""
        self.talks: list[Talk] = []
        self.disturbed: dict[str, float] = {}
        """By host or endpoint: until when connections that touch it may have broken; for ever, while they may."""
        self._model = model
        self._witness = witness
        self._emit = emit
        self._clock = clock

    def disturb(self, host: str, until: float) -> None:
        """Connections that touch a host may break."""
        self.disturbed[host] = max(until, self.disturbed.get(host, NEVER))

    def send(self, sender: Endpoint, to: Endpoint, ports: wire.Ports, kind: int) -> int:
        """Send a packet. Returns its serial number."""
        tenant = self._model.tenants[sender.tenant]
        mac = to.mac if to.network == sender.network else tenant.gateway_mac(sender.network)
        data = wire.payload(self._witness.next_serial, 8)
        frame = wire.frame((sender.mac, mac), (sender.address, to.address), ports, kind, data)
        serial = self._witness.send(sender, frame)
        self._emit(sender, frame)
        return serial

    async def hold(self, talk: Talk, rounds: int, pause: float) -> None:
        """Open a connection, and use it for so many rounds, or until it is over."""
        while not talk.over and talk.rounds < rounds:
            if not await self.round(talk):
                break
            await asyncio.sleep(pause)
        if not talk.forbidden:
            talk.over = True
            return
        await asyncio.sleep(SAYS_ON)
        for turn in talk.turns():
            self._say_anyway(turn)

    async def round(self, talk: Talk, deadline: float = float("inf")) -> bool:
        """Everything there and back again. False if it was over before, or not done by the deadline."""
        began = self._clock()
        for number in range(len(talk.turns())):
            if not await self._deliver(talk, number, deadline):
                return False
        talk.proven = began
        talk.rounds += 1
        return True

    async def _deliver(self, talk: Talk, number: int, deadline: float) -> bool:
        """Send a packet of the round, again and again until it arrives."""
        for pause in chain(PAUSES, repeat(PAUSES[-1])):
            if talk.over or self._clock() >= deadline:
                return False
            turn = talk.turns()[number]
            serial = self.send(*turn)
            if await self._witness.arrival(serial, PATIENCE):
                return True
            self._judge_loss(talk, serial)
            await asyncio.sleep(min(pause, max(deadline - self._clock(), 0.0)))
        raise AssertionError("unreachable")

    def _judge_loss(self, talk: Talk, serial: int) -> None:
        """A packet has not arrived. Whether that may be."""
        sent = self._witness.sent[serial]
        may_be = sent.swallowed or talk.over or talk.proven <= self._disturbed(talk)
        if not may_be:
            what = f"{talk.one.name} to {talk.other.name}, {talk.ports}, proven {talk.proven:.3f}, packet {serial}"
            self._witness.complain(Broken(Invariant.ESTABLISHED, f"{what} was lost by {self._clock():.3f}"))
        talk.proven = NEVER

    def _disturbed(self, talk: Talk) -> float:
        """Until when something has gone on that may have broken it."""
        touches = (*self._model.way(talk.one.host, talk.other.host), talk.one.name, talk.other.name)
        return max(self.disturbed.get(each, NEVER) for each in touches)

    def _say_anyway(self, turn: tuple[Endpoint, Endpoint, wire.Ports, int]) -> None:
        sender, to, ports, kind = turn
        if sender in self._model.placed.values():
            self.send(sender, to, ports, kind)

    def end(self, endpoint: Endpoint) -> None:
        """An endpoint is no more."""
        for talk in self.talks:
            if endpoint in (talk.one, talk.other):
                talk.over = True

    def moved(self, before: Endpoint, now: Endpoint) -> None:
        """An endpoint is elsewhere."""
        for talk in self.talks:
            talk.one, talk.other = (now if end == before else end for end in (talk.one, talk.other))

    def forbid(self) -> None:
        """The policy has changed."""
        for talk in self.talks:
            if not talk.over and not self._model.allowed(talk.one, talk.other):
                talk.over = talk.forbidden = True
