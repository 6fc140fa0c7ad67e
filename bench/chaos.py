"""`make chaos`: end what a farm consists of, one after the other and at random, under traffic; print what that cost.

The farm runs on this machine, each agent a process of its own, with three NATS servers. Each endpoint talks to the next
one's: a UDP flow, a TCP connection, and new TCP connections all the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import nats.errors

from nvi.emulation.targets import available
from nvi.nats.connection import Connection, NatsConfig
from nvi.nats.layout import OPERATOR, Layout

from .talk import DIAL_PATIENCE

PORT = 7777
NATS_SERVERS = 3
AWAY_SECONDS = 6.0
"""For which all NATS servers are kept from coming back."""
CUT_SECONDS = 2.0
"""For which a host's link is down."""
PAUSE_PER_HOST = 0.01
"""Seconds between two messages of a flow, for each host: so that the traffic of a farm of any size is as modest."""
LEADER_SECONDS = 30.0
"""Within which a bucket has a leader again, at the latest."""
FARM = "chaos"
_TALK = Path(__file__).with_name("talk.py")


@dataclass
class Fault:
    """Something that was ended, or cut."""

    what: str
    host: str | None
    """Whose switch or link it was: its own traffic stops meanwhile."""
    at: float
    back: float = 0.0
    """When it was there again: seconds on the monotonic clock."""
    until: float = 0.0
    """When the next one came."""
    away: bool = False
    """Whether it was kept away for a while, though no new connection should need it."""


@dataclass
class Talk:
    """What one endpoint's traffic met with."""

    hosts: tuple[str, str]
    datagrams: list[tuple[float, bool]]
    stream: list[float]
    dialled: list[tuple[float, float | None]]
    """New connections: when they were begun, and when they were there."""
    broken: str | None


