"""A real nats-server for each test that wants one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nvi.nats import server as nats_server

from .farm import Nats


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Nats]:
    """A server that knows the hosts h1, h2 and h3, and whoever runs the farm."""
    program = nats_server.find()
    if program is None:
        pytest.skip("there is no nats-server: scripts/setup.sh gets it on Debian and Ubuntu")
    nats = Nats(tmp_path, program)
    nats.start()
    try:
        yield nats
    finally:
        nats.close()
