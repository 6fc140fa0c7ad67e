"""Farms whose switches are processes of a target: P4Runtime to their agents, and a veth pair at each of their ports.

What is sent goes in and out by the pairs' other ends; only the wires from switch to switch are still function calls.
All of it is in the network namespace of this process, which should have one of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from nvi.embedded.ports import Port
from nvi.emulation.targets import Target
from nvi.p4rt.session import Session
from nvi.simulation import Capture, Farm, SimulatedHost
from ptf_tests.client import Client
from ptf_tests.run import switch, wire

from .ways import until

PATIENCE = 30.0
"""Seconds within which a switch must be its agent's."""
_AT_ONCE = 64
"""Frames that are taken from one port before others have their turn."""


class PluggedSwitch(Session):
    """A switch as its agent sees it, and the other ends of its ports."""

    def __init__(
        self,
        address: str,
        device_id: int,
        election_id: int,
        plugs: Mapping[int, Port],
        transmit: Callable[[int, bytes], None],
    ) -> None:
        """`transmit(port, packet)`: takes what leaves the switch."""
        super().__init__(address, device_id, election_id)
        self._plugs = plugs
        self._transmit = transmit

    async def start(self, patience: float = PATIENCE) -> bool:
        """As Session; and hear what leaves the switch."""
        for number, plug in self._plugs.items():
            asyncio.get_running_loop().add_reader(plug.socket, self._hear, number, plug)
        return await super().start(patience)

    async def close(self) -> None:
        """As Session; and hear no more."""
        for plug in self._plugs.values():
            asyncio.get_running_loop().remove_reader(plug.socket)
        await super().close()

    def receive(self, port: int, packet: bytes) -> None:
        """A packet arrives at a port."""
        self._plugs[port].send(packet)

    def _hear(self, number: int, plug: Port) -> None:
        for frame in plug.frames(_AT_ONCE):
            self._transmit(number, frame)


class Rack:
    """A running switch for each host, which one farm after the other uses. A context manager."""

    def __init__(self, target: Target, ports: Mapping[str, Iterable[int]]) -> None:
        """`ports`: by host."""
        self._target = target
        self._ports = ports
        self._devices = {name: number for number, name in enumerate(ports, 1)}
        self._addresses: dict[str, str] = {}
        self._plugs: dict[str, dict[int, Port]] = {}
        self._elections = 0
        self._stack = ExitStack()

    def __enter__(self) -> Rack:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="nvi-matrix-")))
            names = {name: {port: f"{name}-{port}" for port in ports} for name, ports in self._ports.items()}
            wire({each: f"{each}-far" for interfaces in names.values() for each in interfaces.values()})
            for name, interfaces in names.items():
                own = directory / name
                own.mkdir()
                self._addresses[name] = stack.enter_context(switch(self._target, own, self._devices[name], interfaces))
                self._plugs[name] = {port: Port(port, f"{each}-far") for port, each in interfaces.items()}
                for plug in self._plugs[name].values():
                    stack.callback(plug.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    async def farm(self, capture: Capture) -> RackFarm:
        """A farm without hosts, whose switches will hold nothing."""
        self._elections += 2
        await asyncio.gather(*(asyncio.to_thread(self._empty, name) for name in self._ports))
        return RackFarm(self, capture)

    def _empty(self, name: str) -> None:
        Client(self._addresses[name], self._devices[name], self._elections).close()

    def switch(self, name: str, transmit: Callable[[int, bytes], None]) -> PluggedSwitch:
        """That of a host, for the agent of the farm at hand."""
        election = self._elections + 1
        return PluggedSwitch(self._addresses[name], self._devices[name], election, self._plugs[name], transmit)


class RackFarm(Farm):
    """A farm with the switches of a rack, and the clock of this world."""

    def __init__(self, rack: Rack, capture: Capture) -> None:
        """Nothing in it yet."""
        super().__init__(capture=capture)
        self._rack = rack

    def make_switch(self, name: str, transmit: Callable[[int, bytes], None]) -> PluggedSwitch:
        """The host's own in the rack."""
        return self._rack.switch(name, transmit)

    async def settle(self) -> None:
        """Wait until every agent has its switch."""
        for host in self.hosts.values():
            await until(partial(_is_ready, host), PATIENCE)

    async def stop(self) -> None:
        """Stop every agent, and hang up on the switches."""
        await super().stop()
        for host in self.hosts.values():
            assert isinstance(host.switch, PluggedSwitch)
            await host.switch.close()


async def _is_ready(host: SimulatedHost) -> bool:
    return bool((await host.agent.status())["state"] == "primary")
