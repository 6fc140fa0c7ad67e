"""Hosts with real agents: each agent in this process, each switch a process of its own, cables in between."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType

import structlog

from nvi.agent.agent import Agent
from nvi.agent.process import GC_THRESHOLDS
from nvi.agent.state import StateFile
from nvi.agent.underlay import NextHop
from nvi.config import AgentConfig
from nvi.directory.memory import MemoryDirectory
from nvi.model import Address, Endpoint, Host, Network, Subnet, Tenant, derive_mac, read_address
from nvi.offers.memory import MemoryOffers
from nvi.p4rt.session import Session
from nvi.switch import PORT_FIRST_ENDPOINT

from .lab import Switch

NETWORK = Network("web", (Subnet(read_address("10.0.1.0"), 24, read_address("10.0.1.254")),))
TENANT = Tenant("acme", {NETWORK.name: NETWORK})
UNLIMITED = 1_000_000
"""Punts per second: what is measured is not the limit that an operator sets."""


def host(number: int) -> Host:
    """The hosts of all benchmarks."""
    return Host(f"host{number}", "here", (bytes([172, 16, number, 1]),))


def endpoint(number: int, where: Host) -> Endpoint:
    """The endpoints of all benchmarks."""
    name = f"endpoint{number}"
    return Endpoint(name, TENANT.name, NETWORK.name, derive_mac(name), (bytes([10, 0, 1, number]),), where.name)


def like_an_agent() -> None:
    """Have this process log and collect garbage as one that runs agents does."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class _Cable:
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

    def __init__(self, *sites: tuple[Switch, int], idle_timeout: float = 300.0) -> None:
        """`sites`: for each host its switch, and how many endpoints it has."""
        self._sites = sites
        self._idle_timeout = idle_timeout
        self._stack = AsyncExitStack()
        self.agents: list[Agent] = []
        self.sessions: list[Session] = []
        self.endpoints: list[Endpoint] = []

    async def __aenter__(self) -> Farm:
        like_an_agent()
        directory, offers = MemoryDirectory(), MemoryOffers()
        await directory.publish_tenant(TENANT)
        for number, (switch, endpoints) in enumerate(self._sites, start=1):
            here = host(number)
            session = Session(switch.address, switch.device_id, election_id=1)
            config = AgentConfig(here, p4runtime=switch.address, device_id=switch.device_id, api="", state="")
            agent = Agent(
                config,
                session,
                directory,
                offers,
                _Cable(here.addresses[0]),
                StateFile(None),
                idle_timeout=self._idle_timeout,
                punt_rate=UNLIMITED,
            )
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
        for agent in self.agents:
            while (await agent.status())["state"] != "primary":  # noqa: ASYNC110  an agent has no event for that
                await asyncio.sleep(0.01)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
