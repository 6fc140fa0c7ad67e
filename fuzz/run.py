"""One run: a farm, what its plan says will happen to it, and what must hold."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import structlog
from msgspec.structs import replace

from nvi.model import Endpoint, Rule, Tenant, pair_of, show_address
from nvi.offers import Ask, Offer, Request
from nvi.simulation import VirtualClockLoop
from nvi.switch import PORT_FIRST_ENDPOINT

from . import wire
from .audit import Audit, check_empty, check_nothing_left
from .farm import IDLE, FaultyFarm
from .model import NETWORKS, TENANTS, Broken, Invariant, Model, expect, make_host
from .offers import LATE_SECONDS
from .plan import (
    ALWAYS,
    CALM,
    STORM,
    Change,
    Crash,
    Fault,
    Gale,
    Heir,
    Isolation,
    Jump,
    Move,
    Opening,
    Outage,
    Parting,
    Plan,
    Policy,
    make_plan,
)
from .talks import Talk, Talkers
from .witness import Witness

RECOVERY = 10.0
"""Seconds after the last fault, and the last message that it has made late, within which everything works again."""

SLACK = 5.0
"""Seconds that ageing, and the messages it takes, may add."""

QUARANTINE = 60.0
"""Seconds for which keys may rest."""

CRASH_WITHIN = 8.0
"""Seconds after which an agent that asks little dies anyway."""

TOO_LONG = 250.0
"""Seconds after which something waits for what never comes."""

ATTEMPTS = 100
"""To find two endpoints that may talk."""

FORBIDDEN = 0.1
"""How often two try whom the policy does not allow to."""

SETTLED = 0.5
"""Seconds in which what is asked has had its effect."""

AUDIT_SECONDS = 4.0
FIRST_WALL_CLOCK = 1_800_000_000.0

NUMBERS = {"acme": (1, 2, 3, 4), "globex": (1, 2, 5, 6)}
"""By tenant: of its endpoints in each network. So some share MAC and address, and others leave theirs to an heir."""


@dataclass(frozen=True)
class Outcome:
    """What a run has shown."""

    seed: int
    broken: Broken | None
    digest: str
    """Of every packet and every fault, with its time."""
    connections: int
    """That came about."""
    faults: Counter[str]
    """That really happened, by kind."""
    changes: Counter[str]
    """Of endpoints and policies, by kind."""
    messages: Counter[str]
    """What became of offers, by kind."""
    seconds: float
    """Virtual."""


def run(seed: int, on_note: Callable[[str], None] | None = None) -> Outcome:
    """Run one seed to its end, or until an invariant is broken.

    `on_note`: called with a line about everything that happens.
    """
    simulation = Simulation(make_plan(seed), on_note)
    runner = asyncio.Runner(loop_factory=VirtualClockLoop)
    with _logging(on_note), patch.object(time, "time", simulation.wall_clock), runner:
        broken = runner.run(simulation.run())
        seconds = runner.get_loop().time()
    return Outcome(
        seed,
        broken,
        simulation.witness.digest,
        sum(talk.rounds > 0 for talk in simulation.talkers.talks),
        simulation.faults,
        simulation.changes,
        simulation.farm.faulty_offers.happened,
        seconds,
    )


class Simulation:
    """A run that is under way."""

    def __init__(self, plan: Plan, on_note: Callable[[str], None] | None) -> None:
        """Nothing has happened yet."""
        self.plan = plan
        self._on_note = on_note
        self.faults: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()
        self._rng = random.Random(f"run {plan.seed}")
        self._wall = FIRST_WALL_CLOCK
        self._heirs = 0
        self._gales = 0
        self._isolated: dict[str, asyncio.Event] = {}
        """Hosts that are alone, and what tells when they are not any more."""
        self._reserved: set[tuple[str, int]] = set()
        """Ports that their agents have not confirmed to be free."""
        self._serial = 0
        self._tasks: list[asyncio.Task[None]] = []

    def wall_clock(self) -> float:
        """What the machine's clock shows, which is set now and then: nobody may measure durations by it."""
        return self._wall + self._now()

    def _now(self) -> float:
        return self._loop.time()

    async def run(self) -> Broken | None:
        """To its end, or until an invariant is broken: then that."""
        self._loop = asyncio.get_running_loop()
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._loop.set_exception_handler(self._unexpected)
        hosts = [make_host(number, sites=1) for number in range(self.plan.hosts)]
        self.model = Model(hosts)
        self.witness = Witness(self.model, self._now)
        self.witness.on_broken, self.witness.on_note = self._fail, self._on_note
        self.farm = FaultyFarm(self._rng, self.witness.see, self.witness.swallow)
        self.farm.faulty_offers.on_arrival = self._arrive
        self.farm.faulty_offers.on_fate, self.farm.on_note = self._note_fate, self.witness.note
        self.talkers = Talkers(self.model, self.witness, self._emit, self._now)
        self.audit = Audit(self.model, self.farm)
        story = self._loop.create_task(self._story())
        await asyncio.wait((story, self._failed), timeout=TOO_LONG, return_when=asyncio.FIRST_COMPLETED)
        if not story.done() and not self.witness.broken:
            return Broken(Invariant.FAILURES, f"it has not come to its end after {TOO_LONG} s")
        if story.done() and not self.witness.broken and (error := story.exception()) is not None:
            if not isinstance(error, Broken):
                raise error
            self.witness.complain(error)
        return next(iter(self.witness.broken), None)

    def _fail(self) -> None:
        if not self._failed.done():
            self._failed.set_result(None)

    def _unexpected(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        what = f"{context['message']}: {context.get('exception')!r}"
        self.witness.complain(Broken(Invariant.FAILURES, what))

    def _note_fate(self, sender: str, receiver: str, message: Request, fate: str) -> None:
        self.witness.note(sender, receiver, _show(message), fate)

    def _arrive(self, receiver: str, asked: float) -> None:
        """Whoever has begun since a question was asked cannot know that it is older than what was said later."""
        if asked < self.farm.lives[receiver].began:
            self.talkers.disturb(receiver, self._now() + SETTLED)

    def _emit(self, sender: Endpoint, frame: bytes) -> None:
        where, port = self.farm.endpoints[sender.name]
        self.farm.hosts[where.host].switch.receive(port, frame)

    # ---- the story ------------------------------------------------------------------------------------------------

    async def _story(self) -> None:
        await self.farm.start(self.model.tenants.values(), self.model.host.values())
        for tenant, numbers in NUMBERS.items():
            for network in NETWORKS:
                for number in numbers:
                    host = self._rng.choice(list(self.model.host))
                    await self._place(self.model.endpoint(tenant, network, number, host))
        self.farm.faulty_offers.weather = ALWAYS
        auditing = self._spawn(self._look_again())
        incidents = [self._spawn(self._at(each.at, self._befall(each))) for each in self.plan.faults]
        incidents += [self._spawn(self._at(each.at, self._alter(each))) for each in self.plan.changes]
        openings = [self._spawn(self._at(each.at, self._open(each))) for each in self.plan.openings]
        await asyncio.gather(*incidents)
        await self._at(max(each.at for each in self.plan.openings) + 1.0, asyncio.sleep(0))
        self.farm.faulty_offers.weather = CALM
        await asyncio.sleep(2 * LATE_SECONDS)
        for opening in openings:
            opening.cancel()
        await self._recover()
        auditing.cancel()
        await asyncio.sleep(IDLE + SLACK)
        check_empty(self.farm)
        await asyncio.sleep(QUARANTINE)
        check_nothing_left(self.farm)
        await self.farm.stop()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, Broken):
                error = Broken(Invariant.FAILURES, f"the simulation: {error!r}")
            self.witness.complain(error)

    async def _at(self, when: float, work: Coroutine[Any, Any, None]) -> None:
        try:
            await asyncio.sleep(max(when - self._now(), 0.0))
        except asyncio.CancelledError:
            work.close()
            raise
        await work

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(AUDIT_SECONDS)
            self.audit.look()
            for name, host in self.farm.hosts.items():
                expect(not host.agent._local.events["failures"], Invariant.FAILURES, f"in the agent of {name}")

    async def _recover(self) -> None:
        """Everything that is allowed works again."""
        live = [each for each in self.talkers.talks if not each.over and each.ports.protocol != wire.PORTLESS]
        pairs = [(one, other) for one in self._here() for other in self._here() if one is not other]
        fresh = [self._talk(*pair, wire.TCP) for pair in pairs if self.model.allowed(*pair)]
        deadline = self._now() + RECOVERY
        talks = [*live, *fresh]
        done = await asyncio.gather(*(self.talkers.round(talk, deadline) for talk in talks))
        for talk, worked in zip(talks, done, strict=True):
            seen = {name: dict(self.farm.hosts[name].agent._local.events) for name in (talk.one.host, talk.other.host)}
            what = f"{talk.one.name} to {talk.other.name}, {talk.ports}: nothing within {RECOVERY} s; {seen}"
            expect(worked, Invariant.RECOVERY, what)

    # ---- endpoints ------------------------------------------------------------------------------------------------

    def _here(self) -> list[Endpoint]:
        return list(self.model.placed.values())

    def _free_port(self, host: str) -> int:
        taken = {port for there, port in (*self.model.placed, *self._reserved) if there == host}
        return next(port for port in range(PORT_FIRST_ENDPOINT, 500) if port not in taken)

    async def _place(self, endpoint: Endpoint) -> None:
        """A new endpoint, at the lowest free port, so that ports are recycled as well."""
        port = self._free_port(endpoint.host)
        self.model.placed[endpoint.host, port] = endpoint
        self.farm.endpoints[endpoint.name] = (endpoint, port)
        self.farm.wanted[endpoint.host][endpoint.name] = (endpoint, port)
        await self.farm.settle_endpoints(endpoint.host)

    async def _open(self, opening: Opening) -> None:
        """Two whom the policy allows it talk; now and then two try whom it does not."""
        for _ in range(ATTEMPTS):
            one, other = self._rng.sample(self._here(), 2)
            if one.tenant != other.tenant:
                continue
            if self.model.allowed(one, other):
                await self.talkers.hold(self._talk(one, other, opening.protocol), opening.rounds, opening.pause)
                return
            if self._rng.random() < FORBIDDEN:
                self.talkers.send(one, other, wire.Ports(wire.TCP, self._next_port(), 80), wire.SYN)

    def _talk(self, one: Endpoint, other: Endpoint, protocol: int) -> Talk:
        port = self._next_port()
        talk = Talk(one, other, wire.Ports(protocol, port, port if protocol == wire.ICMP else 80))
        self.talkers.talks.append(talk)
        return talk

    def _next_port(self) -> int:
        self._serial += 1
        return 1024 + self._serial

    # ---- changes --------------------------------------------------------------------------------------------------

    async def _alter(self, change: Change) -> None:
        self.witness.note(change)
        match change:
            case Move():
                await self._move()
            case Heir():
                await self._leave_to_an_heir(change)
            case Policy():
                await self._change_policy()

    async def _move(self) -> None:
        endpoint = self._rng.choice(self._here())
        there = [name for name in self.model.host if name != endpoint.host and self.farm.has_begun(name)]
        if not there or not self.farm.has_begun(endpoint.host) or self.talkers.disturbed.get(endpoint.name) == _ALWAYS:
            return
        host, name = self._rng.choice(there), endpoint.name
        moved = replace(endpoint, host=host)
        _, left = self.farm.endpoints[name]
        port = self._free_port(host)
        self.changes["moves"] += 1
        self._reserved.add((endpoint.host, left))
        self.talkers.disturbed[name] = _ALWAYS
        del self.model.placed[endpoint.host, left]
        self.model.placed[host, port] = moved
        self.farm.endpoints[name] = (moved, port)
        self.talkers.moved(endpoint, moved)
        del self.farm.wanted[endpoint.host][name]
        self.farm.leaving.add((endpoint.host, name))
        self.farm.wanted[host][name] = (moved, port)
        await self.farm.settle_endpoints(host)
        self.farm.leaving.discard((endpoint.host, name))
        await self.farm.settle_endpoints(endpoint.host)
        self._reserved.discard((endpoint.host, left))
        self.talkers.disturbed[name] = self._now()

    async def _leave_to_an_heir(self, change: Heir) -> None:
        taken = {(each.tenant, each.address) for each in self._here()}
        those = [each for each in self._here() if (_other(each.tenant), each.address) not in taken]
        if not those:
            return
        gone = self._rng.choice(those)
        if not self.farm.has_begun(gone.host) or self.talkers.disturbed.get(gone.name) == _ALWAYS:
            return
        self.changes["heirs"] += 1
        self._heirs += 1
        name = f"{_other(gone.tenant)}-heir{self._heirs}"
        _, port = self.farm.endpoints.pop(gone.name)
        self._reserved.add((gone.host, port))
        del self.model.placed[gone.host, port]
        talks = [each for each in self.talkers.talks if not each.over and gone in (each.one, each.other)]
        self.talkers.end(gone)
        del self.farm.wanted[gone.host][gone.name]
        crashing = None
        if change.crash is not None:
            crashing = self._spawn(self._crash(dataclasses.replace(change.crash, host=gone.host)))
        await self.farm.settle_endpoints(gone.host)
        heir = replace(gone, name=name, tenant=_other(gone.tenant))
        self.farm.wanted[gone.host][heir.name] = (heir, port)
        await self.farm.settle_endpoints(gone.host)
        self._reserved.discard((gone.host, port))
        self.model.placed[gone.host, port] = heir
        self.farm.endpoints[heir.name] = (heir, port)
        for talk in talks:  # both its peers, who have not heard, and the heir go on as if nothing had happened
            for sender, to, ports, kind in talk.turns():
                one, other = (heir if each == gone else each for each in (sender, to))
                if one in self._here():
                    self.talkers.send(one, other, ports, kind)
        if crashing is not None:
            await crashing

    async def _change_policy(self) -> None:
        tenant = self.model.tenants[self._rng.choice(TENANTS)]
        names = [each.name for each in self._here() if each.tenant == tenant.name]
        pairs = {pair_of(*self._rng.sample(names, 2)): self._rng.random() < 0.5 for _ in range(4)}
        who = [self._rng.sample([*NETWORKS, *names], 2) for _ in range(2)]
        rules = [Rule(one, other, self._rng.random() < 0.5) for one, other in who]
        self.changes["policies"] += 1
        changed = Tenant(tenant.name, tenant.networks, tenant.groups, tuple(rules), pairs)
        self.model.now = self._now()
        self.model.change_policy(changed)
        self.talkers.forbid()
        await self.farm.memory.publish_tenant(changed)

    # ---- faults ---------------------------------------------------------------------------------------------------

    async def _befall(self, fault: Fault) -> None:
        self.witness.note(fault)
        match fault:
            case Crash():
                await self._crash(fault)
            case Outage():
                await self._switch_off(fault)
            case Parting():
                await self._part(fault)
            case Isolation():
                await self._isolate(fault)
            case Gale():
                self.faults["gales"] += 1
                self._gales += 1
                self.farm.faulty_offers.weather = STORM
                await asyncio.sleep(fault.seconds)
                self._gales -= 1
                if not self._gales:
                    self.farm.faulty_offers.weather = ALWAYS
            case Jump():
                self.faults["clock jumps"] += 1
                self._wall += fault.by

    async def _crash(self, fault: Crash) -> None:
        host = fault.host
        if not self.farm.has_begun(host):
            return
        life, dead = self.farm.lives[host], []

        def fall(steps: int) -> None:
            if steps > 0:
                self._loop.call_soon(fall, steps - 1)
            elif not life.over:
                self.faults["crashes"] += 1
                self.witness.note("dies", host)
                self.model.now = self._now()
                self.farm.kill(host)
                self.model.deaf(host)
                dead.append(host)

        life.doom(fault.calls, lambda: fall(fault.steps))
        late = self._loop.call_later(CRASH_WITHIN, fall, 0)
        await life.ended.wait()
        late.cancel()
        if not dead:
            return  # of something else
        await asyncio.sleep(fault.seconds)
        if (isolated := self._isolated.get(host)) is not None:
            await isolated.wait()
        if fault.forgetful:
            # It shuts out what it does not know, until its orchestrator has named it again.
            self.faults["state files lost"] += 1
            self.talkers.disturbed[host] = _ALWAYS
        self.farm.revive(host, fault.forgetful)
        await self.farm.settle_endpoints(host)
        if fault.forgetful and not self.farm.devices[host].down:
            self.talkers.disturbed[host] = self._now()
        self._hear(host)

    def _hear(self, host: str) -> None:
        """Its agent hears of changes again, if nothing else keeps it from that."""
        if self.farm.has_begun(host) and host not in self.farm.alone:
            self.model.now = self._now()
            self.model.hears(host)

    async def _switch_off(self, fault: Outage) -> None:
        host = fault.host
        if self.farm.devices[host].down:
            return
        self.faults["switches"] += 1
        self.talkers.disturbed[host] = _ALWAYS
        self.farm.switch_off(host)
        await asyncio.sleep(fault.seconds)
        self.farm.switch_on(host)
        self.talkers.disturbed[host] = self._now()

    async def _part(self, fault: Parting) -> None:
        pair = frozenset(fault.hosts)
        if pair in self.farm.parted:
            return
        self.faults["partings"] += 1
        self.farm.parted.add(pair)
        if fault.wire:
            self.farm.cut.add(pair)
        await asyncio.sleep(fault.seconds)
        self.farm.parted.discard(pair)
        self.farm.cut.discard(pair)

    async def _isolate(self, fault: Isolation) -> None:
        host = fault.host
        if host in self.farm.alone or not self.farm.has_begun(host):
            return
        self.faults["isolations"] += 1
        self.farm.alone.add(host)
        self._isolated[host] = asyncio.Event()
        self.model.now = self._now()
        self.model.deaf(host)
        await asyncio.sleep(fault.seconds)
        self.farm.alone.discard(host)
        self._isolated.pop(host).set()
        self._hear(host)


_ALWAYS = float("inf")


def _show(message: Request) -> str:
    """What it is about, for people."""
    if isinstance(message, Ask):
        return f"Ask {message.protocol} {message.mine.port} {message.yours.port}"
    low, high = message.connection.low, message.connection.high
    ends = " ".join(f"{show_address(end.address)}:{end.port}" for end in (low, high))
    mine, yours = (
        (message.end.port, message.peer_port) if isinstance(message, Offer) else (message.mine.port, message.yours.port)
    )
    return f"{type(message).__name__} {message.connection.tenant} {message.connection.protocol} {ends}, {mine} {yours}:"


def _other(tenant: str) -> str:
    return TENANTS[1 - TENANTS.index(tenant)]


@contextmanager
def _logging(on_note: Callable[[str], None] | None) -> Iterator[None]:
    """What agents log of faults is of interest only to who follows a run."""

    def log(_: object, method: str, event: Any) -> Any:
        if on_note is not None:
            on_note(f"  {method}: " + ", ".join(f"{key} {value}" for key, value in sorted(event.items())))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[log])
    try:
        yield
    finally:
        structlog.configure(**before)
