"""`nvi agent --config FILE`: one host's agent as a process, a real switch, a real NATS server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from nvi.agent.hostfile import HostFileError, read_host_file
from nvi.model import External, Host, read_address

from .farm import LAYOUT, Nats, host, until

WEB1 = {"tenant": "acme", "network": "web", "mac": "02:00:00:00:00:01", "address": "10.0.0.1", "port": 16}


class Program:
    """A program of ours, and what it said."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=file, stderr=file)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


class Host1:
    """What belongs to host h1 on this machine. Its paths are short: those of sockets must be."""

    def __init__(self, nats: Nats) -> None:
        self.nats = nats
        self.path = Path(tempfile.mkdtemp(prefix="nvi-"))
        self.programs: list[Program] = []

    def file(self, name: str) -> Path:
        path = self.path / f"{name}.yaml"
        path.write_text(f"""
farm: {LAYOUT.farm}
host: h1
site: here
addresses: [172.16.0.1]
underlay: lo
switch: {{p4runtime: "unix:{self.path}/p4rt", device_id: 1}}
api: {self.path}/{name}.sock
state: {self.path}/{name}.json
nats: {{servers: ["{self.nats.url}"], nkey: {self.nats.directory}/h1.nk}}
""")
        return path

    def switch(self) -> Program:
        address = f"unix:{self.path}/p4rt"
        return self._start("switch", "nvi.embedded", "switch", "--p4runtime", address, "--device-id", "1")

    def agent(self, name: str = "agent") -> Program:
        return self._start(name, "nvi.cli", "agent", "--config", str(self.file(name)))

    def _start(self, name: str, *arguments: str) -> Program:
        self.programs.append(Program(self.path / f"{name}.log", *arguments))
        return self.programs[-1]

    def client(self, name: str = "agent") -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.path / f"{name}.sock"))
        return httpx.Client(transport=transport, base_url="http://agent", timeout=10)

    def status(self, name: str = "agent") -> dict[str, Any]:
        """Of the agent; nothing as long as it does not answer."""
        try:
            answer: dict[str, Any] = self.client(name).get("/status").json()
        except httpx.HTTPError:
            return {}
        return answer

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            logs = "\n".join(path.read_text() for path in self.path.glob("*.log"))
            assert time.monotonic() < deadline, f"still not: {what}\n{logs}"
            time.sleep(0.05)

    def until_primary(self) -> None:
        self.until(lambda: self.status().get("state") == "primary", "the agent has its switch")

    def close(self) -> None:
        for program in self.programs:
            if program.process.poll() is None:
                program.process.kill()
                program.process.wait()
        shutil.rmtree(self.path)


@pytest.fixture
def h1(nats: Nats) -> Iterator[Host1]:
    h1 = Host1(nats)
    try:
        yield h1
    finally:
        h1.close()


async def test_an_agent_lives_through_whatever_happens_to_nats_and_itself(nats: Nats, h1: Host1) -> None:
    nats.kill()
    h1.switch()
    agent = h1.agent()
    # Without NATS it says what it lacks, and leaves the switch as it is: it does not know whose ports these are.
    h1.until(lambda: "nothing listens there" in h1.status().get("directory", ""), "it says that NATS is away")
    assert h1.status()["state"] != "primary"
    assert h1.client().put("/endpoints/web1", json=WEB1).status_code == 503
    nats.start()
    await nats.prepare()
    h1.until_primary()
    assert h1.status()["directory"] == f"connected to {nats.url}"
    assert h1.client().put("/endpoints/web1", json=WEB1).status_code == 200
    async with nats.directory_of("h3") as other:
        there = await other.host("h1")
        assert there is not None and there.contact is not None, "it can be reached while NATS is away"
        assert msgspec.structs.replace(there, contact=None) == host("h1")
        web1 = await other.endpoint("acme", read_address("10.0.0.1"))
        assert web1 is not None and (web1.name, web1.host) == ("web1", "h1")
        assert h1.client().delete("/endpoints/web1").status_code == 204

        async def gone() -> bool:
            return await other.endpoint("acme", read_address("10.0.0.1")) is None

        await until(gone, "a removed endpoint is gone")
    assert h1.client().put("/endpoints/web1", json=WEB1).status_code == 200
    # What is not this host's is not permitted: the sentence reaches whoever asked.
    policy = {"name": "acme", "networks": {}}
    refused = h1.client().put("/tenants/acme", json=policy)
    assert refused.status_code == 503
    assert "NATS does not permit us" in refused.json()["error"]

    for number in (signal.SIGKILL, signal.SIGTERM):
        status = agent.end(number)
        assert status == (0 if number is signal.SIGTERM else -number)
        agent = h1.agent()
        h1.until_primary()
        assert [each["name"] for each in h1.client().get("/endpoints").json()["endpoints"]] == ["web1"]
    assert h1.status()["entries"]["guard"] == 2

    log = agent.log.read_text()
    assert "Traceback" not in log
    assert log.count("[warning  ] NATS at") == 1, "said once"
    assert log.count("no place in the directory yet") == 1, "said once"
    seed = (nats.directory / "h1.nk").read_text().strip()
    assert seed not in log
    assert seed not in _command_line(agent)


