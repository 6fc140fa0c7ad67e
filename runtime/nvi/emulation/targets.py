"""The switches that a farm can run, and how each is started."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from ..switch import PORT_CPU
from .plan import BMV2_THRIFT_PORT

Target = Literal["bmv2", "embedded"]
TARGETS: tuple[Target, ...] = get_args(Target)

_BMV2 = "simple_switch_grpc"


def available() -> list[Target]:
    """The targets of this machine, the best one first."""
    return ["bmv2", "embedded"] if shutil.which(_BMV2) else ["embedded"]


def command(target: Target, device_id: int, directory: Path, ports: Mapping[int, str]) -> list[str]:
    """What starts a switch that serves P4Runtime at `directory/p4rt.sock`. `ports`: interface by port number."""
    plugs = [f"{port}@{interface}" for port, interface in ports.items()]
    address = f"unix:{directory / 'p4rt.sock'}"
    if target == "embedded":
        options = [option for plug in plugs for option in ("--port", plug)]
        start = [sys.executable, "-m", "nvi.embedded", "switch", "--device-id", str(device_id), "--p4runtime", address]
        return [*start, *options, "--cpu-port", str(PORT_CPU)]
    options = [option for plug in plugs for option in ("-i", plug)]
    start = [_BMV2, "--no-p4", "--device-id", str(device_id), "--log-level", "off"]
    own = ["--grpc-server-addr", address, "--cpu-port", str(PORT_CPU)]
    return [*start, *_optional(directory), *options, "--", *own]


def _optional(directory: Path) -> list[str]:
    """Options that depend on how BMv2 was built: its other servers, confined to the host."""
    known = _bmv2_help()
    options = {
        "--thrift-port": str(BMV2_THRIFT_PORT),
        "--notifications-addr": f"ipc://{directory / 'notifications.ipc'}",
    }
    return [word for option, value in options.items() if option in known for word in (option, value)]


@cache
def _bmv2_help() -> str:
    result = subprocess.run([_BMV2, "--help"], capture_output=True, text=True, check=False)
    return result.stdout + result.stderr
