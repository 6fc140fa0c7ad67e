"""The supervisor's control socket: HTTP and JSON on `farm.sock`, for the commands.

    GET    /status, /hosts, /endpoints, /connections?host=H     as the commands print them with --json
    PUT    /endpoints/{name}     {"tenant", "network", "address", "host", "mac"?}
    DELETE /endpoints/{name}
    PUT    /endpoints/{name}/host  {"host"}: it moves there
    POST   /hosts/{name}/drain   its endpoints move elsewhere
    GET    /check
    GET    /trace?source=ENDPOINT&destination=ENDPOINT-OR-ADDRESS&protocol=P&port=N
    GET    /services
    POST   /services, /services/withdrawn   nvi.emulation.publishing.Publication
    GET    /policies
    POST   /policies             one of nvi.emulation.policies' changes

What cannot be done is answered with `{"error": sentence}`: 400 for a request that makes no sense, 409 for one that
contradicts what is there, 503 for what an agent or a command did not do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from ..serving import UnixServer
from .agents import AgentError, AgentRefused
from .farm import Farm
from .messaging import MessagingError
from .nodes import SetupError
from .placement import Conflict, Destination, Misuse, Request
from .policies import PolicyChange
from .publishing import Publication


def application(farm: Farm) -> Starlette:
    """The control socket's protocol as an ASGI application."""

    async def status(_: HttpRequest) -> Any:
        return await farm.status()

    async def hosts(_: HttpRequest) -> Any:
        return farm.hosts()

    async def endpoints(_: HttpRequest) -> Any:
        return farm.endpoints()

    async def connections(request: HttpRequest) -> Any:
        return await farm.connections(request.query_params.get("host"))

    async def put_endpoint(request: HttpRequest) -> Any:
        try:
            wanted = msgspec.json.decode(await request.body(), type=Request)
        except msgspec.MsgspecError as error:
            raise Misuse(f"the request is not understood: {error}") from None
        return await farm.add(request.path_params["name"], wanted)

    async def delete_endpoint(request: HttpRequest) -> Any:
        await farm.remove(request.path_params["name"])

    async def move_endpoint(request: HttpRequest) -> Any:
        try:
            wanted = msgspec.json.decode(await request.body(), type=Destination)
        except msgspec.MsgspecError as error:
            raise Misuse(f"the request is not understood: {error}") from None
        return await farm.move(request.path_params["name"], wanted.host)

    async def drain(request: HttpRequest) -> Any:
        return await farm.drain(request.path_params["name"])

    async def trace(request: HttpRequest) -> Any:
        query = request.query_params
        try:
            asked = query["source"], query["destination"], query["protocol"], int(query["port"])
        except (KeyError, ValueError) as error:
            raise Misuse(f"the request is not understood: {error}") from None
        return await farm.trace(*asked)

    async def check(_: HttpRequest) -> Any:
        return await farm.check()

    async def services(_: HttpRequest) -> Any:
        return farm.services()

    async def publish(request: HttpRequest) -> Any:
        return await farm.publish(await _publication(request))

    async def unpublish(request: HttpRequest) -> Any:
        return await farm.unpublish(await _publication(request))

    async def policies(_: HttpRequest) -> Any:
        return farm.policies()

    async def change_policy(request: HttpRequest) -> Any:
        try:
            wanted = msgspec.json.decode(await request.body(), type=PolicyChange)
        except msgspec.MsgspecError as error:
            raise Misuse(f"the request is not understood: {error}") from None
        return await farm.change_policy(wanted)

    def route(method: str, path: str, handler: Callable[[HttpRequest], Awaitable[Any]]) -> Route:
        async def answer(request: HttpRequest) -> Response:
            try:
                return _json(await handler(request))
            except Misuse as error:
                return _json({"error": str(error)}, 400)
            except (Conflict, AgentRefused) as error:
                return _json({"error": str(error)}, 409)
            except (AgentError, MessagingError, SetupError) as error:
                return _json({"error": str(error)}, 503)

        return Route(path, answer, methods=[method])

    return Starlette(
        routes=[
            route("GET", "/status", status),
            route("GET", "/hosts", hosts),
            route("GET", "/endpoints", endpoints),
            route("GET", "/connections", connections),
            route("PUT", "/endpoints/{name}", put_endpoint),
            route("DELETE", "/endpoints/{name}", delete_endpoint),
            route("PUT", "/endpoints/{name}/host", move_endpoint),
            route("POST", "/hosts/{name}/drain", drain),
            route("GET", "/check", check),
            route("GET", "/trace", trace),
            route("GET", "/services", services),
            route("POST", "/services", publish),
            route("POST", "/services/withdrawn", unpublish),
            route("GET", "/policies", policies),
            route("POST", "/policies", change_policy),
        ]
    )


async def _publication(request: HttpRequest) -> Publication:
    try:
        return msgspec.json.decode(await request.body(), type=Publication)
    except msgspec.MsgspecError as error:
        raise Misuse(f"the request is not understood: {error}") from None


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


class Control(UnixServer):
    """Serves a farm's control socket."""

    def __init__(self, farm: Farm, path: Path) -> None:
        super().__init__(application(farm), path)
