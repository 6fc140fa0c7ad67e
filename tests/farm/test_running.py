"""What can be done with a farm that runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from .machine import Machine, wait_for

pytestmark = pytest.mark.root


def test_exec_passes_everything_through(machine: Machine) -> None:
    machine.up()
    assert machine.nvi("exec", "red-a", "--", "sh", "-c", "exit 7").returncode == 7
    assert machine.nvi("exec", "red-a", "sh", "-c", "echo out; echo err >&2").stdout == "out\n"
    assert machine.nvi("exec", "red-a", "--", "no-such-program").returncode == 127
    unknown = machine.nvi("exec", "red-c", "--", "true")
    assert unknown.returncode == 2
    assert "did you mean 'red-a'?" in unknown.stderr or "red-b" in unknown.stderr
    assert machine.nvi("exec", "red-a").returncode == 2

    done = subprocess.run(
        [sys.executable, "-m", "nvi.cli", "exec", "h1", "--", "tr", "a-z", "A-Z"],
        env=machine.env,
        input="abc",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "ABC"

    process = machine.start("exec", "red-a", "--", "sleep", "1000")
    wait_for(lambda: b"sleep" in open(f"/proc/{process.pid}/cmdline", "rb").read(), "sleep runs")  # noqa: SIM115, PTH123
    process.terminate()
    assert process.wait(5) == -signal.SIGTERM


def test_interfaces_are_as_promised(machine: Machine) -> None:
    machine.up()
    links = json.loads(machine.nvi("exec", "red-a", "--", "ip", "-json", "address").stdout)
    assert [link["ifname"] for link in links] == ["lo", "eth0"]
    eth0 = links[1]
    assert eth0["mtu"] == 1500
    assert [(each["family"], each["local"], each["prefixlen"]) for each in eth0["addr_info"]] == [
        ("inet", "10.0.0.1", 24)
    ]
    listed = {each["name"]: each for each in machine.view("endpoints")["endpoints"]}
    assert listed["red-a"]["mac"] == eth0["address"]
    features = machine.nvi("exec", "red-a", "--", "ethtool", "-k", "eth0").stdout
    for feature in ("tx-checksumming", "scatter-gather", "tcp-segmentation-offload", "generic-receive-offload"):
        assert f"{feature}: off" in features

    host = json.loads(machine.nvi("exec", "h1", "--", "ip", "-json", "address").stdout)
    addressed = {link["ifname"] for link in host if any(each["family"] for each in link["addr_info"])}
    assert addressed == {"lo", "nvi0"}
    reserved = machine.nvi("exec", "h1", "--", "cat", "/proc/sys/net/ipv4/ip_local_reserved_ports").stdout
    assert reserved.strip() == "20000-32767"


def test_host_stack_hears_only_nvi0(machine: Machine) -> None:
    """What an endpoint sends straight to its host's addresses is not for the host's own stack."""
    machine.up()
    mac = json.loads(machine.nvi("exec", "h1", "--", "ip", "-json", "link", "show", "ep16").stdout)[0]["address"]
    commands = (
        f"ip neigh add 10.0.0.99 lladdr {mac} dev eth0; ip route add 172.16.0.1 via 10.0.0.99; ping -c1 -W1 172.16.0.1"
    )
    assert machine.nvi("exec", "red-a", "--", "sh", "-c", commands).returncode != 0
    arping = "ip route add 172.16.0.0/24 dev eth0; ping -c1 -W1 172.16.0.1"
    assert machine.nvi("exec", "red-b", "--", "sh", "-c", arping).returncode != 0


def test_schemas(machine: Machine) -> None:
    machine.up()
    status = machine.view("status")
    assert (status["farm"], status["target"]) == ("two-hosts", "embedded")
    assert set(status["hosts"]) == {"h1", "h2"}
    for host in status["hosts"].values():
        assert host["switch"]["state"] == "running"
        assert host["agent"]["state"] == "primary"
        assert isinstance(host["switch"]["pid"], int)
        assert isinstance(host["agent"]["pid"], int)
        assert host["entries"]["connections"] == 0
    assert [host["underlay"] for host in machine.view("hosts")["hosts"]] == [["172.16.0.1/24"], ["172.16.0.2/24"]]
    assert machine.view("connections") == {"schema": 1, "connections": []}

    assert machine.ping("red-a", "10.0.0.2")
    (connection,) = machine.view("connections")["connections"]
    assert (connection["tenant"], connection["protocol"]) == ("red", "icmp")
    assert connection["initiator"]["endpoint"] == "red-a"
    assert connection["responder"]["endpoint"] == "red-b"
    assert set(connection["hosts"]) == {"h1", "h2"}
    for use in connection["hosts"].values():
        assert use["packets"] == 2
    (segment,) = connection["segments"]
    assert (segment["from"]["host"], segment["to"]["host"]) == ("h1", "h2")
    assert set(machine.view("connections", "--host", "h1")["connections"][0]["hosts"]) == {"h1"}
    assert machine.nvi("connections", "--host", "h3").returncode == 2
    for command in ("status", "hosts", "endpoints", "connections"):
        assert machine.nvi(command).returncode == 0


def test_endpoints_come_and_go(machine: Machine) -> None:
    machine.up()
    add = ("endpoint", "add", "red-c", "--tenant", "red", "--network", "net", "--ip", "10.0.0.3", "--host", "h2")
    for _ in range(10):  # more often than there are spare ports
        done = machine.nvi(*add)
        assert done.returncode == 0, done.stderr
        done = machine.nvi("endpoint", "remove", "red-c")
        assert done.returncode == 0, done.stderr
    assert machine.nvi(*add).returncode == 0
    assert machine.ping("red-c", "10.0.0.1")
    assert machine.ping("red-a", "10.0.0.3")

    again = machine.nvi(*add)
    assert again.returncode == 1
    assert "red-c" in again.stderr
    outside = machine.nvi(*add[:2], "red-d", *add[3:8], "10.9.0.3", *add[9:])
    assert outside.returncode == 2
    assert "10.0.0.0/24" in outside.stderr
    assert machine.nvi("endpoint", "remove", "red-z").returncode == 2

    # An endpoint of the file may go, with what runs in it, and come back elsewhere.
    process = machine.start("exec", "red-b", "--", "sleep", "1000")
    wait_for(lambda: machine.nvi("exec", "red-b", "--", "pgrep", "-x", "sleep").returncode == 0, "sleep runs")
    assert machine.nvi("endpoint", "remove", "red-b").returncode == 0
    assert process.wait(5) == -signal.SIGKILL
    assert machine.nvi("exec", "red-b", "--", "true").returncode == 2
    assert machine.nvi(*add[:2], "red-b", *add[3:8], "10.0.0.2", "--host", "h1").returncode == 0
    wait_for(lambda: machine.ping("red-a", "10.0.0.2"), "red-b answers on its new host")


def test_what_dies_is_started_again(machine: Machine) -> None:
    machine.up()
    added = ("--tenant", "red", "--network", "net", "--ip", "10.0.0.3", "--host", "h2")
    assert machine.nvi("endpoint", "add", "red-c", *added).returncode == 0
    for what in ("switch", "agent"):
        before = machine.view("status")["hosts"]["h2"][what]["pid"]
        os.kill(before, signal.SIGKILL)

        def back(what: str = what, before: int = before) -> bool:
            host = machine.view("status")["hosts"]["h2"]
            ready = host["switch"]["state"] == "running" and host["agent"]["state"] == "primary"
            return ready and host[what]["pid"] != before

        wait_for(back, f"the {what} is back")
        wait_for(lambda: machine.ping("red-a", "10.0.0.3"), "traffic is back, also for an endpoint that was added")
    log = (machine.run / "farm.log").read_text()
    assert "the switch of h2" in log
    assert "the agents' process" in log
    assert log.count("SIGKILL") == 2
