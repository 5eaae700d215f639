"""What test_canary.py runs in a process of its own: ``canary_case.py WORK SOURCE TARGET``.

It tells of each file that it opened for writing whether any of the source's text was in it, also of one that was deleted since.
"""

from __future__ import annotations

import builtins
import itertools
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gateway_seal import open_sealed, seal, verify
from writer_case import CALLS, tapped

KEY = "env:CANARY_KEY"
WRITES = os.O_WRONLY | os.O_RDWR


def marks(source: Path) -> set[bytes]:
    """Stretches of each of a model's files, at its beginning, middle and end: long enough to be nowhere else by chance."""
    found = set()
    for file in source.rglob("*"):
        text = file.read_bytes() if file.is_file() else b""
        for at in (0, len(text) // 2, len(text) - 48):
            if len(part := text[max(at, 0) : at + 48]) >= 16:
                found.add(part)
    return found


class Watch:
    """Keeps each file that is opened for writing, so that it can be read after it has been deleted."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, int]] = []
        self.unseen: list[str] = []
        self._open, self._builtin = os.open, builtins.open
        os.open, builtins.open = self._os, self._python  # type: ignore[assignment]
        sys.addaudithook(self._audit)

    def _os(self, path: Any, flags: int, *rest: Any, **named: Any) -> int:
        handle = self._open(path, flags, *rest, **named)
        if flags & WRITES:
            self._keep(path, handle)
        return handle

    def _python(self, file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        opened = self._builtin(file, mode, *rest, **named)
        if not isinstance(file, int) and set(mode) & set("wax+"):
            self._keep(file, opened.fileno())
        return opened

    def _keep(self, path: Any, handle: int) -> None:
        name = os.fspath(path)
        self.kept.append((name, self._open(f"/proc/self/fd/{handle}", os.O_RDONLY)))
        if name in self.unseen:
            self.unseen.remove(name)

    def _audit(self, event: str, about: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(about[0], str | os.PathLike) and isinstance(about[2], int) and about[2] & WRITES:
            self.unseen.append(os.fspath(about[0]))
        if event in ("sqlite3.connect", "subprocess.Popen", "os.exec", "os.posix_spawn"):
            self.unseen.append(f"{event} {about[0]}")

    def report(self, source: Path) -> None:
        """Each file and whether the source's text is in it; then what was opened in another way, and could not be kept."""
        known = marks(source)
        for path, handle in self.kept:
            data = b"".join(iter(lambda handle=handle: os.read(handle, 1 << 20), b""))
            print("spilt" if any(mark in data for mark in known) else "clean", len(data), path)
        for name in self.unseen:
            print("unseen", 0, name)


def load(target: Path) -> None:
    weights = open_sealed(target, key=KEY)
    weights.load()
    for name in weights.files:
        weights.file(name)
    weights.close()


def answer(target: Path) -> None:
    """A transformers model with its tokenizer, that answers."""
    from gateway import Chat, Gateway, GatewayConfig
    from gateway.plugins import load_plugins

    models = [{"name": "sealed", "weights": f"sealed:{target}", "key": KEY}]
    config = GatewayConfig(plugins=["local", "seal"], plugin={"local": {"models": models, "starter": False}})
    with Gateway(config=config, plugins=load_plugins(config)) as gateway:
        assert gateway.run(Chat.ask("Good morrow", max_tokens=4)).text


def kept_out_kb() -> int:
    """How much of this process's memory is marked as no part of a core dump."""
    areas = Path("/proc/self/smaps").read_text().split("VmFlags:")
    flags = [area.partition("\n")[0].split() for area in areas[1:]]
    sizes = [int(area.rpartition("Rss:")[2].split()[0]) for area in areas[:-1]]
    return sum(size for size, flag in zip(sizes, flags, strict=True) if "dd" in flag)


def dump(target: Path) -> None:
    """Loads a model's tensors, dies while it verifies them, and leaves a core dump."""
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
    weights = open_sealed(target, key=KEY)
    weights.load()
    print("loaded", kept_out_kb(), flush=True)
    size = weights.bytes
    verify(target, key=KEY, progress=lambda done, total: os.abort() if done > size else None)


WORK: dict[str, Callable[[Path, Path], object]] = {
    "seal": lambda source, target: seal(source, target, key=KEY),
    "replace": lambda source, target: seal(source, target, key=KEY, replace=True),
    "load": lambda source, target: load(target),
    "verify": lambda source, target: verify(target, key=KEY),
    "answer": lambda source, target: answer(target),
    "dump": lambda source, target: dump(target),
}


def killed(at: int, do: Callable[[], object]) -> None:
    """Killed before a call that changes the disk or reads from it, this many after the first."""
    calls = itertools.count()

    def die(name: str, given: tuple[Any, ...]) -> None:
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    with tapped(die, (*CALLS, "preadv")):
        do()


def main(work: str, source: str, target: str, at: str = "") -> None:
    do = partial(WORK[work], Path(source), Path(target))
    if at:
        killed(int(at), do)
    elif work == "dump":
        do()
    else:
        watch = Watch()
        do()
        watch.report(Path(source))


if __name__ == "__main__":
    main(*sys.argv[1:])
