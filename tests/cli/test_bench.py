"""`nvi bench setup`: what it measures, what it says, how it fails, and that it leaves nothing behind."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import openflow, ramp
from nvi.bench import lab, setup
from nvi.bench.lab import LabError
from nvi.bench.line import Wires
from nvi.bench.setup import ROUNDS, Contender, Load, Measured, percentile
from nvi.bench.traffic import Generator, Report, Stream, answer, frame, number_of
from nvi.cli import bench
from nvi.cli.errors import FAILED, CommandError
from nvi.emulation import messaging, targets
from nvi.emulation.processes import RUN_VARIABLE, marked
from nvi.nats import server as nats_server

PATIENCE = 60.0
LOAD = Load(connections=800, window=7, rate=100.0)
MEASURED = Measured(1234.56, 800, 3, 190, 10, 2.3456, 9.8765, 0.25, 0.5)


# ---- arithmetic -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([3.0], 50, 3.0), ([4.0, 1.0, 3.0, 2.0], 50, 2.0), ([4.0, 1.0, 3.0, 2.0], 75, 3.0), ([1.0, 2.0], 99, 2.0)],
)
def test_percentile(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_p99_is_exceeded_by_one_in_a_hundred() -> None:
    assert percentile([float(value) for value in range(1, 1001)], 99) == 990.0
    assert math.isnan(percentile([], 99))


def test_what_rounds_add_up_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int, float]] = []
    seconds = iter((99.0, 0.1, 0.2, 0.4, 0.8))
    cpu = {"control": 0.0, "switches": 0.0}

    def generate(_: object, __: object, mode: str, first: int, count: int, argument: float) -> Report:
        asked.append((mode, first, count, argument))
        if mode == "pace":
            return Report(count, count - 2, 1.0, [float(first)] * (count - 2))
        cpu["control"] += 0.05
        cpu["switches"] += 0.1
        return Report(count, count - 1, next(seconds), [])

    monkeypatch.setattr(setup, "generate", generate)
    contender = Contender(None, None, LOAD, lambda: cpu["control"], lambda: cpu["switches"])  # type: ignore[arg-type]
    setup.in_turns(contender)
    measured = contender.measured()
    # No number twice: each is a connection of its own.
    numbers = [number for _, first, count, _ in asked for number in range(first, first + count)]
    assert numbers == list(range(100 + 800 + 200))
    assert asked[0] == ("saturate", 0, 100, 7)
    assert {each[3] for each in asked} == {7, 100.0}
    assert measured.rate == pytest.approx((199 / 0.2 + 199 / 0.4) / 2)
    assert (measured.connections, measured.lost) == (800, ROUNDS)
    assert (measured.round_trips, measured.unanswered) == (200 - 2 * ROUNDS, 2 * ROUNDS)
    assert (measured.p50, measured.p99) == (550.0, 1050.0)
    assert measured.control_cpu == pytest.approx(0.25)
    assert measured.switch_cpu == pytest.approx(0.5)


def test_where_nothing_arrives_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "generate", lambda *_: Report(100, 0, 0.0, []))
    contender = Contender(None, None, LOAD, lambda: 0.0, lambda: 0.0)  # type: ignore[arg-type]
    with pytest.raises(LabError, match="none of 100 first packets arrived"):
        contender.warm_up()


# ---- the load generator ---------------------------------------------------------------------------------------------


class Lossy:
    """A socket whose sends sometimes get lost."""

    def __init__(self, inner: socket.socket, lost: set[int]) -> None:
        self._inner, self._lost = inner, lost
        self.sent: list[int] = []

    def send(self, packet: bytes) -> int:
        self.sent.append(number_of(packet))
        return 0 if self.sent[-1] in self._lost else self._inner.send(packet)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ends
    for each in ends:
        each.close()


def test_the_place_of_a_lost_packet_goes_to_the_next(
    wire: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nvi.bench.traffic.PATIENCE", 0.5)
    lost = {10, 11, 12, 20}
    client = Lossy(wire[0], lost)
    report = Generator(client, wire[1]).saturate(10, 50, 3)  # type: ignore[arg-type]
    assert client.sent == list(range(10, 60))
    assert (report.sent, report.arrived) == (50, 50 - len(lost))


def test_no_more_are_under_way_than_the_window(wire: tuple[socket.socket, socket.socket]) -> None:
    client, most = Lossy(wire[0], set()), 0

    class Watched:
        def recv(self, size: int) -> bytes:
            nonlocal most, arrived
            most = max(most, len(client.sent) - arrived)
            arrived += 1
            return wire[1].recv(size)

        def fileno(self) -> int:
            return wire[1].fileno()

    arrived = 0
    report = Generator(client, Watched()).saturate(0, 100, 8)  # type: ignore[arg-type]
    assert (report.arrived, most) == (100, 8)


def test_pace_takes_the_time_of_an_answer(wire: tuple[socket.socket, socket.socket]) -> None:
    report = Generator(*wire).pace(0, 30, 300.0)
    assert (report.sent, report.arrived, len(report.round_trips)) == (30, 30, 30)
    assert report.seconds > 29 / 300
    assert all(0 < trip < 1e3 * PATIENCE for trip in report.round_trips)


def test_an_offer_goes_on_whatever_comes_of_it(
    wire: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nvi.bench.traffic.PATIENCE", 0.5)
    lost = {10, 11, 59}
    client = Lossy(wire[0], lost)
    report = Generator(client, wire[1]).offer(4, 60, 300.0)  # type: ignore[arg-type]
    assert [number for number in client.sent if number < 1000] == list(range(4, 65))
    assert (report.sent, report.arrived) == (60, 60 - len(lost))
    assert report.in_time <= report.arrived
    stream = report.stream
    assert stream is not None
    assert len(client.sent) == 61 + stream.sent
    assert len(stream.delays) == stream.sent > 1


def test_nothing_is_offered_beside_a_connection_that_does_not_come_about(
    wire: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nvi.bench.traffic.PATIENCE", 0.1)
    client = Lossy(wire[0], {4})
    report = Generator(client, wire[1]).offer(4, 60, 300.0)  # type: ignore[arg-type]
    assert (report.arrived, client.sent) == (0, [4])


def test_an_answer_goes_back_to_who_asked() -> None:
    asked = frame(7)
    answered = answer(asked)
    assert answer(answered) == asked
    assert (answered[:6], answered[6:12]) == (asked[6:12], asked[:6])
    assert (answered[26:30], answered[34:36]) == (asked[30:34], asked[36:38])
    assert number_of(answered) == 7


# ---- comparisons in bench/ ------------------------------------------------------------------------------------------


def _step(rate: float, came: float, uncounted: int = 0) -> ramp.Step:
    report = Report(1000, 700, 2.0, [], 650, Stream(200, [1.0] * 150))
    counted = Counter({"overflow in flight": 180, f"{ramp.DROPPED} x": 120 - uncounted})
    return ramp.Step(rate, came, report, counted, 880, 100)


def test_what_a_step_of_the_ramp_adds_up_to() -> None:
    assert _step(500.0, 325.0).uncounted == 0
    step = _step(500.0, 325.0, uncounted=20)
    assert step.uncounted == 20
    assert step.unpunted == 20
    said = "100 dropped by the switch at x, 180 overflow in flight; uncounted: 20 (20 before any agent)"
    assert f"{said}; stream: 50 of 200 lost" in str(step)


def test_a_collapse_would_show() -> None:
    at_knee, collapsed = [_step(500, 500), _step(500, 450), _step(500, 400)], [_step(1000, 90), _step(1000, 90, 20)]
    setups, stream, refused, memory = ramp.results({1: at_knee, 2: collapsed})
    assert setups.ratio == pytest.approx(90 / 450)
    assert stream.ours == "100 of 400 lost, p99 1.0 ms"
    assert (refused.ours, refused.peer) == ("580 counted, 20 not", "900 counted, 0 not")
    assert memory.ratio == 1.0


def test_ratios_are_ours_to_the_peers() -> None:
    peer = Measured(1200.0, 4000, 80, 980, 20, 2.2, 5.1, 1.1, 0.9)
    rows = openflow.compare("memory", Measured(2400.0, 4000, 0, 1000, 0, 2.2, 4.1, 0.275, 0.3), peer, "")
    rate, p50, p99, control, switches = (row.ratio for row in rows)
    assert (rate, p50, control) == (pytest.approx(2.0), pytest.approx(1.0), pytest.approx(0.25))
    assert p99 == pytest.approx(4.1 / 5.1)
    assert switches == pytest.approx(1 / 3)
    assert "80 of 4000 lost" in rows[0].peer


# ---- what is said ---------------------------------------------------------------------------------------------------


def test_json_is_valid_even_if_nothing_was_answered() -> None:
    nothing = Measured(1.0, 1, 1, 0, 10, math.nan, math.nan, 0.0, 0.0)
    machine = {"cpu": "x", "cores": 1, "load": 0.0}
    view = bench.view("embedded", "memory", LOAD, nothing, machine)
    assert view["latency"]["milliseconds"] == {"p50": None, "p99": None}
    json.dumps(view, allow_nan=False)


def test_table_says_all() -> None:
    said = bench.table("bmv2", "nats", LOAD, MEASURED, {"cpu": "x86", "cores": 2, "load": 0.5})
    for part in ("bmv2", "nats", "x86", "1235/s", "3 of 800", "2.35 ms", "9.88 ms", "10 of 200", "0.25", "0.50"):
        assert part in said


# ---- how it fails ---------------------------------------------------------------------------------------------------


def _setup(target: targets.Target | None = None, offers: setup.Offers = "memory") -> None:
    bench.setup(target, offers, 16, 4, 100.0, json=False)


def test_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.os, "geteuid", lambda: 1000)
    with pytest.raises(CommandError, match="run it with sudo") as error:
        _setup("embedded")
    assert error.value.status == FAILED


def test_without_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.os, "geteuid", lambda: 0)
    monkeypatch.setattr(lab, "_PACKAGES", {"no-such-program": "some-package"})
    with pytest.raises(CommandError, match="no-such-program on PATH: apt-get install some-package"):
        _setup("embedded")


@pytest.mark.root
def test_without_bmv2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "available", lambda: ["embedded"])
    with pytest.raises(CommandError, match="take the target 'embedded'"):
        _setup("bmv2")


@pytest.mark.root
def test_without_nats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messaging.nats_server, "find", lambda: None)
    with pytest.raises(CommandError, match="nats-server"):
        _setup("embedded", "nats")


@pytest.mark.root
def test_a_switch_that_does_not_come_up(monkeypatch: pytest.MonkeyPatch) -> None:
    says = [sys.executable, "-c", "import sys; sys.exit('this is why')"]
    monkeypatch.setattr(lab.targets, "command", lambda *_: says)
    with pytest.raises(CommandError, match="did not come up") as error:
        _setup("embedded")
    assert "this is why" in str(error.value)


# ---- the real thing -------------------------------------------------------------------------------------------------


class Command:
    """`nvi bench setup`, with a mark by which whatever it starts is found, and a directory for what it writes."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._run, self._directory = uuid.uuid4().hex, directory
        environment = {**os.environ, RUN_VARIABLE: self._run, "TMPDIR": str(directory)}
        command = [sys.executable, "-m", "nvi.cli", "bench", "setup", "--target", "embedded", *arguments]
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def switches(self) -> list[Path]:
        return list(self._directory.glob("*/switch*/p4rt.sock"))

    def left(self) -> list[object]:
        """What is there once it has ended: the kernel takes a moment to end what it guards."""
        deadline = time.monotonic() + PATIENCE
        while (left := [*marked(self._run), *self._directory.iterdir()]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left


OFFERS = [
    "memory",
    pytest.param("nats", marks=pytest.mark.skipif(nats_server.find() is None, reason="there is no nats-server")),
]


@pytest.mark.root
@pytest.mark.parametrize("offers", OFFERS)
def test_it_measures(tmp_path: Path, offers: str) -> None:
    command = Command(tmp_path, "--offers", offers, "--connections", "64", "--window", "8", "--rate", "50", "--json")
    said, complained = command.process.communicate(timeout=2 * PATIENCE)
    assert command.process.returncode == 0, complained
    view = json.loads(said)
    assert (view["schema"], view["target"], view["offers"]) == (1, "embedded", offers)
    assert view["setup"]["connections"] == 64
    assert view["setup"]["lost"] < 64  # none, but on a machine that has no time at all for it
    assert view["setup"]["connections_per_second"] > 0
    assert view["setup"]["cpu_seconds_per_1000"]["switches"] > 0
    assert view["latency"]["round_trips"] + view["latency"]["unanswered"] == 16
    assert 0 < view["latency"]["milliseconds"]["p50"] <= view["latency"]["milliseconds"]["p99"]
    assert not command.left()


@pytest.mark.root
def test_nothing_is_left_of_one_that_is_ended(tmp_path: Path) -> None:
    command = Command(tmp_path, "--rate", "1")
    deadline = time.monotonic() + PATIENCE
    while len(command.switches()) < 2:
        assert command.process.poll() is None, command.process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    command.process.terminate()
    _, complained = command.process.communicate(timeout=PATIENCE)
    assert command.process.returncode != 0
    assert "Traceback" not in complained
    assert not command.left()


def test_misuse_is_told() -> None:
    command = [sys.executable, "-m", "nvi.cli", "bench", "setup", "--window", "0"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 2
    assert "--window" in done.stderr


def test_wires_are_symmetric() -> None:
    """Both switches of a line have the same ports, so that an answer is what a question is."""

    class Paper:
        def __init__(self) -> None:
            self.cables: list[tuple[tuple[object, str], tuple[object, str]]] = []

        def namespace(self) -> object:
            return object()

        def cable(self, one: tuple[object, str], other: tuple[object, str]) -> None:
            self.cables.append((one, other))

    paper = Paper()
    two = Wires(paper, 2)  # type: ignore[arg-type]
    assert [set(ports) for _, ports in two.middle] == [{1, 16}, {1, 16}]
    assert len(paper.cables) == 3
    one = Wires(paper, 1)  # type: ignore[arg-type]
    assert set(one.middle[0][1]) == {16, 17}
