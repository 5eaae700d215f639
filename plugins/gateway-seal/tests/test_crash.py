"""Whatever stops a writer, and whenever: the old model is there whole, or the new one. Killed, interrupted, the power cut, the
disk full, another writer."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gateway_seal import SealError, add_key, open_sealed, remove_key, rotate, seal, unseal, verify
from gateway_seal.providers import default_keys
from gateway_seal.reading import SealedModel
from gateway_seal.store import SealedStore
from gateway_seal.writing import SealedWriter
from writer_case import KEY, OTHER, THIRD, content, make_plain, set_keys, state

from gateway import FileStore, Keys

CASE = Path(__file__).parent / "crash_case.py"


@pytest.fixture(autouse=True)
def _case_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for ref in (KEY, OTHER, THIRD):
        monkeypatch.setenv(ref.removeprefix("env:"), "")  # and away after the test
    set_keys()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A sealed model, beside the plain ones `old`, which it is, and `new`."""
    make_plain(tmp_path / "new", "new", 2_500_000)
    seal(make_plain(tmp_path / "old", "old", 2_500_000), tmp_path / "target", key=[KEY, OTHER])
    return tmp_path / "target"


def plain(path: Path) -> dict[str, str]:
    return content(FileStore().open(str(path), Keys({})))


def case(root: Path, *words: str, before: tuple[str, ...] = ()) -> str:
    """What a process of its own tells of a case in crash_case.py; it must have gone well."""
    made = [*before, sys.executable, str(CASE), words[0], words[1], str(root), *words[2:]]
    done = subprocess.run(made, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("work", ["new", "create", "replace", "rotate", "add-key", "remove-key"])
def test_killed_before_any_call_that_changes_the_disk(tmp_path: Path, work: str) -> None:
    assert int(case(tmp_path, "killed", work).split()[0]) > 10


@pytest.mark.parametrize("work", ["new", "replace", "rotate"])
def test_killed_at_any_time(tmp_path: Path, work: str) -> None:
    case(tmp_path, "killed at random", work, "10")


@pytest.mark.parametrize("work", ["new", "replace", "rotate"])
def test_the_power_fails_at_any_call(tmp_path: Path, work: str) -> None:
    """What was not synced is lost, and what was done may be lost in part."""
    assert int(case(tmp_path, "power cut", work).split()[0]) > 10


@pytest.mark.parametrize("work", ["new", "replace", "rotate", "verify", "load", "unseal"])
def test_ctrl_c_at_many_moments(tmp_path: Path, work: str) -> None:
    """KeyboardInterrupt comes out as itself; no thread, no file and no lock is left; what was read can be read again."""
    case(tmp_path, "interrupted", work, "30")


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("work", ["new", "replace", "rotate", "verify", "load", "unseal"])
def test_ctrl_c_at_every_moment(tmp_path: Path, work: str) -> None:
    subprocess.run([sys.executable, str(CASE), "interrupted", work, str(tmp_path), "100000"], check=True, timeout=1200)


@pytest.mark.parametrize("work", ["new", "replace", "rotate"])
def test_files_that_may_not_become_as_large(tmp_path: Path, work: str) -> None:
    """RLIMIT_FSIZE, at every size that a file of the model has."""
    assert int(case(tmp_path, "limited", work).split()[0]) >= (1 if work == "rotate" else 3)


@pytest.mark.parametrize("work", ["new", "replace", "rotate"])
def test_a_disk_that_is_full(tmp_path: Path, work: str) -> None:
    """A small tmpfs, with any number of pages left. It is mounted where only that process sees it."""
    apart = ("unshare", "--mount")
    try:
        subprocess.run([*apart, "mount", "-t", "tmpfs", "none", str(tmp_path)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no tmpfs can be mounted here: {error}")
    assert int(case(tmp_path, "full", work, before=apart).split()[0]) >= (1 if work == "rotate" else 5)


@contextmanager
def writing(root: Path, work: str) -> Iterator[None]:
    """Another process is in the middle of sealing."""
    made = [sys.executable, str(CASE), "held", work, str(root)]
    with subprocess.Popen(made, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "half-way\n"
        yield
        process.stdin.write("go on\n")
        process.stdin.close()
        assert process.stdout.readline() == "done\n"
    assert process.returncode == 0


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    target, new = tmp_path / "target", tmp_path / "new"
    with writing(tmp_path, "replace"):
        for second in (
            lambda: seal(new, target, key=KEY, replace=True),
            lambda: rotate(target, key=KEY, new=THIRD),
            lambda: add_key(target, key=KEY, new=THIRD),
            lambda: remove_key(target, key=KEY, remove=OTHER),
        ):
            with pytest.raises(SealError) as caught:
                second()
            assert str(caught.value) == f"{str(target)!r} is being written to by another process"
        assert content(open_sealed(target, key=KEY)) == plain(tmp_path / "old")
    assert content(open_sealed(target, key=KEY)) == plain(new)
    with writing(tmp_path / "more", "new"), pytest.raises(SealError, match="is being written to by another process"):
        seal(new, tmp_path / "more" / "target", key=KEY)
    assert state(tmp_path / "more" / "target")[0] == 1


def test_a_writer_that_was_overtaken_is_refused(model: Path) -> None:
    old = SealedModel.open(model, default_keys().given(KEY))
    seal(model.parent / "new", model, key=KEY, replace=True)
    there = sorted(os.listdir(model))
    with pytest.raises(SealError, match="was replaced by another process meanwhile"):
        SealedWriter(model, default_keys().given(KEY), old=old)
    assert sorted(os.listdir(model)) == there
    rotate(model, key=KEY, new=THIRD)  # it is not locked


def test_a_writer_whose_directory_was_removed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who had made it failed and removed it after this one had opened it: a third may be writing there by now."""
    import fcntl

    real = fcntl.flock

    def late(handle: int, how: int) -> None:
        (tmp_path / "target").rmdir()
        (tmp_path / "target").mkdir()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(SealError, match="is being written to by another process"):
        SealedStore().create(f"sealed:{tmp_path / 'target'}", default_keys().given(KEY))


def test_what_a_manifest_may_name_stays_when_it_cannot_be_read(model: Path) -> None:
    """Without a file handle left, nobody can tell whether the new manifest is in place."""
    import resource

    writer = SealedStore().create(f"sealed:{model.parent / 'more'}", default_keys().given(KEY))
    writer.add_file("config.json", b"{}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        writer.abort()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir(model.parent / "more")) == 1
    seal(model.parent / "new", model.parent / "more", key=KEY)


def test_an_opened_model_stays_readable_while_it_is_replaced(model: Path) -> None:
    weights = open_sealed(model, key=KEY)
    seal(model.parent / "new", model, key=KEY, replace=True)
    assert content(weights) == plain(model.parent / "old")
    assert content(open_sealed(model, key=KEY)) == plain(model.parent / "new")


def test_a_model_opens_while_it_is_replaced_again_and_again(model: Path) -> None:
    """Each time it is the one or the other, whole; a reader waits for nobody."""
    both = [plain(model.parent / name) for name in ("old", "new")]
    made = [sys.executable, str(CASE), "again and again", "replace", str(model.parent / "busy"), "25"]
    with subprocess.Popen(made, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "begun\n"
        while process.poll() is None:
            assert content(open_sealed(model.parent / "busy" / "target", key=KEY)) in both
    assert process.returncode == 0


def test_nothing_is_left_open_whatever_was_opened(model: Path) -> None:
    """Two hundred times, and fifty damaged ones: no file, no thread, and no memory more than before."""
    damaged = []
    for at in range(50):
        broken = model.parent / f"broken-{at}"
        broken.mkdir()
        names = sorted(os.listdir(model))
        for name in names:
            data = bytearray((model / name).read_bytes())
            if name == names[at % len(names)]:
                data = data[: len(data) * at // 50] if at % 2 else data[:-1] + bytes([data[-1] ^ 1])
            (broken / name).write_bytes(data)
        damaged.append(broken)

    def opened() -> None:
        content(open_sealed(model, key=KEY, threads=2))
        with pytest.raises(SealError):
            content(open_sealed(damaged[-1], key=KEY, threads=2))
            verify(damaged[-1], key=KEY)

    opened()
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for broken in damaged:
        with pytest.raises(SealError):
            content(open_sealed(broken, key=KEY, threads=2))
            verify(broken, key=KEY)
        with pytest.raises(SealError):
            unseal(broken, model.parent / "unsealed", key=KEY)
        assert not (model.parent / "unsealed").exists()
    gc.collect()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (files, threads)
    tracemalloc.start()
    try:
        opened()
        before, mapped = tracemalloc.get_traced_memory()[0], resident_bytes()
        for _ in range(200):
            open_sealed(model, key=KEY).close()
        opened()
        assert tracemalloc.get_traced_memory()[0] - before < 200_000
        assert resident_bytes() - mapped < 8 << 20
    finally:
        tracemalloc.stop()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (files, threads)


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
