"""`gateway map`: a request for each line of a file, and a line for each result, written when its turn has come."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, TextIO

import typer

from gateway.bars import Bars
from gateway.batch_journal import BatchJournal, as_line, wire_of
from gateway.card import ANYTHING, Need
from gateway.cli_options import Given, Lines, Task, given_of, meta_of, need_of, takes
from gateway.cli_setup import Setup
from gateway.errors import GatewayError, InvalidRequest
from gateway.request import Meta, Response


@takes(given=given_of, need=need_of, meta=meta_of)
def map_(
    ctx: typer.Context,
    task: Task,
    inputs: Annotated[
        str, typer.Argument(metavar="FILE", show_default=False, help="One request a line; standard input when absent or -.")
    ] = "-",
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the results here.")] = None,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the answers here as they come; what it has is not asked again."),
    ] = None,
    max_concurrency: Annotated[int, typer.Option(metavar="N", help="At most so many at once.")] = 32,
    max_rps: Annotated[float | None, typer.Option(metavar="R", help="Begin at most so many in a second.")] = None,
    need: Need,
    given: Given,
    meta: Meta,
) -> None:
    """Ask for every line of a file, many at once; print a line of JSON for each, in order: the response or the error.

    A line is the input, as `run` takes it, or a JSON object of the task's fields. Exits 1 when some failed.
    """
    lines, bars = Lines(task, inputs, given), Bars()
    results, failed = Results(out, {"FILE": Path(inputs), "--journal": journal}), Counter[str]()

    def each(_: int, result: Response | GatewayError) -> None:
        if results.on_terminal:
            bars.close()
        if isinstance(result, GatewayError):
            failed[type(result).__name__] += 1
        results.write(as_line(wire_of(result, task)))

    try:
        with Setup.of(ctx).open(bars) as gateway:
            gateway.map(
                lines,
                need,
                meta=meta,
                max_concurrency=max_concurrency,
                max_rps=max_rps,
                journal=journal,
                progress=bars,
                each=each,
            )
            results.end()
    except KeyboardInterrupt:
        bars.close()
        # After the terminal's ^C; the program ends the line.
        print(f"\n{_broken_off(results.count, journal)}", end="", file=sys.stderr, flush=True)
        raise
    finally:
        bars.close()
        results.close()
    if failed:
        kinds = ", ".join(f"{number} {name}" for name, number in failed.most_common())
        raise GatewayError(f"{failed.total()} of {results.count} requests failed: {kinds}")


class Results:
    """Lines on their way to a file, or to standard output, where each is as soon as it is written.

    What the file held is kept until there is a line. OSError: it cannot be written. InvalidRequest: it is one of `others`,
    which are by the name of their argument.
    """

    def __init__(self, path: Path | None, others: dict[str, Path | None]) -> None:
        self.count = 0
        self._path = path
        self._file: TextIO | None = None
        if path is None:
            return
        path.open("a").close()  # before anything is paid for
        for name, other in others.items():
            if other is not None and path.is_file() and other.exists() and path.samefile(other):
                raise InvalidRequest(f"--out is the file of {name} too: give it another", field="out")

    @property
    def on_terminal(self) -> bool:
        """True where what is written is seen at once."""
        return self._path is None and sys.stdout.isatty()

    def write(self, line: str) -> None:
        """Write a line."""
        print(line, file=self._opened(), flush=True)
        self.count += 1

    def end(self) -> None:
        """There are no more lines: even without any the file is a new one."""
        self._opened()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _opened(self) -> TextIO:
        if self._path is None:
            return sys.stdout
        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8", errors="replace")
        return self._file


def _broken_off(written: int, journal: Path | None) -> str:
    if journal is None:
        lines = "1 line" if written == 1 else f"{written:,} lines"
        return f"broken off with {lines} written; with --journal FILE the same command would go on from there"
    held = "what was answered"
    reader = BatchJournal(journal, ANYTHING)
    try:
        reader.open()
        reader.read()
        held = "1 answer" if reader.held == 1 else f"{reader.held:,} answers"
    except GatewayError:  # what is under way has not let go of it yet
        pass
    finally:
        reader.close()
    return f"broken off; journal {str(journal)!r} holds {held}: the same command goes on from there"
