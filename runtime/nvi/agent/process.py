"""A process that runs the agent of one host, over NATS; or those of several, which share a directory in memory.

The agents stay independent of each other: what keeps one from working is reported and tried again, and the others do
not notice.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from ..config import AgentConfig, FarmConfig
from ..directory import Directory, DirectoryError
from ..directory.memory import MemoryDirectory
from ..directory.nats import NatsDirectory
from ..mappings import Change
from ..model import Host
from ..nats.connection import Connection
from ..offers import Offers
from ..offers.direct import Direct
from ..offers.memory import MemoryOffers
from ..offers.nats import NatsOffers
from ..p4rt.session import Session
from ..switch import SwitchError
from .agent import Agent
from .api import Api
from .hostfile import HostFile
from .journal import Journal
from .state import StateError, StateFile
from .underlay import KernelUnderlay

PATIENCE = 5.0
"""Seconds that an agent waits for its switch before it says that it is not there, and serves its API without it."""

RETRY_FIRST, RETRY_LAST = 1.0, 5.0
"""Seconds between attempts, doubled each time."""

GC_THRESHOLDS = (2_000, 20, 100)
"""A connection makes a dozen objects that stay and no cycles, so looking through all of them at Python's pace (700,
10, 10) is work for nothing. Measured while 30,000 connections are made: the longest pause goes from 50 ms to 3 ms. The
first number stays small because decoded netlink messages are cycles: 50,000 objects of theirs take 20 ms to collect."""

_log = structlog.get_logger()


class ConfigError(Exception):
    """The configuration contradicts itself. The text says where."""


def check(config: FarmConfig) -> None:
    """Raises ConfigError if agents would get in each other's way."""
    if not config.agents:
        raise ConfigError("agents: there is none; name at least one")
    names: tuple[tuple[str, Callable[[AgentConfig], object]], ...] = (
        ("host.name", lambda agent: agent.host.name),
        ("state", lambda agent: agent.state),
        ("api", lambda agent: agent.api),
        ("p4runtime and device_id", lambda agent: (agent.p4runtime, agent.device_id)),
    )
    for name, get in names:
        value, count = Counter(map(get, config.agents)).most_common(1)[0]
        if count > 1:
            raise ConfigError(f"agents: {count} of them have the same {name}, {value!r}; give each its own")
    for agent in config.agents:
        if not agent.host.addresses:
            raise ConfigError(f"agents: host {agent.host.name} has no underlay address; give it one")


class Member:
    """One host's agent, and what it stands on."""

    def __init__(
        self, config: AgentConfig, directory: Directory, offers: Offers, *, idle_timeout: float, punt_rate: int
    ) -> None:
        """Begins a new epoch. Raises StateError if the agent's state cannot be read."""
        self.host = config.host.name
        state = StateFile(config.state)
        state.open()
        # Higher at each start, so that the switch prefers this agent to remains of the one before. The low half is
        # the session's own.
        election_id = state.epoch << 64 | 1
        self._session = Session(config.p4runtime, config.device_id, election_id)
        self._underlay = KernelUnderlay(config.netns, config.underlay)
        self._external = None if config.host.external is None else KernelUnderlay(config.netns, config.external)
        # Beside the state, so that whoever keeps the one keeps the other.
        journal = Journal[Change](f"{config.state}.mappings", Change)
        self._agent = Agent(
            config,
            self._session,
            directory,
            offers,
            self._underlay,
            state,
            external=self._external,
            journal=journal,
            idle_timeout=idle_timeout,
            punt_rate=punt_rate,
        )
        self._published = False
        self._api = Api(self._agent, self.host, config.api)

    async def publish(self) -> None:
        """Say what this host has, and answer the others. Raises DirectoryError."""
        await self._agent.start()
        self._published = True

    async def run(self) -> None:
        """Bring up everything else, however long it takes, and be there until cancelled."""
        structlog.contextvars.bind_contextvars(host=self.host)  # for what speaks in this task and those it starts
        try:
            await self._until_it_works("underlay", self._underlay.start)
            if self._external is not None:
                await self._until_it_works("external side", self._external.start)
            rest = asyncio.create_task(self._bring_up())
            try:
                await asyncio.wait((rest,), timeout=PATIENCE)
                await self._until_it_works("API", self._api.start)
                await rest
                _log.info("agent up")
                await asyncio.get_running_loop().create_future()
            finally:
                rest.cancel()
                await asyncio.wait((rest,))
        except Exception:
            _log.exception("agent failed unexpectedly; restart it, and please report this")
        finally:
            await self._stop()

    async def _bring_up(self) -> None:
        # Whoever takes over a switch must know the endpoints, or it would shut them out.
        if not self._published:
            await self._until_it_works("place in the directory", self.publish)
        await self._until_it_works("switch", self._connect)

    async def _connect(self) -> None:
        await self._session.start(PATIENCE)

    async def _stop(self) -> None:
        """In the opposite order."""
        await self._api.stop()
        await self._agent.stop()
        await self._session.close()
        await self._underlay.close()
        if self._external is not None:
            await self._external.close()
        _log.info("agent down")

    async def _until_it_works(self, what: str, attempt: Callable[[], Awaitable[None]]) -> None:
        delay, said = RETRY_FIRST, ""
        while True:
            try:
                return await attempt()
            except (OSError, SwitchError, DirectoryError, StateError) as error:
                if str(error) != said:
                    said = str(error)
                    _log.warning(f"no {what} yet", reason=said, again_in=delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, RETRY_LAST)


