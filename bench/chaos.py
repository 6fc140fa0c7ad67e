"""`make chaos`: end what a farm consists of, one after the other and at random, under traffic; print what that cost.

The farm runs on this machine, each agent a process of its own, with three NATS servers. Each endpoint talks to the next
one's: a UDP flow, a TCP connection, and new TCP connections all the time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from .talk import DIAL_PATIENCE

PORT = 7777
NATS_SERVERS = 3
_TALK = Path(__file__).with_name("talk.py")


@dataclass
class Fault:
    """Something that was ended."""

    what: str
    host: str | None
    """Whose switch it was: its own traffic stops meanwhile."""
    at: float
    back: float = 0.0
    """When it was there again: seconds on the monotonic clock."""
    until: float = 0.0
    """When the next one came."""


@dataclass
class Talk:
    """What one endpoint's traffic met with."""

    hosts: tuple[str, str]
    datagrams: list[tuple[float, bool]]
    stream: list[float]
    dialled: list[tuple[float, bool]]
    broken: str | None


@dataclass
class Row:
    """What one fault cost."""

    fault: Fault
    lost: int
    """Datagrams of established flows that do not touch the fault's own host, if it was a switch's."""
    own_lost: int
    pause: float
    """Longest silence of an established TCP connection among those, in seconds."""
    refused_after: float | None
    """For how long after it was back new connections failed, in seconds; None if they still do."""


