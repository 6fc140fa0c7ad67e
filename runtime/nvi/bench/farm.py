"""Hosts with real agents: each agent in this process, each switch a process of its own, cables in between.

What the agents say to each other goes from one to the other within the process (`memory`), or through a NATS server,
with which each of them has a connection of its own (`nats`).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from ipaddress import IPv4Interface
from pathlib import Path
from types import TracebackType

import structlog

from ..agent.agent import Agent
from ..agent.process import GC_THRESHOLDS
from ..agent.state import StateFile
from ..agent.underlay import NextHop
from ..config import AgentConfig
from ..directory import Directory
from ..directory.memory import MemoryDirectory
from ..directory.nats import NatsDirectory
from ..emulation.messaging import Messaging, MessagingError
from ..model import Address, Endpoint, Host, derive_mac
from ..nats.connection import Connection
from ..nats.layout import Layout
from ..offers import Offers
from ..offers.memory import MemoryOffers
from ..offers.nats import NatsOffers
from ..p4rt.session import Session
from ..switch import PORT_FIRST_ENDPOINT
from ..topology.model import Site, Topology, TopologyHost
from .ends import TENANT, endpoint, host
from .lab import LabError, Switch, cpu_seconds

_log = structlog.get_logger()

UNLIMITED = 1_000_000
"""Punts per second: what is measured is not the limit that an operator sets."""


def like_an_agent() -> None:
    """Have this process log and collect garbage as one that runs agents does."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class Cable:
    """An underlay that needs no resolution: whatever is sent arrives at the other switch."""

    on_change: Callable[[Address], None]

    def __init__(self, source: Address) -> None:
        self._source = source
        self._hops: dict[Address, NextHop] = {}

    async def next_hop(self, destination: Address) -> NextHop:
        hop = self._hops.get(destination)
        if hop is None:
            source_mac, destination_mac = (derive_mac("host", each.hex()) for each in (self._source, destination))
            hop = self._hops[destination] = NextHop(self._source, source_mac, destination_mac)
        return hop

    def forget(self, destination: Address) -> None:
        """Nothing is remembered."""


class Farm:
    """Agents, an endpoint at port 16 and following of each of their switches. An asynchronous context manager."""

    def __init__(
        self,
        *sites: tuple[Switch, int],
        idle_timeout: float = 300.0,
        punt_rate: int = UNLIMITED,
        nats: Path | None = None,
    ) -> None:
        """`sites`: for each host its switch, and how many endpoints it has.

        `nats`: a directory for a NATS server, through which the agents are to talk; None: they talk in memory.
        """
        self._sites = sites
        self._idle_timeout = idle_timeout
        self._punt_rate = punt_rate
        self._nats = nats
        self._stack = AsyncExitStack()
        self._messaging: Messaging | None = None
        self._memory = MemoryDirectory(), MemoryOffers()
        self.agents: list[Agent] = []
        self.sessions: list[Session] = []
        self.endpoints: list[Endpoint] = []

    async def __aenter__(self) -> Farm:
        like_an_agent()
        try:
            await self._start()
        except BaseException as error:
            await self._stack.aclose()
            if isinstance(error, MessagingError):
                raise LabError(str(error)) from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def control_seconds(self) -> float:
        """CPU time of the control plane: this process, and the NATS server if there is one."""
        own = sum(os.times()[:2])
        servers = () if self._messaging is None else self._messaging.servers
        return own + sum(cpu_seconds(server.pid) for server in servers if server.pid is not None)

    async def _start(self) -> None:
        if self._nats is None:
            await self._memory[0].publish_tenant(TENANT)
        else:
            self._messaging = Messaging(self._topology(), self._nats, _heard, lambda _: None, 1)
            self._stack.push_async_callback(self._messaging.stop)
            await self._messaging.start({TENANT.name: TENANT})
        for number, (switch, endpoints) in enumerate(self._sites, start=1):
            await self._start_host(host(number), switch, endpoints)
        for agent in self.agents:
            await _primary(agent)

    async def restart(self, index: int) -> None:
        """End the agent of a host, and have another one take over its switch. Over memory only.

        It is told its endpoints before it has the switch, as an agent that remembers them is.
        """
        old, here = self.agents[index], host(index + 1)
        await old.stop()
        await self.sessions[index].close()
        agent, session = self._agent(here, self._sites[index][0], *self._memory, election_id=2)
        self.agents[index], self.sessions[index] = agent, session
        await agent.start()
        self._stack.push_async_callback(agent.stop)
        for end, port in old.endpoints():
            await agent.add_endpoint(end, port)
        self._stack.push_async_callback(session.close)
        await session.start()
        await _primary(agent)

    async def _start_host(self, here: Host, switch: Switch, endpoints: int) -> None:
        directory, offers = self._memory if self._messaging is None else self._over_nats(self._messaging, here)
        agent, session = self._agent(here, switch, directory, offers, election_id=1)
        await agent.start()
        self._stack.push_async_callback(agent.stop)
        await session.start()
        self._stack.push_async_callback(session.close)
        for port in range(PORT_FIRST_ENDPOINT, PORT_FIRST_ENDPOINT + endpoints):
            new = endpoint(len(self.endpoints) + 1, here)
            self.endpoints.append(new)
            await agent.add_endpoint(new, port)
        self.agents.append(agent)
        self.sessions.append(session)

    def _agent(
        self, here: Host, switch: Switch, directory: Directory, offers: Offers, election_id: int
    ) -> tuple[Agent, Session]:
        session = Session(switch.address, switch.device_id, election_id)
        agent = Agent(
            AgentConfig(here, p4runtime=switch.address, device_id=switch.device_id, api="", state=""),
            session,
            directory,
            offers,
            Cable(here.addresses[0]),
            StateFile(None),
            idle_timeout=self._idle_timeout,
            punt_rate=self._punt_rate,
        )
        return agent, session

    def _over_nats(self, messaging: Messaging, here: Host) -> tuple[Directory, Offers]:
        layout = Layout(messaging.farm)
        connection = Connection(messaging.config(here.name), here.name, layout.inbox(here.name))
        directory, offers = NatsDirectory(connection, layout), NatsOffers(connection, layout)
        connection.start()
        self._stack.push_async_callback(connection.stop)
        directory.start()
        self._stack.push_async_callback(directory.stop)
        self._stack.push_async_callback(offers.stop)
        return directory, offers

    def _topology(self) -> Topology:
        hosts = {}
        ends: dict[str, Endpoint] = {}
        for number, (_, endpoints) in enumerate(self._sites, start=1):
            here = host(number)
            address = IPv4Interface((here.addresses[0], 24))
            hosts[here.name] = TopologyHost(here.name, here.site, (address,))
            new = (endpoint(len(ends) + 1, here) for _ in range(endpoints))
            ends |= {each.name: each for each in new}
        return Topology("bench", {"here": Site("here")}, hosts, {TENANT.name: TENANT}, ends)


async def _primary(agent: Agent) -> None:
    while (await agent.status())["state"] != "primary":  # noqa: ASYNC110  an agent has no event for that
        await asyncio.sleep(0.01)


def _heard(text: str) -> None:
    _log.warning(text)
