"""HTTP on a UNIX socket that only its owner may open: an agent's local API, a farm's control socket."""

from __future__ import annotations

import contextlib
import socket
import stat
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

_LONGEST_PATH = 107
"""Bytes of a UNIX socket's path (`sun_path` in unix(7), without its terminator)."""


class UnixServer:
    """Serves one application at one path."""

    def __init__(self, application: Starlette, path: str | Path) -> None:
        """`path`: of the socket."""
        self._path = Path(path)
        self._inode = 0
        self._config = uvicorn.Config(
            application,
            http="h11",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",
            date_header=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(self._config)

    async def start(self) -> None:
        """Accept requests once this returns. Raises OSError with a sentence if the socket cannot be had."""
        sock = _bind(self._path)
        self._inode = self._path.stat().st_ino
        # What Server.serve does, without its signal handlers, and without its loop, which wakes up ten times a second
        # to renew a header that we do not send.
        self._config.load()
        self._server.lifespan = self._config.lifespan_class(self._config)
        await self._server.startup(sockets=[sock])

    async def stop(self) -> None:
        """Answer what has been asked, and take the socket away."""
        if not self._server.started:
            return
        await self._server.shutdown()
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:  # not the successor's
                self._path.unlink()


def _bind(path: Path) -> socket.socket:
    """A socket at `path` that only its owner may open. Raises OSError with a sentence."""
    if len(bytes(path)) > _LONGEST_PATH:
        raise OSError(f"the path of the socket {path} is longer than {_LONGEST_PATH} bytes; choose a shorter one")
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(bytes(path))
        path.chmod(0o600)  # nobody can have connected yet: nothing listens
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot make the socket {path}: {error.strerror}; check the directory") from None
    return sock


def _clear(path: Path) -> None:
    """Remove what a server that was killed has left behind."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # nothing there, or nothing that we may see: then bind says why
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(f"{path}, where a socket belongs, is something else; choose another path, or move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(bytes(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass
    raise OSError(f"another process serves {path}; stop that one first, or choose another path")