@dataclass
class Chaos:
    """A farm, its traffic, and what was done to it."""

    hosts: int
    run: Path
    target: str
    faults: list[Fault] = field(default_factory=list)
    _talks: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _servers: list[subprocess.Popen[str]] = field(default_factory=list)

    # ---- the farm -------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Bring up the farm and its traffic."""
        file = self.run.with_suffix(".yaml")
        file.write_text(self._topology())
        options = ["--target", self.target, "--agents", "process", "--nats-servers", str(NATS_SERVERS), "--detach"]
        done = self._nvi("up", str(file), *options)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        for number in range(self.hosts):
            self._servers.append(self._start(number, "serve", str(PORT)))
        for server in self._servers:
            self._hear(server, "ready")
        for number in range(self.hosts):
            self._talks[f"h{number}"] = self._start(number, "talk", f"10.0.0.{self._next(number) + 1}", str(PORT))
        for talk in self._talks.values():
            self._hear(talk, "talking")

    def down(self) -> None:
        """End all of it."""
        for process in (*self._talks.values(), *self._servers):
            process.kill()
            process.wait()
        self._nvi("down")
        self.run.with_suffix(".yaml").unlink(missing_ok=True)

    def status(self) -> dict[str, Any]:
        """`nvi status --json`."""
        transport = httpx.HTTPTransport(uds=str(self.run / "farm.sock"))
        with httpx.Client(transport=transport, base_url="http://farm", timeout=20) as client:
            view: dict[str, Any] = client.get("/status").json()
        return view

    # ---- faults ---------------------------------------------------------------------------------------------------

    def end_agent(self, host: str, number: signal.Signals) -> None:
        """End an agent, hard or softly."""
        old = self.status()["hosts"][host]["agent"]["pid"]
        self._end(f"agent of {host}, {number.name}", None, [old], number, lambda: self._agent_is_back(host, old))

    def end_switch(self, host: str) -> None:
        """Kill a switch."""
        old = self.status()["hosts"][host]["switch"]["pid"]
        self._end(f"switch of {host}", host, [old], signal.SIGKILL, lambda: self._switch_is_back(host, old))

    def end_nats(self, *numbers: int) -> None:
        """Kill NATS servers, all at the same time."""
        servers = self.status()["nats"]
        old = [servers[number]["pid"] for number in numbers]
        names = "all NATS servers" if len(numbers) == len(servers) else f"NATS server {numbers[0] + 1}"
        self._end(names, None, old, signal.SIGKILL, lambda: self._nats_is_back(old))

    def _agent_is_back(self, host: str, old: int) -> bool:
        agent = self.status()["hosts"][host]["agent"]
        return agent["pid"] not in (old, None) and agent["state"] == "primary"

    def _switch_is_back(self, host: str, old: int) -> bool:
        view = self.status()["hosts"][host]
        return view["switch"]["pid"] not in (old, None) and view["agent"]["state"] == "primary"

    def _nats_is_back(self, old: Sequence[int]) -> bool:
        """Whether the servers run, and their cluster answers, which the agents can only learn by asking."""
        view = self.status()
        if any(server["pid"] in (*old, None) for server in view["nats"]):
            return False
        directories = [host["agent"].get("directory", "") for host in view["hosts"].values()]
        return all(text.startswith("connected") for text in directories)

    def _end(
        self, what: str, host: str | None, pids: Sequence[int], number: signal.Signals, back: Callable[[], bool]
    ) -> None:
        fault = Fault(what, host, time.monotonic())
        for pid in pids:
            os.kill(pid, number)
        self._until(back, f"{what} is back")
        fault.back = time.monotonic()
        self.faults.append(fault)

    # ---- what it cost ---------------------------------------------------------------------------------------------

    def settle(self, seconds: float) -> None:
        """Let traffic run on."""
        time.sleep(seconds)

    def finish(self) -> list[Talk]:
        """End the traffic; what it met with."""
        for fault, following in pairwise(self.faults):
            fault.until = following.at
        if self.faults:
            self.faults[-1].until = time.monotonic()
        talks = []
        for number, (host, process) in enumerate(self._talks.items()):
            process.send_signal(signal.SIGTERM)
            told = json.loads(process.communicate(timeout=60)[0])
            talks.append(
                Talk(
                    (host, f"h{self._next(number)}"),
                    [(at, bool(answered)) for at, answered in told["datagrams"]],
                    told["stream"],
                    [(at, bool(connected)) for at, connected in told["dialled"]],
                    told["broken"],
                )
            )
        return talks

    # ---- the rest -------------------------------------------------------------------------------------------------

    def _next(self, number: int) -> int:
        return (number + 1) % self.hosts

    def _topology(self) -> str:
        hosts = "\n".join(f"  h{n}: {{site: here, underlay: 172.16.0.{n + 1}/24}}" for n in range(self.hosts))
        endpoints = "\n".join(
            f"  e{n}: {{tenant: acme, network: web, ip: 10.0.0.{n + 1}, host: h{n}}}" for n in range(self.hosts)
        )
        networks = "{web: {cidr: 10.0.0.0/24, gateway: 10.0.0.254}}"
        return (
            f"name: chaos\nsites: {{here: {{}}}}\nhosts:\n{hosts}\n"
            f"tenants: {{acme: {{networks: {networks}}}}}\nendpoints:\n{endpoints}\n"
        )

    def _nvi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._command(*arguments), env=self._env, capture_output=True, text=True, check=False)

    def _start(self, number: int, *arguments: str) -> subprocess.Popen[str]:
        command = self._command("exec", f"e{number}", "--", sys.executable, str(_TALK), *arguments)
        return subprocess.Popen(command, env=self._env, stdout=subprocess.PIPE, text=True)

    def _hear(self, process: subprocess.Popen[str], word: str) -> None:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        if said != word:
            raise RuntimeError(f"{process.args} says {said!r} instead of {word!r}")

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "nvi.cli", *arguments]

    @property
    def _env(self) -> dict[str, str]:
        return {**os.environ, "NVI_RUN_DIR": str(self.run)}

    def _until(self, condition: Callable[[], bool], what: str, patience: float = 90.0) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"still not after {patience:g} s: {what}\n{json.dumps(self.status(), indent=1)}")
            time.sleep(0.05)


def rows(faults: Sequence[Fault], talks: Sequence[Talk]) -> list[Row]:
    """What each fault cost."""
    return [_row(fault, talks) for fault in faults]


def _row(fault: Fault, talks: Sequence[Talk]) -> Row:
    others = [talk for talk in talks if fault.host not in talk.hosts]
    own = [talk for talk in talks if fault.host in talk.hosts]
    pause = 0.0
    for talk in others:
        times = [at for at in talk.stream if fault.at - 1.0 <= at < fault.until]
        pause = max([pause, *(later - earlier for earlier, later in pairwise(times))])
    refused: float | None = 0.0
    for talk in talks:
        # What was dialled just before the next fault is that one's.
        after = [each for each in talk.dialled if fault.back <= each[0] < fault.until - DIAL_PATIENCE - 0.1]
        failed = [at for at, connected in after if not connected]
        if not failed:
            continue
        connected = [at for at, connected in after if connected and at > failed[-1]]
        refused = None if not connected or refused is None else max(refused, connected[0] - fault.back)
    return Row(fault, _lost(others, fault), _lost(own, fault), pause, refused)


