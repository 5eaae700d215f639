"""`gateway scrub`. Imported when it is used."""

from __future__ import annotations

import codecs
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from gateway import Bars, InvalidRequest
from gateway_scrub.errors import ScrubError
from gateway_scrub.json_stream import JsonFile, written
from gateway_scrub.options import ScrubOptions, read_options
from gateway_scrub.scrubber import Scrubber
from gateway_scrub.stretches import Changes, Stretch, TextFile
from gateway_scrub.view import Diff, coloured, on_terminal, spans_of, told

CHUNK = 1 << 20
LARGE = 1 << 23
"""Bytes of a file from which on there is a bar."""


def scrub(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="FILE", show_default=False, help="What to scrub; standard input when absent or -.")
    ] = "-",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it here; it may be FILE itself.")
    ] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Show instead the lines that change, before and after.")] = False,
    spans: Annotated[
        bool, typer.Option("--spans", help="Print instead a line of JSON for each find, without its text.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="With --spans: the text, too.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 if anything was found.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="It is JSON or JSON Lines, and stays that.")] = False,
    types: Annotated[
        list[str] | None, typer.Option("--types", metavar="TYPE,...", help="Look for these only, such as EMAIL,PHONE.")
    ] = None,
    mask: Annotated[bool, typer.Option("--mask", help="Put *** for each find.")] = False,
    threshold: Annotated[
        float | None, typer.Option("--threshold", metavar="SCORE", help="From 0 to 1: from where on a find counts.")
    ] = None,
    errors: Annotated[
        str, typer.Option("--errors", metavar="strict|replace", help="What of bytes that are no UTF-8 text.")
    ] = "strict",
) -> None:
    """Put placeholders for personal data and secrets in a file of any size. [plugin.scrub] says what is looked for.

    What is found is counted on standard error. A value has the same placeholder in the whole output, and there is no way back.
    """
    if diff + spans + check > 1:
        raise InvalidRequest("of --diff, --spans and --check give one", field="--diff")
    if show and not spans:
        raise InvalidRequest("--show goes with --spans", field="--show")
    if errors not in ("strict", "replace"):
        raise InvalidRequest(f"--errors is strict or replace, not {errors!r}", field="--errors")
    if source == "-" and sys.stdin.isatty():
        raise InvalidRequest("give a file, or pipe the text in", field="FILE")
    options = read_options(ctx.obj.config.plugin.get("scrub", {}))
    if options.names is not None or options.presidio:
        _note("names are looked for by rules only: this command asks no model")
    changes = Changes(_scrubber(options, types, threshold, mask=mask))
    view = _view(diff=diff, spans=spans, show=show)
    quiet = check or view is not None
    with (
        _input(source) as (stream, size),
        _output(out, quiet=quiet) as write,
        _bar(source, size, seen=view is not None or not (check or out)) as progress,
    ):
        name = "standard input" if source == "-" else repr(source)
        file = JsonFile(changes, name) if as_json else TextFile(changes)
        for stretch in _stretches(file, _texts(stream, name, errors, progress)):
            write(written(stretch) if as_json else stretch.made)
            for line in view(stretch) if view is not None and stretch.changes else ():
                print(line)
    sys.stdout.flush()
    _note(told(changes.counts.items()))
    if check and changes.counts:
        raise typer.Exit(1)


def _note(line: str) -> None:
    print(f"\x1b[2m{line}\x1b[0m" if coloured(sys.stderr) else line, file=sys.stderr, flush=True)


def _scrubber(options: ScrubOptions, types: list[str] | None, threshold: float | None, *, mask: bool) -> Scrubber:
    if threshold is not None:
        if not 0.0 <= threshold <= 1.0:
            raise InvalidRequest("--threshold must be between 0 and 1", field="--threshold")
        options = replace(options, threshold=threshold)
    if types is not None:
        wanted = [kind.strip().upper() for given in types for kind in given.split(",") if kind.strip()]
        if not wanted:
            raise InvalidRequest("--types names no type", field="--types")
        known = Scrubber(options).types
        if odd := sorted(set(wanted) - known):
            raise InvalidRequest(f"--types: there is no type {odd[0]}; there are: {', '.join(sorted(known))}", field="--types")
        options = replace(options, types=wanted)
    if mask:
        kept = {kind: action for kind, action in options.remote.items() if action == "keep"}
        options = replace(options, remote={**kept, "*": "mask"})
    return Scrubber(options)


def _view(*, diff: bool, spans: bool, show: bool) -> Callable[[Stretch], Iterator[str]] | None:
    if spans:
        return lambda stretch: spans_of(stretch, show=show)
    return Diff().lines if diff else None


def _stretches(file: TextFile | JsonFile, texts: Iterator[str]) -> Iterator[Stretch]:
    for text in texts:
        yield from file.feed(text)
    yield from file.flush()


def _texts(stream: BinaryIO, name: str, errors: str, progress: Callable[[int], None]) -> Iterator[str]:
    """The input, decoded. ScrubError: a byte is no text, and which."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    done = 0
    while True:
        data = stream.read1(CHUNK) if hasattr(stream, "read1") else stream.read(CHUNK)
        held = len(decoder.getstate()[0])
        text, bad = "", -1
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            bad = done - held + error.start
        if bad < 0 and errors == "strict" and b"\0" in data:
            bad = done + data.index(b"\0")
        if bad >= 0:  # raised here: the context would hold what was in the file
            raise ScrubError(f"{name} is not UTF-8 text at byte {bad:,}: convert it, or pass --errors replace")
        yield text
        if not data:
            return
        done += len(data)
        progress(done)


@contextmanager
def _input(source: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """The bytes, and how many there are, if that is known."""
    if source == "-":
        yield sys.stdin.buffer, None
        return
    with open(source, "rb") as file:
        state = os.fstat(file.fileno())
        yield file, state.st_size if stat.S_ISREG(state.st_mode) else None


@contextmanager
def _output(path: Path | None, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Where the scrubbed text goes: nowhere, to standard output, or into a file, which is new only once it is whole."""
    if path is None:
        if quiet:
            yield lambda text: None
            return
        sys.stdout.flush()
        yield lambda text: _all(sys.stdout.buffer, text)
        sys.stdout.buffer.flush()
        return
    if path.exists() and not path.is_file():  # a device or a pipe is written to as it is
        with path.open("wb") as file:
            yield lambda text: _all(file, text)
        return
    target = path.resolve()
    made = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        file = made.open("xb")
    except OSError as error:  # it is not this name that was given
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with file:
            if target.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            yield lambda text: _all(file, text)
        made.replace(target)
    finally:
        with suppress(OSError):
            made.unlink(missing_ok=True)


def _all(file: BinaryIO, text: str) -> None:
    file.write(text.encode())


@contextmanager
def _bar(source: str, size: int | None, *, seen: bool) -> Iterator[Callable[[int], None]]:
    """A bar for a large file, unless something else is `seen` on the terminal."""
    if (size is not None and size < LARGE) or (seen and on_terminal(sys.stdout)):
        yield lambda done: None
        return
    bars, label = Bars(), f"scrub {'standard input' if source == '-' else Path(source).name}"
    try:
        yield lambda done: bars(label, done, size)
    finally:
        bars.close()
