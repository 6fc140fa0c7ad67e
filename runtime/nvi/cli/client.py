"""The commands' side of the supervisor's control socket (`nvi.emulation.control`).

It uses the standard library only: an HTTP client with more features takes longer to import than the command to run.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from ..emulation.rundir import DEFAULT, FarmRecord, RunError, State, explain, inspect
from .errors import FAILED, MISUSE, CommandError

_PATIENCE = 120.0
"""Seconds: `check` and `drain` take their time."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("farm", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def running_farm() -> FarmRecord:
    """The farm that runs on this machine. Raises CommandError if none does."""
    try:
        state, record = inspect(DEFAULT)
    except RunError as error:
        raise CommandError(str(error)) from None
    if state is State.ABSENT:
        raise CommandError("no farm is running; start one with 'nvi up topologies/leaf-spine.yaml'")
    if state is State.STALE:
        raise CommandError(explain(DEFAULT))
    if record is None:
        raise CommandError("the farm is not up yet; try again in a moment")
    return record


def get(resource: str, **query: str | None) -> dict[str, Any]:
    """What the farm says about something. Raises CommandError."""
    given = {key: value for key, value in query.items() if value is not None}
    answer: dict[str, Any] = _request("GET", f"/{resource}" + (f"?{urlencode(given)}" if given else ""))
    return answer


def put_endpoint(name: str, properties: Mapping[str, str | None]) -> dict[str, Any]:
    """Add an endpoint; returns what `nvi endpoints` shows of it. Raises CommandError."""
    answer: dict[str, Any] = _request("PUT", f"/endpoints/{quote(name, safe='')}", properties)
    return answer


def delete_endpoint(name: str) -> None:
    """Remove an endpoint. Raises CommandError."""
    _request("DELETE", f"/endpoints/{quote(name, safe='')}")


def move_endpoint(name: str, host: str) -> dict[str, Any]:
    """Move an endpoint; returns what `nvi endpoints` shows of it. Raises CommandError."""
    answer: dict[str, Any] = _request("PUT", f"/endpoints/{quote(name, safe='')}/host", {"host": host})
    return answer


def drain_host(name: str) -> dict[str, Any]:
    """Move the endpoints of a host elsewhere; returns what `nvi endpoints` shows of them. Raises CommandError."""
    answer: dict[str, Any] = _request("POST", f"/hosts/{quote(name, safe='')}/drain")
    return answer


def change_services(*, publish: bool, **publication: str) -> dict[str, Any]:
    """Publish a service, or take it back; returns what `nvi services` shows. Raises CommandError."""
    answer: dict[str, Any] = _request("POST", "/services" if publish else "/services/withdrawn", publication)
    return answer


def change_policy(**change: Any) -> dict[str, Any]:
    """Change a tenant's policy; returns what `nvi policies` shows. Raises CommandError."""
    answer: dict[str, Any] = _request("POST", "/policies", change)
    return answer


def _request(method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    farm = running_farm()
    connection = _UnixConnection(DEFAULT / "farm.sock")
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        content = json.loads(response.read() or b"null")
    except (FileNotFoundError, ConnectionRefusedError):
        raise CommandError(f"the farm {farm.farm!r} is not up yet; try again in a moment") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise CommandError(
            f"the supervisor of the farm {farm.farm!r} (pid {farm.supervisor.pid}) does not answer ({reason}); "
            "see its output, or end it with 'nvi down'"
        ) from None
    finally:
        connection.close()
    if response.status < 400:
        return content
    message = content["error"] if isinstance(content, dict) and "error" in content else f"{method} {path} failed"
    raise CommandError(message, MISUSE if response.status in (400, 404) else FAILED)
