"""`nvi exec`: a program inside an endpoint or a host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import NoReturn

from ..emulation.processes import RUN_VARIABLE
from ..suggest import suggest
from .client import running_farm
from .errors import MISUSE, CommandError

_NOT_FOUND = 127
"""Exit status of shells for a program that is not there."""


def execute(name: str, command: Sequence[str]) -> NoReturn:
    """Become that program: its standard streams, terminal, signals and exit status are ours. Raises CommandError."""
    if not command:
        raise CommandError(f"what is to run in {name}? Name a program: nvi exec {name} -- ip addr", MISUSE)
    farm = running_farm()
    node = farm.nodes.get(name)
    if node is None:
        remedy = suggest(name, farm.nodes, noun="endpoint or host")
        raise CommandError(f"there is no endpoint or host {name!r} in the farm {farm.farm!r}; {remedy}", MISUSE)
    if shutil.which(command[0]) is None:
        raise CommandError(f"there is no program {command[0]!r}; check its name and PATH", _NOT_FOUND)
    environment = {**os.environ, RUN_VARIABLE: farm.run}
    try:
        os.execvpe("mnexec", ["mnexec", "-a", str(node.pid), *command], environment)
    except OSError as error:
        raise CommandError(f"cannot run mnexec: {error.strerror}; run 'make setup', which installs Mininet") from None
