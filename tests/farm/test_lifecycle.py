"""Farms come up, go down, crash and are mended, and never leave anything behind (the fixture `machine` looks)."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from .machine import TARGETS, TWO_HOSTS, Machine, processes, wait_for

pytestmark = pytest.mark.root


@pytest.mark.parametrize("target", TARGETS)
def test_up_and_down(machine: Machine, target: str) -> None:
    record = machine.up(target)
    assert machine.ping("red-a", "10.0.0.2")
    assert machine.ping("h1", "172.16.0.2"), "the hosts' own stacks reach each other"
    assert stat.S_IMODE(machine.run.stat().st_mode) == 0o700
    assert processes(f"NVI_RUN={record['run']}")
    done = machine.nvi("down")
    assert done.returncode == 0
    assert not machine.run.exists()
    assert not processes(f"NVI_RUN={record['run']}")
    again = machine.nvi("down")
    assert again.returncode == 0
    assert "nothing to do" in again.stdout


def test_second_up_is_refused(machine: Machine) -> None:
    record = machine.up()
    second = machine.nvi("up", str(TWO_HOSTS))
    assert second.returncode == 1
    for part in ("'two-hosts'", str(record["supervisor"]["pid"]), "nvi down"):
        assert part in second.stderr
    assert machine.ping("red-a", "10.0.0.2"), "the first one goes on"


def test_supervisor_killed(machine: Machine) -> None:
    record = machine.up()
    forgotten = machine.start("exec", "red-a", "--", "sleep", "1000")
    wait_for(lambda: any("sleep 1000" in line for line in processes(record["run"]).values()), "sleep runs")
    os.kill(record["supervisor"]["pid"], signal.SIGKILL)
    # Everything that the supervisor has started dies with it; what somebody else has started does not.
    wait_for(lambda: set(processes(f"NVI_RUN={record['run']}")) == {forgotten.pid}, "the farm's processes die")

    for command in (["up", str(TWO_HOSTS)], ["status"], ["exec", "red-a", "--", "true"]):
        stale = machine.nvi(*command)
        assert stale.returncode == 1
        assert "crashed" in stale.stderr
        assert "'nvi down'" in stale.stderr

    mended = machine.nvi("down")
    assert mended.returncode == 0
    assert "'two-hosts'" in mended.stdout
    assert forgotten.wait(5) == -signal.SIGTERM
    assert not machine.run.exists()
    machine.up()
    assert machine.ping("red-a", "10.0.0.2")


def test_down_spares_strangers(machine: Machine) -> None:
    """A recorded process id that meanwhile belongs to somebody else is left alone."""
    machine.up()
    record = machine.record()
    os.kill(record["supervisor"]["pid"], signal.SIGKILL)
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        file = machine.run / "processes.json"
        file.write_text(f'[{{"pid": {stranger.pid}, "started": 1}}]')
        assert machine.nvi("down").returncode == 0
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_half_way(machine: Machine, number: signal.Signals, detach: bool) -> None:
    process = machine.start("up", str(TWO_HOSTS), "--target", "embedded", *(["--detach"] if detach else []))
    assert process.stdout is not None
    for line in process.stdout:
        if "network namespaces" in line:
            break
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert "nothing is left" in output
    assert process.returncode != 0
    assert "Traceback" not in output
    assert not machine.run.exists()


def test_ctrl_c_ends_a_farm_in_the_foreground(machine: Machine) -> None:
    process = machine.start("up", str(TWO_HOSTS), "--target", "embedded")
    assert process.stdout is not None
    for line in process.stdout:
        if "farm is up" in line:
            break
    assert machine.ping("red-a", "10.0.0.2")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert "nothing is left" in output
    assert process.returncode == 0


def test_a_switch_that_does_not_start(machine: Machine, tmp_path: Path) -> None:
    fake = tmp_path / "simple_switch_grpc"
    fake.write_text("#!/bin/sh\necho the reason; exit 3\n")
    fake.chmod(0o755)
    env = {**machine.env, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for options in ([], ["--detach"]):
        done = machine.nvi("up", str(TWO_HOSTS), "--target", "bmv2", *options, env=env)
        assert done.returncode == 1
        assert "the reason" in done.stdout
        assert "status 3" in done.stdout
        assert not machine.run.exists()


def test_bad_topology_starts_nothing(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(TWO_HOSTS.read_text().replace("10.0.0.2,", "10.0.9.2,").replace("host: h1", "hots: h1"))
    done = machine.nvi("up", str(file))
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"{file}:")]
    assert len(lines) == 3
    assert not machine.run.exists()
    assert machine.nvi("up", str(tmp_path / "none.yaml")).returncode == 2


def test_missing_programs_are_named(machine: Machine, tmp_path: Path) -> None:
    for program in ("ip", "unshare", "setpriv", "bash", "ifconfig"):
        (tmp_path / program).symlink_to("/bin/true")
    done = machine.nvi("up", str(TWO_HOSTS), env={**machine.env, "PATH": str(tmp_path)})
    assert done.returncode == 1
    assert "apt-get install ethtool" in done.stderr
    assert "apt-get install mininet" in done.stderr
    assert not machine.run.exists()