def _lost(talks: Sequence[Talk], fault: Fault) -> int:
    """Datagrams without an answer, but for those that the end of the traffic cut off."""
    return sum(not answered for talk in talks for at, answered in talk.datagrams if fault.at <= at < fault.until - 0.2)


def table(costs: Sequence[Row], talks: Sequence[Talk]) -> str:
    """For people."""
    lines = ["| fault | back after | datagrams lost | longest silence of TCP | new connections again after |"]
    lines.append("|---|---|---|---|---|")
    for row in costs:
        fault = row.fault
        own = f" (own: {row.own_lost})" if fault.host else ""
        again = "never" if row.refused_after is None else f"{row.refused_after:.1f} s"
        back = fault.back - fault.at
        lines.append(f"| {fault.what} | {back:.1f} s | {row.lost}{own} | {row.pause:.2f} s | {again} |")
    messages = sum(len(talk.stream) + len(talk.datagrams) for talk in talks)
    broken = sum(talk.broken is not None for talk in talks)
    lines.append(f"\n{messages} messages on {2 * len(talks)} established flows; TCP connections broken: {broken}.")
    return "\n".join(lines)


def failures(costs: Sequence[Row], talks: Sequence[Talk], again_within: float | None = None) -> list[str]:
    """What must not be. `again_within`: seconds within which new connections must work again, if that counts."""
    wrong = [f"{'-'.join(talk.hosts)}: TCP broke: {talk.broken}" for talk in talks if talk.broken is not None]
    for row in costs:
        if row.lost:
            wrong.append(f"{row.fault.what}: {row.lost} datagrams of established flows were lost")
        if again_within is not None and (row.refused_after is None or row.refused_after > again_within):
            wrong.append(f"{row.fault.what}: new connections fail for longer than {again_within:g} s")
    return wrong


def one_after_the_other(chaos: Chaos, rest: float) -> None:
    """Each kind of fault once."""
    chaos.end_agent("h0", signal.SIGKILL)
    chaos.settle(rest)
    chaos.end_agent("h1", signal.SIGTERM)
    chaos.settle(rest)
    chaos.end_nats(0)
    chaos.settle(rest)
    chaos.end_nats(*range(NATS_SERVERS))
    chaos.settle(rest)
    chaos.end_switch("h0")
    chaos.settle(rest)


def at_random(chaos: Chaos, rest: float, deadline: float, dice: random.Random) -> None:
    """Any fault, until the time is over."""
    while time.monotonic() < deadline:
        host = f"h{dice.randrange(chaos.hosts)}"
        match dice.randrange(5):
            case 0 | 1:
                chaos.end_agent(host, dice.choice([signal.SIGKILL, signal.SIGTERM]))
            case 2:
                chaos.end_nats(dice.randrange(NATS_SERVERS))
            case 3:
                chaos.end_nats(*range(NATS_SERVERS))
            case _:
                chaos.end_switch(host)
        chaos.settle(rest)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos")
    parser.add_argument("--duration", type=float, default=120.0, help="seconds")
    parser.add_argument("--hosts", type=int, default=16)
    parser.add_argument("--target", default="embedded")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}: repeat with --seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="nvi-") as base:
        chaos = Chaos(options.hosts, Path(base) / "run", options.target)
        try:
            chaos.up()
            began = time.monotonic()
            one_after_the_other(chaos, 4.0)
            at_random(chaos, 4.0, began + options.duration, random.Random(options.seed))
            talks = chaos.finish()
        finally:
            chaos.down()
    costs = rows(chaos.faults, talks)
    print(table(costs, talks))
    wrong = failures(costs, talks, again_within=3.0)
    print("\n".join(wrong) or "Nothing that must not be.")
    return 1 if wrong else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
