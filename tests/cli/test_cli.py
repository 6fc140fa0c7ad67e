"""The commands, without a farm: what they accept, what they print, how they fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nvi.cli import prompt, show
from nvi.cli.bring_up import up
from nvi.cli.errors import FAILED, MISUSE, CommandError
from nvi.emulation import preflight
from nvi.emulation.placement import Conflict, Misuse, Request, place
from nvi.emulation.processes import ProcessId, rotate
from nvi.emulation.rundir import FarmRecord, RunDirectory, RunError, State, inspect
from nvi.emulation.views import connections_view, host_status
from nvi.topology import load

ROOT = Path(__file__).parents[2]
LEAF_SPINE = ROOT / "topologies" / "leaf-spine.yaml"


def nvi(run: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a run directory of its own."""
    env = {**os.environ, "NVI_RUN_DIR": str(run)}
    command = [sys.executable, "-m", "nvi.cli", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "endpoint"),
        (["up"], 2, "Missing argument"),
        (["up", "none.yaml"], 2, "none.yaml: No such file"),
        (["up", "."], 2, "Is a directory"),
        (["up", str(LEAF_SPINE), "--target", "ebpf"], 2, "ebpf"),
        (["upp"], 2, "No such command"),
        (["down"], 0, "nothing to do"),
        (["status"], 1, "nvi up"),
        (["endpoints", "--json"], 1, "no farm is running"),
        (["exec", "a", "--", "true"], 1, "no farm is running"),
        (["exec", "a"], 2, "Missing argument"),
        (["endpoint", "add", "a"], 2, "Missing option"),
        (["endpoint", "remove", "a"], 1, "no farm is running"),
    ],
)
def test_without_a_farm(tmp_path: Path, arguments: list[str], status: int, said: str) -> None:
    done = nvi(tmp_path / "run", *arguments)
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_commands_start_without_what_they_do_not_need() -> None:
    """`nvi exec` is used a lot, and by programs."""
    slow = {"networkx", "httpx", "rich", "grpc", "mininet", "ruamel"}
    script = f"import sys, nvi.cli.app, nvi.cli.execute; print(*(set(sys.modules) & {slow}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT / "runtime"
    )
    assert done.stdout.strip() == ""


def test_all_problems_of_a_file_are_printed(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("name: x\nsits: {}\nhosts: {h 1: {}}\n")
    with pytest.raises(CommandError) as error:
        up(file, None, detach=False, servers=0)
    assert error.value.status == MISUSE
    text = str(error.value)
    assert "nothing was started" in text
    assert f"{file}:2: topology: unknown key 'sits'; did you mean 'sites'?" in text
    assert f"{file}:3:" in text


def test_a_machine_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CommandError, match="sudo") as error:
        up(LEAF_SPINE, None, detach=False, servers=0)
    assert error.value.status == FAILED

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(preflight, "_PROGRAMS", {"no-such-program": "some-package"})
    assert any("apt-get install some-package" in each for each in preflight.check(load(LEAF_SPINE)))

    monkeypatch.setattr(preflight, "_PROGRAMS", {})
    refused = subprocess.CompletedProcess([], 1, "", "Operation not permitted\n")
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(preflight, "_in_namespace", lambda _: refused)
    (only,) = preflight.check(load(LEAF_SPINE))
    assert "network namespace" in only
    assert "--privileged" in only
    monkeypatch.setattr(
        preflight, "_in_namespace", lambda c: refused if "bridge" in c else subprocess.CompletedProcess([], 0, "", "")
    )
    (only,) = preflight.check(load(LEAF_SPINE))
    assert "modprobe bridge" in only


