"""Lists of words that come with this package: surnames, given names, places. A ``.txt`` file of ``rules/`` has sections, each
begun by a line ``[name]``; the rest is words between blanks."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files


@lru_cache(maxsize=32)
def words(file: str, section: str) -> tuple[str, ...]:
    """The words of a section, in their order. KeyError when there is none of that name."""
    return _sections(file)[section]


@lru_cache(maxsize=8)
def _sections(file: str) -> dict[str, tuple[str, ...]]:
    text = (files("gateway_scrub") / "rules" / f"{file}.txt").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith("["):
            current = found.setdefault(line.strip("[] "), [])
        elif not line.startswith("#"):
            current += line.split()
    return {name: tuple(entries) for name, entries in found.items()}
