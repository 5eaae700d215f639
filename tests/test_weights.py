"""Weights: the safetensors format is read strictly, written atomically, and agrees with the safetensors package."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import FileStore, Keys, TensorInfo, WeightsError
from gateway.safetensors import DTYPE_BITS, HEADER_CAP_BYTES, parse_header, read_safetensors_header
from gateway.testing.contract import WeightStoreContract
from gateway.weight_files import FileWeights

NO_KEYS = Keys({})
ENTRY: dict[str, Any] = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


class TestFileStore(WeightStoreContract):
    @pytest.fixture
    def store(self) -> FileStore:
        return FileStore()

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return f"file:{tmp_path / 'model'}"


def shard(header: Any, data: bytes = bytes(24), *, length: int | None = None) -> bytes:
    """A safetensors file; a header given as bytes is written as it is."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def refused(tmp_path: Path, file: bytes) -> str:
    """The message for a shard that breaks the format."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(file)
    with pytest.raises(WeightsError) as caught:
        FileWeights(path)
    assert "model.safetensors" in caught.value.message
    return caught.value.message


def changed(**facts: Any) -> dict[str, Any]:
    return {"w": {**ENTRY, **facts}}


def test_a_right_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(shard({"__metadata__": {"format": "pt"}, "w": ENTRY}, bytes(range(24))))
    weights = FileWeights(tmp_path)
    assert weights.tensors == {"w": TensorInfo("F32", (2, 3), 24)}
    assert bytes(weights.read("w")) == bytes(range(24))
    assert (weights.params, weights.bytes, weights.dtype) == (6, 24, "F32")


def test_a_header_length_beyond_the_file_is_refused(tmp_path: Path) -> None:
    assert "does not fit" in refused(tmp_path, shard({"w": ENTRY}, length=10_000))
    assert "does not fit" in refused(tmp_path, shard({"w": ENTRY}, length=2**64 - 1))


def test_a_header_longer_than_the_cap_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((HEADER_CAP_BYTES + 1).to_bytes(8, "little"))
        file.truncate(HEADER_CAP_BYTES + 100)
    with pytest.raises(WeightsError, match="does not fit"):
        FileWeights(path)


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_file_too_short_for_a_header_length_is_refused(tmp_path: Path, size: int) -> None:
    assert "does not fit" in refused(tmp_path, bytes(size))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nope",
        b"{",
        b'{"w":',
        b"\xff\xfe\x00",
        '{"é": 1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"a":' * 100_000,
        b"9" * 5_000,
    ],
    ids=["empty", "word", "open", "half", "binary", "utf-16", "bom", "deep", "long"],
)
def test_a_header_that_is_not_json_is_refused(tmp_path: Path, raw: bytes) -> None:
    assert "not JSON" in refused(tmp_path, shard(raw))


@pytest.mark.parametrize("header", [[], "w", 5, None, True], ids=str)
def test_a_header_that_is_no_object_is_refused(tmp_path: Path, header: Any) -> None:
    assert "not a JSON object" in refused(tmp_path, shard(header))


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    entry = json.dumps(ENTRY)
    assert "twice" in refused(tmp_path, shard(f'{{"w":{entry},"w":{entry}}}'.encode()))
    twice = '{"w":{"dtype":"F32","dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
    assert "twice" in refused(tmp_path, shard(twice.encode()))


def test_tensors_that_overlap_are_refused(tmp_path: Path) -> None:
    assert "overlap" in refused(tmp_path, shard({"a": ENTRY, "b": {**ENTRY, "data_offsets": [12, 36]}}, bytes(36)))
    assert "overlap" in refused(tmp_path, shard({"a": ENTRY, "b": ENTRY}))


def test_a_hole_between_tensors_is_refused(tmp_path: Path) -> None:
    assert "hole" in refused(tmp_path, shard({"a": ENTRY, "b": {**ENTRY, "data_offsets": [25, 49]}}, bytes(49)))
    assert "hole" in refused(tmp_path, shard(changed(data_offsets=[8, 32]), bytes(32)))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    assert "truncated" in refused(tmp_path, shard({"w": ENTRY}, bytes(23)))
    assert "truncated" in refused(tmp_path, shard({"w": ENTRY}, b""))


def test_an_extended_file_is_refused(tmp_path: Path) -> None:
    assert "extended" in refused(tmp_path, shard({"w": ENTRY}, bytes(25)))
    assert "extended" in refused(tmp_path, shard({}, b"x"))


@pytest.mark.parametrize("dtype", ["F33", "f32", "", None, 5, ["F32"], {"F32": 1}, True], ids=str)
def test_an_unknown_dtype_is_refused(tmp_path: Path, dtype: Any) -> None:
    assert "unknown dtype" in refused(tmp_path, shard(changed(dtype=dtype)))


@pytest.mark.parametrize("shape", [[2, 4], [], [6, 0], [7], [2**70, 2**70]], ids=str)
def test_a_shape_that_does_not_fit_the_bytes_is_refused(tmp_path: Path, shape: list[int]) -> None:
    assert "do not hold shape" in refused(tmp_path, shard(changed(shape=shape)))


@pytest.mark.parametrize("number", [-1, True, False, 1.0, 1e400, math.nan, "1", None, [1], {}], ids=str)
def test_numbers_that_are_not_whole_and_positive_are_refused(tmp_path: Path, number: Any) -> None:
    for facts in ({"shape": [number]}, {"data_offsets": [number, 24]}, {"data_offsets": [0, number]}):
        assert "whole numbers" in refused(tmp_path, shard(changed(**facts)))


def test_huge_and_reversed_offsets_are_refused(tmp_path: Path) -> None:
    for offsets in ([0, 2**63], [2**80, 2**80 + 24], [24, 0]):
        refused(tmp_path, shard(changed(data_offsets=offsets)))


@pytest.mark.parametrize(
    "entry",
    [None, 5, [], "F32", {}, {"dtype": "F32", "shape": [6]}, {"dtype": "F32", "data_offsets": [0, 24]}, {**ENTRY, "shape": 6},
     {**ENTRY, "data_offsets": [0]}, {**ENTRY, "data_offsets": [0, 1, 2]}, {**ENTRY, "data_offsets": 5}],
    ids=str,
)  # fmt: skip
def test_an_entry_without_its_three_facts_is_refused(tmp_path: Path, entry: Any) -> None:
    assert "needs dtype, shape and two data_offsets" in refused(tmp_path, shard({"w": entry}))


def index(tmp_path: Path, names: Mapping[str, Any] | bytes) -> None:
    raw = names if isinstance(names, bytes) else json.dumps({"weight_map": names}).encode()
    (tmp_path / "model.safetensors.index.json").write_bytes(raw)


def opened(tmp_path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        FileWeights(tmp_path)
    return caught.value.message


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/a.safetensors", "./a.safetensors"])
def test_a_shard_outside_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    index(tmp_path, {"w": name})
    assert "outside its directory" in opened(tmp_path)


@pytest.mark.parametrize("name", ["b.safetensors", "", "..", ".", "a\0b"])
def test_a_missing_shard_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(shard({"w": ENTRY}))
    index(tmp_path, {"w": "a.safetensors", "v": name})
    assert "shard" in opened(tmp_path)


@pytest.mark.parametrize(
    "raw", [b"", b"nope", b"[]", b"{}", b'{"weight_map": []}', b'{"weight_map": {"w": []}}',
            b'{"weight_map": {"w": 1, "v": "a"}}',
            b"[" * 100_000, b"\xff"], ids=lambda raw: raw[:20],
)  # fmt: skip
def test_an_index_that_is_no_index_is_refused(tmp_path: Path, raw: bytes) -> None:
    index(tmp_path, raw)
    assert "no shard index" in opened(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(shard({"w": ENTRY}))
    assert "'w' is in two shards" in opened(tmp_path)


def test_a_shard_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").mkdir()
    assert "cannot be read" in opened(tmp_path)


def test_where_nothing_is_there_are_no_weights(tmp_path: Path) -> None:
    for uri in (f"file:{tmp_path / 'none'}", "file:~no-such-user-4711/x", "none-at-all"):
        with pytest.raises(WeightsError, match="no weights at"):
            FileStore().open(uri, NO_KEYS)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([*DTYPE_BITS, "", "w"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
FACTS = st.fixed_dictionaries({}, optional={"dtype": ODD, "shape": ODD | st.lists(ODD), "data_offsets": ODD | st.lists(ODD)})


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.text(max_size=3), st.builds(lambda odd: {**ENTRY, **odd}, FACTS) | ODD, max_size=3), st.integers(0, 64)
)
def test_any_json_header_is_read_or_refused_with_a_weights_error(header: dict[str, Any], data_bytes: int) -> None:
    try:
        found = parse_header(json.dumps(header).encode(), data_bytes=data_bytes)
    except WeightsError:
        return
    assert sum(info.bytes for info, _ in found.values()) == data_bytes


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_with_any_bytes_changed_is_read_or_refused_with_a_weights_error(tmp_path: Path, data: st.DataObject) -> None:
    entries = {"a": ENTRY, "b": {"dtype": "BF16", "shape": [2], "data_offsets": [24, 28]}}
    file = bytearray(shard(entries, bytes(28)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(file) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert"])):
            case "set":
                file[at] = data.draw(st.integers(0, 255))
            case "cut":
                del file[at : at + data.draw(st.integers(0, 9))]
            case _:
                file[at:at] = data.draw(st.binary(max_size=5))
        file = file or bytearray(1)
    path = tmp_path / "model.safetensors"
    path.write_bytes(file)
    try:
        weights = FileWeights(path)
    except WeightsError:
        return
    for name, info in weights.tensors.items():
        assert len(weights.read(name)) == info.bytes
    weights.close()


def test_writing_to_a_view_does_not_change_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(shard({"w": ENTRY}))
    before = path.read_bytes()
    weights = FileWeights(path)
    view = weights.read("w")
    view[:] = b"\xff" * 24
    assert path.read_bytes() == before
    assert bytes(FileWeights(path).read("w")) == bytes(24)
    weights.close()
    assert bytes(view) == b"\xff" * 24  # a view outlives its weights


def test_dtype_is_that_of_most_bytes_and_none_without_tensors(tmp_path: Path) -> None:
    with FileStore().create(f"file:{tmp_path / 'm'}", NO_KEYS) as writer:
        writer.add_tensors("a.safetensors", {"big": ("BF16", (100,), bytes(200)), "small": ("F32", (2,), bytes(8))})
    assert FileStore().open(f"file:{tmp_path / 'm'}", NO_KEYS).dtype == "BF16"
    (tmp_path / "empty").mkdir()
    empty = FileWeights(tmp_path / "empty")
    assert (empty.dtype, empty.params, empty.bytes, dict(empty.tensors)) == (None, 0, 0, {})


def test_small_files_are_listed_and_large_kinds_are_not(tmp_path: Path) -> None:
    for name in ("config.json", "pytorch_model.bin", "model.gguf", "vocab.txt"):
        (tmp_path / name).write_bytes(b"{}")
    (tmp_path / "sub").mkdir()
    weights = FileWeights(tmp_path)
    assert weights.files == ("config.json", "vocab.txt") and weights.json("config.json") == {}
    for name in ("../x", "pytorch_model.bin", "sub", "none"):
        with pytest.raises(WeightsError, match="no file"):
            weights.file(name)
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        weights.file("vocab.txt")


@pytest.mark.parametrize("raw", [b"", b"nope", b"[1]", b"\xff", b"[" * 100_000], ids=lambda raw: raw[:5])
def test_a_small_file_that_is_no_json_object_is_a_weights_error(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "config.json").write_bytes(raw)
    with pytest.raises(WeightsError, match="JSON"):
        FileWeights(tmp_path).json("config.json")


def test_nothing_is_at_the_target_until_commit_and_nothing_stays_after_abort(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    writer = FileStore().create(f"file:{target}", NO_KEYS)
    writer.add_file("config.json", b"{}")
    assert not target.exists()
    writer.abort()
    assert list(target.parent.iterdir()) == []
    with FileStore().create(str(target), NO_KEYS) as writer:
        writer.add_file("config.json", b"{}")
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_a_target_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "model"
    writer = FileStore().create(f"file:{target}", NO_KEYS)
    target.mkdir()
    (target / "mine").write_bytes(b"mine")
    with pytest.raises(WeightsError, match="cannot be written"):
        writer.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and (target / "mine").read_bytes() == b"mine"


def test_a_target_that_cannot_be_is_a_weights_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="cannot be written"):
        FileStore().create(f"file:{tmp_path / 'file' / 'model'}", NO_KEYS)
    with pytest.raises(WeightsError, match="exists already"):
        FileStore().create(f"file:{tmp_path}", NO_KEYS)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b/c", "a/../b", "a/.b", ".hidden", "", "..", "a\0b"])
def test_a_name_that_is_no_plain_file_name_is_refused(tmp_path: Path, name: str) -> None:
    writer = FileStore().create(f"file:{tmp_path / 'm'}", NO_KEYS)
    with pytest.raises(WeightsError):
        writer.add_file(name, b"")
    writer.abort()


def test_a_file_or_tensor_that_breaks_the_format_is_refused_when_written(tmp_path: Path) -> None:
    writer = FileStore().create(f"file:{tmp_path / 'm'}", NO_KEYS)
    writer.add_file("a", b"")
    with pytest.raises(WeightsError, match="cannot be written"):
        writer.add_file("a", b"")
    wrong: list[dict[str, Any]] = [
        {"w": ("F32", (2,), b"123")}, {"w": ("F99", (1,), b"1")}, {"w": ("F32", (-1,), b"")},
        {"__metadata__": ("U8", (1,), b"1")},
    ]  # fmt: skip
    for tensors in wrong:
        with pytest.raises(WeightsError):
            writer.add_tensors("b.safetensors", tensors)
    writer.abort()


def test_data_is_aligned_to_8_bytes(tmp_path: Path) -> None:
    for name in ("w", "ww", "www", "é"):
        with FileStore().create(str(tmp_path / name), NO_KEYS) as writer:
            writer.add_tensors("m.safetensors", {name: ("U8", (1,), b"x")})
        raw = (tmp_path / name / "m.safetensors").read_bytes()
        ((_, offset),) = read_safetensors_header(lambda begin, end, raw=raw: raw[begin:end], len(raw), "m").values()
        assert offset % 8 == 0


def test_the_safetensors_package_reads_what_we_write(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    tensors = {"w": ("F32", (2, 3), bytes(24)), "e": ("I64", (0,), b""), "s": ("BF16", (), b"ab"), "é": ("U8", (0,), b"")}
    with FileStore().create(str(tmp_path / "m"), NO_KEYS) as writer:
        writer.add_tensors("model.safetensors", tensors)
    found = dict(safetensors.deserialize((tmp_path / "m" / "model.safetensors").read_bytes()))
    assert {name: (info["dtype"], tuple(info["shape"]), bytes(info["data"])) for name, info in found.items()} == tensors


def test_we_read_what_the_safetensors_package_writes(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    saved = pytest.importorskip("safetensors.numpy")
    tensors = {
        "w": numpy.frombuffer(bytes(range(24)), dtype="<f4").reshape(2, 3),
        "b": numpy.frombuffer(b"\x01\x02", dtype="<u2"),
        "e": numpy.zeros((0,), dtype="<i8"),
    }
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved.save(tensors, {"format": "np"}))
    weights = FileWeights(path)
    assert {name: (info.dtype, info.shape, bytes(weights.read(name))) for name, info in weights.tensors.items()} == {
        "w": ("F32", (2, 3), bytes(range(24))), "b": ("U16", (1,), b"\x01\x02"), "e": ("I64", (0,), b""),
    }  # fmt: skip
    weights.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_shard_that_may_not_be_read_is_a_weights_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(shard({"w": ENTRY}))
    path.chmod(0)
    assert "cannot be read" in opened(tmp_path)


def test_a_small_file_may_lie_one_folder_down(tmp_path: Path) -> None:
    with FileStore().create(f"file:{tmp_path / 'm'}", NO_KEYS) as writer:
        writer.add_file("1_Pooling/config.json", b"{}")
    weights = FileStore().open(f"file:{tmp_path / 'm'}", NO_KEYS)
    assert weights.files == ("1_Pooling/config.json",)
    assert weights.json("1_Pooling/config.json") == {}
