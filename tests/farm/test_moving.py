"""Endpoints that move to another host, with what runs in them; and whether everybody reaches whom they should."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from .machine import TWO_HOSTS, Machine, wait_for

pytestmark = pytest.mark.root

SERVE = """
import socket
server = socket.create_server(("", 7000))
print("up", flush=True)
connection, _ = server.accept()
while data := connection.recv(100):
    connection.sendall(data)
"""
# Says a word on one connection, again and again, for ever: each must come back before the next.
TALK = """
import itertools, socket, time
connection = socket.create_connection(("10.0.0.2", 7000), 20)
connection.settimeout(60)
for number in itertools.count():
    word = b"%06d" % number
    connection.sendall(word)
    got = b""
    while len(got) < 6:
        got += connection.recv(6 - len(got))
    assert got == word
    print(number, flush=True)
    time.sleep(0.1)
"""


def host_of(machine: Machine, endpoint: str) -> str:
    return next(each["host"] for each in machine.view("endpoints")["endpoints"] if each["name"] == endpoint)


def test_a_connection_goes_on_when_either_end_moves(machine: Machine) -> None:
    machine.up()
    server = machine.start("exec", "red-b", "--", sys.executable, "-uc", SERVE)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    client = machine.start("exec", "red-a", "--", sys.executable, "-uc", TALK)
    assert client.stdout is not None
    try:
        said = int(client.stdout.readline())
        for endpoint, host in (("red-b", "h1"), ("red-a", "h2"), ("red-b", "h2")):
            done = machine.nvi("move", endpoint, host)
            assert done.returncode == 0, done.stderr
            assert host_of(machine, endpoint) == host
            # What was said before the move is in the pipe already; far more than that has to come.
            for _ in range(15):
                said += 1
                assert client.stdout.readline() == f"{said}\n"
    finally:
        for process in (client, server):
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=10)
    assert machine.ping("red-a", "10.0.0.2")
    assert machine.ping("red-b", "10.0.0.1")


def test_a_move_that_cannot_be(machine: Machine) -> None:
    machine.up()
    for arguments, status, said in (
        (("red-c", "h1"), 2, "no endpoint 'red-c'"),
        (("red-a", "h3"), 2, "no host 'h3'"),
        (("red-a", "h1"), 1, "on host 'h1' already"),
    ):
        done = machine.nvi("move", *arguments)
        assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    for number in range(8):
        add = ("--tenant", "red", "--network", "net", "--ip", f"10.0.0.{10 + number}", "--host", "h2")
        assert machine.nvi("endpoint", "add", f"red-{number}", *add).returncode == 0
    full = machine.nvi("move", "red-a", "h2")
    assert (full.returncode, "no free port" in full.stderr) == (1, True)
    assert host_of(machine, "red-a") == "h1"
    assert machine.ping("red-a", "10.0.0.17"), "and nothing has changed"

    drained = machine.nvi("host", "drain", "h1")
    assert (drained.returncode, "no other host has a free port for 'red-a'" in drained.stderr) == (1, True)
    # One of those of h2 goes, and with it the lack of room.
    assert machine.nvi("endpoint", "remove", "red-3").returncode == 0
    drained = machine.nvi("host", "drain", "h1")
    assert drained.stdout.splitlines()[-1] == "h1 has no endpoints"
    assert host_of(machine, "red-a") == "h2"
    assert machine.ping("red-a", "10.0.0.2")
    assert "nothing to do" in machine.nvi("host", "drain", "h1").stdout
    assert machine.nvi("host", "drain", "h9").returncode == 2


def test_what_has_moved_stays_moved_when_agents_restart(machine: Machine) -> None:
    machine.up()
    assert machine.nvi("move", "red-b", "h1").returncode == 0
    pids = {host["agent"]["pid"] for host in machine.view("status")["hosts"].values()}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        agents = [host["agent"] for host in machine.view("status")["hosts"].values()]
        return all(agent["state"] == "primary" and agent["pid"] not in pids for agent in agents)

    wait_for(back, "the agents are back")
    wait_for(lambda: machine.ping("red-a", "10.0.0.2"), "red-b answers where it is")
    assert machine.view("status")["hosts"]["h2"]["entries"]["guard"] == 0


def test_check_tells_what_is_wrong(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "farm.yaml"
    file.write_text(
        TWO_HOSTS.read_text().replace(
            "endpoints:",
            "  blue:\n    networks:\n      net: {cidr: 10.0.0.0/24, gateway: 10.0.0.254}\nendpoints:\n"
            "  blue-a: {tenant: blue, network: net, ip: 10.0.0.1, host: h2}\n"
            "  blue-c: {tenant: blue, network: net, ip: 10.0.0.3, host: h1}",
        )
    )
    machine.up(file=file)
    assert machine.nvi("disconnect", "red-a", "red-b").returncode == 0
    done = machine.nvi("check")
    assert done.returncode == 0, done.stdout + done.stderr
    view = machine.view("check")
    # blue-a and blue-c reach each other; nobody reaches 10.0.0.2 or 10.0.0.3 of the other tenant, nor red-b and red-a.
    assert {key: view[key] for key in ("verdict", "tried", "possible", "reached", "isolated", "problems")} == {
        "verdict": "good", "tried": 8, "possible": 8, "reached": 2, "isolated": 6, "problems": [],
    }  # fmt: skip
    assert machine.nvi("exec", "blue-c", "--", "ip", "link", "set", "eth0", "down").returncode == 0
    bad = machine.nvi("check")
    assert bad.returncode == 1
    assert "blue-a asked 10.0.0.3 (blue-c): blue-c should answer, nobody did; same network net" in bad.stdout
