"""`python -m nvi.agent --config FILE`: run the agents that the file describes, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvloop

from ..config import FarmConfig
from .hostfile import read_host_file
from .process import ConfigError, check, run, run_host

MISUSE = 2
"""Exit status for a command line or configuration that cannot be right."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m nvi.agent", description="Run the agents of one or more hosts.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="JSON of nvi.config.FarmConfig")
    parser.add_argument("--verbose", action="store_true", help="log also what is refused, and why")
    options = parser.parse_args(arguments)
    log_to_stderr(verbose=options.verbose)
    try:
        farm = read_config(options.config)
    except ConfigError as error:
        print(f"nvi.agent: {error}", file=sys.stderr)
        return MISUSE
    return _run(partial(run, farm))


def run_host_file(path: Path, *, verbose: bool) -> int:
    """`nvi agent --config FILE`: run the agent of one host. Returns the exit status; raises HostFileError."""
    log_to_stderr(verbose=verbose)
    return _run(partial(run_host, read_host_file(path)))


def _run(work: Callable[[asyncio.Event], Coroutine[Any, Any, bool]]) -> int:
    # Measured against asyncio's loop with grpc.aio: a unary call takes a fifth less.
    return 0 if uvloop.run(_until_signalled(work)) else 1


def read_config(path: Path) -> FarmConfig:
    """Raises ConfigError, naming the file and the place in it."""
    try:
        farm = msgspec.json.decode(path.read_bytes(), type=FarmConfig)
        check(farm)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (ValueError, ConfigError) as error:  # msgspec's errors are ValueErrors, too
        raise ConfigError(f"the configuration {path} is not usable: {error}") from None
    return farm


def log_to_stderr(*, verbose: bool) -> None:
    """One event per line, for people: ours, and the warnings of libraries."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s [%(levelname)s] %(name)s: %(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S.%f", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


async def _until_signalled(work: Callable[[asyncio.Event], Coroutine[Any, Any, bool]]) -> bool:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_once(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)  # the second one ends the process the hard way
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_once, number)
    return await work(stop)


if __name__ == "__main__":
    sys.exit(main())
