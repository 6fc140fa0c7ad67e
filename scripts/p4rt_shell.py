# SPDX-License-Identifier: Apache-2.0
"""p4runtime-shell on the switch of a running host, as a backup: the host's agent stays the primary.

    make shell HOST=bj1
    echo 'for e in table_entry["NviIngress.connections.connections"].read(): print(e)' | make shell HOST=bj1

It runs in `.venv-shell`, so it knows nothing of the package `nvi`; what it needs to know is in the run directory.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

# p4runtime-shell pins a protobuf whose C++ part exists for few Pythons.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

_RUN = Path(os.environ.get("NVI_RUN_DIR", "/run/nvi"))
_ELECTION_ID = "0,1"  # below every agent's


def find_switch(host: str) -> tuple[str, int]:
    """(address, device id) of a host's switch. Exits if there is none."""
    try:
        agents = json.loads((_RUN / "agents.json").read_text())["agents"]
    except OSError:
        sys.exit("make shell: no farm is running; start one with 'nvi up topologies/leaf-spine.yaml --detach'")
    for agent in agents:
        if agent["host"]["name"] == host:
            return agent["p4runtime"], agent["device_id"]
    names = ", ".join(agent["host"]["name"] for agent in agents)
    sys.exit(f"make shell: there is no host {host!r}; use HOST= with one of: {names}")


def run_standard_input(user_ns: dict[str, Any], config: Any) -> bool:
    """Run what comes in, and print what an interactive session would print; False if it failed."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance(user_ns=user_ns, config=config)
    shell.colors = "NoColor"
    return bool(shell.run_cell(sys.stdin.read()).success)


def main() -> int:
    """Returns the exit status."""
    address, device_id = find_switch(sys.argv[1])
    sys.argv[1:] = ["--grpc-addr", address, "--device-id", str(device_id), "--election-id", _ELECTION_ID]
    # IPython would leave its history and profile in the home directory, whoever's it is.
    with tempfile.TemporaryDirectory(prefix="nvi-shell-") as home:
        os.environ["IPYTHONDIR"] = home
        from p4runtime_sh import shell

        interactive, succeeded = shell.start_ipython, True

        def start(user_ns: dict[str, Any], config: Any, argv: list[str]) -> None:
            nonlocal succeeded
            config.HistoryManager.enabled = False
            if sys.stdin.isatty():
                interactive(user_ns=user_ns, config=config, argv=argv)
            else:
                succeeded = run_standard_input(user_ns, config)

        shell.start_ipython = start
        shell.main()
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
