"""Network namespaces: Mininet's nodes, wired and configured in batches."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mininet.node import Node as MininetNode

from .parts import Cable, Node, Plug


class SetupError(Exception):
    """A part of the farm could not be built. The text says which command failed, and where."""


class Namespace(MininetNode):  # type: ignore[misc]  # Mininet has no types
    """A Mininet node whose shell cannot outlive the process that made it."""

    pid: int

    def _popen(self, cmd: list[str], **params: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *cmd], **params)

    def terminate(self) -> None:
        """End the shell at once: it has nothing to save."""
        if self.shell and self.shell.poll() is None:
            os.killpg(self.shell.pid, signal.SIGKILL)
        self.cleanup()


class Nodes:
    """The namespaces of a farm, by name."""

    def __init__(self) -> None:
        self._nodes: dict[str, Namespace] = {}
        self.plans: dict[str, Node] = {}

    def create(self, node: Node) -> None:
        """Make a namespace with nothing but `lo` in it."""
        namespace = Namespace(node.name)
        self._nodes[node.name] = namespace
        self.plans[node.name] = node
        namespace.cmd(node.prepare.replace("\n", "; "))

    def pid(self, name: str) -> int:
        """The process that holds a namespace."""
        return int(self._nodes[name].pid)

    def __contains__(self, name: str) -> bool:
        return name in self._nodes

    async def wire(self, cables: Iterable[Cable]) -> None:
        """Make veth pairs, each end in its own namespace from the start. Raises SetupError."""

        def end(plug: Plug) -> str:
            mac = f" address {plug.mac}" if plug.mac else ""
            return f"name {plug.interface}{mac} netns {self.pid(plug.node)}"

        commands = "".join(f"link add {end(cable.a)} type veth peer {end(cable.b)}\n" for cable in cables)
        await _feed(["ip", "-batch", "-"], commands, "making the cables")

    async def configure(self, names: Iterable[str]) -> None:
        """Run the `configure` commands of some nodes, all at the same time. Raises SetupError."""
        await asyncio.gather(*(self.run(name, self.plans[name].configure) for name in names))

    async def run(self, name: str, script: str) -> None:
        """Run shell commands in a namespace, up to the first that fails. Raises SetupError."""
        await _feed(["mnexec", "-a", str(self.pid(name)), "sh", "-e"], script, f"configuring {name}")

    async def lend(self, host: str, spare: str, endpoint: str, mac: str) -> None:
        """Move the waiting end of a spare cable to an endpoint, as its `eth0`. Raises SetupError."""
        move = f"ip link set dev {spare} netns {self.pid(endpoint)} name eth0 address {mac}"
        await self.run(host, move)

    async def take_back(self, host: str, spare: str, endpoint: str) -> None:
        """The opposite of `lend`. Raises SetupError."""
        move = f"ip link set dev eth0 down\nip link set dev eth0 netns {self.pid(host)} name {spare}"
        await self.run(endpoint, move)

    def remove(self, name: str) -> None:
        """End a namespace with every process in it."""
        self._end_processes([name])
        self._nodes.pop(name).terminate()
        del self.plans[name]

    def close(self) -> None:
        """End all namespaces."""
        self._end_processes(self._nodes)
        while self._nodes:
            _, node = self._nodes.popitem()
            node.terminate()
        self.plans.clear()

    def _end_processes(self, names: Iterable[str]) -> None:
        """End what runs in our namespaces, such as a server that somebody left there with `nvi exec`."""
        shells = {self.pid(name) for name in names}
        ours = {namespace for shell in shells if (namespace := _namespace_of(shell)) is not None}
        ours.discard(_namespace_of(os.getpid()) or 0)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in shells and _namespace_of(int(entry.name)) in ours:
                try:
                    os.kill(int(entry.name), signal.SIGKILL)
                except ProcessLookupError:
                    continue


def _namespace_of(pid: int) -> int | None:
    """The inode of a process's network namespace; None if the process is gone."""
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return None


async def _feed(argv: list[str], text: str, doing: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await process.communicate(text.encode())
    if process.returncode:
        message = output.decode(errors="replace").strip() or f"{argv[0]} ended with status {process.returncode}"
        raise SetupError(f"{doing}: {message}")
