"""A simulated farm in which agents die in the middle of anything, switches restart, and hosts lose each other."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

from nvi.agent.state import StateFile
from nvi.directory import Directory, DirectoryError
from nvi.directory.memory import MemoryDirectory
from nvi.embedded.memory import MemorySwitch
from nvi.model import Endpoint, Host
from nvi.offers import Offers
from nvi.offers.memory import MemoryOffers
from nvi.simulation import Capture, Farm, FarmSwitch, SimulatedHost, addresses_of
from nvi.switch import PORT_UNDERLAY, Switch

from .life import Device, DirectoryLine, Life, OffersLine, SwitchLine
from .offers import FaultyOffers

IDLE = 20.0
"""Seconds after which a connection is idle."""

ORCHESTRATOR_SECONDS = 0.25
"""Between two attempts of an orchestrator to have its agent do something."""


class FaultyFarm(Farm):
    """Each agent reaches the world by lines that are cut when it dies."""

    def __init__(self, rng: random.Random, capture: Capture, lost: Callable[[bytes], None]) -> None:
        """`lost` is told of packets that a fault has swallowed."""
        self.faulty_offers = FaultyOffers(MemoryOffers(), rng, self._are_parted)
        self.memory = MemoryDirectory()
        super().__init__(idle_timeout=IDLE, capture=capture, directory=self.memory, offers=self.faulty_offers)
        self.on_note: Callable[..., None] = lambda *_: None
        """Called with what happens to orchestrators."""
        self.lives: dict[str, Life] = {}
        """By host: of its agent, the present one or the last."""
        self.devices: dict[str, Device] = {}
        self.parted: set[frozenset[str]] = set()
        """Pairs of hosts whose agents do not hear each other."""
        self.cut: set[frozenset[str]] = set()
        """Pairs of hosts that no packet passes between."""
        self.alone: set[str] = set()
        """Hosts that reach neither the directory nor other agents."""
        self.wanted: defaultdict[str, dict[str, tuple[Endpoint, int]]] = defaultdict(dict)
        """By host and name: the endpoints that its orchestrator wants there."""
        self.leaving: set[tuple[str, str]] = set()
        """(host, name) of endpoints on their way elsewhere: their agents are to keep them until they are there."""
        self._rng = rng
        self._seen, self._lost = capture, lost
        self._orchestrators: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._beginnings: dict[str, asyncio.Task[SimulatedHost]] = {}
        self._background: set[asyncio.Task[Any]] = set()

    # ---- agents ---------------------------------------------------------------------------------------------------

    def reach(self, host: Host, switch: FarmSwitch) -> tuple[Switch, Directory, Offers]:
        """By lines of its own, which end with that life."""
        assert isinstance(switch, MemorySwitch), "all switches of this farm are such"
        life, name = Life(), host.name
        self.lives[name] = life
        device = self.devices.get(name)
        if device is None:
            device = self.devices[name] = Device(switch, self._rng, self._lost)
        directory = DirectoryLine(life, self.memory, self._rng, lambda: name in self.alone)
        return SwitchLine(life, device), cast(Directory, directory), OffersLine(life, self.offers)

    def is_alive(self, host: str) -> bool:
        """Whether the host has an agent, or one that is about to begin."""
        return not self.lives[host].over

    def has_begun(self, host: str) -> bool:
        """Whether the host has an agent that has begun its work."""
        return self.is_alive(host) and (host not in self._beginnings or self._beginnings[host].done())

    def kill(self, host: str) -> None:
        """Its agent dies, at whatever await it is."""
        self.lives[host].end()
        switch, agent = self.hosts[host].switch, self.hosts[host].agent
        switch.on_punt = _ignore
        switch.on_primary = _ignore
        self.offers.leave(host)
        if (beginning := self._beginnings.pop(host, None)) is not None:
            beginning.cancel()
        self._spawn(agent.stop())  # so that its tasks and timers end, which nobody sees

    def revive(self, host: str, forgetful: bool = False) -> None:
        """An agent comes, to what the last one left. `forgetful`: but for its state file, which is lost."""
        if forgetful:
            state = StateFile(None)
            state.open()  # it begins at what the clock says
            self.hosts[host].state = state
        self.lives[host] = Life()  # until it has begun
        self._beginnings[host] = beginning = asyncio.get_running_loop().create_task(self.start_agent(host))
        beginning.add_done_callback(self._begun)

    def _begun(self, beginning: asyncio.Task[SimulatedHost]) -> None:
        if not beginning.cancelled() and (error := beginning.exception()) is not None:
            context = {"message": "an agent could not begin", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # ---- switches and wires ---------------------------------------------------------------------------------------

    def switch_off(self, host: str) -> None:
        """Its switch dies, with all that it holds."""
        self.devices[host].down = True
        self.devices[host].switch.restart()
        self.hosts[host].switch.on_primary(False)

    def switch_on(self, host: str) -> None:
        """Its switch comes back, with nothing."""
        self.devices[host].down = False
        self.hosts[host].switch.on_primary(True)

    def _are_parted(self, one: str, other: str) -> bool:
        return one in self.alone or other in self.alone or frozenset((one, other)) in self.parted

    def _transmit(self, name: str, port: int, packet: bytes) -> None:
        peer = None
        if port == PORT_UNDERLAY:
            peer = self.by_address.get((self.hosts[name].host.site, addresses_of(packet)[1]))
        if peer is not None and frozenset((name, peer.host.name)) in self.cut:
            self._seen(name, port, packet)
            self._lost(packet)
        else:
            super()._transmit(name, port, packet)

    # ---- orchestrators --------------------------------------------------------------------------------------------

    async def settle_endpoints(self, host: str) -> None:
        """Have its agent know the endpoints that its orchestrator wants there, however often that takes."""
        async with self._orchestrators[host]:
            while True:
                if await self._told(host):
                    return
                await asyncio.sleep(ORCHESTRATOR_SECONDS)

    async def _told(self, host: str) -> bool:
        """Whether the agent knows all, after one attempt."""
        agent, life, wanted = self.hosts[host].agent, self.lives[host], self.wanted[host]
        if not self.has_begun(host):
            return False
        try:
            for endpoint, port in agent.endpoints():
                if wanted.get(endpoint.name) != (endpoint, port) and (host, endpoint.name) not in self.leaving:
                    await life.do(agent.remove_endpoint(endpoint.name))
            for endpoint, port in list(wanted.values()):
                await life.do(agent.add_endpoint(endpoint, port))
        except (ValueError, DirectoryError) as error:
            self.on_note("orchestrator of", host, error)
            return False
        except asyncio.CancelledError:
            if not life.over:
                raise
            return False
        there = {endpoint.name: (endpoint, port) for endpoint, port in agent.endpoints()}
        return wanted == {name: each for name, each in there.items() if (host, name) not in self.leaving}


def _ignore(_: object) -> None:
    """What a dead agent does."""
