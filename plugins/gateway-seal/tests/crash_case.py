"""What test_crash.py runs in a process of its own, to be killed or interrupted there: ``crash_case.py CASE WORK DIR POINTS``.

A case does one piece of work again and again: at each time it is stopped one call later, and what is on the disk is looked at.
"""

from __future__ import annotations

import fcntl
import gc
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import gateway_seal.crew
from disk_case import Disk
from gateway_seal import SealError, open_sealed, seal
from gateway_seal.files import Handle
from writer_case import KEY, OTHER, THIRD, Before, Work, check_clean, content, in_child, known_states, state, tapped, work

from gateway import FileStore, Keys


def check_whole(job: Work, before: Any, after: Any, which: str) -> Any:
    """It is one or the other, and can be sealed anew: what is there."""
    found = state(job.target)
    assert found in (before, after), f"{which}: {found}, which is neither {before} nor {after}"
    job.again()
    assert content(open_sealed(job.target, key=THIRD, threads=1)) == content(FileStore().open(str(job.new), Keys({})))
    check_clean(job.target)
    return found


def killed(job: Work, points: int) -> str:
    """Killed before each call that changes the disk, and a few times at random."""
    before, after = known_states(job)
    seen = []
    for at in itertools.count():
        calls = itertools.count()

        def die(name: str, given: tuple[Any, ...], calls: Iterator[int] = calls, at: int = at) -> None:
            if next(calls) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        def do(die: Before = die) -> None:
            with tapped(die):
                job.do()

        job.begin()
        _, ended = in_child(do)
        assert ended in (0, -signal.SIGKILL), ended
        seen.append(check_whole(job, before, after, f"killed before call {at}") == after)
        if ended == 0:
            break
    assert seen[-1] and not seen[0] and seen == sorted(seen), seen
    return f"{at} calls, old before {seen.index(True)}"


def killed_at_random(job: Work, points: int) -> str:
    """Killed from outside, when it happens to be."""
    before, after = known_states(job)
    job.begin()
    began = time.monotonic()
    list(in_child(job.do))
    took, chance, dead = time.monotonic() - began, random.Random(1), 0
    for at in range(points):
        job.begin()
        ending = in_child(job.do)
        child = next(ending)
        time.sleep(chance.random() * took)
        os.kill(child, signal.SIGKILL)
        dead += next(ending) != 0
        check_whole(job, before, after, f"killed at random, {at}")
    assert dead > points // 5, dead
    return f"{dead} killed"


def fds() -> set[str]:
    """What each open file of this process is."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:  # that of the listing itself
            continue
    return found


def stop_at(at: int) -> Iterator[int]:
    """Ctrl-C at the event number `at` of what the plugin does from now on in this thread: where the interpreter looks for
    signals, which is when a function begins and when one written in C has returned.

    Not between os.open and Handle: nobody has the number then, and nobody can close it.
    """
    count = itertools.count()

    def watch(frame: FrameType, event: str, about: Any) -> None:
        if event not in ("call", "c_return") or "/gateway_seal/" not in frame.f_code.co_filename:
            return
        if about is os.open or frame.f_code is Handle.__init__.__code__:
            return
        if next(count) == at:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGINT)

    sys.setprofile(watch)
    try:
        yield 0
    finally:
        sys.setprofile(None)
    yield next(count)


@contextmanager
def nothing_left(path: Path) -> Iterator[None]:
    """What is done inside leaves no thread, no file open and no lock."""
    files = fds()
    yield
    gc.collect()
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join(5)
            assert not thread.is_alive(), thread
    assert fds() <= files, fds() - files
    if path.exists():
        handle = os.open(path, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)


def interrupted(job: Work, points: int) -> str:
    """Ctrl-C at so many events all over the work."""
    job.begin()
    before = state(job.target)
    events = next(iter(list(_counted(job.do))))
    after = state(job.target)
    stride = max(1, events // points)
    stopped = 0
    for at in range(0, events, stride):
        job.begin()
        shutil.rmtree(job.target.parent / "unsealed", ignore_errors=True)
        with nothing_left(job.target):
            stopping = stop_at(at)
            try:
                next(stopping)
                job.do()
            except KeyboardInterrupt:
                stopped += 1
            finally:
                stopping.close()
        found = state(job.target)
        assert found in (before, after), f"Ctrl-C at {at}: {found}"
        unsealed = job.target.parent / "unsealed"
        if unsealed.exists():
            assert content(FileStore().open(str(unsealed), Keys({}))) == before[1]
        if before != after:
            job.again()
            check_clean(job.target)
    assert stopped > len(range(0, events, stride)) * 0.9, stopped
    return f"{stopped} of {events} events"


def _counted(do: Callable[[], object]) -> Iterator[int]:
    counting = stop_at(-1)
    next(counting)
    do()
    yield next(counting)


def power_cut(job: Work, points: int) -> str:
    """Before each call, what a disk may hold if the power fails there: of a file what was last synced; of the directory what
    was last synced, or that without what has been removed since, or all that was done. At the end, what is promised to last."""
    disk = Disk(job.target)
    job.begin()
    before = state(job.target)
    disk.start()
    cuts: list[list[dict[str, bytes] | None]] = []
    os.fsync = disk.fsync
    with tapped(lambda name, given: cuts.append(disk.after_a_cut())):
        job.do()
    after, last = state(job.target), disk.after_a_cut()[0]
    known: list[dict[str, bytes] | None] = []
    for at, cut in enumerate(cuts):
        for files in cut:
            if files in known:
                continue
            known.append(files)
            put(job.target, files)
            found = state(job.target)
            assert found in (before, after), f"cut before call {at}: {sorted(files or ())}"
    put(job.target, last)
    assert state(job.target) == after, "it was not all synced when it was said to be done"
    return f"{len(cuts)} calls"


def put(path: Path, files: dict[str, bytes] | None) -> None:
    """These files, in the place of what there is."""
    shutil.rmtree(path, ignore_errors=True)
    if files is not None:
        path.mkdir()
    for name, data in (files or {}).items():
        (path / name).write_bytes(data)


def limited(job: Work, points: int) -> str:
    """No file may grow beyond a limit: each that just does not let one of the model's files be written."""
    before, after = known_states(job)
    sizes = sorted({file.stat().st_size for file in job.target.iterdir()})
    refused = 0
    for size in sizes:
        job.begin()
        _, ended = in_child(
            partial(refusing, job, lambda size=size: resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1,) * 2))
        )
        refused += ended == REFUSED
        assert ended in (0, REFUSED), ended
        check_refused(job, before, after, ended)
    return f"{refused} refused"