async def run(farm: FarmConfig, stop: asyncio.Event) -> bool:
    """Run the agents until `stop` is set. Returns False if none of them can run, or all have failed."""
    directory, offers = MemoryDirectory(), MemoryOffers()
    for tenant in farm.tenants:
        await directory.publish_tenant(tenant)
    # An agent that takes over its switch recognises connections by what the directory says of their far ends. So
    # everything is published before anybody begins.
    members = await _publish(farm, directory, offers)
    if not members:
        _log.error("no agent can run", farm=farm.farm)
        return False
    return await _until(stop, members)


async def run_host(file: HostFile, stop: asyncio.Event) -> bool:
    """Run the agent of one host, over NATS, until `stop` is set. Returns False if it cannot run, or has failed."""
    layout = file.layout
    structlog.contextvars.bind_contextvars(host=file.host)
    config = file.agent()
    connection = Connection(file.nats, file.host, layout.inbox(file.host))
    directory = NatsDirectory(connection, layout)
    direct = Direct(config.host, config.netns, directory.known_host)
    offers = NatsOffers(connection, layout, direct)
    try:
        config = msgspec.structs.replace(config, host=await _reachable(config.host, direct, file.port))
        member = Member(config, directory, offers, idle_timeout=file.idle_timeout, punt_rate=file.punt_rate)
        connection.start()
        directory.start()
        return await _until(stop, [member])
    except StateError as error:
        _log.error("this agent cannot run", reason=str(error))
        return False
    finally:
        await offers.stop()
        await direct.stop()
        await directory.stop()
        await connection.stop()


async def _reachable(host: Host, direct: Direct, port: int) -> Host:
    """A host, and where its agent is reached while NATS is away."""
    try:
        return msgspec.structs.replace(host, contact=await direct.listen(port))
    except OSError as error:
        _log.warning("while NATS is away, other agents cannot reach this one", reason=str(error))
        return host


async def _until(stop: asyncio.Event, members: list[Member]) -> bool:
    """Run members until `stop` is set. Returns False if all of them have failed before."""
    tasks = [asyncio.create_task(member.run(), name=f"agent of {member.host}") for member in members]
    # What was made up to here stays: it need not be looked through again and again.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    stopped = asyncio.create_task(stop.wait())
    ended = asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait((stopped, ended), return_when=asyncio.FIRST_COMPLETED)
    _log.info("stopping")
    for task in (stopped, *tasks):
        task.cancel()
    await ended
    return stop.is_set()


async def _publish(farm: FarmConfig, directory: Directory, offers: Offers) -> list[Member]:
    """The agents that have something to say, and have said it."""
    members: list[Member] = []
    for config in farm.agents:
        try:
            member = Member(config, directory, offers, idle_timeout=farm.idle_timeout, punt_rate=farm.punt_rate)
            await member.publish()
        except (DirectoryError, StateError) as error:
            _log.error("this agent cannot run", host=config.host.name, reason=str(error))
        else:
            members.append(member)
    return members
