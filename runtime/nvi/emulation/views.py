"""What the listing commands print with `--json`: documented, versioned schemas. No I/O.

What is added to a schema leaves its version as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..model import Endpoint, Protocol, Tenant, show_address, show_mac
from ..topology import TopologyHost

SCHEMA = 1


def hosts_view(hosts: Iterable[TopologyHost], endpoints: Iterable[Endpoint], pids: dict[str, int]) -> dict[str, Any]:
    """`nvi hosts --json`. `pids`: by host, a process in its namespace."""
    placed = list(endpoints)
    return {
        "schema": SCHEMA,
        "hosts": [
            {
                "name": host.name,
                "site": host.site,
                "underlay": [address.with_prefixlen for address in host.underlay],
                "pool": [network.with_prefixlen for network in host.pool],
                "external": None
                if host.external is None
                else {
                    "address": host.external.interface.with_prefixlen,
                    "public": str(host.external.public),
                },
                "endpoints": [endpoint.name for endpoint in placed if endpoint.host == host.name],
                "pid": pids[host.name],
            }
            for host in hosts
        ],
    }


def endpoint_view(endpoint: Endpoint, port: int, pid: int) -> dict[str, Any]:
    """One endpoint. `pid`: a process in its namespace."""
    return {
        "name": endpoint.name,
        "tenant": endpoint.tenant,
        "network": endpoint.network,
        "mac": show_mac(endpoint.mac),
        "address": show_address(endpoint.address),
        "addresses": [show_address(address) for address in endpoint.addresses],
        "host": endpoint.host,
        "port": port,
        "pid": pid,
    }


def policies_view(tenants: Iterable[Tenant]) -> dict[str, Any]:
    """`nvi policies --json`: what decides first comes first."""
    return {
        "schema": SCHEMA,
        "tenants": {
            tenant.name: {
                "pairs": [
                    {"endpoints": pair.split(), "action": "connect" if connected else "disconnect"}
                    for pair, connected in tenant.pairs.items()
                ],
                "rules": [
                    {
                        "number": number,
                        "from": rule.initiator,
                        "to": rule.responder,
                        "protocol": None if rule.protocol is None else Protocol(rule.protocol).name.lower(),
                        "ports": list(rule.ports),
                        "action": "allow" if rule.allow else "deny",
                    }
                    for number, rule in enumerate(tenant.rules, 1)
                ],
                "groups": {name: list(members) for name, members in tenant.groups.items()},
            }
            for tenant in tenants
        },
    }


def connections_view(seen: Iterable[list[dict[str, Any]]], silent: Iterable[str] = ()) -> dict[str, Any]:
    """`nvi connections --json`: the hosts' views of their connections, put together.

    `silent`: what is missing because an agent did not answer, in sentences.
    """
    merged: dict[str, dict[str, Any]] = {}
    for connections in seen:
        for connection in connections:
            known = merged.setdefault(connection["id"], connection)
            if known is connection:
                continue
            known["hosts"] = {**known["hosts"], **connection["hosts"]}
            known["segments"] = _route([*known["segments"], *connection["segments"]])
    view: dict[str, Any] = {"schema": SCHEMA, "connections": list(merged.values())}
    if problems := list(silent):
        view["errors"] = problems
    return view


def _route(segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What several hosts on a route know of it, each segment once, in order from the initiator on."""
    left = {segment["from"]["host"]: segment for segment in segments}
    route = []
    while left:
        reached = {segment["to"]["host"] for segment in left.values()}
        host = next((host for host in left if host not in reached), next(iter(left)))
        while (segment := left.pop(host, None)) is not None:
            route.append(segment)
            host = segment["to"]["host"]
    return route


def status_view(
    farm: str, target: str, hosts: dict[str, dict[str, Any]], nats: Iterable[int | None] = ()
) -> dict[str, Any]:
    """`nvi status --json`. Values of `hosts` come from `host_status`; `nats`: processes of the NATS servers."""
    view = {"schema": SCHEMA, "farm": farm, "target": target, "hosts": hosts}
    if servers := [_process_state(pid) for pid in nats]:
        view["nats"] = servers
    return view


def _process_state(pid: int | None) -> dict[str, Any]:
    return {"state": "running" if pid else "restarting", "pid": pid}


def host_status(switch_pid: int | None, agent: dict[str, Any] | str, agent_pid: int | None) -> dict[str, Any]:
    """One host. `agent`: what its agent says of itself, or why it says nothing."""
    switch = _process_state(switch_pid)
    if isinstance(agent, str):
        state = "unreachable" if agent_pid else "restarting"
        return {
            "switch": switch,
            "agent": {"state": state, "pid": agent_pid, "message": agent},
            "entries": {},
            "drops": {},
        }
    return {
        "switch": switch,
        "agent": {key: agent[key] for key in ("state", "pid", "message", "directory") if key in agent},
        "entries": agent.get("entries", {}),
        "drops": agent.get("drops", {}),
    }
