"""Where in a TOML file a key is written, for error messages."""

from __future__ import annotations

import re


def line_of_key(problem: str, text: str) -> int | None:
    """The line that a problem, told as ``key.of.it: what``, is about; None where it is not written."""
    return _line_of(tuple(problem.partition(":")[0].split(".")), text)


def at_key(message: str, text: str) -> str:
    """A TOML error, with the key that its line is about."""
    found = re.search(r"at line (\d+)", message)
    lines = text.splitlines()
    if not found or not 0 < int(found[1]) <= len(lines):
        return message
    key = ASSIGNED.match(lines[int(found[1]) - 1])
    return f"{message}, key {key[1]!r}" if key else message


STEP = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[\w-]+)"""
ASSIGNED = re.compile(rf"\s*({STEP}(?:\s*\.\s*{STEP})*)\s*=")
HEADER = re.compile(rf"\s*(\[\[?)\s*({STEP}(?:\s*\.\s*{STEP})*)\s*\]")


def _line_of(loc: tuple[int | str, ...], text: str) -> int | None:
    """The line where the key at `loc` is written, or else the nearest table or key around it."""
    wanted = tuple(map(str, loc))
    arrays: dict[tuple[str, ...], int] = {}  # which item of an array of tables we are in
    table: tuple[str, ...] = ()
    depth, best, quote = 0, None, ""
    for number, line in enumerate(text.splitlines(), 1):
        if quote:  # in a string of several lines
            quote = "" if quote in line else quote
            continue
        if header := HEADER.match(line):
            table, steps = (), _steps(header[2])
            for at, step in enumerate(steps, 1):
                table += (step,)
                if header[1] == "[[" and at == len(steps):
                    arrays[table] = arrays.get(table, -1) + 1
                if table in arrays:
                    table += (str(arrays[table]),)
            here = table
        elif assigned := ASSIGNED.match(line):
            here = table + _steps(assigned[1])
            quote = next((mark for mark in ('"""', "'''") if line.count(mark) % 2), "")
        else:
            continue
        if len(here) > depth and wanted[: len(here)] == here:
            depth, best = len(here), number
    return best


def _steps(key: str) -> tuple[str, ...]:
    """The steps of a dotted key, without their quotes."""
    return tuple(step[1:-1] if step[0] in "\"'" else step for step in re.findall(STEP, key))
