"""Thousands of random changes to a sealed model: always one SealError, or the right tensors where a change does not matter."""

from __future__ import annotations

import os
import resource
import tracemalloc
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from gateway_seal import SealError
from hostile_case import Seen, maker, see, small
from mutation_case import Files, Mutator

SEED = 2026
CONSTANT_BYTES = 6 << 20
"""2 MiB are a thread's room for a segment and its text; Python's table of interned strings takes 2 or 4 when it grows."""
MAPPED_BYTES = 64 << 20


def files_of(path: Path) -> Files:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def mutator(tmp_path: Path) -> tuple[Path, Mutator]:
    """A model, and with it the files of its older generation and of another model."""
    path = small(tmp_path / "model")
    strange = list(files_of(path).values()) + list(files_of(small(tmp_path / "other")).values())
    small(path, replace=True)
    plain = tmp_path / "model-plain"
    texts = [(file.relative_to(plain).as_posix(), file.read_bytes()) for file in sorted(plain.rglob("*")) if file.is_file()]
    return path, Mutator(maker(path), files_of(path), texts, strange)


def wrong(way: str, seen: Seen, right: Seen) -> bool:
    """Whether something was read that was not sealed."""
    if way.startswith("text"):
        return False  # it is what the maker wrote
    if "who has the key" not in way:
        return seen != right
    return any(right[at].get(name) != value for at in (0, 1) for name, value in seen[at].items())


def mutate(tmp_path: Path, count: int, first: int = 0) -> Counter[tuple[str, bool]]:
    """How many changes of each kind were refused or did not matter. Fails with the number of one that did something else."""
    path, changes = mutator(tmp_path)
    right = see(path)
    most = 2 * sum(map(len, changes.files.values()))
    told: Counter[tuple[str, bool]] = Counter()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    tracemalloc.start()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MAPPED_BYTES, limits[1]))
    try:
        for number in range(first, first + count):
            rng = Random(f"{SEED} {number}")
            way = rng.choice(list(changes.ways))
            changed, how = changes.ways[way](rng)
            for name, data in changed.items():
                (path / name).write_bytes(data)
            size = max(most, 2 * sum(map(len, changed.values())))
            del rng
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            fault, refused = "", False
            try:
                if wrong(way, see(path), right):
                    fault = "something else was read"
            except SealError as error:
                refused = True
                fault = "it took too much memory" if "no memory" in str(error) else ""
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
            peak = tracemalloc.get_traced_memory()[1] - before
            if peak > size + CONSTANT_BYTES:
                fault = fault or f"it took {peak} bytes"
            if fault:
                what = {name: data[:3000] for name, data in changed.items()}
                pytest.fail(f"mutation {number} of {way}: {how}: {fault}; left in {path}: {what!r}", pytrace=False)
            told[way, refused] += 1
            for name in changed:
                if name in changes.files:
                    (path / name).write_bytes(changes.files[name])
                else:
                    (path / name).unlink()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        tracemalloc.stop()
    assert see(path) == right
    return told


def test_mutations_are_refused_or_do_not_matter(tmp_path: Path) -> None:
    told = mutate(tmp_path, 2_000)
    for way in {way for way, _ in told}:
        assert told[way, True] or way.startswith("pieces"), way
    assert told["pieces, by who has the key", False] > 100  # so what is changed does get as far as the tensors
    assert not told["pieces, by who has the key", True]


@pytest.mark.soak
def test_twenty_thousand_mutations(tmp_path: Path) -> None:
    assert sum(mutate(tmp_path, 20_000, 2_000).values()) == 20_000


def test_no_handle_is_left_open_by_what_is_refused(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    mutate(tmp_path, 300, 50_000)
    assert len(os.listdir("/proc/self/fd")) == before
