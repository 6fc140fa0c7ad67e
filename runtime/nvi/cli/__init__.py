"""The command `nvi`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; errors are sentences, never tracebacks (unless NVI_DEBUG is set)."""
    from .app import app
    from .errors import CommandError

    try:
        app(prog_name="nvi")
    except CommandError as error:
        print(f"nvi: {error}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # as in `nvi endpoints | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("NVI_DEBUG"):
            raise
        print(
            f"nvi: unexpected {type(error).__name__}: {error}; NVI_DEBUG=1 shows where, please report it",
            file=sys.stderr,
        )
        sys.exit(1)
