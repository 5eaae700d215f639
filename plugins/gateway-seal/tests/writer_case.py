"""What is done to a sealed model in test_crash.py and test_canary.py, and what can be seen of it afterwards."""

from __future__ import annotations

import base64
import builtins
import fcntl
import json
import os
import random
import shutil
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from gateway_seal import SealError, add_key, inspect, open_sealed, remove_key, rotate, seal, unseal, verify
from gateway_seal.providers import default_keys
from gateway_seal.store import SealedStore

from gateway import FileStore, Keys, Weights

KEY, OTHER, THIRD = "env:CRASH_KEY", "env:CRASH_OTHER", "env:CRASH_THIRD"
CALLS = (
    "open", "close", "pwrite", "write", "fsync", "rename", "replace", "unlink", "mkdir", "rmdir", "posix_fallocate",
    "ftruncate", "link", "symlink", "sendfile", "writev", "pwritev",
)  # fmt: skip
"""What changes a disk."""
Before = Callable[[str, tuple[Any, ...]], object]


def set_keys() -> None:
    """The same three keys in every process."""
    for ref in (KEY, OTHER, THIRD):
        os.environ[ref.removeprefix("env:")] = base64.b64encode(sha256(ref.encode()).digest()).decode()


def make_plain(path: Path, seed: str, big: int = 0) -> Path:
    """A model of two shards, whose bytes all follow from `seed`."""
    mark = sha256(seed.encode()).digest()
    with FileStore().create(str(path), Keys({})) as writer:
        writer.add_file("config.json", json.dumps({"seed": seed}).encode())
        writer.add_file("tokenizer.json", mark * 3)
        writer.add_file("1_Pooling/config.json", b"")
        writer.add_tensors("model-1.safetensors", {"a": ("U8", (len(mark),), mark)})
        writer.add_tensors("model-2.safetensors", {seed: ("U8", (32 + big,), mark + random.Random(seed).randbytes(big))})
        places = {"a": "model-1.safetensors", seed: "model-2.safetensors"}
        writer.add_file("model.safetensors.index.json", json.dumps({"weight_map": places}).encode())
    return path


def content(weights: Weights) -> dict[str, str]:
    """A digest of each tensor and each file."""
    try:
        read = {f"tensor {name}": bytes(weights.read(name)) for name in weights.tensors}
        read |= {f"file {name}": weights.file(name) for name in weights.files}
    finally:
        weights.close()
    return {name: sha256(data).hexdigest() for name, data in read.items()}


def opens(path: Path, key: str) -> bool:
    try:
        open_sealed(path, key=key, threads=1).close()
    except SealError as error:
        assert "did not wrap it" in str(error), error
        return False
    return True


def state(path: Path) -> Any:
    """All that can be seen of a sealed model, every byte of it verified; None when there is none."""
    try:
        found = inspect(path)
    except SealError as error:
        assert str(path) in str(error), error
        return None
    keys = [ref for ref in (KEY, OTHER, THIRD) if opens(path, ref)]
    verify(path, key=keys)
    return found.generation, content(open_sealed(path, key=keys, threads=1)), found.labels, keys


def check_clean(path: Path) -> None:
    """Nothing lies there that belongs to no generation, nor beside it."""
    assert not inspect(path, key=(KEY, OTHER, THIRD)).orphans
    odd = [name for name in os.listdir(path.parent) if name.startswith(".")]
    assert not odd, odd


@dataclass
class Work:
    """What is done to a model at `target`: `do` brings it from what `begin` makes to another state."""

    name: str
    target: Path
    new: Path
    begin: Callable[[], None]
    do: Callable[[], object]
    again: Callable[[], object]
    """What the user does after a crash: it must succeed, and clean up."""


def work(name: str, root: Path, *, big: int) -> Work:
    """The work of that name, its directories prepared."""
    set_keys()
    target, kept = root / "target", root / "kept"
    old, new = make_plain(root / "old", "old", big), make_plain(root / "new", "new", big)
    seal(old, kept, key=[KEY, OTHER])
    inspect(kept, key=KEY)  # all that is imported late is there now

    def begin() -> None:
        shutil.rmtree(target, ignore_errors=True)
        if name not in ("new", "create"):
            shutil.copytree(kept, target)

    def create() -> None:
        with SealedStore().create(f"sealed:{target}", default_keys().given(KEY)) as writer:
            there = FileStore().open(str(new), Keys({}))
            for file in there.files:
                writer.add_file(file, there.file(file))
            writer.add_tensors("model-1.safetensors", {"a": ("U8", (32,), there.read("a"))})
            writer.add_tensors("model-2.safetensors", {"new": ("U8", (32 + big,), there.read("new"))})

    def replace() -> None:
        seal(new, target, key=[KEY, OTHER], replace=True, threads=2)

    does: dict[str, Callable[[], object]] = {
        "new": lambda: seal(new, target, key=[KEY, OTHER], threads=2),
        "create": create,
        "replace": replace,
        "rotate": lambda: rotate(target, key=KEY, new=THIRD, label="third"),
        "add-key": lambda: add_key(target, key=KEY, new=THIRD),
        "remove-key": lambda: remove_key(target, key=KEY, remove=OTHER),
        "verify": lambda: verify(target, key=KEY),
        "load": lambda: load(target),
        "unseal": lambda: unseal(target, root / "unsealed", key=KEY),
    }

    def again() -> None:
        seal(new, target, key=[KEY, OTHER, THIRD], replace=(target / "manifest.gws").exists(), threads=1)

    return Work(name, target, new, begin, does[name], again)


def load(path: Path) -> None:
    """All of it. After Ctrl-C the same weights can be read once more."""
    weights = open_sealed(path, key=KEY, threads=2)
    try:
        weights.load()
        weights.file("config.json")
    except KeyboardInterrupt:
        weights.load()
        assert bytes(weights.read("a")) == sha256(b"old").digest()
        raise
    finally:
        weights.close()


@contextmanager
def tapped(before: Before, calls: Sequence[str] = CALLS) -> Iterator[None]:
    """`before` is told of each of these calls, with its arguments."""
    busy = threading.local()

    def through(name: str, real: Callable[..., Any], *given: Any, **named: Any) -> Any:
        if not getattr(busy, "now", False):
            busy.now = True
            before(name, given)
            busy.now = False
        return real(*given, **named)

    taps = [(os, name) for name in calls] + [(builtins, "open"), (fcntl, "flock")]
    reals = [getattr(owner, name) for owner, name in taps]
    for (owner, name), real in zip(taps, reals, strict=True):
        setattr(owner, name, partial(through, name, real))
    try:
        yield
    finally:
        for (owner, name), real in zip(taps, reals, strict=True):
            setattr(owner, name, real)


def in_child(do: Callable[[], object]) -> Iterator[int]:
    """The process that does it; then how it ended, 0 or minus the signal. A failure's traceback is shown."""
    child = os.fork()
    if not child:
        try:
            do()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    yield child
    yield os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def known_states(job: Work) -> tuple[Any, Any]:
    """What is there before the work, and after it."""
    job.begin()
    before = state(job.target)
    _, ended = in_child(job.do)
    assert ended == 0
    after = state(job.target)
    assert before != after
    check_clean(job.target)
    return before, after
