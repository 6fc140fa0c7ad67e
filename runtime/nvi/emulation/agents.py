"""The emulation's side of the agents' local API (`nvi.agent.api`): HTTP on a UNIX socket per host."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec

from ..model import Endpoint, Service, Tenant, show_address, show_mac, show_protocol


class AgentError(Exception):
    """An agent did not do what it was asked. The text says which, and why."""


class AgentRefused(AgentError):
    """An agent understood, and declined."""


class AgentClient:
    """One host's agent."""

    def __init__(self, host: str, socket: Path) -> None:
        self.host = host
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)), base_url="http://agent", timeout=10.0
        )

    async def status(self) -> dict[str, Any]:
        """What `GET /status` says. Raises AgentError."""
        result: dict[str, Any] = await self._request("GET", "/status")
        return result

    async def connections(self) -> list[dict[str, Any]]:
        """The connections that the host holds. Raises AgentError."""
        answer = await self._request("GET", "/connections")
        connections: list[dict[str, Any]] = answer["connections"]
        return connections

    async def endpoints(self) -> set[str]:
        """The names of the endpoints that the agent knows of. Raises AgentError."""
        answer = await self._request("GET", "/endpoints")
        return {endpoint["name"] for endpoint in answer["endpoints"]}

    async def add(self, endpoint: Endpoint, port: int) -> None:
        """Tell the agent that this endpoint is at this port. Idempotent. Raises AgentError."""
        body = {
            "tenant": endpoint.tenant,
            "network": endpoint.network,
            "mac": show_mac(endpoint.mac),
            "address": show_address(endpoint.address),
            "port": port,
            **({"address6": show_address(endpoint.addresses[1])} if len(endpoint.addresses) > 1 else {}),
        }
        await self._request("PUT", f"/endpoints/{endpoint.name}", body)

    async def remove(self, name: str) -> None:
        """Tell the agent that this endpoint is gone. Raises AgentError."""
        await self._request("DELETE", f"/endpoints/{name}")

    async def services(self) -> set[tuple[str, int]]:
        """Protocol and external port of what is published at this gateway. Raises AgentError."""
        answer = await self._request("GET", "/services")
        return {(service["protocol"], service["external_port"]) for service in answer["services"]}

    async def publish(self, service: Service) -> None:
        """Have a service published at this gateway. Idempotent. Raises AgentError."""
        body = {"tenant": service.tenant, "address": show_address(service.endpoint), "port": service.port}
        await self._request("PUT", f"/services/{show_protocol(service.protocol)}/{service.external_port}", body)

    async def unpublish(self, protocol: str, external_port: int) -> None:
        """Have a service published no more. Raises AgentError."""
        await self._request("DELETE", f"/services/{protocol}/{external_port}")

    async def trace(self, source: str, destination: str, protocol: str, port: int) -> dict[str, Any]:
        """What would happen to a packet of an endpoint of this host. Raises AgentError."""
        query = {"source": source, "destination": destination, "protocol": protocol, "port": port}
        answer: dict[str, Any] = await self._request("GET", f"/trace?{urlencode(query)}")
        return answer

    async def publish_tenant(self, tenant: Tenant) -> None:
        """Have the tenant's networks and policy published. Raises AgentError."""
        await self._request("PUT", f"/tenants/{tenant.name}", msgspec.to_builtins(tenant))

    async def close(self) -> None:
        """Close what connections there are."""
        await self._client.aclose()

    async def _request(self, method: str, path: str, body: object = None) -> Any:
        try:
            response = await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise AgentError(
                f"the agent of host {self.host} does not answer ({reason}); try again in a moment"
            ) from None
        if response.is_success:
            return response.json() if response.content else None
        try:
            message = str(response.json()["error"])
        except (ValueError, KeyError, TypeError):
            message = f"the agent of host {self.host} answered {method} {path} with status {response.status_code}"
        raise (AgentRefused if response.is_client_error else AgentError)(message)
