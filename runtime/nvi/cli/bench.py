"""`nvi bench`: what NVI costs on this machine."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from ..bench.lab import LabError
from ..bench.setup import Load, Measured, Offers, measure
from ..emulation.targets import Target, available
from .errors import CommandError
from .show import as_json

SCHEMA = 1


def setup(target: Target | None, offers: Offers, connections: int, window: int, rate: float, *, json: bool) -> None:
    """`nvi bench setup`. Raises CommandError."""
    target = target or available()[0]
    load = Load(connections, window, rate)
    machine = {"cpu": platform.machine(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    try:
        measured = measure(target, offers, load)
    except LabError as error:
        raise CommandError(
            "\n".join((f"nothing could be measured: {error}", *getattr(error, "__notes__", ())))
        ) from None
    if json:
        as_json(view(target, offers, load, measured, machine))
    else:
        print(table(target, offers, load, measured, machine))
    sys.stdout.flush()


def view(target: Target, offers: Offers, load: Load, measured: Measured, machine: dict[str, Any]) -> dict[str, Any]:
    """The schema of `nvi bench setup --json` (docs/schemas.md)."""
    return {
        "schema": SCHEMA,
        "target": target,
        "offers": offers,
        "machine": machine,
        "setup": {
            "window": load.window,
            "connections": measured.connections,
            "lost": measured.lost,
            "connections_per_second": round(measured.rate, 1),
            "cpu_seconds_per_1000": {
                "control": round(measured.control_cpu, 4),
                "switches": round(measured.switch_cpu, 4),
            },
        },
        "latency": {
            "connections_per_second": load.rate,
            "round_trips": measured.round_trips,
            "unanswered": measured.unanswered,
            "milliseconds": {"p50": _rounded(measured.p50), "p99": _rounded(measured.p99)},
        },
    }


def table(target: Target, offers: Offers, load: Load, measured: Measured, machine: dict[str, Any]) -> str:
    """The same for people."""
    where = f"{machine['cpu']}, {machine['cores']} cores, load before {machine['load']}"
    paced = (
        f"at {load.rate:g} connections/s, {measured.unanswered} of {measured.round_trips + measured.unanswered} lost"
    )
    rows = (
        ("connections set up", f"{measured.rate:.0f}/s", f"{measured.lost} of {measured.connections} lost"),
        ("first packet's round trip, p50", f"{measured.p50:.2f} ms", paced),
        ("first packet's round trip, p99", f"{measured.p99:.2f} ms", ""),
        ("CPU s per 1,000: control plane", f"{measured.control_cpu:.2f}", "two agents, and the NATS server if any"),
        ("CPU s per 1,000: switches", f"{measured.switch_cpu:.2f}", ""),
    )
    lines = [f"two hosts, {target}, offers by {offers}; {where}"]
    lines += [f"  {what:<32} {value:>10}   {more}".rstrip() for what, value, more in rows]
    return "\n".join(lines)


def _rounded(milliseconds: float) -> float | None:
    """JSON has no NaN."""
    return None if milliseconds != milliseconds else round(milliseconds, 3)