@dataclass
class Row:
    """What one fault cost."""

    fault: Fault
    lost: int
    """Datagrams of established flows that do not touch the fault's own host, if it was a switch's or a link's."""
    own_lost: int
    pause: float
    """Longest silence of an established TCP connection among those, in seconds."""
    dialled: int
    """New connections that were begun before everything was back, and as many as had time to be there."""
    failed: int
    """How many of them did not open."""
    again: float | None
    """After it was back, until a new connection had opened between each two hosts, in seconds; None if one has not."""


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
            address, pause = f"10.0.0.{self._next(number) + 1}", self.hosts * PAUSE_PER_HOST
            self._talks[f"h{number}"] = self._start(number, "talk", address, str(PORT), str(pause))
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
        return _get(self.run / "farm.sock", "/status")

    def agent(self, host: str) -> dict[str, Any]:
        """What an agent says of itself; nothing as long as it does not answer."""
        try:
            return _get(self.run / host / "agent.sock", "/status")
        except httpx.HTTPError:
            return {}

    # ---- faults ---------------------------------------------------------------------------------------------------

    def end_agent(self, host: str, number: signal.Signals) -> None:
        """End an agent, hard or softly."""
        old = self.status()["hosts"][host]["agent"]["pid"]
        fault = self._begin(f"agent of {host}, {number.name}")
        os.kill(old, number)
        self._end(fault, lambda: self._is_primary(host, lambda pid: pid != old))

    def end_switch(self, host: str) -> None:
        """Kill a switch."""
        old = self.status()["hosts"][host]["switch"]["pid"]
        fault = self._begin(f"switch of {host}, SIGKILL", host)
        os.kill(old, signal.SIGKILL)
        self._until(lambda: not self._is_primary(host), f"the agent of {host} knows that its switch is gone")
        self._end(fault, lambda: self._is_primary(host))

    def cut(self, host: str) -> None:
        """Take a host's link to the others away for a while."""
        record = json.loads((self.run / "farm.json").read_text())
        port = f"port{int(host[1:]) + 1}"
        set_link = ["nsenter", f"--net=/proc/{record['nodes']['here/leaf1']['pid']}/ns/net", "ip", "link", "set", port]
        fault = self._begin(f"link of {host}, down for {CUT_SECONDS:g} s", host)
        subprocess.run([*set_link, "down"], check=True)
        self.settle(CUT_SECONDS)
        subprocess.run([*set_link, "up"], check=True)
        self._end(fault, lambda: True)

    def end_nats(self, *numbers: int, name: str) -> None:
        """Kill NATS servers, all at the same time."""
        old = {number: self._nats()[number] for number in numbers}
        fault = self._begin(name)
        for pid in old.values():
            os.kill(pid, signal.SIGKILL)
        self._end(fault, lambda: self._nats_is_back(old))

    def end_nats_leader(self) -> None:
        """Kill the NATS server that leads the bucket of leases."""
        leader = asyncio.run(self._nats_leader())
        self.end_nats(leader, name=f"NATS server {leader + 1}, the leader")

    def keep_nats_away(self) -> None:
        """Kill all NATS servers, and again whenever one has come back, for a while."""
        fault = self._begin(f"all NATS servers, away for {AWAY_SECONDS:g} s")
        fault.away = True
        old: dict[int, int] = {}
        while time.monotonic() < fault.at + AWAY_SECONDS:
            for number, pid in self._nats().items():
                old[number] = pid
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self._end(fault, lambda: self._nats_is_back(old))

    def _is_primary(self, host: str, pid: Callable[[int], bool] = lambda _: True) -> bool:
        view = self.agent(host)
        return view.get("state") == "primary" and pid(view["pid"])

    def _nats(self) -> dict[int, int]:
        """The NATS servers that run: their processes."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            for number in range(NATS_SERVERS):
                if str(self.run / "nats" / f"{number + 1}.conf").encode() in command:
                    found[number] = int(entry.name)
        return found

    def _nats_is_back(self, old: dict[int, int]) -> bool:
        """Whether new processes run in place of the old ones, and let clients in."""
        now = self._nats()
        if any(now.get(number, pid) == pid for number, pid in old.items()):
            return False
        try:
            for number in old:
                socket.create_connection(self._nats_address(number), 1).close()
        except OSError:
            return False
        return True

    def _nats_address(self, number: int) -> tuple[str, int]:
        listen = json.loads((self.run / "nats" / f"{number + 1}.conf").read_text())["listen"]
        host, _, port = listen.rpartition(":")
        return host, int(port)

    async def _nats_leader(self) -> int:
        urls = tuple("nats://{}:{}".format(*self._nats_address(number)) for number in range(NATS_SERVERS))
        layout = Layout(FARM)
        config = NatsConfig(urls, nkey=str(self.run / "nats" / f"{OPERATOR}.nk"))
        connection = Connection(config, "chaos", layout.inbox(OPERATOR))
        connection.start()
        try:
            async with asyncio.timeout(LEADER_SECONDS):
                while True:
                    # After the loss of a server there is none for a moment.
                    with suppress(nats.errors.Error):
                        info = await (await connection.jetstream()).stream_info(layout.leases.stream)
                        if info.cluster is not None and info.cluster.leader:
                            return int(info.cluster.leader.removeprefix("n")) - 1
                    await asyncio.sleep(0.2)
        finally:
            await connection.stop()

    def _begin(self, what: str, host: str | None = None) -> Fault:
        self.faults.append(Fault(what, host, time.monotonic()))
        return self.faults[-1]

    def _end(self, fault: Fault, back: Callable[[], bool]) -> None:
        self._until(back, f"{fault.what} is back")
        fault.back = time.monotonic()

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
        for process in self._talks.values():
            process.send_signal(signal.SIGTERM)
        talks = []
        for number, (host, process) in enumerate(self._talks.items()):
            told = json.loads(process.communicate(timeout=60)[0])
            talks.append(
                Talk(
                    (host, f"h{self._next(number)}"),
                    [(at, bool(answered)) for at, answered in told["datagrams"]],
                    told["stream"],
                    [(began, there) for began, there in told["dialled"]],
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
            f"name: {FARM}\nsites: {{here: {{}}}}\nhosts:\n{hosts}\n"
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


def _get(path: Path, what: str) -> dict[str, Any]:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://nvi", timeout=20) as client:
        view: dict[str, Any] = client.get(what).json()
    return view


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
    begun = [each for talk in others for each in talk.dialled if fault.at <= each[0] < fault.back - DIAL_PATIENCE]
    failed = sum(there is None for _, there in begun)
    again: float | None = 0.0
    for talk in talks:
        opened = _first_opened(talk, fault)
        again = None if opened is None or again is None else max(again, opened - fault.back)
    return Row(fault, _lost(others, fault), _lost(own, fault), pause, len(begun), failed, again)


def _first_opened(talk: Talk, fault: Fault) -> float | None:
    """When the first of its new connections had opened after a fault was over; None if none had before the next."""
    return min((there for _, there in talk.dialled if there and fault.back <= there < fault.until), default=None)


def _lost(talks: Iterable[Talk], fault: Fault) -> int:
    """Datagrams without an answer, but for those that the end of the traffic cut off."""
    return sum(not answered for talk in talks for at, answered in talk.datagrams if fault.at <= at < fault.until - 0.2)


def table(costs: Sequence[Row], talks: Sequence[Talk]) -> str:
    """For people."""
    lines = [
        "| fault | back after | datagrams lost | longest silence of TCP | new connections meanwhile | again after |",
        "|---|---|---|---|---|---|",
    ]
    for row in costs:
        fault = row.fault
        own = f" (own: {row.own_lost})" if fault.host else ""
        again = "never" if row.again is None else f"{row.again:.1f} s"
        back = fault.back - fault.at
        meanwhile = f"{row.dialled - row.failed} of {row.dialled}" if row.dialled else ""
        lines.append(f"| {fault.what} | {back:.1f} s | {row.lost}{own} | {row.pause:.2f} s | {meanwhile} | {again} |")
    messages = sum(len(talk.stream) + len(talk.datagrams) for talk in talks)
    dialled = [there is not None for talk in talks for _, there in talk.dialled]
    broken = sum(talk.broken is not None for talk in talks)
    lines.append(
        f"\n{messages} messages on {2 * len(talks)} established flows; TCP connections broken: {broken}; "
        f"{sum(dialled)} of {len(dialled)} new connections opened."
    )
    return "\n".join(lines)


def failures(costs: Sequence[Row], talks: Sequence[Talk], again_within: float | None = None) -> list[str]:
    """What must not be. `again_within`: seconds within which new connections must work again, if that counts."""
    wrong = [f"{'-'.join(talk.hosts)}: TCP broke: {talk.broken}" for talk in talks if talk.broken is not None]
    for row in costs:
        if row.lost:
            wrong.append(f"{row.fault.what}: {row.lost} datagrams of established flows were lost")
        if row.fault.away and row.dialled and row.failed == row.dialled:
            wrong.append(f"{row.fault.what}: no new connection opened meanwhile")
        if again_within is not None and (row.again is None or row.again > again_within):
            wrong.append(f"{row.fault.what}: new connections fail for longer than {again_within:g} s")
        if again_within is not None and row.fault.away and row.failed:
            wrong.append(f"{row.fault.what}: {row.failed} new connections between peers that know each other failed")
    return wrong


def one_after_the_other(chaos: Chaos, rest: float) -> None:
    """Each kind of fault once."""
    for fault in (
        lambda: chaos.end_agent("h0", signal.SIGKILL),
        lambda: chaos.end_agent("h1", signal.SIGTERM),
        lambda: chaos.end_nats(0, name="NATS server 1"),
        chaos.end_nats_leader,
        lambda: chaos.end_nats(*range(NATS_SERVERS), name="all NATS servers"),
        chaos.keep_nats_away,
        lambda: chaos.end_switch("h0"),
        lambda: chaos.cut("h1"),
    ):
        fault()
        chaos.settle(rest)


def at_random(chaos: Chaos, rest: float, deadline: float, dice: random.Random) -> None:
    """Any fault, until the time is over."""
    while time.monotonic() < deadline:
        host = f"h{dice.randrange(chaos.hosts)}"
        match dice.randrange(8):
            case 0 | 1:
                chaos.end_agent(host, dice.choice([signal.SIGKILL, signal.SIGTERM]))
            case 2:
                number = dice.randrange(NATS_SERVERS)
                chaos.end_nats(number, name=f"NATS server {number + 1}")
            case 3:
                chaos.end_nats_leader()
            case 4:
                chaos.keep_nats_away()
            case 5:
                chaos.cut(host)
            case _:
                chaos.end_switch(host)
        chaos.settle(rest)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos")
    parser.add_argument("--duration", type=float, default=120.0, help="seconds")
    parser.add_argument("--hosts", type=int, default=16)
    parser.add_argument("--target", choices=available(), default=available()[0])
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(
        f"{options.hosts} hosts, {options.target}, seed {options.seed}: repeat with --seed {options.seed}", flush=True
    )
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
