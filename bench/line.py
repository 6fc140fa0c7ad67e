"""The topology of all benchmarks: two endpoints, and one or two switches in a line between them.

One:  client (10.0.1.1) ── 16 switch 17 ── server (10.0.1.2)
Two:  client ── 16 switch 1 ── 1 switch 16 ── server
"""

from __future__ import annotations

from nvi.model import show_address, show_mac
from nvi.switch import PORT_FIRST_ENDPOINT, PORT_UNDERLAY

from .farm import endpoint, host
from .lab import Lab, Switch

CLIENT, SERVER = (endpoint(number, host(1)) for number in (1, 2))


class Line:
    """Two endpoints with switches between them. The switches have no program yet."""

    def __init__(self, lab: Lab, switches: int, target: str = "bmv2", first_device: int = 1) -> None:
        self.client, self.server, middle = lab.namespace(), lab.namespace(), lab.namespace()
        near, far = PORT_FIRST_ENDPOINT, PORT_FIRST_ENDPOINT + (switches == 1)
        ports = [{near: "client"}, {far: "server"}]
        if switches == 1:
            ports = [{**ports[0], **ports[1]}]
        else:
            lab.cable((middle, "left"), (middle, "right"))
            ports[0][PORT_UNDERLAY], ports[1][PORT_UNDERLAY] = "left", "right"
        lab.cable((self.client, "eth0"), (middle, "client"))
        lab.cable((self.server, "eth0"), (middle, "server"))
        self.switches: list[Switch] = [
            lab.switch(middle, first_device + index, each, target) for index, each in enumerate(ports)
        ]

    def configure(self) -> None:
        """Give the endpoints their addresses, and let them know each other's MAC."""
        for where, here, there in ((self.client, CLIENT, SERVER), (self.server, SERVER, CLIENT)):
            address = f"{show_address(here.address)}/24"
            where.run("ip", "link", "set", "eth0", "address", show_mac(here.mac))
            where.run("ip", "address", "add", address, "dev", "eth0")
            peer = (show_address(there.address), "lladdr", show_mac(there.mac))
            where.run("ip", "neighbour", "replace", *peer, "dev", "eth0", "nud", "permanent")
