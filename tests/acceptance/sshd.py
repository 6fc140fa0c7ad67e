"""A real sshd in an endpoint, with keys of its own, and a real ssh that talks to it.

sshd insists on a user of that name, a directory in /run and what is in /etc: it gets them in a mount namespace of its
own, and the machine's stay as they are.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from .farm import Farm

Say = Callable[[str], str]
"""Run a command in the session; returns what it printed, without the last newline."""

_DONE = "-- that was all"


class Sshd:
    """An sshd that runs meanwhile, as root of an endpoint."""

    def __init__(self, farm: Farm, where: str, port: int = 22) -> None:
        self._farm, self._where, self._port = farm, where, port
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Sshd:
        self._files = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nvi-sshd-")))
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._files / name], check=True)
        root = pwd.getpwuid(0)
        (self._files / "passwd").write_text(
            f"root:x:0:0:root:{root.pw_dir}:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
        )
        (self._files / "shadow").write_text("root:*:19000:0:99999:7:::\n")
        (self._files / "config").write_text(
            f"Port {self._port}\nHostKey {self._files}/host\nAuthorizedKeysFile {self._files}/user.pub\n"
            "UsePAM no\nStrictModes no\nPermitRootLogin yes\nPidFile none\nUseDNS no\n"
        )
        program = shutil.which("sshd", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin")
        script = (
            f"mount --make-rprivate / && mount --bind {self._files}/passwd /etc/passwd && "
            f"mount --bind {self._files}/shadow /etc/shadow && mount -t tmpfs none /run && mkdir /run/sshd && "
            f"exec {program} -D -e -f {self._files}/config"
        )
        running = self._farm.running(self._where, "unshare", "-m", "sh", "-c", script)
        process = self._stack.enter_context(running)
        listens = f":{self._port} "
        self._farm.wait_for(
            lambda: process.poll() is not None or listens in self._farm.exec(self._where, "ss", "-lnt"), "sshd listens"
        )
        assert process.poll() is None, process.communicate()[0]
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def session(self, client: str, address: str) -> Iterator[Say]:
        """One ssh from an endpoint, in which one command after the other is run."""
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes",
                   "ConnectTimeout=30")  # fmt: skip
        command = ["ssh", "-F", "none", "-p", str(self._port), "-i", str(self._files / "user"), "-T"]
        command += [word for option in options for word in ("-o", option)]
        process = subprocess.Popen(
            [sys.executable, "-m", "nvi.cli", "exec", client, "--", *command, f"root@{address}", "sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None

        def say(text: str) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{text}; echo; echo {_DONE}\n")
            process.stdin.flush()
            printed = ""
            while not printed.endswith(f"\n{_DONE}\n"):
                line = process.stdout.readline()
                assert line, f"ssh has ended: {printed}"
                printed += line
            return printed.removesuffix(f"\n{_DONE}\n").rstrip("\n")

        try:
            yield say
            process.communicate("exit\n", timeout=30)
            assert process.returncode == 0
        finally:
            process.kill()
            process.wait()
