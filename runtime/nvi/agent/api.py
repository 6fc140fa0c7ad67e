"""The local API of one agent: HTTP and JSON on a UNIX socket, for its orchestrator and for people.

    GET    /status             how the agent is
    GET    /connections        {"schema": 1, "connections": [...]}
    GET    /endpoints          {"schema": 1, "endpoints": [...]}
    PUT    /endpoints/{name}   {"tenant", "network", "mac", "address", "port"}, and "address6" if it has both;
                               idempotent
    DELETE /endpoints/{name}
    GET    /trace              ?source=NAME&destination=ADDRESS&protocol=tcp&port=80[&source_port=N]: what would
                               happen to such a packet of an endpoint here, and why
    PUT    /tenants/{name}     nvi.model.Tenant as JSON: its networks and policy, in place of what they were
    GET    /services           {"schema": 1, "services": [...]}: what is published at this gateway
    PUT    /services/{protocol}/{port}    {"tenant", "address", "port"} of an endpoint: published at this gateway's
                               port from now on; idempotent. The protocol is tcp or udp
    DELETE /services/{protocol}/{port}

What cannot be done is answered with `{"error": ...}`, a sentence that says what, where, and what to do about it: 400
for a request that makes no sense, 404 for what does not exist, 409 for what contradicts what the agent holds, 503 for
what may be possible later.

Whoever can open the socket is trusted: it is the owner's only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..directory import DirectoryError
from ..model import Endpoint, Service, Tenant
from ..serving import UnixServer
from ..switch import SwitchError
from ..trace import Question
from .notation import PUBLISHED, EndpointProperties, NamedEndpoint, NamedService, ServiceProperties, TraceQuery
from .state import StateError

SCHEMA = 1
"""Of the lists. What is added to them leaves it as it is."""

_log = structlog.get_logger()


class Served(Protocol):
    """What the API asks of an agent."""

    async def publish_tenant(self, tenant: Tenant) -> None:
        """Takes effect at once, wherever the tenant has endpoints. Raises ValueError with a sentence."""

    async def services(self) -> tuple[Service, ...]:
        """What is published at this gateway."""

    async def publish_service(self, service: Service) -> None:
        """Idempotent. Raises ValueError with a sentence."""

    async def unpublish_service(self, protocol: int, external_port: int) -> None:
        """Raises KeyError if there is none."""

    async def add_endpoint(self, endpoint: Endpoint, port: int) -> None:
        """Idempotent. Raises ValueError with a sentence."""

    async def remove_endpoint(self, name: str) -> None:
        """Raises KeyError if it is not here."""

    def endpoints(self) -> list[tuple[Endpoint, int]]:
        """The endpoints of the host, and their ports."""

    async def connections(self) -> list[dict[str, Any]]:
        """Ready for JSON."""

    async def trace(self, name: str, question: Question) -> dict[str, Any]:
        """Ready for JSON. Raises KeyError if the endpoint is not here."""

    async def status(self) -> dict[str, Any]:
        """Ready for JSON."""


class Api(UnixServer):
    """Serves one agent."""

    def __init__(self, agent: Served, host: str, path: str | Path) -> None:
        """`host`: name of the agent's host; `path`: of the socket."""
        super().__init__(application(agent, host), path)


