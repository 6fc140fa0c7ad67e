"""A fake switch on a UNIX socket, and sessions with it that are closed afterwards."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from nvi.p4rt import session as session_module
from nvi.p4rt.session import Session
from nvi.switch import Punt
from p4rt.fake import FakeSwitch


class Recorded:
    """A session, and what it has called back."""

    def __init__(self, address: str, device_id: int, election_id: int) -> None:
        self.primary: list[bool] = []
        self.fresh: list[bool] = []
        self.punts: list[Punt] = []
        self.session = Session(
            address, device_id, election_id, on_punt=self.punts.append, on_primary=self._note_primary
        )

    def _note_primary(self, primary: bool) -> None:
        self.primary.append(primary)
        if primary:
            self.fresh.append(self.session.fresh)

    async def until(self, condition: Callable[[Recorded], bool], seconds: float = 5.0) -> None:
        """Wait until it is so."""
        async with asyncio.timeout(seconds):
            while not condition(self):  # noqa: ASYNC110
                await asyncio.sleep(0.002)


@pytest.fixture
def socket() -> Iterator[str]:
    """A path that is short enough for a UNIX socket."""
    with tempfile.TemporaryDirectory() as directory:
        yield f"unix:{Path(directory) / 'switch.sock'}"


@pytest.fixture
async def switch(socket: str) -> AsyncIterator[FakeSwitch]:
    fake = FakeSwitch()
    await fake.start(socket)
    yield fake
    await fake.stop()


@pytest.fixture
async def connect(socket: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Recorded]]:
    """Makes sessions with the switch at the socket."""
    monkeypatch.setattr(session_module, "BACKOFF_FIRST", 0.01)
    monkeypatch.setattr(session_module, "BACKOFF_LAST", 0.05)
    made: list[Recorded] = []

    def make(election_id: int = 100, device_id: int = 1, address: str = socket) -> Recorded:
        made.append(Recorded(address, device_id, election_id))
        return made[-1]

    yield make
    for recorded in made:
        await recorded.session.close()