def test_preflight_checks_what_the_topology_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    topologies = LEAF_SPINE.parent
    monkeypatch.setattr(preflight.os, "geteuid", lambda: 0)
    monkeypatch.setattr(preflight, "_PROGRAMS", {})
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda _: True)
    refused = subprocess.CompletedProcess([], 1, "", "Operation not supported")
    monkeypatch.setattr(
        preflight, "_in_namespace", lambda c: refused if "nft" in c else subprocess.CompletedProcess([], 0, "", "")
    )
    monkeypatch.setattr(preflight.shutil, "which", lambda program: None if program == "nft" else program)
    assert not preflight.check(load(LEAF_SPINE))
    assert "apt-get install nftables" in preflight.check(load(topologies / "three-sites.yaml"))[0]
    monkeypatch.setattr(preflight.shutil, "which", lambda program: program)
    (only,) = preflight.check(load(topologies / "three-sites.yaml"))
    assert "nftables (Operation not supported)" in only
    monkeypatch.setattr(preflight, "_IPV6", Path("/nowhere"))
    (only,) = preflight.check(load(topologies / "dual-stack.yaml"))
    assert "no IPv6" in only


def test_preflight_knows_a_plain_chroot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.os, "geteuid", lambda: 0)
    monkeypatch.setattr(preflight, "_PROGRAMS", {})
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda _: True)
    refused = subprocess.CompletedProcess([], 1, "", "remount: Invalid argument")
    monkeypatch.setattr(preflight, "_in_namespace", lambda _: refused)
    mounts = "22 1 254:0 /srv/jail/usr /usr rw,relatime - ext4 /dev/vda rw\n"
    topology = load(LEAF_SPINE)
    for root, said in (("", "chroot into that"), ("21 1 254:0 / / rw - ext4 /dev/vda rw\n", "--privileged")):
        monkeypatch.setattr(preflight.Path, "read_text", lambda _, root=root: root + mounts)
        (only,) = preflight.check(topology)
        assert said in only


def test_a_log_that_somebody_writes_is_kept_small(tmp_path: Path) -> None:
    log = tmp_path / "switch.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"a" * 100)
        rotate(log, 100)
        assert log.stat().st_size == 100
        writer.write(b"b")
        rotate(log, 100)
        writer.write(b"c")
    assert log.read_bytes() == b"c"
    assert (tmp_path / "switch.log.1").read_bytes() == b"a" * 100 + b"b"


