"""Nothing of a sealed model's text gets to a disk: its files are full of canaries, looked for wherever a process wrote."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from canary_case import KEY, marks
from gateway_seal import seal
from writer_case import set_keys

from gateway import FileStore, Keys

CASE = Path(__file__).parent / "canary_case.py"
TESTS = str(CASE.parent)
SIZE = 4_000_000


@pytest.fixture(autouse=True)
def _canary_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRASH_KEY", "")
    set_keys()
    monkeypatch.setenv(KEY.removeprefix("env:"), os.environ["CRASH_KEY"])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model whose every file is of bytes that are nowhere else."""
    canary = Random(7)
    with FileStore().create(str(tmp_path / "source"), Keys({})) as writer:
        writer.add_tensors("model.safetensors", {"canary": ("U8", (SIZE,), canary.randbytes(SIZE))})
        for name in ("config.json", "tokenizer.json", "1_Pooling/config.json"):
            writer.add_file(name, f'{{"canary": "{canary.randbytes(2000).hex()}"}}'.encode())
    return tmp_path / "source"


def process(root: Path, work: str, source: Path, target: Path, *more: str) -> subprocess.Popen[str]:
    """It has no other place to write to that it knows of than those below `root`."""
    places = ["HOME", "TMPDIR", "cwd", *(f"XDG_{name}" for name in ("CACHE_HOME", "CONFIG_HOME", "DATA_HOME", "RUNTIME_DIR"))]
    for place in places:
        (root / place).mkdir(parents=True, exist_ok=True)
    env = {**os.environ, **{place: str(root / place) for place in places}, "PYTHONPATH": os.pathsep.join([*sys.path, TESTS])}
    made = [sys.executable, str(CASE), work, str(source), str(target), *more]
    return subprocess.Popen(made, cwd=root / "cwd", env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def written(root: Path, work: str, source: Path, target: Path) -> list[str]:
    """The files that it wrote, none of which holds any of the source's text."""
    running = process(root, work, source, target)
    out, err = running.communicate(timeout=100)
    assert running.returncode == 0, err[-4000:]
    lines = [line.split(" ", 2) for line in out.splitlines()]
    assert not [line for line in lines if line[0] != "clean"], out
    return [path for _, _, path in lines]


def spilt(root: Path, source: Path) -> list[Path]:
    """The files below `root` in which text of the source's is."""
    known = marks(source)
    files = [file for file in root.rglob("*") if file.is_file() and not file.is_relative_to(source)]
    return [file for file in files if any(mark in file.read_bytes() for mark in known)]


def test_the_search_finds_what_is_there(tmp_path: Path, source: Path) -> None:
    shutil.copy(source / "config.json", tmp_path / "found")
    whole = (source / "model.safetensors").read_bytes()
    (tmp_path / "found too").write_bytes(b"other" + whole[-100:] + b"other")
    assert {file.name for file in spilt(tmp_path, source)} == {"found", "found too"}


def test_sealing_loading_and_verifying_write_no_text(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "target"
    assert len(written(tmp_path, "seal", source, target)) == 7  # five blobs, the keys, the manifest
    assert len(written(tmp_path, "replace", source, target)) == 7
    assert written(tmp_path, "load", source, target) == []
    assert written(tmp_path, "verify", source, target) == []
    assert not spilt(tmp_path, source)


def test_a_gateway_that_answers_with_a_sealed_model_writes_no_text(tmp_path: Path) -> None:
    """torch, transformers and tokenizers are given what they need in memory."""
    local = pytest.importorskip("gateway_local")
    source, target = Path(local.__file__).parent / "starter" / "model", tmp_path / "target"
    seal(source, target, key=KEY)
    for path in written(tmp_path, "answer", source, target):
        assert "model" not in Path(path).name
    assert not spilt(tmp_path, source)


@pytest.mark.parametrize("work", ["seal", "replace", "load", "verify"])
def test_a_process_that_is_killed_leaves_no_text(tmp_path: Path, source: Path, work: str) -> None:
    """Before one of its calls that write, read or remove."""
    target = tmp_path / "target"
    if work != "seal":
        seal(source, target, key=KEY)
    for at in range(2, 62 if work in ("seal", "replace") else 17, 5):
        running = process(tmp_path, work, source, target, str(at))
        _, err = running.communicate(timeout=100)
        assert running.returncode == -signal.SIGKILL, err
        assert not spilt(tmp_path, source), at
        if work == "seal":
            shutil.rmtree(target)


def test_a_core_dump_holds_no_tensor(tmp_path: Path, source: Path) -> None:
    """Neither what was loaded, nor what is being verified."""
    seal(source, tmp_path / "target", key=KEY)
    running = process(tmp_path, "dump", source, tmp_path / "target")
    out, err = running.communicate(timeout=100)
    assert running.returncode == -signal.SIGABRT, err
    assert int(out.split()[1]) * 1024 >= SIZE
    cores = [file for file in (tmp_path / "cwd").iterdir() if file.name.startswith("core")]
    if not cores:
        pytest.skip("this system writes no core dump into the current directory")
    data = cores[0].read_bytes()
    tensor = (source / "model.safetensors").read_bytes()[-SIZE:]
    assert b"gateway_seal" in data
    assert not [at for at in range(0, SIZE - 16, 100_000) if tensor[at : at + 16] in data]
    assert tensor[-16:] not in data
