"""The configuration of one host's agent, as people write it: YAML, or JSON, which is YAML.

farm: two-clouds
host: e9
site: east
addresses: [172.16.1.9]
external: {address: 198.51.100.1}
switch: {p4runtime: "unix:/run/nvi/p4rt.sock", device_id: 1}
api: /run/nvi/agent.sock
state: /var/lib/nvi/agent.json
nats: {servers: ["nats://10.0.0.1:4222"], nkey: /etc/nvi/e9.nk}
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

import msgspec
from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ..config import AgentConfig
from ..model import Address, External, Host, read_address, show_address
from ..nats.connection import NatsConfig
from ..nats.layout import Layout, token

POOL_LIMIT = 1024
"""Addresses that a host may keep for flows of protocols without ports."""


class HostFileError(Exception):
    """The configuration cannot be used. The text names the file and the place in it."""


class ExternalSide(Struct, frozen=True, forbid_unknown_fields=True):
    """The external side of a gateway."""

    address: str
    public: str | None = None
    """As the outside sees it: another one behind a 1:1 NAT."""
    interface: str = "nvi1"
    """The interface that carries the address."""


class SwitchAddress(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the host's switch is."""

    p4runtime: str = "unix:/run/nvi/p4rt.sock"
    """gRPC address: `unix:/path` or `127.0.0.1:9559`."""
    device_id: int = 1


class HostFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The file. Paths are of this machine."""

    farm: str
    host: str
    site: str
    addresses: tuple[str, ...]
    """Of the underlay, the preferred one of each family first."""
    nats: NatsConfig
    pool: tuple[str, ...] = ()
    """Further underlay addresses, or prefixes of them."""
    external: ExternalSide | None = None
    underlay: str = "nvi0"
    """The interface that carries the underlay addresses."""
    switch: SwitchAddress = SwitchAddress()
    api: str = "/run/nvi/agent.sock"
    state: str = "/var/lib/nvi/agent.json"
    netns: str | None = None
    """Path of the host's network namespace; None if it is the agent's own."""
    idle_timeout: float = 30.0
    """Seconds without a packet after which a connection leaves nothing behind."""
    punt_rate: int = 5000
    """Packets per second that one port may punt."""
    port: int = 0
    """TCP port for other agents while NATS is away; 0 for one that is free."""

    @property
    def layout(self) -> Layout:
        """Where the farm's things are in NATS. Raises ValueError."""
        return Layout(self.farm)

    def agent(self) -> AgentConfig:
        """The same for the agent itself. Raises ValueError with a sentence that names the key."""
        for name in (self.farm, self.host, self.site):
            token(name)
        if not self.addresses:
            raise ValueError("addresses: there is none; give the host's address in the underlay")
        external = self.external
        side = None
        if external is not None:
            address = _address("external.address", external.address)
            side = External(
                address, address if external.public is None else _address("external.public", external.public)
            )
        host = Host(
            self.host,
            self.site,
            tuple(_address("addresses", each) for each in self.addresses),
            tuple(address for each in self.pool for address in _addresses("pool", each)),
            side,
        )
        return AgentConfig(
            host=host,
            p4runtime=self.switch.p4runtime,
            device_id=self.switch.device_id,
            api=self.api,
            state=self.state,
            netns=self.netns,
            underlay=self.underlay,
            external="nvi1" if external is None else external.interface,
        )


def read_host_file(path: Path) -> HostFile:
    """Raises HostFileError."""
    try:
        document = YAML(typ="safe", pure=True).load(path.read_bytes())
        file = msgspec.convert(document, HostFile)
        file.agent()
    except OSError as error:
        raise HostFileError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (YAMLError, ValueError) as error:  # msgspec's errors are ValueErrors, too
        text = " ".join(str(error).split())
        raise HostFileError(f"the configuration {path} is not usable: {text}") from None
    return file


def write_host_file(agent: AgentConfig, farm: str, nats: NatsConfig, idle_timeout: float, punt_rate: int) -> bytes:
    """The same the other way round, as JSON."""
    host = agent.host
    side = None
    if host.external is not None:
        addresses = (show_address(host.external.address), show_address(host.external.public))
        side = ExternalSide(*addresses, interface=agent.external)
    file = HostFile(
        farm=farm,
        host=host.name,
        site=host.site,
        addresses=tuple(map(show_address, host.addresses)),
        nats=nats,
        pool=tuple(map(show_address, host.pool)),
        external=side,
        underlay=agent.underlay,
        switch=SwitchAddress(agent.p4runtime, agent.device_id),
        api=agent.api,
        state=agent.state,
        netns=agent.netns,
        idle_timeout=idle_timeout,
        punt_rate=punt_rate,
    )
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def _address(key: str, text: str) -> Address:
    try:
        return read_address(text)
    except ValueError:
        raise ValueError(f"{key}: {text!r} is not an IP address; write it like 172.16.0.1") from None


def _addresses(key: str, text: str) -> list[Address]:
    """Those of an address or a prefix."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}; write it like 172.16.2.64/29") from None
    if network.num_addresses > POOL_LIMIT:
        raise ValueError(f"{key}: {text} has more than {POOL_LIMIT} addresses; use a longer prefix")
    return [address.packed for address in network]
