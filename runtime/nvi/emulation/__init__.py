"""A farm on one machine, with Mininet: hosts and endpoints as network namespaces, switches and agents as processes.

`plan` says what to build, `nodes` builds it, `farm` runs it, `supervisor` owns it, `rundir` is how others find it and
how nothing is ever left behind.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["host", "endpoint", "router"]
"""What a namespace is."""
