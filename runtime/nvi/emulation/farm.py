"""A farm on this machine: its namespaces, its switches, its agents; and the orchestrator of its hosts.

The orchestrator's part is small: it knows which endpoints there are, and tells each agent its own whenever that agent
starts. Nothing else of the farm is told to anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from .. import model
from ..agent.hostfile import write_host_file
from ..config import AgentConfig, FarmConfig
from ..model import Endpoint, read_address, show_address, show_mac, show_protocol
from ..suggest import suggest
from ..topology import Topology, TopologyHost
from . import targets, views
from .agents import AgentClient, AgentError, AgentRefused
from .messaging import Messaging, MessagingError
from .nodes import Nodes, SetupError
from .placement import Conflict, Misuse, Request, place, refuge
from .plan import endpoint_node, make_plan, spare_interface, switch_ports
from .policies import PolicyChange, changed
from .probing import check_view, probe
from .processes import RUN_VARIABLE, ProcessId, Service, rotate
from .publishing import Publication, check_free, service_of, services_view
from .rundir import FarmNode, FarmRecord, RunDirectory
from .targets import Target

_T = TypeVar("_T")

_SWITCH_PATIENCE = 120.0
_AGENT_PATIENCE = 120.0
_STATUS_PATIENCE = 3.0
_TELL_PATIENCE = 5.0
_HOPELESS = 3
"""A program that has died so often while the farm is being brought up will not come up."""
_POLL = 0.05
_LOG_LIMIT = 4 << 20
"""Bytes. There is one log for each switch and process of agents, and one of each before it; /run is memory."""
_LOG_INTERVAL = 10.0
_PRIMARY = "primary"
"""The state of an agent that has its switch."""


class FarmError(Exception):
    """The farm cannot be brought up. The text says what failed, where, and what to do."""


class Placed(Struct, frozen=True):
    """An endpoint and its switch port."""

    endpoint: Endpoint
    port: int


class Farm:
    """All that runs for one topology. `up` and `down` are called once, by the supervisor."""

    def __init__(
        self,
        topology: Topology,
        file: Path,
        target: Target,
        directory: RunDirectory,
        say: Callable[[str], None],
        servers: int = 0,
    ) -> None:
        """`say` is told, in sentences, what goes on.

        `servers`: how many NATS servers hold together the agents, each a process of its own; 0: one process has all.
        """
        self.topology = topology
        self.target = target
        self._servers = servers
        self._messaging: Messaging | None = None
        self._file = file
        self._directory = directory
        self._say = say
        self._run = uuid.uuid4().hex
        self._nodes = Nodes()
        self._plan = make_plan(topology)
        self._spares = {host: list(ports) for host, ports in self._plan.spares.items()}
        self._placed = {
            endpoint.name: Placed(endpoint, self._plan.ports[endpoint.host][endpoint.name])
            for endpoint in topology.endpoints.values()
        }
        self._tenants = dict(topology.tenants)
        self._services = list(topology.services)
        self._switches: dict[str, Service] = {}
        self._agents: dict[str, Service] = {}
        """By host; one and the same if they are in one process."""
        self._clients: dict[str, AgentClient] = {}
        self._started: dict[str, asyncio.Event] = {host: asyncio.Event() for host in topology.hosts}
        """Set when the agent of a host has started, until its orchestrator has seen it."""
        self._briefed: set[str] = set()
        """Hosts whose agent has been told its endpoints since it started."""
        self._open: set[str] = set()
        """Gateways whose agent has been told what is published there since it started."""
        self._orchestrators: list[asyncio.Task[None]] = []
        self._log_keeper: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    # Up and down

    async def up(self) -> None:
        """Build everything, and return when the first packet may be sent. Raises FarmError or SetupError."""
        os.environ[RUN_VARIABLE] = self._run
        began = time.monotonic()
        self._publish()
        self._log_keeper = asyncio.create_task(self._keep_logs_small(), name="log keeper")
        await self._build()
        began = self._took(began, "network namespaces and cables are there")
        await self._start_switches()
        began = self._took(began, f"switches ({self.target}) are up")
        if self._servers:
            await self._start_messaging()
            began = self._took(began, f"NATS is up, with {self._servers} server{'s' if self._servers > 1 else ''}")
        await self._start_agents()
        self._took(began, "agents are up and know their endpoints")

    async def down(self) -> None:
        """End everything. May be called at any time, and does as much as there is to do."""
        try:
            tasks = [*self._orchestrators, *([] if self._log_keeper is None else [self._log_keeper])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(client.close() for client in self._clients.values()))
            await asyncio.gather(*(agents.stop() for agents in set(self._agents.values())))
            if self._messaging is not None:
                await self._messaging.stop()
            await asyncio.gather(*(switch.stop() for switch in self._switches.values()))
        finally:
            self._nodes.close()

    async def _build(self) -> None:
        for node in self._plan.nodes:
            self._nodes.create(node)
            self._remember(self._nodes.pid(node.name))
            await asyncio.sleep(0)  # so that Ctrl-C is heard
        await self._nodes.wire(self._plan.cables)
        await self._nodes.configure(node.name for node in self._plan.nodes)
        self._publish()

    async def _start_switches(self) -> None:
        for device_id, (host, described) in enumerate(self.topology.hosts.items(), 1):
            directory = self._directory.of_host(host)
            socket = directory / "p4rt.sock"
            ports = switch_ports(described, [*self._plan.ports[host].values(), *self._plan.spares[host]])
            command = targets.command(self.target, device_id, directory, ports)
            self._switches[host] = Service(
                f"the switch of {host}",
                ["mnexec", "-a", str(self._nodes.pid(host)), *command],
                directory / "switch.log",
                self._say,
                before=lambda socket=socket: socket.unlink(missing_ok=True),  # type: ignore[misc]  # mypy 9532
                after=self._directory.remember,
            )
        await asyncio.gather(*(switch.start() for switch in self._switches.values()))

        async def listens(host: str) -> bool:
            try:
                _, writer = await asyncio.open_unix_connection(self._directory.of_host(host) / "p4rt.sock")
            except OSError:
                return False
            writer.close()
            return True

        for host, switch in self._switches.items():
            await _wait_for(switch, lambda host=host: listens(host), _SWITCH_PATIENCE)  # type: ignore[misc]

    async def _start_messaging(self) -> None:
        try:
            self._messaging = Messaging(
                self.topology, self._directory.path, self._say, self._directory.remember, self._servers
            )
            await self._messaging.start(self._tenants)
        except MessagingError as error:
            raise FarmError(str(error)) from None

    async def _start_agents(self) -> None:
        self._clients = {
            host: AgentClient(host, self._directory.of_host(host) / "agent.sock") for host in self._switches
        }
        self._orchestrators = [asyncio.create_task(self._orchestrate(*each)) for each in self._clients.items()]
        self._agents = self._agent_services()
        await asyncio.gather(*(agents.start() for agents in set(self._agents.values())))
        for host, client in self._clients.items():

            async def ready(host: str = host, client: AgentClient = client) -> bool:
                try:
                    return self._knows_all(host) and (await client.status())["state"] == _PRIMARY
                except AgentError:
                    return False

            await _wait_for(self._agents[host], ready, _AGENT_PATIENCE, of=f"the agent of {host}")

    def _agent_services(self) -> dict[str, Service]:
        """What runs the agent of each host."""
        if self._messaging is None:
            everybody = Service(
                "the agents' process",
                [sys.executable, "-m", "nvi.agent", "--config", str(self._write_agents_config())],
                self._directory.path / "agents.log",
                self._say,
                after=lambda process: self._agents_have_started(process, self._clients),
            )
            return dict.fromkeys(self._clients, everybody)
        return {
            host: Service(
                f"the agent of {host}",
                [sys.executable, "-m", "nvi.cli", "agent", "--config", str(self._write_host_file(device_id, host))],
                self._directory.of_host(host) / "agent.log",
                self._say,
                after=lambda process, host=host: self._agents_have_started(process, [host]),  # type: ignore[misc]
            )
            for device_id, host in enumerate(self._clients, 1)
        }

    def _write_host_file(self, device_id: int, name: str) -> Path:
        """What the agent of one host is told, as on a machine of its own."""
        assert self._messaging is not None
        agent = self._agent_config(device_id, self.topology.hosts[name])
        path = self._directory.of_host(name) / "agent.yaml"
        messaging, topology = self._messaging, self.topology
        path.write_bytes(
            write_host_file(agent, messaging.farm, messaging.config(name), topology.idle_timeout, topology.punt_rate)
        )
        return path

    def _knows_all(self, host: str) -> bool:
        """Whether a host's agent has been told everything since it started."""
        is_gateway = self.topology.hosts[host].external is not None
        return host in self._briefed and (host in self._open or not is_gateway)

    def _write_agents_config(self) -> Path:
        """What the agents are told when they start the next time."""
        path = self._directory.path / "agents.json"
        new = path.with_suffix(".new")
        new.write_bytes(msgspec.json.format(msgspec.json.encode(self._agents_config()), indent=1))
        return new.replace(path)

    def _agents_config(self) -> FarmConfig:
        hosts = enumerate(self.topology.hosts.values(), 1)
        return FarmConfig(
            farm=self.topology.name,
            agents=tuple(self._agent_config(device_id, host) for device_id, host in hosts),
            tenants=tuple(self._tenants.values()),
            idle_timeout=self.topology.idle_timeout,
            punt_rate=self.topology.punt_rate,
        )

    def _agent_config(self, device_id: int, host: TopologyHost) -> AgentConfig:
        directory = self._directory.of_host(host.name)
        return AgentConfig(
            host=host.host,
            p4runtime=f"unix:{directory / 'p4rt.sock'}",
            device_id=device_id,
            api=str(directory / "agent.sock"),
            state=str(directory / "agent.json"),
            netns=f"/proc/{self._nodes.pid(host.name)}/ns/net",
        )

    def _took(self, began: float, what: str) -> float:
        now = time.monotonic()
        self._say(f"{what} ({now - began:.1f} s)")
        return now

    # Orchestration

    def _agents_have_started(self, process: ProcessId, hosts: Iterable[str]) -> None:
        self._directory.remember(process)
        for host in hosts:
            self._briefed.discard(host)
            self._open.discard(host)
            self._started[host].set()

    async def _orchestrate(self, host: str, client: AgentClient) -> None:
        """Tell one agent its endpoints, each time that it has started."""
        while True:
            await self._started[host].wait()
            self._started[host].clear()
            await self._brief_patiently(host, client)
            if self.topology.hosts[host].external is not None:
                await self._brief_gateway(host, client)

    async def _brief_gateway(self, host: str, client: AgentClient) -> None:
        """Make a gateway publish exactly what is published there, once the endpoints are known that serve it."""
        while not self._started[host].is_set():
            async with self._changing:
                mine = [service for service in self._services if service.via == host]
                addresses = {(service.tenant, service.endpoint) for service in mine}
                serving = {
                    placed.endpoint.host
                    for placed in self._placed.values()
                    if any((placed.endpoint.tenant, address) in addresses for address in placed.endpoint.addresses)
                }
                if {host, *serving} <= self._briefed:
                    await self._publish_services(client, mine)
                    self._open.add(host)
                    return
            await asyncio.sleep(_POLL)

    async def _publish_services(self, client: AgentClient, services: Iterable[model.Service]) -> None:
        wanted = {(show_protocol(service.protocol), service.external_port): service for service in services}
        try:
            for protocol, port in await client.services() - wanted.keys():
                await client.unpublish(protocol, port)
        except AgentError as error:
            self._say(str(error))
        for service in wanted.values():
            try:
                await client.publish(service)
            except AgentError as error:
                self._say(str(error))

    async def _brief_patiently(self, host: str, client: AgentClient) -> None:
        """Brief one agent as soon as it is up; give up if it is started again meanwhile, or refuses."""
        while not self._started[host].is_set():
            try:
                # What an agent hears while it takes over its switch may not get there.
                if (await client.status())["state"] == _PRIMARY:
                    await self._brief(host, client)
                    return
            except AgentRefused as error:
                self._say(str(error))
                return
            except AgentError:
                pass  # it is not up yet
            await asyncio.sleep(_POLL)

    async def _brief(self, host: str, client: AgentClient) -> None:
        """Make one agent know exactly the endpoints of its host. Raises AgentError."""
        known = await client.endpoints()
        async with self._changing:
            ours = {name: placed for name, placed in self._placed.items() if placed.endpoint.host == host}
            for name in known - ours.keys():
                await client.remove(name)
            for placed in ours.values():
                await client.add(placed.endpoint, placed.port)
        self._briefed.add(host)

    async def add(self, name: str, request: Request) -> dict[str, Any]:
        """Add an endpoint; returns its view. Raises Misuse, Conflict, AgentError, SetupError."""
        async with self._changing:
            existing = (placed.endpoint for placed in self._placed.values())
            endpoint = place(name, request, self.topology.tenants, self.topology.hosts, existing)
            port = self._free_port(endpoint.host)
            await self._permit(endpoint)
            self._nodes.create(endpoint_node(endpoint, self.topology))
            try:
                self._remember(self._nodes.pid(name))
                await self._nodes.lend(endpoint.host, spare_interface(port), name, show_mac(endpoint.mac))
                await self._nodes.configure([name])
                await self._tell(endpoint, port)
            except BaseException:
                await self._nodes.take_back(endpoint.host, spare_interface(port), name)
                self._nodes.remove(name)
                raise
            self._spares[endpoint.host].remove(port)
            self._placed[name] = Placed(endpoint, port)
            self._publish()
            return self._endpoint_view(name)

    async def remove(self, name: str) -> None:
        """Remove an endpoint with everything that runs in it. Raises Misuse, AgentError, SetupError."""
        async with self._changing:
            placed = self._known(name)
            host = placed.endpoint.host
            await self._clients[host].remove(name)
            del self._placed[name]
            await self._nodes.take_back(host, spare_interface(placed.port), name)
            self._nodes.remove(name)
            self._spares[host].append(placed.port)
            self._publish()

    async def move(self, name: str, host: str) -> dict[str, Any]:
        """Move an endpoint, with all that runs in it, to another host; returns its view.

        Raises Misuse, Conflict, AgentError, SetupError; then it is where it was.
        """
        async with self._changing:
            return await self._move(name, host)

    async def drain(self, host: str) -> dict[str, Any]:
        """Move every endpoint of a host elsewhere; returns the views of those moved. Raises like `move`.

        They stay in the host's site if it has another host with room, else they go to another site: each time to where
        there are the fewest endpoints.
        """
        async with self._changing:
            if host not in self.topology.hosts:
                raise Misuse(f"there is no host {host!r}; {suggest(host, self.topology.hosts, noun='host')}")
            moved: list[dict[str, Any]] = []
            for name in [name for name, placed in self._placed.items() if placed.endpoint.host == host]:
                placed = (each.endpoint for each in self._placed.values())
                elsewhere = refuge(host, self.topology.hosts, self._spares, placed)
                if elsewhere is None:
                    gone = ", ".join(f"{each['name']} to {each['host']}" for each in moved) or "none"
                    raise Conflict(
                        f"no other host has a free port for {name!r}; remove endpoints somewhere, then drain {host!r} "
                        f"again (moved so far: {gone})"
                    )
                moved.append(await self._move(name, elsewhere))
            return {"schema": views.SCHEMA, "endpoints": moved}

    async def _move(self, name: str, host: str) -> dict[str, Any]:
        placed = self._known(name)
        if host not in self.topology.hosts:
            raise Misuse(f"there is no host {host!r}; {suggest(host, self.topology.hosts, noun='host')}")
        before = placed.endpoint.host
        if host == before:
            raise Conflict(f"endpoint {name!r} is on host {host!r} already")
        port = self._free_port(host)
        moved = Placed(msgspec.structs.replace(placed.endpoint, host=host), port)
        await self._permit(moved.endpoint)
        await self._replug(placed, moved)
        try:
            # The new agent says where the endpoint is now, so that its connections go on there, and the old one
            # afterwards finds that it is not its any more.
            await self._tell(moved.endpoint, port)
        except BaseException:
            await self._replug(moved, placed)
            raise
        self._spares[host].remove(port)
        self._spares[before].append(placed.port)
        self._placed[name] = moved
        try:
            await self._clients[before].remove(name)
        except AgentError as error:
            self._say(f"{name} has left {before}, whose agent will hear of it later: {error}")
            self._briefed.discard(before)
            self._started[before].set()
        return self._endpoint_view(name)

    async def _permit(self, endpoint: Endpoint) -> None:
        """Its host may have endpoints of its tenant from now on. Raises MessagingError."""
        if self._messaging is not None:
            await self._messaging.permit(endpoint.host, endpoint.tenant)

    async def _tell(self, endpoint: Endpoint, port: int) -> None:
        """Tell its host's agent of an endpoint; again if NATS, or the agent, has just been away. Raises AgentError."""
        deadline = asyncio.get_running_loop().time() + _TELL_PATIENCE
        while True:
            try:
                return await self._clients[endpoint.host].add(endpoint, port)
            except AgentRefused:
                raise
            except AgentError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(_POLL)

    async def _replug(self, one: Placed, other: Placed) -> None:
        """Plug an endpoint's cable into another switch. Its addresses go and come back; its sockets do not notice."""
        endpoint = one.endpoint
        mac = show_mac(endpoint.mac)
        await self._nodes.take_back(endpoint.host, spare_interface(one.port), endpoint.name)
        try:
            await self._nodes.lend(other.endpoint.host, spare_interface(other.port), endpoint.name, mac)
        except SetupError:
            await self._nodes.lend(endpoint.host, spare_interface(one.port), endpoint.name, mac)
            raise
        finally:
            await self._nodes.configure([endpoint.name])

    async def trace(self, source: str, destination: str, protocol: str, port: int) -> dict[str, Any]:
        """`nvi trace --json`. `destination`: an endpoint, a host of the outside world, or an address.

        Raises Misuse, AgentError.
        """
        placed = self._known(source)
        address = destination
        if destination in self._placed:
            other = self._placed[destination].endpoint
            address = show_address(other.address_like(placed.endpoint.address) or other.address)
        elif destination in self.topology.outside:
            address = str(self.topology.outside[destination][0])
        else:
            try:
                read_address(destination)
            except ValueError:
                known = [*self._placed, *self.topology.outside]
                remedy = suggest(destination, known, noun="endpoint or address")
                raise Misuse(f"{destination!r} is neither an endpoint nor an address; {remedy}") from None
        return await self._clients[placed.endpoint.host].trace(source, address, protocol, port)

    async def check(self) -> dict[str, Any]:
        """`nvi check --json`. Raises SetupError."""
        endpoints = [placed.endpoint for placed in self._placed.values()]
        pids = {endpoint.name: self._nodes.pid(endpoint.name) for endpoint in endpoints}
        try:
            return check_view(await probe(self._tenants, endpoints, pids))
        except OSError as error:
            raise SetupError(f"the endpoints cannot be asked: {error}") from None

    def _known(self, name: str) -> Placed:
        if name not in self._placed:
            raise Misuse(f"there is no endpoint {name!r}; 'nvi endpoints' lists those that are there")
        return self._placed[name]

    def _free_port(self, host: str) -> int:
        if not self._spares[host]:
            raise Conflict(f"host {host!r} has no free port; remove one of its endpoints, or use another host")
        return self._spares[host][0]

    async def change_policy(self, change: PolicyChange) -> dict[str, Any]:
        """Change a tenant's policy, which holds at once; returns `policies`. Raises Misuse, Conflict, AgentError."""
        async with self._changing:
            endpoints = [placed.endpoint for placed in self._placed.values()]
            tenant = changed(self._tenants, endpoints, change)
            if self._messaging is not None:
                await self._messaging.publish_tenant(tenant)
                self._tenants[tenant.name] = tenant
            else:
                # The agents share one directory, so one of them publishes for all.
                await next(iter(self._clients.values())).publish_tenant(tenant)
                self._tenants[tenant.name] = tenant
                self._write_agents_config()
            return self.policies()

    async def publish(self, wanted: Publication) -> dict[str, Any]:
        """Publish a service; returns `services`. Raises Misuse, Conflict, AgentError."""
        async with self._changing:
            service = self._service(wanted)
            check_free(service, self._services)
            await self._clients[service.via].publish(service)
            self._services.append(service)
            return self.services()

    async def unpublish(self, wanted: Publication) -> dict[str, Any]:
        """Publish a service no more; returns `services`. Raises Misuse, AgentError."""
        async with self._changing:
            service = self._service(wanted)
            if service not in self._services:
                raise Misuse(
                    f"{wanted.endpoint}:{wanted.port} is not published via {wanted.via}:{wanted.external_port} "
                    f"({wanted.protocol}); 'nvi services' lists what is"
                )
            await self._clients[service.via].unpublish(show_protocol(service.protocol), service.external_port)
            self._services.remove(service)
            return self.services()

    def _service(self, wanted: Publication) -> model.Service:
        endpoints = {name: placed.endpoint for name, placed in self._placed.items()}
        return service_of(wanted, endpoints, self.topology.hosts)

    # Views

    def services(self) -> dict[str, Any]:
        """`nvi services --json`."""
        endpoints = (placed.endpoint for placed in self._placed.values())
        return services_view(self._services, endpoints, self.topology.hosts)

    def policies(self) -> dict[str, Any]:
        """`nvi policies --json`."""
        return views.policies_view(self._tenants.values())

    async def status(self) -> dict[str, Any]:
        """`nvi status --json`."""
        agents = await asyncio.gather(*(_ask(client.status) for client in self._clients.values()))
        hosts = {
            host: views.host_status(self._switches[host].pid, agent, self._agents[host].pid)
            for host, agent in zip(self._clients, agents, strict=True)
        }
        nats = [] if self._messaging is None else [server.pid for server in self._messaging.servers]
        return views.status_view(self.topology.name, self.target, hosts, nats)

    async def connections(self, host: str | None = None) -> dict[str, Any]:
        """`nvi connections --json`. Raises Misuse if there is no such host."""
        if host is not None and host not in self._clients:
            raise Misuse(f"there is no host {host!r}; 'nvi hosts' lists those that are there")
        clients = [self._clients[host]] if host else list(self._clients.values())
        answers = await asyncio.gather(*(_ask(client.connections) for client in clients))
        return views.connections_view(
            (answer for answer in answers if not isinstance(answer, str)),
            (answer for answer in answers if isinstance(answer, str)),
        )

    def hosts(self) -> dict[str, Any]:
        """`nvi hosts --json`."""
        hosts = self.topology.hosts
        endpoints = (placed.endpoint for placed in self._placed.values())
        return views.hosts_view(hosts.values(), endpoints, {name: self._nodes.pid(name) for name in hosts})

    def endpoints(self) -> dict[str, Any]:
        """`nvi endpoints --json`."""
        return {"schema": views.SCHEMA, "endpoints": [self._endpoint_view(name) for name in self._placed]}

    def _endpoint_view(self, name: str) -> dict[str, Any]:
        placed = self._placed[name]
        return views.endpoint_view(placed.endpoint, placed.port, self._nodes.pid(name))

    # The run directory

    async def _keep_logs_small(self) -> None:
        while True:
            for log in self._directory.path.rglob("*.log"):
                with contextlib.suppress(FileNotFoundError):
                    rotate(log, _LOG_LIMIT)
            await asyncio.sleep(_LOG_INTERVAL)

    def _remember(self, pid: int) -> None:
        process = ProcessId.of(pid)
        if process is not None:
            self._directory.remember(process)

    def _publish(self) -> None:
        supervisor = ProcessId.of(os.getpid())
        assert supervisor is not None
        nodes = {name: FarmNode(node.kind, self._nodes.pid(name)) for name, node in self._nodes.plans.items()}
        self._directory.publish(
            FarmRecord(self.topology.name, str(self._file), self.target, self._run, supervisor, nodes)
        )


async def _wait_for(service: Service, ready: Callable[[], Awaitable[bool]], patience: float, of: str = "") -> None:
    """Wait for something that a service brings about. Raises FarmError, with the service's last words."""
    deadline = time.monotonic() + patience
    while not await ready():
        if service.deaths >= _HOPELESS:
            raise FarmError(f"{service.name} does not stay up; the end of its log:\n{service.last_words()}")
        if time.monotonic() > deadline:
            what = of or service.name
            raise FarmError(f"{what} is not up after {patience:.0f} s; the end of its log:\n{service.last_words()}")
        await asyncio.sleep(_POLL)


async def _ask(question: Callable[[], Awaitable[_T]]) -> _T | str:
    """What an agent answers, or why it does not."""
    try:
        return await asyncio.wait_for(question(), _STATUS_PATIENCE)
    except TimeoutError:
        return f"an agent did not answer within {_STATUS_PATIENCE:.0f} s; try again in a moment"
    except AgentError as error:
        return str(error)