def full(job: Work, points: int) -> str:
    """The disk has no more than so many pages left, for all numbers until there are enough."""
    root = job.target.parent
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(root)], check=True)
    job = work(job.name, root, big=0)
    before, after = known_states(job)
    page, ended, pages = os.sysconf("SC_PAGE_SIZE"), REFUSED, 0
    while ended == REFUSED:
        job.begin()
        with (root / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, (os.statvfs(root).f_bavail - pages) * page)
            _, ended = in_child(partial(refusing, job, lambda: None))
        (root / "ballast").unlink()
        check_refused(job, before, after, ended)
        pages += 1
    assert ended == 0, ended
    return f"{pages - 1} refused"


REFUSED = 7


def refusing(job: Work, limit: Callable[[], object]) -> None:
    """Ends the process as REFUSED when the one error is as it should be."""
    limit()
    try:
        job.do()
    except SealError as error:
        assert str(job.target) in str(error), error
        assert "make room there, or choose another place" in str(error), error
        os._exit(REFUSED)


def check_refused(job: Work, before: Any, after: Any, ended: int) -> None:
    """Nothing is left of it."""
    assert state(job.target) == (before if ended == REFUSED else after)
    if before is None and ended == REFUSED:
        assert not job.target.exists()
    else:
        check_clean(job.target)


def held(job: Work, points: int) -> str:
    """Stays half-way until it is told to go on."""
    job.begin()
    told = []

    def wait(done: int, total: int) -> None:
        if not told:
            told.append(done)
            print("half-way", flush=True)
            sys.stdin.readline()

    seal(job.new, job.target, key=[KEY, OTHER], replace=job.name == "replace", threads=1, progress=wait)
    return "done"


def again_and_again(job: Work, points: int) -> str:
    """Replaces the old one by the new one and the new one by the old one."""
    job.begin()
    print("begun", flush=True)
    for at in range(points):
        seal(job.new.parent / ("old" if at % 2 else "new"), job.target, key=[KEY, OTHER], replace=True)
    return "done"


CASES: dict[str, Callable[[Work, int], str]] = {
    "killed": killed,
    "power cut": power_cut,
    "killed at random": killed_at_random,
    "interrupted": interrupted,
    "limited": limited,
    "full": full,
    "held": held,
    "again and again": again_and_again,
}


def main(case: str, name: str, root: str, points: str = "0") -> None:
    os.fsync = lambda handle: None  # a process that is killed loses nothing that it wrote; "power cut" has its own
    gateway_seal.crew.RUN = 1  # so that three megabytes are enough for two threads
    print(CASES[case](work(name, Path(root), big=0 if case in ("killed", "power cut", "full") else 2_500_000), int(points)))


if __name__ == "__main__":
    main(*sys.argv[1:])
