"""The `gateway` program's way in and out: what it needs, what it exits with, and one line for every error.

Exit codes: 0 well; 1 something failed; 2 what was typed, or the request, is wrong; 130 interrupted; 141 nobody reads the pipe.
The commands are in cli_commands.py; typer and rich come with the extra [cli] and are imported only when the program runs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

INTERRUPTED = 130


def main(args: Sequence[str] | None = None) -> None:
    """Run the program and exit."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401

        code = run_program(sys.argv[1:] if args is None else list(args))
    except ImportError as error:
        if error.name not in ("rich", "typer"):
            raise
        print(f"error: the gateway program needs {error.name}: pip install 'gateway-sdk[cli]'", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:  # before there was anything to interrupt: while modules were being imported
        code = INTERRUPTED
    if code == INTERRUPTED:
        # At once: an exit of Python's own would first wait for threads, one of which may be loading a model.
        with contextlib.suppress(OSError):  # nobody may be reading any more
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def run_program(args: Sequence[str]) -> int:
    """The exit code of the program with these arguments."""
    import typer

    from gateway.cli_commands import program
    from gateway.cli_show import PIPE_CLOSED, silence
    from gateway.errors import GatewayError, InvalidRequest

    for stream in (sys.stdout, sys.stderr):
        # A model may write what the terminal's encoding cannot: that must not end the answer.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        code = program().main(args=args, prog_name="gateway", standalone_mode=False)
        sys.stdout.flush()
    except InvalidRequest as error:
        return _fail(str(error), 2)
    except GatewayError as error:
        return _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        print(file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            silence()
            return PIPE_CLOSED
        where = f"{error.filename!r}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or type(error).__name__}", 1)
    except Exception as error:
        # typer's usage errors have no public class of their own: they are known by what they can do.
        if not (hasattr(error, "format_message") and hasattr(error, "exit_code")):
            raise
        return _usage(error)
    if code == INTERRUPTED:
        print(file=sys.stderr)
    return code if isinstance(code, int) else 0


def _usage(error: Exception) -> int:
    message = str(error.format_message())  # type: ignore[attr-defined]
    ctx = getattr(error, "ctx", None)
    if not message:  # no command at all: the help was shown
        return 2
    path = ctx.command_path if ctx is not None else "gateway"
    message = message[:1].lower() + message[1:].rstrip(".")
    if "--config" in message and path != "gateway":
        return _fail(f"{message}: it goes before the command, as in `gateway --config PATH {path.split()[-1]}`", 2)
    return _fail(f"{message} (see `{path} --help`)", 2)


def _fail(message: str, code: int) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return code
