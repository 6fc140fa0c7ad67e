"""The topology of all benchmarks: two endpoints, and one or two switches in a line between them.

One:  client (10.0.1.1) ── 16 switch 17 ── server (10.0.1.2)
Two:  client ── 16 switch 1 ── 1 switch 16 ── server

Endpoints and switches have a network namespace each.
"""

from __future__ import annotations

import subprocess
import sys

import msgspec

from ..emulation.targets import Target
from ..model import show_address, show_mac
from ..switch import PORT_FIRST_ENDPOINT, PORT_UNDERLAY
from .ends import CLIENT, SERVER
from .lab import Lab, LabError, Namespace, Switch
from .traffic import Report


class Wires:
    """The namespaces of a line, with cables between them."""

    def __init__(self, lab: Lab, switches: int) -> None:
        self.client, self.server = lab.namespace(), lab.namespace()
        self.middle: list[tuple[Namespace, dict[int, str]]] = [(lab.namespace(), {}) for _ in range(switches)]
        """For each switch, where it is to be, and its interfaces by port."""
        (first, near), (last, far) = self.middle[0], self.middle[-1]
        near[PORT_FIRST_ENDPOINT], far[PORT_FIRST_ENDPOINT + (switches == 1)] = "client", "server"
        lab.cable((self.client, "eth0"), (first, "client"))
        lab.cable((self.server, "eth0"), (last, "server"))
        if switches == 2:
            near[PORT_UNDERLAY] = far[PORT_UNDERLAY] = "underlay0"
            lab.cable((first, "underlay0"), (last, "underlay0"))

    def configure(self) -> None:
        """Give the endpoints their addresses, and let them know each other's MAC."""
        for where, here, there in ((self.client, CLIENT, SERVER), (self.server, SERVER, CLIENT)):
            address = f"{show_address(here.address)}/24"
            where.run("ip", "link", "set", "eth0", "address", show_mac(here.mac))
            where.run("ip", "address", "add", address, "dev", "eth0")
            peer = (show_address(there.address), "lladdr", show_mac(there.mac))
            where.run("ip", "neighbour", "replace", *peer, "dev", "eth0", "nud", "permanent")


class Line(Wires):
    """Two endpoints with P4 switches between them. The switches have no program yet."""

    def __init__(self, lab: Lab, switches: int, target: Target = "bmv2", first_device: int = 1) -> None:
        super().__init__(lab, switches)
        self.switches: list[Switch] = [
            lab.switch(where, device_id, ports, target)
            for device_id, (where, ports) in enumerate(self.middle, first_device)
        ]

    def cpu_seconds(self) -> float:
        """CPU time that the switches have used."""
        return sum(switch.cpu_seconds() for switch in self.switches)


def generate(lab: Lab, line: Wires, mode: str, first: int, count: int, argument: float) -> Report:
    """Run the generator to its end. `first`: number of the first connection. Raises LabError."""
    pids = (str(where.pid) for where in (line.client, line.server))
    command = (sys.executable, "-m", "nvi.bench.traffic", mode, *pids, str(first), str(count), str(argument))
    process = lab.spawn(None, *command, stdout=subprocess.PIPE)
    said = process.communicate()[0]
    if process.returncode:
        raise LabError(f"the load generator ended with status {process.returncode}")
    return msgspec.json.decode(said, type=Report)