def _command_line(program: Program) -> str:
    return Path(f"/proc/{program.process.pid}/cmdline").read_text()


async def test_a_second_agent_for_one_host_is_refused(nats: Nats, h1: Host1) -> None:
    await nats.prepare()
    h1.switch()
    first = h1.agent()
    h1.until_primary()
    second = h1.agent("second")
    said = f"another agent runs for host h1 (pid {first.process.pid} on {os.uname().nodename}); stop it"
    h1.until(lambda: said in second.log.read_text(), "the second one is told")
    h1.until(lambda: h1.status("second") != {}, "it shows its state")
    assert h1.status("second")["state"] != "primary"
    assert h1.status()["state"] == "primary", "the first one does not notice"
    assert first.end(signal.SIGTERM) == 0
    h1.until(lambda: h1.status("second").get("state") == "primary", "it takes over when the first one has ended")
    assert second.log.read_text().count(said) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("farm: test", ""), "missing required field `farm`"),
        (("farm: test", "frm: test"), "unknown field `frm`"),
        (("farm: test", "farm: a.b"), "the name 'a.b' cannot be part of a NATS subject"),
        (("host: h1", "host: h1\nhost: h2"), "found duplicate key"),
        (("[172.16.0.1]", "[]"), "addresses: there is none"),
        (("[172.16.0.1]", "[172.16.0.300]"), "addresses: '172.16.0.300' is not an IP address"),
        (("underlay: lo", "pool: [172.16.0.5/29]"), "pool: 172.16.0.5/29 has host bits set"),
        (("underlay: lo", "pool: [172.16.0.0/16]"), "pool: 172.16.0.0/16 has more than 1024 addresses"),
        (("underlay: lo", "external: {adress: 1.2.3.4}"), "unknown field `adress` - at `$.external`"),
        (("underlay: lo", "external: {address: x}"), "external.address: 'x' is not an IP address"),
        (("device_id: 1", "device_id: one"), "Expected `int`, got `str` - at `$.switch.device_id`"),
        (("nats://", "http://"), "is not a server's address; write it like nats://10.0.0.1:4222 - at `$.nats`"),
        (("nats://", "nats://me:secret@"), "servers: an address must not hold a password"),
        (("nkey:", "certificate:"), "certificate and key: name both, or neither"),
        (("farm: test", "farm: [test"), "expected ',' or ']'"),
    ],
)
def test_a_bad_configuration_is_misuse(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    path = _a_file(tmp_path)
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(HostFileError) as caught:
        read_host_file(path)
    assert f"the configuration {path} is not usable: " in str(caught.value)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_command_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nvi.cli", "agent", "--config", str(tmp_path / "none.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == f"nvi: cannot read the configuration {tmp_path}/none.yaml: No such file or directory\n"


def test_all_of_a_configuration(tmp_path: Path) -> None:
    path = _a_file(tmp_path)
    more = "pool: [172.16.0.8/30, 172.16.0.20]\nexternal: {address: 10.99.0.2, public: 198.51.100.2}\nnetns: /n\n"
    path.write_text(path.read_text() + more)
    config = read_host_file(path).agent()
    pool = tuple(bytes([172, 16, 0, last]) for last in (8, 9, 10, 11, 20))
    side = External(read_address("10.99.0.2"), read_address("198.51.100.2"))
    assert config.host == Host("h1", "here", (bytes([172, 16, 0, 1]),), pool, side)
    assert (config.netns, config.underlay, config.device_id) == ("/n", "lo", 1)
    # A program may write it as JSON.
    path.write_text(json.dumps({"farm": "f", "host": "h", "site": "s", "addresses": ["fd00::1"], "nats": _NATS}))
    assert read_host_file(path).agent().host == Host("h", "s", (read_address("fd00::1"),))


_NATS = {"servers": ["nats://127.0.0.1:4222"]}


def _a_file(directory: Path) -> Path:
    path = directory / "agent.yaml"
    path.write_text("""
farm: test
host: h1
site: here
addresses: [172.16.0.1]
underlay: lo
switch: {p4runtime: "unix:/p4rt", device_id: 1}
nats: {servers: ["nats://127.0.0.1:4222"], nkey: /h1.nk}
""")
    return path
