"""The local API as its users see it: over the socket, with their mistakes."""

from __future__ import annotations

import asyncio
import signal
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from nvi.agent.api import Api
from nvi.directory import DirectoryError
from nvi.model import Endpoint, Service, Tenant, read_address, read_mac, show_address
from nvi.switch import SwitchError
from nvi.trace import Question

WEB1 = {"tenant": "acme", "network": "web", "mac": "02:00:00:00:00:01", "address": "10.0.0.1", "port": 16}


class FakeAgent:
    """As much of an agent as the API needs."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[Endpoint, int]] = {}
        self.published: dict[tuple[int, int], Service] = {}
        self.trouble: Exception | None = None

    async def add_endpoint(self, endpoint: Endpoint, port: int) -> None:
        if self.held.get(endpoint.name, (endpoint, port)) != (endpoint, port):
            raise ValueError("it is there already, with other properties: remove it first")
        self.held[endpoint.name] = endpoint, port

    async def remove_endpoint(self, name: str) -> None:
        del self.held[name]

    def endpoints(self) -> list[tuple[Endpoint, int]]:
        return list(self.held.values())

    async def services(self) -> tuple[Service, ...]:
        return tuple(self.published.values())

    async def publish_service(self, service: Service) -> None:
        if self.published.setdefault((service.protocol, service.external_port), service) != service:
            raise ValueError("another service has the port")

    async def unpublish_service(self, protocol: int, external_port: int) -> None:
        del self.published[protocol, external_port]

    async def connections(self) -> list[dict[str, Any]]:
        if self.trouble is not None:
            raise self.trouble
        return [{"id": "0123456789ab"}]

    async def status(self) -> dict[str, Any]:
        return {"schema": 1, "state": "primary"}

    async def trace(self, name: str, question: Question) -> dict[str, Any]:
        if name not in self.held:
            raise KeyError(name)
        return {"schema": 1, "asked": [show_address(question.destination), question.protocol, question.port]}

    async def publish_tenant(self, _: Tenant) -> None:
        if self.trouble is not None:
            raise self.trouble


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "h1.sock"


@pytest.fixture
async def client(agent: FakeAgent, path: Path) -> AsyncIterator[httpx.AsyncClient]:
    api = Api(agent, "h1", path)
    await api.start()
    async with connect(path) as client:
        yield client
    await api.stop()


def connect(path: Path) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://agent")


def permissions(path: Path) -> int | None:
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


def refused(response: httpx.Response, status: int) -> str:
    """The sentence with which it was refused."""
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    text = response.json()["error"]
    assert isinstance(text, str)
    assert "Traceback" not in text
    return text


async def test_what_it_shows(client: httpx.AsyncClient) -> None:
    assert (await client.get("/status")).json() == {"schema": 1, "state": "primary"}
    assert (await client.get("/connections")).json() == {"schema": 1, "connections": [{"id": "0123456789ab"}]}
    assert (await client.get("/endpoints")).json() == {"schema": 1, "endpoints": []}


async def test_a_policy_that_could_mean_two_things_is_refused(client: httpx.AsyncClient, agent: FakeAgent) -> None:
    assert (await client.put("/tenants/acme", json={"name": "acme"})).status_code == 204
    agent.trouble = ValueError("'web' is both network and group for tenant acme: rename the former")
    text = refused(await client.put("/tenants/acme", json={"name": "acme"}), 400)
    assert text == "tenant acme is not published: 'web' is both network and group for tenant acme: rename the former"


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ({"destination": "10.0.0.2", "port": "80"}, ["10.0.0.2", 6, 80]),
        ({"destination": "10.0.0.2", "protocol": "icmp"}, ["10.0.0.2", 1, 0]),
        ({"destination": "fd00::2", "protocol": "icmp"}, ["fd00::2", 58, 0]),
        ({"destination": "10.0.0.2", "protocol": "47"}, ["10.0.0.2", 47, 0]),
        ({"destination": "10.0.0.2", "protocol": "udp", "port": "53", "source_port": "1000"}, ["10.0.0.2", 17, 53]),
    ],
)
async def test_a_trace_is_asked_for(client: httpx.AsyncClient, query: dict[str, str], asked: list[Any]) -> None:
    await client.put("/endpoints/web1", json=WEB1)
    assert (await client.get("/trace", params={"source": "web1", **query})).json() == {"schema": 1, "asked": asked}


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ({"destination": "10.0.0.2", "port": "80"}, 400, "missing required field `source`"),
        ({"source": "web1", "destination": "10.0.0", "port": "80"}, 400, "'10.0.0' does not appear to be an IPv4"),
        ({"source": "web1", "destination": "10.0.0.2"}, 400, "port: tcp needs the destination's; say which"),
        ({"source": "web1", "destination": "10.0.0.2", "protocol": "gre", "port": "1"}, 400, "port: gre has none"),
        (
            {"source": "web1", "destination": "10.0.0.2", "protocol": "xyz"},
            400,
            "'xyz' is not a protocol: use a number",
        ),
        ({"source": "web1", "destination": "10.0.0.2", "port": "70000"}, 400, "70000 is not a port"),
        ({"source": "web1", "destination": "10.0.0.2", "port": "80", "ttl": "1"}, 400, "unknown field `ttl`"),
        ({"source": "web1", "destination": "10.0.0.2", "port": "80"}, 404, "there is no endpoint web1 on host h1"),
    ],
)
async def test_a_question_that_makes_no_sense(
    client: httpx.AsyncClient, query: dict[str, str], status: int, reason: str
) -> None:
    assert reason in refused(await client.get("/trace", params=query), status)


async def test_endpoints_come_and_go(client: httpx.AsyncClient, agent: FakeAgent) -> None:
    for _ in range(2):
        response = await client.put("/endpoints/web1", json=WEB1)
        assert (response.status_code, response.json()) == (200, {**WEB1, "name": "web1", "host": "h1"})
    endpoint = Endpoint("web1", "acme", "web", read_mac("02:00:00:00:00:01"), (read_address("10.0.0.1"),), "h1")
    assert agent.held == {"web1": (endpoint, 16)}
    listed = (await client.get("/endpoints")).json()
    assert listed == {"schema": 1, "endpoints": [{**WEB1, "name": "web1", "host": "h1"}]}
    assert (await client.delete("/endpoints/web1")).status_code == 204
    assert agent.held == {}


SERVICE = {"tenant": "acme", "address": "10.0.0.1", "port": 80}


async def test_services_come_and_go(client: httpx.AsyncClient, agent: FakeAgent) -> None:
    shown = {**SERVICE, "protocol": "tcp", "via": "h1", "external_port": 8080}
    for _ in range(2):
        response = await client.put("/services/tcp/8080", json=SERVICE)
        assert (response.status_code, response.json()) == (200, shown)
    assert agent.published == {(6, 8080): Service("acme", read_address("10.0.0.1"), 80, 6, "h1", 8080)}
    assert (await client.get("/services")).json() == {"schema": 1, "services": [shown]}
    assert "another service" in refused(await client.put("/services/tcp/8080", json={**SERVICE, "port": 81}), 409)
    assert (await client.delete("/services/tcp/8080")).status_code == 204
    assert "nothing is published as tcp/8080 at host h1" in refused(await client.delete("/services/tcp/8080"), 404)


@pytest.mark.parametrize(
    ("where", "body", "says"),
    [
        ("tcp/http", SERVICE, "tcp/http is not a service: name it like tcp/8080"),
        ("tcp/-1", SERVICE, "is not a service"),
        ("tcp/123456789", SERVICE, "is not a service"),
        ("sctp/80", SERVICE, "is not a service"),
        ("udp/53", {**SERVICE, "address": "web1"}, "address: 'web1' is not an IP address"),
        ("udp/53", {**SERVICE, "port": "80"}, "Expected `int`"),
        ("udp/53", {**SERVICE, "via": "h2"}, "unknown field `via`"),
    ],
)
async def test_bad_services_are_named(
    client: httpx.AsyncClient, where: str, body: dict[str, object], says: str
) -> None:
    assert says in refused(await client.put(f"/services/{where}", json=body), 400)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mac": "02:00:00:00:00"}, "mac: '02:00:00:00:00' is not a MAC address; write it like"),
        ({"mac": "zz"}, "mac: 'zz' is not a MAC address"),
        ({"address6": "fd00::g"}, "address6: 'fd00::g' is not an IP address; write it like fd00::1"),
        ({"address6": "10.0.0.2"}, "address6: '10.0.0.2' is not an IPv6 address beside an IPv4 one"),
        ({"address": "fd00::1", "address6": "fd00::2"}, "write the only address of an endpoint as address"),
        ({"address": "10.0.0.256"}, "address: '10.0.0.256' is not an IP address; write it like"),
        ({"port": "16"}, "Expected `int`, got `str` - at `$.port`"),
        ({"host": "h2"}, "unknown field `host`"),
        ({"tenant": None}, "Expected `str`, got `null` - at `$.tenant`"),
    ],
)
async def test_bad_properties_are_named(client: httpx.AsyncClient, change: dict[str, object], says: str) -> None:
    text = refused(await client.put("/endpoints/web1", json={**WEB1, **change}), 400)
    assert "web1" in text
    assert "h1" in text
    assert says in text


@pytest.mark.parametrize("body", ["", "[]", "{", "\x00", "nonsense"])
async def test_a_body_that_makes_no_sense(client: httpx.AsyncClient, body: str) -> None:
    refused(await client.put("/endpoints/web1", content=body), 400)


async def test_a_missing_property(client: httpx.AsyncClient) -> None:
    body = {name: value for name, value in WEB1.items() if name != "mac"}
    assert "missing required field `mac`" in refused(await client.put("/endpoints/web1", json=body), 400)


async def test_what_contradicts_the_agent(client: httpx.AsyncClient) -> None:
    await client.put("/endpoints/web1", json=WEB1)
    text = refused(await client.put("/endpoints/web1", json={**WEB1, "port": 17}), 409)
    assert "remove it first" in text


async def test_an_endpoint_that_is_not_there(client: httpx.AsyncClient) -> None:
    assert "no endpoint web9 on host h1" in refused(await client.delete("/endpoints/web9"), 404)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("POST", "/endpoints", 405)])
async def test_what_it_does_not_do(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    assert f"{method} {path} is nothing that" in refused(await client.request(method, path), status)


@pytest.mark.parametrize(
    ("trouble", "status", "says"),
    [
        (SwitchError("the switch at unix:s is gone; start it"), 503, "the switch at unix:s is gone; start it"),
        (DirectoryError("the directory is gone"), 503, "the directory is gone"),
        (ZeroDivisionError("secret"), 500, "its log says how"),
    ],
)
async def test_trouble_inside(
    client: httpx.AsyncClient, agent: FakeAgent, trouble: Exception, status: int, says: str
) -> None:
    agent.trouble = trouble
    text = refused(await client.get("/connections"), status)
    assert says in text
    assert "secret" not in text


async def test_the_socket_is_the_owners_only_and_goes_away(agent: FakeAgent, path: Path) -> None:
    api = Api(agent, "h1", path)
    await api.start()
    assert permissions(path) == 0o600
    await api.stop()
    assert permissions(path) is None


async def test_what_a_killed_agent_left_behind_is_replaced(agent: FakeAgent, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    api = Api(agent, "h1", path)
    await api.start()
    await api.stop()


async def test_a_living_agent_is_left_alone(client: httpx.AsyncClient, agent: FakeAgent, path: Path) -> None:
    with pytest.raises(OSError, match=f"another process serves {path}"):
        await Api(agent, "h1", path).start()
    assert (await client.get("/status")).status_code == 200


def test_something_else_is_left_alone(agent: FakeAgent, path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(OSError, match="is something else"):
        asyncio.run(Api(agent, "h1", path).start())
    assert path.read_text() == "precious"


async def test_a_path_that_cannot_be(agent: FakeAgent, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="longer than 107 bytes"):
        await Api(agent, "h1", tmp_path / ("x" * 108)).start()
    with pytest.raises(OSError, match=r"cannot make the socket .*: No such file"):
        await Api(agent, "h1", tmp_path / "none" / "h1.sock").start()


async def test_a_client_that_says_nothing_does_not_hold_it_up(agent: FakeAgent, path: Path) -> None:
    api = Api(agent, "h1", path)
    await api.start()
    _, writer = await asyncio.open_unix_connection(path)
    async with asyncio.timeout(2):
        await api.stop()
    writer.close()


@pytest.mark.parametrize("run_in_loop", [asyncio.run, uvloop.run])
def test_it_serves_in_either_loop_and_leaves_the_signals_alone(
    agent: FakeAgent, path: Path, run_in_loop: Callable[..., None]
) -> None:
    async def use() -> None:
        handler = signal.getsignal(signal.SIGTERM)
        api = Api(agent, "h1", path)
        await api.start()
        async with connect(path) as client:
            assert (await client.get("/status")).status_code == 200
        assert signal.getsignal(signal.SIGTERM) is handler
        await api.stop()

    run_in_loop(use())
