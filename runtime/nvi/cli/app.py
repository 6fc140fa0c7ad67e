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
    detach: Annotated[bool, typer.Option("--detach", help="Return once the farm is up, and leave it running.")] = False,
) -> None:
    """Bring up a farm on this machine, and stay until Ctrl-C."""
    from .bring_up import up as bring_up

    raise typer.Exit(bring_up(file, target, detach=detach))


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


@endpoint_app.command("add")
def endpoint_add(
    name: Annotated[str, typer.Argument(show_default=False)],
    tenant: Annotated[str, typer.Option(help="Whose it is.", show_default=False)],
    network: Annotated[str, typer.Option(help="The network of the tenant that it is in.", show_default=False)],
    ip: Annotated[str, typer.Option(help="Its address in that network.", show_default=False)],
    host: Annotated[str, typer.Option(help="Where it is.", show_default=False)],
    mac: Annotated[str | None, typer.Option(help="Its MAC.", show_default="follows from its name")] = None,
) -> None:
    """Add an endpoint: a network namespace with the interface eth0, on a host."""
    from .client import put_endpoint

    added = put_endpoint(name, {"tenant": tenant, "network": network, "address": ip, "host": host, "mac": mac})
    print(f"{name} is on {added['host']}, port {added['port']}: {added['address']}, {added['mac']}")


@endpoint_app.command("remove")
def endpoint_remove(name: Annotated[str, typer.Argument(show_default=False)]) -> None:
    """Remove an endpoint, with every process that runs in it."""
    from .client import delete_endpoint

    delete_endpoint(name)
    print(f"{name} is gone")


def _show(what: str, json: bool, **query: str | None) -> dict[str, Any]:
    from . import show
    from .client import get

    view = get(what, **query)
    (show.as_json if json else getattr(show, what))(view)
    sys.stdout.flush()
    return view
