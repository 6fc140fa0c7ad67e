"""Connection set-up side by side: NVI's agents over BMv2, and a reactive OpenFlow controller over Open vSwitch.

Both connect two endpoints of two hosts by rewriting headers at both ends: four entries at two switches for each
connection. NVI twice: offers and directory in memory, and by a NATS server. The peer is what the original system was
made of: one controller (`reactive.py`, on os-ken) for two Open vSwitches, whose datapath runs in user space as BMv2's
does. Same generator, same cables, in turns.

Open vSwitch and os-ken are nowhere in the system: `scripts/setup.sh openflow` puts them into .venv-openflow.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import uvloop
from msgspec import structs

from nvi.bench.ends import CLIENT, SERVER, host
from nvi.bench.farm import Farm
from nvi.bench.lab import Lab, LabError, Namespace, cpu_seconds, need, wait_for
from nvi.bench.line import Line, Wires
from nvi.bench.setup import Contender, Load, Measured, in_turns
from nvi.model import derive_mac, show_address, show_mac
from nvi.switch import PORT_FIRST_ENDPOINT, PORT_UNDERLAY

from .report import Result, main

PEER_WINDOW = 4
"""First packets under way at the peer. With more, it sets up no more connections, and loses more first packets."""

_VENV = Path(__file__).parents[1] / ".venv-openflow"
_REMEDY = "run 'sh scripts/setup.sh openflow'"
_PORT = 6653
_CONTROL = ("192.0.2.1", "192.0.2.2")
"""The network by which the far switch reaches the controller."""


def benchmark() -> list[Result]:
    """See above."""
    memory, nats, peer = uvloop.run(measure(Load()))
    return [
        *compare("memory", memory, peer, "at least 1.5, aim 2.0"),
        *compare("nats", nats, peer, "at least 1.5"),
    ]


async def measure(load: Load) -> tuple[Measured, Measured, Measured]:
    """NVI with memory, NVI with NATS, OpenFlow."""
    with Lab() as lab:
        programs = OpenVSwitch.find()
        lines = [Line(lab, 2, first_device=number) for number in (1, 11)]
        openflow = OpenFlow(lab, programs)
        async with (
            Farm(*((each, 1) for each in lines[0].switches)) as memory,
            Farm(*((each, 1) for each in lines[1].switches), nats=lab.directory) as nats,
        ):
            ours = [
                Contender(lab, line, load, farm.control_seconds, line.cpu_seconds)
                for line, farm in zip(lines, (memory, nats), strict=True)
            ]
            its_load = structs.replace(load, window=PEER_WINDOW)
            peer = Contender(lab, openflow, its_load, openflow.control_seconds, openflow.cpu_seconds)
            await asyncio.to_thread(in_turns, *ours, peer)
        return ours[0].measured(), ours[1].measured(), peer.measured()


def compare(offers: str, ours: Measured, peer: Measured, rate_bound: str) -> list[Result]:
    """NVI with these offers, against OpenFlow."""

    def row(what: str, mine: str, theirs: str, ratio: float | None, bound: str = "") -> Result:
        return Result(f"{what}, agents on BMv2 ({offers}) : OpenFlow", mine, theirs, ratio, bound)

    return [
        row(
            "connections/s",
            f"{ours.rate:.0f}/s, {ours.lost} lost",
            f"{peer.rate:.0f}/s, {peer.lost} of {peer.connections} lost",
            ours.rate / peer.rate,
            rate_bound,
        ),
        row(
            "round trip p50",
            f"{ours.p50:.2f} ms",
            f"{peer.p50:.2f} ms",
            ours.p50 / peer.p50,
        ),
        row(
            "round trip p99",
            f"{ours.p99:.2f} ms, {ours.unanswered} lost",
            f"{peer.p99:.2f} ms, {peer.unanswered} of {peer.unanswered + peer.round_trips} lost",
            ours.p99 / peer.p99,
            "below 1, none lost",
        ),
        row(
            "control CPU s/1000",
            f"{ours.control_cpu:.2f}",
            f"{peer.control_cpu:.2f}",
            ours.control_cpu / peer.control_cpu,
            "at most 0.5",
        ),
        row(
            "switch CPU s/1000",
            f"{ours.switch_cpu:.2f}",
            f"{peer.switch_cpu:.2f}",
            ours.switch_cpu / peer.switch_cpu,
        ),
    ]


class OpenVSwitch:
    """The programs of Open vSwitch, installed or only unpacked."""

    def __init__(self, root: Path) -> None:
        self.schema = root / "usr/share/openvswitch/vswitch.ovsschema"
        self.tool, self.vsctl = root / "usr/bin/ovsdb-tool", root / "usr/bin/ovs-vsctl"
        self.database = root / "usr/sbin/ovsdb-server"
        self.switch = root / "usr/lib/openvswitch-switch/ovs-vswitchd"

    @classmethod
    def find(cls) -> OpenVSwitch:
        """Raises LabError."""
        for root in (_VENV / "ovs", Path("/")):
            found = cls(root)
            if all(each.exists() for each in (found.schema, found.tool, found.vsctl, found.database, found.switch)):
                return found
        raise LabError(f"there is no Open vSwitch: {_REMEDY}")


class OpenFlow(Wires):
    """Two Open vSwitches between the endpoints, each with processes of its own, and their controller."""

    def __init__(self, lab: Lab, programs: OpenVSwitch) -> None:
        super().__init__(lab, 2)
        self._lab = lab
        self._programs = programs
        namespaces = [namespace for namespace, _ in self.middle]
        lab.cable((namespaces[0], "control"), (namespaces[1], "control"))
        for namespace, address in zip(namespaces, _CONTROL, strict=True):
            namespace.run("ip", "address", "add", f"{address}/30", "dev", "control")
        python = need(str(_VENV / "bin/python"), _REMEDY)
        ready = lab.directory / "reactive"
        command = (python, str(Path(__file__).with_name("reactive.py")), str(_PORT), json.dumps(_description()))
        self._controller = lab.spawn(namespaces[0], *command, stdout=ready.open("w"))
        self._processes = [
            process
            for number, (namespace, ports) in enumerate(self.middle, 1)
            for process in self._switch(number, namespace, ports)
        ]
        wait_for(lambda: bool(ready.read_text()), "the OpenFlow controller", self._controller)

    def control_seconds(self) -> float:
        """CPU time that the controller has used."""
        return cpu_seconds(self._controller.pid)

    def cpu_seconds(self) -> float:
        """CPU time that the switches have used."""
        return sum(map(cpu_seconds, self._processes))

    def _switch(self, number: int, namespace: Namespace, ports: dict[int, str]) -> Sequence[int]:
        """Start one. Returns its processes' ids."""
        programs, run = self._programs, self._lab.directory / f"ovs{number}"
        run.mkdir()
        own = [f"OVS_{each}DIR={run}" for each in ("RUN", "LOG", "DB", "SYSCONF")]
        inside = ("env", *own)
        socket, bridge = run / "db.sock", f"br{number}"
        namespace.run(*inside, str(programs.tool), "create", str(run / "conf.db"), str(programs.schema))
        database = self._lab.spawn(
            namespace, *inside, str(programs.database), str(run / "conf.db"), f"--remote=punix:{socket}"
        )
        wait_for(socket.exists, "ovsdb-server", database)
        switch = self._lab.spawn(namespace, *inside, str(programs.switch), f"unix:{socket}")
        orders = [
            f"add-br {bridge}",
            f"set bridge {bridge} datapath_type=netdev protocols=OpenFlow13 fail_mode=secure",
            f"set bridge {bridge} other-config:datapath-id={number:016x} other-config:disable-in-band=true",
            *(
                f"add-port {bridge} {name} -- set interface {name} ofport_request={port}"
                for port, name in ports.items()
            ),
            f"set-controller {bridge} tcp:{_CONTROL[0]}:{_PORT}",
        ]
        vsctl = (str(programs.vsctl), f"--db=unix:{socket}", "--timeout=20", "--no-syslog")
        namespace.run(*inside, *vsctl, *" -- ".join(orders).split())
        return database.pid, switch.pid


def _description() -> dict[str, object]:
    """What the controller has to know of the farm."""
    hosts = []
    for number, endpoint in enumerate((CLIENT, SERVER), 1):
        address = host(number).addresses[0]
        hosts.append(
            {
                "id": number,
                "mac": show_mac(derive_mac("host", address.hex())),
                "address": show_address(address),
                "endpoint_mac": show_mac(endpoint.mac),
                "endpoint_address": show_address(endpoint.address),
            }
        )
    return {"wire": PORT_UNDERLAY, "port": PORT_FIRST_ENDPOINT, "hosts": hosts}


if __name__ == "__main__":
    main(benchmark)
