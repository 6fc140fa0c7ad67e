"""An interactive prompt on a running farm: the commands of `nvi`, and programs in endpoints and hosts."""

from __future__ import annotations

import contextlib
import readline
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence

from .client import get, running_farm
from .errors import CommandError

_COMMANDS = ("connections", "endpoint", "endpoints", "exec", "exit", "help", "hosts", "status")

_HELP = """\
connections, endpoints, hosts, status     show what there is; --json for programs
endpoint add|remove NAME ...              endpoints come and go
NAME COMMAND...                           run a command in an endpoint or host; names of endpoints stand for their
                                          addresses:  acme-web1 ping -c 3 acme-web2
exit                                      end the farm and leave"""


def prompt() -> None:
    """Read commands and run them until `exit` or Ctrl-D."""
    readline.set_completer_delims(" ")
    readline.set_completer(_completer(lambda: [*_COMMANDS, *running_farm().nodes]))
    readline.parse_and_bind("tab: complete")
    print("The farm is yours: 'help' says what can be done, 'exit' ends it.")
    while True:
        try:
            line = input("nvi> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        try:
            words = shlex.split(line)
        except ValueError as error:
            print(f"not understood: {error}; close the quotes")
            continue
        if words in (["exit"], ["quit"]):
            return
        if words:
            with contextlib.suppress(KeyboardInterrupt):  # ends the command, not us
                _run(words)


def _run(words: Sequence[str]) -> None:
    if words[0] in ("help", "?"):
        print(_HELP)
        return
    try:
        command = translate(words)
    except CommandError as error:
        print(error)
        return
    subprocess.run([sys.executable, "-m", "nvi.cli", *command], check=False)


def translate(words: Sequence[str]) -> list[str]:
    """The arguments of `nvi` for a line of the prompt. Raises CommandError if the farm is gone."""
    if words[0] not in running_farm().nodes or len(words) == 1:
        return list(words)
    addresses = {endpoint["name"]: endpoint["address"] for endpoint in get("endpoints")["endpoints"]}
    return ["exec", words[0], "--", *(addresses.get(word, word) for word in words[1:])]


def _completer(candidates: Callable[[], Sequence[str]]) -> Callable[[str, int], str | None]:
    def complete(text: str, state: int) -> str | None:
        try:
            matches = [candidate for candidate in candidates() if candidate.startswith(text)]
        except CommandError:
            return None
        return f"{matches[state]} " if state < len(matches) else None

    return complete
