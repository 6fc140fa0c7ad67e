"""`make run`: a farm, and real programs on it, told step by step with the commands that repeat them.

Run as `python -m nvi.cli.tour [--target T]` in the clone. It exits 0 if everything went as it should.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from .prompt import prompt

FILE = Path("topologies/three-sites.yaml")
# By target: as much as takes a few seconds.
_MEGABYTES = {"bmv2": 20, "embedded": 2}
_PORT = 8000
_FETCH = ("curl", "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "-o")


class TourError(Exception):
    """Something did not go as it should."""


class Tour:
    """The steps, in order. Each raises TourError if what it shows is not so."""

    def __init__(self, directory: Path, target: str) -> None:
        """`directory`: for the files that are transferred."""
        self._directory = directory
        self._target = target

    def run(self) -> None:
        """All of it."""
        self.emptiness()
        self.first_packet()
        self.same_addresses()
        self.isolation()
        self.policy()
        self.wire()
        self.internet()
        self.moving()
        self.emptiness_again()

    def emptiness(self) -> None:
        _step("Two tenants, who use the same addresses, in three clouds that know nothing of each other")
        _show("hosts")
        _show("endpoints")
        _show("connections")
        _expect(not _connections(), "some switch holds a connection although nothing was sent")

    def first_packet(self) -> None:
        _step(
            "The first packet makes the connection: acme-web1 (in Beijing) pings acme-web3 (in Virginia), with 1500 "
            "bytes, through the gateways of both"
        )
        _show("exec", "acme-web1", "--", "ping", "-c", "3", "-s", "1472", "-M", "do", "10.0.1.3")
        _show("connections")
        (only,) = _connections()
        hosts = [end["host"] for segment in only["segments"] for end in (segment["from"], segment["to"])]
        _expect(hosts == ["bj1", "bj9", "bj9", "va9", "va9", "va1"], f"the connection goes another way: {hosts}")

    def same_addresses(self) -> None:
        megabytes = _MEGABYTES[self._target]
        _step(
            f"Both tenants fetch {megabytes} MB by HTTP at the same time, from 10.0.1.1 to 10.0.1.3: same addresses, "
            "other machines, other files"
        )
        tenants = ("acme", "globex")
        files = {}
        for tenant in tenants:
            files[tenant] = self._directory / tenant
            files[tenant].mkdir()
            (files[tenant] / "file").write_bytes(os.urandom(megabytes << 20))
        with contextlib.ExitStack() as stack:
            for tenant in tenants:
                stack.enter_context(_serving(f"{tenant}-web3", files[tenant], _PORT))
            fetches = {}
            for tenant in tenants:
                got = str(files[tenant] / "got")
                fetches[tenant] = _start("exec", f"{tenant}-web1", "--", *_FETCH, got, f"http://10.0.1.3:{_PORT}/file")
            for tenant in tenants:
                _expect(fetches[tenant].wait(300) == 0, f"{tenant}'s fetch failed")
        for tenant in tenants:
            self._compare(tenant, files[tenant] / "file", files[tenant] / "got")

    def isolation(self) -> None:
        _step("10.0.1.4 is acme's alone: for globex it does not exist")
        _show("exec", "acme-web1", "--", "ping", "-c", "1", "10.0.1.4")
        _show("exec", "globex-web1", "--", "ping", "-c", "1", "-W", "1", "10.0.1.4", fails=True)

    def policy(self) -> None:
        _step("acme's web may connect to its database, and only to the port of that; what would happen can be asked")
        _show("trace", "acme-web1", "acme-db1", "--proto", "tcp", "--port", "5432")
        _show("trace", "acme-web1", "acme-db1", "--proto", "icmp")
        _show("exec", "acme-web1", "--", "ping", "-c", "1", "-W", "2", "10.0.2.1", fails=True)

    def wire(self) -> None:
        _step("What is seen between the clouds of a ping from 10.0.1.1 to 10.0.1.3: their gateways, and nothing added")
        capture = ("tcpdump", "-nn", "-l", "-c", "4", "-i", "external0", "icmp")
        with _background("exec", "bj9", "--", *capture, quiet=False) as tcpdump:
            time.sleep(1)
            _show("exec", "acme-web1", "--", "ping", "-q", "-c", "2", "10.0.1.3")
            with contextlib.suppress(subprocess.TimeoutExpired):
                tcpdump.wait(3)

    def internet(self) -> None:
        _step("To the Internet, and from it: what acme-web3 serves at port 80 is published at Beijing's gateway")
        (self._directory / "page").write_text("It works.\n")
        with _serving("outside", self._directory, 80), _serving("acme-web3", self._directory, 80) as served:
            got = str(self._directory / "got")
            _run("exec", "acme-web1", "--", *_FETCH, got, "http://203.0.113.7/page")
            self._compare("acme-web1", self._directory / "page", self._directory / "got")
            _run("exec", "outside", "--", *_FETCH, got, "http://198.51.100.1:8080/page")
            self._compare("outside", self._directory / "page", self._directory / "got")
            served.terminate()
            log, _ = served.communicate()
        clients = {line.split()[0] for line in log.splitlines() if "GET /page" in line}
        print(f"    acme-web3 has served {', '.join(clients)}")
        _expect(clients == {"203.0.113.7"}, "the service did not see the client's own address")

    def moving(self) -> None:
        _step("acme-web3 moves from Virginia to Shanghai, while iperf3 runs: the connection does not notice")
        with _background("exec", "acme-web3", "--", "iperf3", "-s"):
            time.sleep(1)
            client = ("exec", "acme-web1", "--", "iperf3", "-c", "10.0.1.3", "-t", "8", "-f", "m", "-i", "2")
            with _background(*client, quiet=False) as running:
                time.sleep(3)
                _show("move", "acme-web3", "sh1")
                _expect(running.wait(60) == 0, "iperf3 failed")
        _show("check")

    def _compare(self, who: str, sent: Path, arrived: Path) -> None:
        one, other = _sha256(sent), _sha256(arrived)
        print(f"    {who}: sent SHA-256 {one[:16]}..., got {other[:16]}...\n")
        _expect(one == other, f"{who} got something else than was sent")

    def emptiness_again(self) -> None:
        seconds = 30 + 5
        _step(
            f"Idle connections leave nothing behind: at most {seconds} seconds after the last packet, nothing is left"
        )
        deadline = time.monotonic() + seconds
        while _entries() and time.monotonic() < deadline:
            if sys.stdout.isatty():
                print(f"    entries left in all switches: {_entries():>4} ", end="\r", flush=True)
            time.sleep(1)
        _show("connections")
        left = _entries()
        _expect(not left, f"{left} entries are left")


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="make run")
    parser.add_argument("--target", choices=tuple(_MEGABYTES))
    target = parser.parse_args().target
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in the order of what our children print
    # So that everything is cleaned up, whoever ends us.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    if not FILE.exists():
        print(f"make run: {FILE} is not there; run it in the clone", file=sys.stderr)
        return 2
    up = ["up", str(FILE), "--detach", *(("--target", target) if target else ())]
    print(f"$ nvi {' '.join(up)}", flush=True)
    status = _nvi(up).wait()
    if status:
        return status
    try:
        return _tour(json.loads(_output("status", "--json"))["target"])
    except KeyboardInterrupt:
        print("\ninterrupted")
        return 130
    finally:
        _nvi(["down"]).wait()


def _tour(target: str) -> int:
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="nvi-tour-") as directory:
            Tour(Path(directory), target).run()
    except TourError as error:
        print(f"\nThis is not as it should be: {error}", file=sys.stderr)
        return 1
    print(f"\nAll as it should be, in {time.monotonic() - began:.0f} s, on {target}.\n")
    if sys.stdin.isatty():
        prompt()
    else:
        print(f"To try it yourself: 'make run' on a terminal, or '.venv/bin/nvi up {FILE}' as root.")
    return 0


def _terminate(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


def _step(title: str) -> None:
    print(f"\n== {title}\n", flush=True)


def _expect(condition: object, otherwise: str) -> None:
    if not condition:
        raise TourError(otherwise)


def _nvi(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "nvi.cli", *arguments], text=True, **options)


def _start(*arguments: str, quiet: bool = False) -> subprocess.Popen[str]:
    """Start a command of ours, saying which."""
    print(f"$ nvi {' '.join(arguments)} &", flush=True)
    sink = subprocess.DEVNULL if quiet else None
    return _nvi(list(arguments), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)


@contextlib.contextmanager
def _background(*arguments: str, quiet: bool = True) -> Iterator[subprocess.Popen[str]]:
    """A command of ours that ends with the block."""
    process = _start(*arguments, quiet=quiet)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _serving(where: str, directory: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """An HTTP server in an endpoint, which writes whom it serves."""
    arguments = ["exec", where, "--", "python3", "-um", "http.server", str(port), "--directory", str(directory)]
    print(f"$ nvi {' '.join(arguments)} &", flush=True)
    process = _nvi(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    time.sleep(1)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _run(*arguments: str) -> None:
    """Run a command of ours that prints nothing."""
    print(f"$ nvi {' '.join(arguments)}", flush=True)
    status = _nvi(list(arguments), stdin=subprocess.DEVNULL).wait()
    _expect(not status, f"'nvi {' '.join(arguments)}' ended with status {status}")


def _show(*arguments: str, fails: bool = False) -> None:
    """Run a command of ours for people to see."""
    print(f"$ nvi {' '.join(arguments)}", flush=True)
    status = _nvi(list(arguments), stdin=subprocess.DEVNULL).wait()
    print(flush=True)
    _expect(bool(status) == fails, f"'nvi {' '.join(arguments)}' ended with status {status}")


def _output(*arguments: str) -> str:
    result = subprocess.run([sys.executable, "-m", "nvi.cli", *arguments], capture_output=True, text=True, check=False)
    _expect(result.returncode == 0, result.stderr.strip())
    return result.stdout


def _connections() -> list[dict[str, Any]]:
    connections: list[dict[str, Any]] = json.loads(_output("connections", "--json"))["connections"]
    return connections


def _entries() -> int:
    """How many entries all `connections` tables hold together."""
    hosts = json.loads(_output("status", "--json"))["hosts"].values()
    return sum(host["entries"]["connections"] for host in hosts)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
