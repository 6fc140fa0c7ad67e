"""A farm on one machine, with Mininet: hosts and endpoints as network namespaces, switches and agents as processes.

`plan` says what to build (of `parts`: hosts, `routers` and the world `outside`), `nodes` builds it, `farm` runs it,
`supervisor` owns it, `rundir` is how others find it and how nothing is ever left behind.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["host", "endpoint", "router", "outside"]
"""What a namespace is."""
