"""What who can write to the directory does while it is opened or managed; and a system that gives no more room."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from gateway_seal import SealedStore, SealError, add_key, inspect, remove_key, seal, verify
from gateway_seal.blob import SEGMENT, TEXT, Arena
from gateway_seal.crew import RUN, Crew, Scratch
from gateway_seal.floe import Floe, Forged, Params
from gateway_seal.manifest import NAME, Entry, Piece, Table, canonical, check_path, new_header
from gateway_seal.memory import private
from gateway_seal.options import SealedPath, SealOptions
from gateway_seal.reading import SealedWeights
from gateway_seal.wraps import Wrap, encode_wraps, opened_by, read_wraps
from gateway_seal.writing import SealedWriter
from hostile_case import KEY, OTHER, blob_of, keys_file, maker, refusal, see, small, write_plain

from gateway import EnvKey, Keys


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return small(tmp_path / "model")


class Meanwhile(EnvKey):
    """Unwraps as env: does; but the first time something happens before."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self._happens: list[Callable[[], object]] = [happens]

    def unwrap(self, uri: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        while self._happens:
            self._happens.pop()()
        return super().unwrap(uri, wrapped, context)

    def keys(self) -> Keys:
        return Keys({"env": self}, [KEY])


def test_a_model_that_is_replaced_while_it_is_opened_is_opened_as_it_is_then(path: Path) -> None:
    right = see(path)[0]
    keys = Meanwhile(lambda: small(path, replace=True)).keys()
    weights = SealedWeights.open(path, keys)
    assert weights._model.header.generation == 2
    assert {name: (info, bytes(weights.read(name))) for name, info in weights.tensors.items()} == right
    weights.close()


def test_a_model_that_is_damaged_is_opened_once(path: Path) -> None:
    unwrapped: list[int] = []
    blob_of(path, "config.json").unlink()

    class Counts(EnvKey):
        def unwrap(self, uri: str, wrapped: bytes, context: Mapping[str, str]) -> bytes:
            unwrapped.append(1)
            return super().unwrap(uri, wrapped, context)

    with pytest.raises(SealError, match="cannot be opened"):
        SealedWeights.open(path, Keys({"env": Counts()}, [KEY]))
    assert unwrapped == [1]


def test_inspect_shows_the_manifest_that_it_verified(path: Path, tmp_path: Path) -> None:
    other = small(tmp_path / "other", more=b"of another size")

    class Swaps(Keys):
        def given(self, refs: str | Sequence[str]) -> Keys:  # by when a first look at the manifest might have been taken
            shutil.rmtree(path)
            shutil.copytree(other, path)
            return super().given(refs)

    shown = inspect(path, key=KEY, keys=Swaps({"env": EnvKey()}))
    assert shown == inspect(other, key=KEY)  # nobody pins the digest of what was not verified


def test_a_model_put_into_the_folder_of_a_pinned_one_does_not_escape_its_pins(path: Path) -> None:
    known = SealedPath(path=path, model_id=maker(path).header.model_id.hex())
    store = SealedStore(SealOptions(keys=KEY, models=[known]))
    folder = f"sealed:{path}/1_Pooling"
    store.open(folder, Keys({"env": EnvKey()})).close()
    small(path.parent / "evil").rename(path / "1_Pooling")  # another model that the same key opens
    weights = store.open(folder, Keys({"env": EnvKey()}))
    assert not weights.tensors  # still the folder within the pinned model, where only its small file is
    assert weights.file("config.json") == b'{"pooling": "mean+max"}'
    weights.close()
    (path / NAME).unlink()
    with pytest.raises(SealError, match="is not sealed"):
        store.open(folder, Keys({"env": EnvKey()}))


def test_a_folder_that_is_not_there_is_no_empty_model(path: Path) -> None:
    with pytest.raises(SealError, match="there is no folder"):
        SealedStore(SealOptions(keys=KEY)).open(f"sealed:{path}/adapter", Keys({"env": EnvKey()}))


def test_a_path_that_no_system_would_have_is_one_error(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    for odd in (tmp_path / ("x" * 300), loop, loop / "deeper"):
        with pytest.raises(SealError):
            SealedStore(SealOptions(keys=KEY, models=[SealedPath(path=loop)])).open(f"sealed:{odd}", Keys({"env": EnvKey()}))


@pytest.mark.parametrize("label", ["\x1b[2J", "a\nb", "\u202edetsurt", "\x7f", "x" * 201])
def test_a_label_that_would_speak_to_a_terminal_is_neither_read_nor_written(path: Path, label: str) -> None:
    file = keys_file(path)
    [wrap] = read_wraps(file)
    file.write_bytes(file.read_bytes().replace(b'"label":""', b'"label":' + canonical(label)))
    for looks in (lambda: inspect(path), lambda: see(path)):
        with pytest.raises(SealError, match="are damaged"):
            looks()
    with pytest.raises(SealError, match="cannot be a label"):
        encode_wraps([Wrap(label, wrap.data)])


def test_a_key_is_removed_with_all_of_its_wraps(path: Path) -> None:
    add_key(path, key=KEY, new=OTHER)
    file = keys_file(path)
    mine, other = read_wraps(file)
    file.write_bytes(encode_wraps([other, mine, other, other]))  # as who can write there may do
    assert opened_by(file, maker(path).header, Keys({"env": EnvKey()}, [OTHER])) == [0, 2, 3]
    remove_key(path, key=KEY, remove=OTHER)
    assert read_wraps(file) == [mine]
    assert "no key opens" in refusal(path, key=OTHER)


def test_a_small_file_is_read_into_little_memory(path: Path) -> None:
    see(path)
    tracemalloc.start()
    try:
        maker(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # the cap is 16 MiB
    finally:
        tracemalloc.stop()


def test_a_data_key_is_not_serialised(path: Path) -> None:
    for kept in (maker(path), maker(path).key):
        with pytest.raises(TypeError, match="not serialised"):
            pickle.dumps(kept)


def test_a_table_of_very_many_files_is_checked_in_a_moment() -> None:
    header, key = new_header(bytes(32), bytes(16), 1)
    rows = tuple(
        Entry(path=f"a/b/{at}", pieces=(Piece(blob=f"{at:032x}.blob", size=0, header=bytes(74)),)) for at in range(50_000)
    )
    table = Table(rows)  # comparing each with each would take many minutes: the tests' time limit
    assert Table.open(table.seal(header, key), header, key) == table


def test_a_table_that_no_reader_would_open_replaces_nothing(path: Path) -> None:
    right = see(path)
    writer = SealedWriter(path, Keys({"env": EnvKey()}, [KEY]), old=maker(path))
    writer.add_file("a", b"1")
    writer.add_file("a/b", b"2")
    with pytest.raises(SealError, match="a file that is a folder, too"):
        writer.commit()
    assert see(path) == right
    assert not inspect(path, key=KEY).orphans


def test_a_model_that_goes_while_it_is_to_be_replaced_leaves_no_lock(path: Path) -> None:
    old, keys = maker(path), Keys({"env": EnvKey()}, [KEY])
    manifest = (path / NAME).read_bytes()
    (path / NAME).unlink()
    with pytest.raises(SealError, match="is not a sealed model"):
        SealedWriter(path, keys, old=old)
    (path / NAME).write_bytes(manifest)
    SealedWriter(path, keys, old=old).abort()


def test_a_character_that_only_a_newer_unicode_knows_may_be_in_a_path() -> None:
    odd = "\U000e0fff"  # unassigned in all versions so far; a later one may assign it
    assert check_path(f"models/{odd}.txt")
    assert encode_wraps([Wrap(odd, b"")])


def test_an_internal_segment_is_whole_even_when_it_is_authentic() -> None:
    floe = Floe.new(bytes(32), b"", Params(128))
    short = Floe(bytes(32), b"", floe.header, Params(128))
    segment = memoryview(bytearray(64))
    # FLOE, decryptSegment: a segment that is not the last one has ENC_SEG_LEN bytes.
    segment[:4], segment[4:16] = b"\xff" * 4, bytes(12)
    short._cipher(0).encrypt_into(bytes(12), b"x" * 32, short._place(0, False), segment[16:])
    with pytest.raises(Forged):
        floe.decrypt_into(0, segment, memoryview(bytearray(32)), last=False)


def test_a_system_that_starts_no_more_threads_is_served_by_one() -> None:
    did: list[tuple[int, str]] = []
    lock = threading.Lock()

    def work(number: int, scratch: Scratch) -> None:
        with lock:
            did.append((number, threading.current_thread().name))

    before = threading.stack_size(1 << 46)  # more than there is address space: no thread can be started
    try:
        with Crew(3) as crew:
            crew.each(range(10 * RUN), work)
    finally:
        threading.stack_size(before)
    assert sorted(did) == [(number, threading.current_thread().name) for number in range(10 * RUN)]


def test_readers_of_the_same_segments_see_only_what_was_verified(tmp_path: Path) -> None:
    plain = write_plain(tmp_path / "plain")
    text = Random(3).randbytes(2 * RUN * TEXT + 5)
    (plain / "big.txt").write_bytes(text)
    seal(plain, tmp_path / "model", key=KEY)
    model = maker(tmp_path / "model")
    [row] = [row for row in model.table.pieces() if row[1].path == "big.txt"]
    with (tmp_path / "model" / row[2].blob).open("r+b") as out:  # segment 4 is spoilt
        out.seek(4 * SEGMENT + 99)
        out.write(b"spoilt")
    for turn in range(4):
        with Crew(3) as crew, closing(model.blob(*row)) as blob, ThreadPoolExecutor(4) as readers:
            arena = Arena(blob, crew)

            def reads(seed: int, arena: Arena = arena) -> None:
                rng = Random(seed)
                for _ in range(30):
                    begin, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
                    spoilt = begin < end and begin < 5 * TEXT and end > 4 * TEXT
                    try:
                        view = arena.view(begin, end)
                    except SealError:
                        assert spoilt
                    else:
                        assert not spoilt
                        assert view == text[begin:end]

            list(readers.map(reads, range(4 * turn, 4 * turn + 4)))


def test_memory_that_is_not_there_is_one_error() -> None:
    with pytest.raises(SealError, match="there is no memory"):
        private(1 << 50)


def test_a_disk_that_takes_a_part_of_what_is_unsealed_leaves_nothing(tmp_path: Path) -> None:
    plain = write_plain(tmp_path / "plain")
    (plain / "big.txt").write_bytes(b"x" * (TEXT // 2))
    seal(plain, tmp_path / "model", key=KEY)
    code = f"""
import resource, signal
from pathlib import Path
from gateway_seal import SealError, unseal
resource.setrlimit(resource.RLIMIT_FSIZE, ({TEXT // 2 - 100}, {TEXT // 2 - 100}))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    unseal(Path({str(tmp_path / "model")!r}), Path({str(tmp_path / "out")!r}), key={KEY!r})
except SealError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot be written: File too large" in done.stdout
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model", "plain"]


def test_more_files_than_may_be_open_is_one_error_and_leaves_none_open(tmp_path: Path) -> None:
    plain = write_plain(tmp_path / "plain")
    for at in range(40):
        (plain / f"{at}.txt").write_bytes(b"x")
    seal(plain, tmp_path / "model", key=KEY)
    verify(tmp_path / "model", key=KEY)
    before = len(os.listdir("/proc/self/fd"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 20, limits[1]))
    try:
        assert "Too many open files" in refusal(tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(os.listdir("/proc/self/fd")) == before
