"""`python -m nvi.embedded`: run a switch, or look at the code that a program becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .engine import Engine
from .ir import ProgramError
from .ports import PortError
from .runner import run

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


def parse_port(text: str) -> tuple[int, str]:
    """ "1@underlay0" as (1, "underlay0"). Raises typer.BadParameter."""
    number, at, name = text.partition("@")
    if not at or not number.isdecimal() or not name or int(number) > 510:
        raise typer.BadParameter(f"{text!r} is not NUMBER@INTERFACE with a number up to 510")
    return int(number), name


@app.command()
def switch(
    p4runtime: Annotated[str, typer.Option(help="Where to listen: unix:/path or 127.0.0.1:9559.")],
    device_id: Annotated[int, typer.Option(min=1, help="P4Runtime device id.")] = 1,
    port: Annotated[list[str] | None, typer.Option(help="NUMBER@INTERFACE; may be repeated.")] = None,
    port_prefix: Annotated[str | None, typer.Option(help="Every interface PREFIXn is port n.")] = None,
    cpu_port: Annotated[int, typer.Option(help="The controller's port.", min=1, max=510)] = 510,
) -> None:
    """Run a switch until SIGTERM or SIGINT."""
    try:
        run(device_id, p4runtime, dict(map(parse_port, port or ())), port_prefix, cpu_port=cpu_port)
    except (PortError, OSError) as error:
        typer.echo(f"switch: {error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def dump(
    program: Annotated[Path, typer.Argument(help="p4c's BMv2 JSON.")],
    packet: Annotated[str | None, typer.Argument(help="Its bytes in hexadecimal digits.")] = None,
    port: Annotated[int, typer.Option(help="Where it comes in.", min=0, max=510)] = 0,
) -> None:
    """Print the Python that a program becomes: its beginning, or the way that a packet takes while tables are empty."""
    try:
        engine = Engine.load(program.read_bytes())
        if packet is not None:
            engine.process(port, bytes.fromhex(packet))
        for function in engine.compiled.taken():
            typer.echo(function.source)
    except (ProgramError, OSError, ValueError) as error:
        typer.echo(f"dump: {error}", err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