def test_a_run_directory(tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert inspect(path) == (State.ABSENT, None)
    directory = RunDirectory.create(path)
    me = ProcessId.of(os.getpid())
    assert me is not None
    record = FarmRecord("f", "f.yaml", "embedded", "id", me)
    directory.publish(record)
    assert inspect(path) == (State.RUNNING, record)
    with pytest.raises(RunError, match=r"runs already.*nvi down"):
        RunDirectory.create(path)
    directory.remove()
    assert inspect(path) == (State.ABSENT, None)
    path.mkdir()
    assert inspect(path) == (State.STALE, None)
    with pytest.raises(RunError, match=r"crashed.*nvi down"):
        RunDirectory.create(path)


def test_processes_are_more_than_their_ids() -> None:
    with subprocess.Popen(["sleep", "100"]) as process:
        identity = ProcessId.of(process.pid)
        assert identity is not None
        assert identity.alive()
        impostor = ProcessId(process.pid, identity.started + 1)
        assert not impostor.alive()
        assert not impostor.kill(9)  # type: ignore[arg-type]
        assert identity.kill(15)  # type: ignore[arg-type]
        process.wait()
        assert not identity.alive()
        assert not identity.kill(9)  # type: ignore[arg-type]
    assert ProcessId.of(2**22 + 1) is None


def connection(host: str, packets: int, segments: list[Any]) -> dict[str, Any]:
    """A connection as one host sees it."""
    return {
        "id": "c1",
        "tenant": "acme",
        "protocol": "tcp",
        "initiator": {"endpoint": "a", "address": "10.0.0.1", "port": 1},
        "responder": {"endpoint": None, "address": "10.0.0.2", "port": 80},
        "segments": segments,
        "hosts": {host: {"packets": packets, "bytes": 100, "idle_seconds": 0.5}},
    }


SEGMENT = {
    "from": {"host": "h1", "address": "172.16.0.1", "port": 20000},
    "to": {"host": "h2", "address": "172.16.0.2", "port": 20001},
}


def test_hosts_views_are_put_together() -> None:
    seen = [[connection("h1", 3, [SEGMENT])], [connection("h2", 4, []), {**connection("h2", 1, []), "id": "c2"}]]
    view = connections_view(seen)
    assert view["schema"] == 1
    assert "errors" not in view
    first, second = view["connections"]
    assert {host: use["packets"] for host, use in first["hosts"].items()} == {"h1": 3, "h2": 4}
    assert first["segments"] == [SEGMENT]
    assert second["id"] == "c2"
    assert connections_view([], ["h3 is silent"])["errors"] == ["h3 is silent"]


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    show.connections(connections_view([[connection("h1", 3, [SEGMENT])], [connection("h2", 4, [SEGMENT])]]))
    text = capsys.readouterr().out
    for part in ("acme", "a 10.0.0.1:1", "outside 10.0.0.2:80", "h1 172.16.0.1:20000 - h2 172.16.0.2:20001"):
        assert part in text
    show.connections(connections_view([]))
    assert "no connections" in capsys.readouterr().out
    agent = {"state": "primary", "pid": 7, "entries": {"connections": 2}, "drops": {"a": {"spoofed": 3}, "b": {}}}
    hosts = {"h1": host_status(5, agent, 7), "h2": host_status(None, "why not", 7), "h3": host_status(6, "gone", None)}
    show.status({"schema": 1, "farm": "f", "target": "bmv2", "hosts": hosts})
    text = capsys.readouterr().out
    for part in ("running (pid 5)", "primary (pid 7)", "connections 2", "a: spoofed 3", "why not", "restarting"):
        assert part in text
    assert "b:" not in text


@pytest.mark.parametrize(
    ("name", "change", "error", "said"),
    [
        ("new", {}, None, ""),
        ("-new", {}, Misuse, "would not work"),
        ("new", {"host": "bj9"}, Misuse, "unknown host 'bj9'"),
        ("new", {"tenant": "acm"}, Misuse, "did you mean 'acme'?"),
        ("new", {"network": "wbe"}, Misuse, "did you mean 'web'?"),
        ("new", {"address": "10.0.2.9"}, Misuse, "outside its network"),
        ("new", {"address": "10.0.1.254"}, Misuse, "gateway"),
        ("new", {"address": "x"}, Misuse, "'x'"),
        ("new", {"mac": "01:00:00:00:00:00"}, Misuse, "group address"),
        ("new", {"address": "10.0.1.1"}, Conflict, "'acme-web1'"),
        ("new", {"tenant": "globex", "address": "10.0.1.4"}, None, ""),
        ("acme-web1", {}, Conflict, "nvi endpoint remove acme-web1"),
        ("bj1", {}, Conflict, "host 'bj1'"),
    ],
)
def test_placing_an_endpoint(name: str, change: dict[str, str], error: type[Exception] | None, said: str) -> None:
    topology = load(LEAF_SPINE)
    wanted = {"tenant": "acme", "network": "web", "address": "10.0.1.99", "host": "bj2", **change}
    arguments = (name, Request(**wanted), topology.tenants, topology.hosts, topology.endpoints.values())
    if error is None:
        endpoint = place(*arguments)
        assert (endpoint.name, endpoint.host, endpoint.tenant) == (name, "bj2", wanted["tenant"])
    else:
        with pytest.raises(error, match=said):
            place(*arguments)


def test_the_prompt_translates(monkeypatch: pytest.MonkeyPatch) -> None:
    me = ProcessId.of(os.getpid())
    assert me is not None
    record = FarmRecord("f", "f.yaml", "embedded", "id", me, {"a": ..., "b": ...})  # type: ignore[dict-item]
    monkeypatch.setattr(prompt, "running_farm", lambda: record)
    listed = {"endpoints": [{"name": "a", "address": "10.0.0.1"}, {"name": "b", "address": "10.0.0.2"}]}
    monkeypatch.setattr(prompt, "get", lambda _: listed)
    assert prompt.translate(["a", "ping", "-c", "1", "b"]) == ["exec", "a", "--", "ping", "-c", "1", "10.0.0.2"]
    assert prompt.translate(["status", "--json"]) == ["status", "--json"]
    assert prompt.translate(["exec", "a", "--", "true"]) == ["exec", "a", "--", "true"]
