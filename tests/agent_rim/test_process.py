"""The process as whoever runs it sees it: its configuration, its log, its signals, a real switch."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nvi.agent.__main__ import main

ROOT = Path(__file__).parents[2]
WEB1 = {"tenant": "acme", "network": "web", "mac": "02:00:00:00:00:01", "address": "10.0.0.1", "port": 16}


def packed(address: str) -> str:
    return base64.b64encode(socket.inet_aton(address)).decode()


def agent_config(directory: Path, name: str, address: str) -> dict[str, Any]:
    return {
        "host": {"name": name, "site": "here", "addresses": [packed(address)]},
        "p4runtime": f"unix:{directory / name}.p4rt",
        "device_id": 1,
        "api": str(directory / f"{name}.sock"),
        "state": str(directory / f"{name}.json"),
        "underlay": "lo",
    }


def farm_config(directory: Path) -> dict[str, Any]:
    subnet = {"prefix": packed("10.0.0.0"), "prefix_length": 24, "gateway": packed("10.0.0.254")}
    network = {"name": "web", "subnets": [subnet]}
    return {
        "farm": "test",
        "agents": [agent_config(directory, "h1", "172.16.0.1"), agent_config(directory, "h2", "172.16.0.2")],
        "tenants": [{"name": "acme", "networks": {"web": network}}],
    }


class Running:
    """`python -m nvi.agent` as a process of its own."""

    def __init__(self, directory: Path, config: dict[str, Any]) -> None:
        self.directory = directory
        self.log = directory / "log"
        (directory / "config.json").write_text(json.dumps(config))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nvi.agent", "--config", str(directory / "config.json")],
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT / "runtime")},
            )

    def until(self, condition: Callable[[], bool], within: float = 15.0) -> None:
        deadline = time.monotonic() + within
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def get(self, host: str, path: str) -> Any:
        return self.client(host).get(path).json()

    def client(self, host: str) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.directory / f"{host}.sock"))
        return httpx.Client(transport=transport, base_url="http://agent")

    def serves(self, host: str) -> bool:
        return (self.directory / f"{host}.sock").exists()

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Running]]:
    started: list[Running] = []

    def start(config: dict[str, Any]) -> Running:
        started.append(Running(tmp_path, config))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[None]:
    """A BMv2 for host h1."""
    program = shutil.which("simple_switch_grpc")
    if program is None:
        pytest.skip("simple_switch_grpc is not on PATH")
    command = [program, "--no-p4", "--device-id", "1", "-L", "off", "--", "--cpu-port", "510"]
    for option, name in (("--grpc-server-addr", "h1.p4rt"), ("--dp-grpc-server-addr", "h1.dataplane")):
        command += [option, f"unix:{tmp_path / name}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda config: config.pop("farm"), "missing required field `farm`"),
        (lambda config: config.update(frm="x"), "unknown field `frm`"),
        (lambda config: config["agents"][1].update(device_id="one"), "Expected `int`, got `str` - at `$.agents[1]"),
        (lambda config: config["agents"].clear(), "agents: there is none"),
        (lambda config: config["agents"][1]["host"].update(name="h1"), "2 of them have the same host.name, 'h1'"),
        (lambda config: config["agents"][1].update(state=config["agents"][0]["state"]), "have the same state"),
        (lambda config: config["agents"][0]["host"]["addresses"].clear(), "host h1 has no underlay address"),
    ],
)
def test_a_bad_configuration_is_misuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, Any]], object], says: str
) -> None:
    config = farm_config(tmp_path)
    change(config)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert main(["--config", str(path)]) == 2
    complaint = capsys.readouterr().err
    assert f"the configuration {path} is not usable" in complaint
    assert says in complaint
    assert complaint.count("\n") == 1


def test_a_configuration_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "none-such.json"]) == 2
    assert "cannot read the configuration none-such.json: No such file" in capsys.readouterr().err


def test_no_agent_can_run(run: Callable[[dict[str, Any]], Running], tmp_path: Path) -> None:
    config = farm_config(tmp_path)
    for agent in config["agents"]:
        Path(agent["state"]).write_text("not ours")
    running = run(config)
    assert running.process.wait(10) == 1
    log = running.log.read_text()
    assert f"the state file {tmp_path / 'h1.json'} is not usable" in log
    assert "host=h2" in log
    assert "Traceback" not in log


@pytest.mark.usefixtures("switch")
def test_a_missing_switch_keeps_nobody_else_from_working(
    run: Callable[[dict[str, Any]], Running], tmp_path: Path
) -> None:
    running = run(farm_config(tmp_path))
    running.until(lambda: running.serves("h1") and running.get("h1", "/status")["state"] == "primary")
    assert running.client("h1").put("/endpoints/web1", json=WEB1).status_code == 200
    assert running.get("h1", "/status")["entries"]["guard"] == 2
    assert running.get("h1", "/connections") == {"schema": 1, "connections": []}
    # The other one says what it lacks, and takes orders all the same.
    running.until(lambda: running.serves("h2"))
    running.until(lambda: "no switch yet" in running.log.read_text())
    status = running.get("h2", "/status")
    assert status["state"] in ("unreachable", "connecting")
    assert "h2.p4rt" in status["message"]
    lines = running.log.read_text().splitlines()
    assert any("no switch yet" in line and "host=h2" in line and "h2.p4rt" in line for line in lines)
    assert running.end(signal.SIGTERM) == 0
    assert not running.serves("h1")
    assert "Traceback" not in running.log.read_text()
    # It is all there again afterwards.
    epoch = json.loads((tmp_path / "h1.json").read_text())["epoch"]
    again = run(farm_config(tmp_path))
    again.until(lambda: again.serves("h1") and again.get("h1", "/status")["state"] == "primary")
    assert [each["name"] for each in again.get("h1", "/endpoints")["endpoints"]] == ["web1"]
    assert json.loads((tmp_path / "h1.json").read_text())["epoch"] == epoch + 1
    assert again.end(signal.SIGINT) == 0
