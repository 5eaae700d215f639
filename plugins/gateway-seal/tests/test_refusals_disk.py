"""What a reader refuses in the places of its files, in paths and in sizes; what is left in memory; two keys."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from gateway_seal import SealedStore, SealError, seal, unseal, verify
from gateway_seal.blob import SEGMENT, TEXT, Arena, Blob
from gateway_seal.crew import Crew, Scratch
from gateway_seal.manifest import NAME
from gateway_seal.options import SealOptions
from gateway_seal.providers import default_keys
from gateway_seal.wraps import Wrap, encode_wraps
from hostile_case import (
    KEY,
    OTHER,
    blob_of,
    collision,
    forge,
    keys_file,
    maker,
    refusal,
    sealed_alone,
    see,
    small,
    table_of,
    write_plain,
)

from gateway import EnvKey, FileStore, Keys

PATHS = ("../out", "a/../../out", "/etc/out", "a//b", "./a", "a/.", "..", ".", "", "a/", "a\\b", "C:a", "a\0b", "a\nb", "a\x7f")
ODD_PATHS = (" a", "a ", "a/ b", "e\u0301", "a\u202eb", "a\u200db", "\ue000", "x" * 1025, "a?", "a*", '"', "<", "|")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return small(tmp_path / "model")


@pytest.mark.parametrize("escape", [*PATHS, *ODD_PATHS])
def test_a_path_that_leads_out_of_the_directory_or_is_odd(path: Path, tmp_path: Path, escape: str) -> None:
    model = maker(path)
    table = table_of(model)
    [config] = [row for row in table["files"] if row["path"] == "config.json"]
    index = next(index for index, entry, _ in model.table.pieces() if entry.path == "config.json")
    floe = model.key.new(index, 3, escape)  # all of it is authentic, but for the path
    config |= {"path": escape, "pieces": [config["pieces"][0] | {"bytes": 3, "header": floe.header.hex()}]}
    (path / config["pieces"][0]["blob"]).write_bytes(sealed_alone(floe, b"out"))
    forge(path, table)
    assert "cannot be the path of a file" in refusal(path)
    with pytest.raises(SealError, match="cannot be the path"):
        unseal(path, tmp_path / "deep" / "out", key=KEY)
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("escape", [*PATHS, *ODD_PATHS, "\ud800"])
def test_a_path_that_would_not_be_read_is_not_written(tmp_path: Path, escape: str) -> None:
    with pytest.raises(SealError, match="cannot be the path"):
        with SealedStore().create(f"sealed:{tmp_path / 'model'}", default_keys().given(KEY)) as writer:
            writer.add_file(escape, b"x")
    assert not (tmp_path / "model").exists()


def change(name: str, value: object) -> Callable[[list[Any]], object]:
    return lambda rows: rows[0]["pieces"][0].update({name: value})


@pytest.mark.parametrize(
    "changed",
    [
        lambda rows: rows.append(rows[0]),
        lambda rows: rows.append(rows[0] | {"path": "other"}),  # a blob twice
        lambda rows: rows.append({"path": "config.json/deeper", "pieces": rows.pop()["pieces"]}),
        lambda rows: rows[0].update(pieces=[]),
        lambda rows: rows[0].update(pieces=rows[0]["pieces"] * 3),
        lambda rows: rows[0].update(link="/etc/passwd"),
        lambda rows: rows[0].pop("path"),
        lambda rows: rows.append(None),
        *(change("bytes", value) for value in (-1, (1 << 50) + 1, 1.0, "1", True, None, [1])),
        *(change("blob", value) for value in ("../x.blob", "manifest.gws", "00.blob", "A" * 32 + ".blob", "0" * 32, 7, None)),
        *(change("header", value) for value in ("", "00" * 73, "00" * 75, "0g" * 74, None)),
    ],
)
def test_a_table_that_should_never_have_been_written(path: Path, changed: Callable[[list[Any]], object]) -> None:
    table = table_of(maker(path))
    changed(table["files"])
    forge(path, table)
    assert "the manifest of the sealed model is damaged" in refusal(path)


def test_plain_weights_in_the_place_of_a_sealed_model(path: Path, tmp_path: Path) -> None:
    shutil.rmtree(path)
    write_plain(path)
    for uri in (path, path / "1_Pooling"):
        with pytest.raises(SealError, match="is not sealed"):
            SealedStore(SealOptions(keys=KEY)).open(f"sealed:{uri}", Keys({}))
    assert "is not a sealed model" in refusal(path)


def test_plain_bytes_in_the_place_of_a_blob(path: Path) -> None:
    file = blob_of(path, "model.safetensors", 1)
    file.write_bytes(bytes(range(24)).ljust(file.stat().st_size, b"\0"))
    assert "does not verify" in refusal(path)


def instead(file: Path, what: str) -> None:
    """Put something else where a file is."""
    if what in ("link to itself", "link to nothing", "link to a device", "link to a folder"):
        file.unlink()
        ends = {"itself": file.name, "nothing": "nothing", "a device": "/dev/zero", "a folder": "."}
        file.symlink_to(ends[what.removeprefix("link to ")])
    elif what == "folder":
        file.unlink()
        file.mkdir()
    elif what == "pipe":
        file.unlink()
        os.mkfifo(file)
    elif what == "socket":
        file.unlink()
        here = Path.cwd()
        os.chdir(file.parent)  # the name of a socket is short
        with closing(socket.socket(socket.AF_UNIX)) as made:
            made.bind(file.name)
        os.chdir(here)
    else:
        file.unlink()


ODD = ["link to itself", "link to nothing", "link to a device", "link to a folder", "folder", "pipe", "socket", "nothing"]


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("which", ["manifest", "keys", "blob"])
def test_what_is_no_file_in_the_place_of_one(path: Path, which: str, what: str) -> None:
    file = {"manifest": path / NAME, "keys": keys_file(path), "blob": blob_of(path, "config.json")}[which]
    before = len(os.listdir("/proc/self/fd"))
    instead(file, what)
    for _ in range(3):
        refusal(path)
        with pytest.raises(SealError):
            verify(path, key=KEY)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("which", ["manifest", "keys", "blob"])
def test_a_pipe_that_somebody_holds_open(path: Path, which: str) -> None:
    file = {"manifest": path / NAME, "keys": keys_file(path), "blob": blob_of(path, "config.json")}[which]
    instead(file, "pipe")
    held = os.open(file, os.O_RDWR)  # so reading from it finds nothing, and no end either
    try:
        assert ("is not a file of" if which == "blob" else "is not a file") in refusal(path)
    finally:
        os.close(held)


def test_a_link_to_the_right_bytes_is_followed(path: Path, tmp_path: Path) -> None:
    right = see(path)
    for file in list(path.iterdir()):  # as a hub's cache lays a model out
        (tmp_path / file.name).write_bytes(file.read_bytes())
        file.unlink()
        file.symlink_to(f"../{file.name}")
    assert see(path) == right


def test_a_huge_size_whose_blob_is_absent_short_or_full_of_holes(path: Path) -> None:
    model = maker(path)
    table, size = table_of(model), 1 << 42
    [row] = [row for row in table["files"] if row["path"] == "model.safetensors"]
    index = next(index for index, entry, _ in model.table.pieces() if entry.path == "model.safetensors")
    floe = model.key.new(index, size, "model.safetensors")
    row["pieces"] = [row["pieces"][0] | {"bytes": size, "header": floe.header.hex()}]
    del table["files"][table["files"].index(row) + 1 :]  # whose numbers would be others
    forge(path, table)
    assert "is not a file of" in refusal(path)
    file = path / row["pieces"][0]["blob"]
    file.unlink()
    assert "cannot be opened" in refusal(path)
    with file.open("wb") as out:
        out.truncate(size + 32 * -(-size // TEXT))
    assert "no memory" in (told := refusal(path)) or "does not verify" in told


def test_what_was_decrypted_is_zeroed_when_a_segment_does_not_verify(tmp_path: Path) -> None:
    plain = write_plain(tmp_path / "plain")
    (plain / "big.txt").write_bytes(b"secret!!" * (3 * TEXT // 8))
    seal(plain, tmp_path / "model", key=KEY)
    model = maker(tmp_path / "model")
    [row] = [row for row in model.table.pieces() if row[1].path == "big.txt"]
    file = tmp_path / "model" / row[2].blob
    with file.open("r+b") as out:
        out.seek(2 * SEGMENT + 500)
        out.write(b"x")
    blob, crew, scratch = model.blob(*row), Crew(1), Scratch()
    text = memoryview(bytearray(b"?" * TEXT))
    with pytest.raises(SealError):
        blob.decrypt(2, text, scratch)
    assert not any(text)
    arena = Arena(blob, crew)
    first = arena.view(0, 8)
    with pytest.raises(SealError):
        arena.view(0, 3 * TEXT)
    assert bytes(first) == b"secret!!"  # it had been verified
    assert not any(arena._text[TEXT:])  # segment 1 is authentic, but belongs to what failed
    assert bytes(arena.view(TEXT, TEXT + 4)) == bytes((b"secret!!" * 2)[TEXT % 8 : TEXT % 8 + 4])
    blob.close()


def test_a_blob_that_is_cut_while_it_is_open(tmp_path: Path) -> None:
    plain = write_plain(tmp_path / "plain")
    (plain / "big.txt").write_bytes(b"secret!!" * (TEXT // 4))
    seal(plain, tmp_path / "model", key=KEY)
    model = maker(tmp_path / "model")
    [row] = [row for row in model.table.pieces() if row[1].path == "big.txt"]
    blob: Blob = model.blob(*row)
    os.truncate(tmp_path / "model" / row[2].blob, SEGMENT + 9)
    text = memoryview(bytearray(b"?" * blob.text_bytes(1)))
    with pytest.raises(SealError, match="segment 1 does not verify"):
        blob.decrypt(1, text, Scratch())
    assert not any(text)
    blob.close()


def test_one_wrap_that_opens_under_two_keys_to_two_data_keys(path: Path) -> None:
    context = maker(path).header.context
    wrap = collision(KEY, OTHER, context)
    found = [EnvKey().unwrap(key, wrap, context) for key in (KEY, OTHER)]
    assert len(found[0]) == len(found[1]) == 32
    assert found[0] != found[1]  # GCM commits to no key: each verifies
    keys_file(path).write_bytes(encode_wraps([Wrap("", wrap)]))
    for key in (KEY, OTHER):
        assert "does not fit its manifest" in refusal(path, key=key)


def test_plain_weights_are_still_what_file_reads(tmp_path: Path) -> None:
    """So that the refusals above are of what is done to a model, and not of the model."""
    weights = FileStore().open(str(write_plain(tmp_path / "plain")), Keys({}))
    tensors = {name: (info, bytes(weights.read(name))) for name, info in weights.tensors.items()}
    assert see(small(tmp_path / "model"))[0] == tensors
    weights.close()
