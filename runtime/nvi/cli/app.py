"""The commands. Each imports what it needs when it runs, so that all of them start quickly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(
    help="NVI on P4: workloads on servers that do not know each other, connected when they connect.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
endpoint_app = typer.Typer(
    help="Add and remove endpoints while the farm runs.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(endpoint_app, name="endpoint")
policy_app = typer.Typer(
    help="Add and remove rules of a tenant's policy while the farm runs.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(policy_app, name="policy")
host_app = typer.Typer(help="Take care of a host while the farm runs.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(host_app, name="host")
bench_app = typer.Typer(help="Measure NVI on this machine.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bench_app, name="bench")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, in a documented and versioned schema.")]


@app.command()
def up(
    file: Annotated[Path, typer.Argument(help="The farm, such as topologies/leaf-spine.yaml.", show_default=False)],
    target: Annotated[
        Literal["bmv2", "embedded"] | None,
        typer.Option(
            help="Which switches to run.", show_default="bmv2 if simple_switch_grpc is on PATH, else embedded"
        ),
    ] = None,
    agents: Annotated[
        Literal["memory", "process"],
        typer.Option(help="All agents in one process, or each in its own, with NATS between them."),
    ] = "memory",
    nats_servers: Annotated[int, typer.Option(help="How many NATS servers (with --agents process).", min=1, max=5)] = 1,
    detach: Annotated[bool, typer.Option("--detach", help="Return once the farm is up, and leave it running.")] = False,
) -> None:
    """Bring up a farm on this machine, and stay until Ctrl-C."""
    from .bring_up import up as bring_up

    servers = nats_servers if agents == "process" else 0
    raise typer.Exit(bring_up(file, target, detach=detach, servers=servers))


@app.command()
def down() -> None:
    """End the farm that runs, or clean up after one that crashed."""
    from ..emulation.rundir import DEFAULT, RunError, take_down
    from .errors import CommandError

    try:
        take_down(DEFAULT, lambda text: print(text, flush=True))
    except RunError as error:
        raise CommandError(str(error)) from None


@app.command()
def status(json: Json = False) -> None:
    """Show how the farm's switches and agents are, what they hold, and what they dropped."""
    _show("status", json)


@app.command()
def hosts(json: Json = False) -> None:
    """List the hosts."""
    _show("hosts", json)


@app.command()
def endpoints(json: Json = False) -> None:
    """List the endpoints."""
    _show("endpoints", json)


