"""What an agent must not forget across restarts: how often it has started, and which endpoints it was told of.

Connections are not among it. They are in the switch, which the agent reads back.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
from msgspec import Struct

from ..model import Endpoint
from .files import replace_file
from .notation import NamedEndpoint

SCHEMA = 1
"""Of the file. An agent reads no other."""


class StateError(Exception):
    """The state cannot be read or kept. The text names the file, the reason and the remedy."""


class _Contents(Struct, forbid_unknown_fields=True):
    """The file."""

    schema: int
    epoch: int
    endpoints: list[NamedEndpoint]


class StateFile:
    """The state of one host's agent, kept in a file. Every change is on the disk when the call returns."""

    def __init__(self, path: str | Path | None) -> None:
        """`path`: of the file, which need not exist yet; None keeps nothing, for tests."""
        self.epoch = 0
        """Greater at each start of the agent, also when the file was lost."""
        self.endpoints: dict[str, tuple[Endpoint, int]] = {}
        """By name: the endpoint and its port. To be changed by `put` and `remove` only."""
        self._path = None if path is None else Path(path)

    def open(self) -> None:
        """Read what there is, and begin a new epoch. Raises StateError."""
        contents = self._read()
        if contents is None:
            # Peers refuse what is older than what they have heard before, and a switch keeps to the highest election
            # id. An agent whose file was lost would start at 1 and be ignored, so the clock counts instead.
            self.epoch = max(self.epoch + 1, int(time.time()))
        else:
            self.epoch = contents.epoch + 1
            self.endpoints = self._understand(contents)
        self._write()

    def put(self, endpoint: Endpoint, port: int) -> None:
        """Remember an endpoint and its port, in place of what was known of its name. Raises StateError."""
        if self.endpoints.get(endpoint.name) != (endpoint, port):
            self._change({**self.endpoints, endpoint.name: (endpoint, port)})

    def remove(self, name: str) -> None:
        """Forget an endpoint, if it is known. Raises StateError."""
        if name in self.endpoints:
            self._change({other: known for other, known in self.endpoints.items() if other != name})

    def _change(self, endpoints: dict[str, tuple[Endpoint, int]]) -> None:
        """What could not be written has not happened."""
        before, self.endpoints = self.endpoints, endpoints
        try:
            self._write()
        except StateError:
            self.endpoints = before
            raise

    def _read(self) -> _Contents | None:
        if self._path is None:
            return None
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot read the state file {self._path}: {error.strerror}; give access to it") from None
        try:
            schema = msgspec.json.decode(data, type=dict[str, object]).get("schema")
            if schema != SCHEMA:
                raise ValueError(f"its schema is {schema!r}, and this agent knows only {SCHEMA}")
            return msgspec.json.decode(data, type=_Contents)
        except ValueError as error:  # msgspec's errors are ValueErrors, too
            raise self._unusable(error) from None

    def _understand(self, contents: _Contents) -> dict[str, tuple[Endpoint, int]]:
        try:
            return {each.name: each.read(each.name, each.host) for each in contents.endpoints}
        except ValueError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: ValueError) -> StateError:
        return StateError(
            f"the state file {self._path} is not usable: {error}; put back the right one, or move it away: "
            "the agent then starts without endpoints, until its orchestrator names them again"
        )

    def _write(self) -> None:
        """Replace the file as a whole, such that after a power failure it is the old or the new one."""
        if self._path is None:
            return
        endpoints = [NamedEndpoint.of(*self.endpoints[name]) for name in sorted(self.endpoints)]
        contents = msgspec.json.encode(_Contents(SCHEMA, self.epoch, endpoints))
        try:
            replace_file(self._path, msgspec.json.format(contents, indent=1) + b"\n")
        except OSError as error:
            raise StateError(
                f"cannot write the state file {self._path}: {error.strerror}; make its directory writable, with room"
            ) from None