def application(agent: Served, host: str) -> Starlette:
    """The API as an ASGI application."""

    async def status(_: Request) -> Response:
        return _json(await agent.status())

    async def connections(_: Request) -> Response:
        return _json({"schema": SCHEMA, "connections": await agent.connections()})

    async def endpoints(_: Request) -> Response:
        listed = [NamedEndpoint.of(endpoint, port) for endpoint, port in agent.endpoints()]
        return _json({"schema": SCHEMA, "endpoints": listed})

    async def put_endpoint(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            properties = msgspec.json.decode(await request.body(), type=EndpointProperties)
            endpoint, port = properties.read(name, host)
        except ValueError as error:  # msgspec's errors are ValueErrors, too
            raise HTTPException(400, f"endpoint {name} on host {host} is not understood: {error}") from None
        try:
            await agent.add_endpoint(endpoint, port)
        except ValueError as error:
            raise HTTPException(409, f"endpoint {name} is not added to host {host}: {error}") from None
        return _json(NamedEndpoint.of(endpoint, port))

    async def delete_endpoint(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            await agent.remove_endpoint(name)
        except KeyError:
            text = f"there is no endpoint {name} on host {host}; GET /endpoints lists those that are there"
            raise HTTPException(404, text) from None
        return Response(status_code=204)

    async def trace(request: Request) -> Response:
        try:
            query = msgspec.convert(dict(request.query_params), TraceQuery, strict=False)
            question = query.read()
        except ValueError as error:
            raise HTTPException(400, f"the question is not understood: {error}") from None
        try:
            return _json(await agent.trace(query.source, question))
        except KeyError:
            text = f"there is no endpoint {query.source} on host {host}; GET /endpoints lists those that are there"
            raise HTTPException(404, text) from None

    async def put_tenant(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            tenant = msgspec.json.decode(await request.body(), type=Tenant)
        except ValueError as error:
            raise HTTPException(400, f"tenant {name} is not understood: {error}") from None
        if tenant.name != name:
            raise HTTPException(400, f"this is tenant {tenant.name}, not {name}: put it where it belongs")
        try:
            await agent.publish_tenant(tenant)
        except ValueError as error:
            raise HTTPException(400, f"tenant {name} is not published: {error}") from None
        return Response(status_code=204)

    async def services(_: Request) -> Response:
        listed = [NamedService.of(service) for service in await agent.services()]
        return _json({"schema": SCHEMA, "services": listed})

    async def put_service(request: Request) -> Response:
        name, protocol, port = _service(request)
        try:
            properties = msgspec.json.decode(await request.body(), type=ServiceProperties)
            service = properties.read(host, protocol, port)
        except ValueError as error:
            raise HTTPException(400, f"service {name} of host {host} is not understood: {error}") from None
        try:
            await agent.publish_service(service)
        except ValueError as error:
            raise HTTPException(409, f"service {name} is not published at host {host}: {error}") from None
        return _json(NamedService.of(service))

    async def delete_service(request: Request) -> Response:
        name, protocol, port = _service(request)
        try:
            await agent.unpublish_service(protocol, port)
        except KeyError:
            text = f"nothing is published as {name} at host {host}; GET /services lists what is"
            raise HTTPException(404, text) from None
        return Response(status_code=204)

    def route(method: str, path: str, handler: Callable[[Request], Awaitable[Response]]) -> Route:
        return Route(path, _guarded(handler, host), methods=[method])

    return Starlette(
        routes=[
            route("GET", "/status", status),
            route("GET", "/connections", connections),
            route("GET", "/endpoints", endpoints),
            route("GET", "/trace", trace),
            route("PUT", "/endpoints/{name}", put_endpoint),
            route("DELETE", "/endpoints/{name}", delete_endpoint),
            route("PUT", "/tenants/{name}", put_tenant),
            route("GET", "/services", services),
            route("PUT", "/services/{protocol}/{port}", put_service),
            route("DELETE", "/services/{protocol}/{port}", delete_service),
        ],
        exception_handlers={HTTPException: _refuse},
    )


def _service(request: Request) -> tuple[str, int, int]:
    """A service as people call it, its protocol and its external port. Raises HTTPException."""
    protocol, port = request.path_params["protocol"], request.path_params["port"]
    if protocol not in PUBLISHED or not port.isdecimal() or len(port) > 5:
        raise HTTPException(400, f"{protocol}/{port} is not a service: name it like tcp/8080")
    return f"{protocol}/{port}", PUBLISHED[protocol], int(port)


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    """The answer to what Starlette or a handler does not accept."""
    assert isinstance(error, HTTPException)
    text = error.detail
    if text in ("Not Found", "Method Not Allowed"):  # Starlette's own words
        text = (
            f"{request.method} {request.url.path} is nothing that this agent does; it answers GET /status, "
            "/connections, /endpoints, /services and /trace, PUT and DELETE /endpoints/NAME and "
            "/services/PROTOCOL/PORT, and PUT /tenants/NAME"
        )
    return _json({"error": text}, error.status_code)


def _guarded(handler: Callable[[Request], Awaitable[Response]], host: str) -> Callable[[Request], Awaitable[Response]]:
    """The handler, of which no other exception gets out than HTTPException."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except HTTPException:
            raise
        except (DirectoryError, StateError, SwitchError) as error:
            raise HTTPException(503, f"host {host}: {error}") from None
        except Exception:
            _log.exception("request failed", host=host, request=f"{request.method} {request.url.path}")
            text = f"the agent of host {host} failed unexpectedly; its log says how, please report it"
            raise HTTPException(500, text) from None

    return answer