@app.command()
def connections(
    host: Annotated[str | None, typer.Option(help="Only what this host holds.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """List the connections that the switches hold now."""
    from .errors import CommandError

    view = _show("connections", json, host=host)
    if "errors" in view:
        raise CommandError("some connections may be missing\n" + "\n".join(view["errors"]))


@app.command("exec", context_settings={"allow_interspersed_args": False})
def execute(
    name: Annotated[str, typer.Argument(help="An endpoint or a host.", show_default=False)],
    command: Annotated[list[str], typer.Argument(help="What to run there.", show_default=False)],
) -> None:
    """Run a program inside an endpoint or a host: nvi exec acme-web1 -- ping 10.0.1.2"""
    from .execute import execute as become

    # Options after NAME are the program's, with or without `--` before it.
    become(name, command[1:] if command[0] == "--" else command)


@app.command(
    "switch",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def switch(context: typer.Context) -> None:
    """Run one embedded switch by itself, for other programs to control: see nvi switch --help."""
    from ..embedded.__main__ import app as embedded

    embedded(["switch", *context.args], prog_name="nvi")


nats_app = typer.Typer(
    help="Prepare NATS for a farm on real machines (docs/nats.md).", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(nats_app, name="nats")

Servers = Annotated[
    list[str], typer.Option("--server", help="nats://ADDRESS:PORT of a server; may be repeated.", show_default=False)
]


@nats_app.command("config")
def nats_config(
    file: Annotated[Path, typer.Argument(help="The farm's topology.", show_default=False)],
    directory: Annotated[Path, typer.Argument(help="Where to write: keys that are there stay.", show_default=False)],
    server: Servers,
    listen: Annotated[str, typer.Option(help="ADDRESS:PORT on which the server is to listen.")] = "0.0.0.0:4222",
    every_tenant: Annotated[
        bool, typer.Option("--every-tenant", help="Let each host have endpoints of every tenant, not only its own.")
    ] = False,
) -> None:
    """Write nats.conf, and for each host its key HOST.nk and the configuration HOST.yaml of its agent."""
    from .nats import config as write

    write(file, directory, listen, server, every_tenant=every_tenant)
    print(f"written to {directory}: nats.conf, and for each host HOST.nk and HOST.yaml")


@nats_app.command("prepare")
def nats_prepare(
    file: Annotated[Path, typer.Argument(help="The farm's topology.", show_default=False)],
    server: Servers,
    key: Annotated[Path, typer.Option(help="_operator.nk, as 'nvi nats config' has written it.", show_default=False)],
    replicas: Annotated[int, typer.Option(help="How many servers of a cluster keep each bucket.", min=1, max=5)] = 1,
) -> None:
    """Make the farm's buckets, and publish its tenants with their policies."""
    from .nats import prepare

    prepare(file, server, key, replicas)
    print("the buckets are there, and the tenants are published")


@bench_app.command("setup")
def bench_setup(
    target: Annotated[
        Literal["bmv2", "embedded"] | None,
        typer.Option(
            help="Which switches to run.", show_default="bmv2 if simple_switch_grpc is on PATH, else embedded"
        ),
    ] = None,
    offers: Annotated[
        Literal["memory", "nats"], typer.Option(help="How the two agents talk: in one process, or by a NATS server.")
    ] = "memory",
    connections: Annotated[
        int, typer.Option(help="How many to set up as fast as they come about.", min=16, max=5000)
    ] = 4000,
    window: Annotated[int, typer.Option(help="How many of these are under way at a time.", min=1, max=1000)] = 40,
    rate: Annotated[
        float, typer.Option(help="Connections per second while the latency is measured.", min=1, max=10000)
    ] = 200,
    json: Json = False,
) -> None:
    """Measure how fast connections between two hosts are set up, and how long each takes. No farm has to run."""
    from .bench import setup

    setup(target, offers, connections, window, rate, json=json)


@app.command()
def agent(
    config: Annotated[Path, typer.Option(help="What docs/nats.md describes.", show_default=False)],
    verbose: Annotated[bool, typer.Option("--verbose", help="Log also what is refused, and why.")] = False,
) -> None:
    """Run the agent of this host, as one of a farm that NATS holds together, until SIGTERM."""
    from ..agent.__main__ import run_host_file
    from ..agent.hostfile import HostFileError
    from .errors import MISUSE, CommandError

    try:
        raise typer.Exit(run_host_file(config, verbose=verbose))
    except HostFileError as error:
        raise CommandError(str(error), MISUSE) from None


@endpoint_app.command("add")
def endpoint_add(
    name: Annotated[str, typer.Argument(show_default=False)],
    tenant: Annotated[str, typer.Option(help="Whose it is.", show_default=False)],
    network: Annotated[str, typer.Option(help="The network of the tenant that it is in.", show_default=False)],
    host: Annotated[str, typer.Option(help="Where it is.", show_default=False)],
    ip: Annotated[str | None, typer.Option(help="Its IPv4 address in that network.", show_default=False)] = None,
    ip6: Annotated[str | None, typer.Option(help="Its IPv6 address in that network.", show_default=False)] = None,
    mac: Annotated[str | None, typer.Option(help="Its MAC.", show_default="follows from its name")] = None,
) -> None:
    """Add an endpoint: a network namespace with the interface eth0, on a host."""
    from .client import put_endpoint

    where = {"tenant": tenant, "network": network, "host": host}
    added = put_endpoint(name, {**where, "address": ip, "address6": ip6, "mac": mac})
    print(f"{name} is on {added['host']}, port {added['port']}: {', '.join(added['addresses'])}, {added['mac']}")


@endpoint_app.command("remove")
def endpoint_remove(name: Annotated[str, typer.Argument(show_default=False)]) -> None:
    """Remove an endpoint, with every process that runs in it."""
    from .client import delete_endpoint

    delete_endpoint(name)
    print(f"{name} is gone")


@app.command()
def move(
    endpoint: Annotated[str, typer.Argument(help="An endpoint.", show_default=False)],
    host: Annotated[str, typer.Argument(help="Where it goes, in whatever site.", show_default=False)],
) -> None:
    """Move an endpoint to another host, with all that runs in it. Its connections go on."""
    from .client import move_endpoint

    moved = move_endpoint(endpoint, host)
    print(f"{endpoint} is on {moved['host']} now, port {moved['port']}")


@host_app.command("drain")
def host_drain(name: Annotated[str, typer.Argument(show_default=False)]) -> None:
    """Move every endpoint of a host elsewhere: within its site if there is room, where the fewest are."""
    from .client import drain_host

    moved = drain_host(name)["endpoints"]
    for each in moved:
        print(f"{each['name']} is on {each['host']} now, port {each['port']}")
    print(f"{name} has no endpoints" if moved else f"{name} had no endpoints: nothing to do")


@app.command()
def trace(
    source: Annotated[str, typer.Argument(help="An endpoint.", show_default=False)],
    destination: Annotated[
        str, typer.Argument(help="An endpoint, an outside host, or an address.", show_default=False)
    ],
    proto: Annotated[str, typer.Option(help="tcp, udp, icmp, or another protocol by name or number.")] = "icmp",
    port: Annotated[int, typer.Option(help="The destination's.", show_default="none")] = 0,
    json: Json = False,
) -> None:
    """Tell what would happen to a packet, and why, hop by hop, without sending it."""
    _show("trace", json, source=source, destination=destination, protocol=proto, port=str(port))


@app.command()
def check(json: Json = False) -> None:
    """Try who reaches whom, and compare it with the policy. Exit status 1 if they differ."""
    from .errors import FAILED

    if _show("check", json)["verdict"] != "good":
        raise typer.Exit(FAILED)


Served = Annotated[str, typer.Argument(metavar="ENDPOINT:PORT", help="Who serves, at which port.", show_default=False)]
Via = Annotated[str, typer.Option(metavar="HOST:PORT", help="The gateway, and its port.", show_default=False)]
ServiceProtocol = Annotated[Literal["tcp", "udp"], typer.Option()]


@app.command()
def publish(service: Served, via: Via, protocol: ServiceProtocol = "tcp") -> None:
    """Let the outside reach a service: nvi publish acme-web1:80 --via bj9:8080"""
    _publish(service, via, protocol, publish=True)


@app.command()
def unpublish(service: Served, via: Via, protocol: ServiceProtocol = "tcp") -> None:
    """Take a published service back. Its connections end."""
    _publish(service, via, protocol, publish=False)


@app.command()
def services(json: Json = False) -> None:
    """List the published services."""
    _show("services", json)


@app.command()
def policies(json: Json = False) -> None:
    """List who may talk to whom, in the order in which it decides."""
    _show("policies", json)


@policy_app.command("add")
def policy_add(
    tenant: Annotated[str, typer.Option(help="Whose policy.", show_default=False)],
    initiator: Annotated[str, typer.Option("--from", help="An endpoint, network or group.", show_default=False)],
    responder: Annotated[str, typer.Option("--to", help="An endpoint, network or group.", show_default=False)],
    action: Annotated[Literal["allow", "deny"], typer.Option(show_default=False)],
    protocol: Annotated[Literal["tcp", "udp", "icmp"] | None, typer.Option(show_default="any")] = None,
    ports: Annotated[str, typer.Option(help="The responder's, such as 80,443.", show_default="any")] = "",
    first: Annotated[bool, typer.Option("--first", help="Before the other rules, not after them.")] = False,
) -> None:
    """Add a rule. It holds at once, also for live connections."""
    from .client import change_policy

    rule = {"from": initiator, "to": responder, "action": action, "protocol": protocol, "ports": ports}
    _show_policies(change_policy(type="add", tenant=tenant, first=first, **rule))


@policy_app.command("remove")
def policy_remove(
    tenant: Annotated[str, typer.Argument(show_default=False)],
    number: Annotated[int, typer.Argument(help="As 'nvi policies' lists them.", show_default=False)],
) -> None:
    """Remove a rule. That holds at once, also for live connections."""
    from .client import change_policy

    _show_policies(change_policy(type="remove", tenant=tenant, number=number))


@app.command()
def connect(
    one: Annotated[str, typer.Argument(help="An endpoint.", show_default=False)],
    other: Annotated[str, typer.Argument(help="An endpoint of the same tenant.", show_default=False)],
) -> None:
    """Let two endpoints talk to each other, whatever else the policy says."""
    _pair(one, other, True)


@app.command()
def disconnect(
    one: Annotated[str, typer.Argument(help="An endpoint.", show_default=False)],
    other: Annotated[str, typer.Argument(help="An endpoint of the same tenant.", show_default=False)],
) -> None:
    """Keep two endpoints apart, whatever else the policy says. Their live connections end."""
    _pair(one, other, False)


@app.command()
def clear(
    one: Annotated[str, typer.Argument(help="An endpoint.", show_default=False)],
    other: Annotated[str, typer.Argument(help="An endpoint of the same tenant.", show_default=False)],
) -> None:
    """Take back what connect or disconnect has said of two endpoints."""
    _pair(one, other, None)


def _pair(one: str, other: str, connected: bool | None) -> None:
    from .client import change_policy

    change_policy(type="pair", one=one, other=other, connected=connected)
    said = {True: "are connected", False: "are disconnected", None: "are as the rest of the policy says"}
    print(f"{one} and {other} {said[connected]}")


def _publish(service: str, via: str, protocol: str, *, publish: bool) -> None:
    from .client import change_services
    from .errors import MISUSE, CommandError

    for text, form in ((service, "ENDPOINT:PORT"), (via, "HOST:PORT")):
        if not all(text.rpartition(":")):
            raise CommandError(f"{text!r} is not {form}", MISUSE)
    (endpoint, _, port), (gateway, _, external) = service.rpartition(":"), via.rpartition(":")
    what = {"endpoint": endpoint, "port": port, "via": gateway, "external_port": external, "protocol": protocol}
    change_services(publish=publish, **what)
    print(f"{service} ({protocol}) is {'published' if publish else 'published no more'} via {via}")


def _show_policies(view: dict[str, Any]) -> None:
    from . import show

    show.policies(view)


def _show(what: str, json: bool, **query: str | None) -> dict[str, Any]:
    from . import show
    from .client import get

    view = get(what, **query)
    (show.as_json if json else getattr(show, what))(view)
    sys.stdout.flush()
    return view
