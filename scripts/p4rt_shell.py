# SPDX-License-Identifier: Apache-2.0
"""p4runtime-shell on the switch of a running host, as a backup: the host's agent stays the primary.

    make shell HOST=bj1
    echo 'for e in table_entry["NviIngress.connections.connections"].read(): print(e)' | make shell HOST=bj1

It runs in `.venv-shell`, so it knows nothing of the package `nvi`; what it needs to know is in the run directory.
"""

import json
import os
import sys
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


def run_standard_input(user_ns: dict[str, Any], **_: Any) -> None:
    """In place of an interactive session: run what comes in, and print what an interactive session would."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance(user_ns=user_ns)
    if not shell.run_cell(sys.stdin.read()).success:
        sys.exit(1)


def main() -> None:
    address, device_id = find_switch(sys.argv[1])
    # IPython would leave its history and profile in the home directory, whoever's it is.
    import tempfile

    with tempfile.TemporaryDirectory(prefix="nvi-shell-") as home:
        os.environ["IPYTHONDIR"] = home
        from p4runtime_sh import shell

        if not sys.stdin.isatty():
            shell.start_ipython = run_standard_input
        sys.argv[1:] = ["--grpc-addr", address, "--device-id", str(device_id), "--election-id", _ELECTION_ID]
        shell.main()


if __name__ == "__main__":
    main()
