"""What a reader refuses, one test each: whatever was done to a sealed model, it is one SealError and nothing was shown."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from gateway_seal import Pins, SealError, inspect, open_sealed, rotate, seal, unseal, verify
from gateway_seal.blob import SEGMENT, TEXT
from gateway_seal.floe import Floe, Forged, Params
from gateway_seal.manifest import MANIFEST_CAP_BYTES, NAME, Header, Table, canonical
from gateway_seal.wraps import Wrap, encode_wraps
from hostile_case import (
    KEY,
    OTHER,
    blob_of,
    forge,
    keys_file,
    maker,
    manifest_of,
    refusal,
    see,
    small,
    table_of,
    with_header,
    write_plain,
)

from gateway import EnvKey


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return small(tmp_path / "model")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A model whose tensors take three segments, of which the last is full, too."""
    return small(tmp_path / "large", more=random.Random(5).randbytes(3 * TEXT - 124))


def flips(data: bytes) -> list[bytes]:
    """`data` with each of its bits flipped."""
    out = []
    for at in range(8 * len(data)):
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        out.append(bytes(changed))
    return out


def test_every_bit_of_the_manifest(path: Path) -> None:
    manifest = (path / NAME).read_bytes()
    model = maker(path)
    clear = 8 * len(model.header.encoded)
    for at, changed in enumerate(flips(manifest)):
        with pytest.raises(SealError):
            if at < clear or at % 64 == 0:
                (path / NAME).write_bytes(changed)
                maker(path)
            else:  # the same, without unwrapping the key each time
                Table.open(changed, Header.read(changed), model.key)
            pytest.fail(f"bit {at} does not matter")
    (path / NAME).write_bytes(manifest)
    assert maker(path).table == model.table


def test_every_bit_of_the_keys(path: Path) -> None:
    rotate(path, key=KEY, new=OTHER, label="ours")
    file, right = keys_file(path, key=OTHER), see(path, key=OTHER)
    data = file.read_bytes()
    begin = data.index(b"ours")
    for at, changed in enumerate(flips(data)):
        file.write_bytes(changed)
        try:
            maker(path, key=OTHER)
        except SealError:
            continue
        # The label is for people; and base64 has bits of which the decoder takes no notice.
        assert begin <= at // 8 < begin + 4 or json.loads(changed)["wraps"][0]["wrap"].endswith("="), at
        assert see(path, key=OTHER) == right


def test_every_bit_of_the_headers_of_blobs(path: Path) -> None:
    model = maker(path)
    for index, entry, piece in model.table.pieces():
        model.key.floe(index, piece, entry.path)
        for header in flips(piece.header):
            with pytest.raises(SealError, match="its header does not verify"):
                model.key.floe(index, replace(piece, header=header), entry.path)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 64, 80])
def test_every_bit_of_a_blob_at_segments_of_64_bytes(size: int) -> None:
    params, text = Params(64), random.Random(size).randbytes(size)
    floe = Floe.new(bytes(32), b"aad", params)
    count = params.segments(size)
    for at in range(count):
        part = text[at * 32 : at * 32 + 32]
        sealed = memoryview(bytearray(len(part) + 32))
        floe.encrypt_into(at, part, sealed, last=at == count - 1)
        for changed in flips(bytes(sealed)):
            out = memoryview(bytearray(len(part)))
            with pytest.raises(Forged):
                floe.decrypt_into(at, memoryview(changed), out, last=at == count - 1)
            assert not any(out)


def test_random_bits_of_a_blob_at_segments_of_1_mib() -> None:
    rng = random.Random(7)
    text = rng.randbytes(TEXT)
    floe = Floe.new(bytes(32), b"aad")
    sealed, out = memoryview(bytearray(SEGMENT)), memoryview(bytearray(TEXT))
    floe.encrypt_into(3, text, sealed, last=False)
    for _ in range(2_000):
        at, bit = rng.randrange(SEGMENT), 1 << rng.randrange(8)
        sealed[at] ^= bit
        with pytest.raises(Forged):
            floe.decrypt_into(3, sealed, out, last=False)
        assert not out[at % TEXT] and not out[rng.randrange(TEXT)]
        sealed[at] ^= bit
    floe.decrypt_into(3, sealed, out, last=False)
    assert out == text


@pytest.mark.parametrize("which", ["manifest", "keys", "blob"])
def test_a_file_cut_or_extended_anywhere(path: Path, which: str) -> None:
    file = {"manifest": path / NAME, "keys": keys_file(path), "blob": blob_of(path, "config.json")}[which]
    data, right = file.read_bytes(), see(path)
    for size in range(len(data)):
        file.write_bytes(data[:size])
        refusal(path)
    for more in (b"\0", b" ", b"\n", b"}", data, bytes(32), bytes(5000)):
        file.write_bytes(data + more)
        refusal(path)
        file.write_bytes(more + data)
        refusal(path)
    file.write_bytes(data)
    assert see(path) == right


@pytest.mark.parametrize(
    "order", [(0, 2, 1), (1, 0, 2), (2, 1, 0), (0, 0, 2), (1, 1, 2), (2, 2, 2), (0, 1, 1)], ids=lambda order: str(order)
)
def test_segments_reordered_or_duplicated(large: Path, order: tuple[int, ...]) -> None:
    file = blob_of(large, "model.safetensors", 1)
    data = file.read_bytes()
    assert len(data) == 3 * SEGMENT
    file.write_bytes(b"".join(data[at * SEGMENT : (at + 1) * SEGMENT] for at in order))
    assert "does not verify" in refusal(large)
    with pytest.raises(SealError, match="does not verify"):
        verify(large, key=KEY)
    with pytest.raises(SealError, match="does not verify"):
        unseal(large, large.parent / "out", key=KEY)
    assert not (large.parent / "out").exists()


@pytest.mark.parametrize("order", [(0, 1), (1, 2), (0, 2), (2,), (0, 1, 2, 2), (0, 0, 1, 2)], ids=lambda order: str(order))
def test_segments_dropped_or_added(large: Path, order: tuple[int, ...]) -> None:
    file = blob_of(large, "model.safetensors", 1)
    data = file.read_bytes()
    file.write_bytes(b"".join(data[at * SEGMENT : (at + 1) * SEGMENT] for at in order))
    assert f"is not a file of {3 * SEGMENT} bytes" in refusal(large)


def test_segments_spliced_from_another_blob_under_the_same_data_key(tmp_path: Path) -> None:
    plain = write_plain(tmp_path / "plain")
    for name in ("one.txt", "two.txt"):
        (plain / name).write_bytes(name[:1].encode() * (2 * TEXT))
    seal(plain, tmp_path / "model", key=KEY)
    one, two = (blob_of(tmp_path / "model", name) for name in ("one.txt", "two.txt"))
    spliced = one.read_bytes()[:SEGMENT] + two.read_bytes()[SEGMENT:]
    one.write_bytes(spliced)
    assert "'one.txt' is damaged or was tampered with: segment 1" in refusal(tmp_path / "model")


def test_blobs_swapped_between_files(tmp_path: Path) -> None:
    plain = write_plain(tmp_path / "plain")
    (plain / "one.txt").write_bytes(b"1" * 50)
    (plain / "two.txt").write_bytes(b"2" * 50)
    seal(plain, tmp_path / "model", key=KEY)
    one, two = (blob_of(tmp_path / "model", name) for name in ("one.txt", "two.txt"))
    was, other = one.read_bytes(), two.read_bytes()
    two.write_bytes(was)
    one.write_bytes(other)
    assert "does not verify" in refusal(tmp_path / "model")


def test_blobs_and_their_headers_swapped_between_files_by_who_has_the_key(tmp_path: Path) -> None:
    plain = write_plain(tmp_path / "plain")
    (plain / "one.txt").write_bytes(b"1" * 50)
    (plain / "two.txt").write_bytes(b"2" * 50)
    seal(plain, tmp_path / "model", key=KEY)
    table = table_of(maker(tmp_path / "model"))
    rows = {row["path"]: row for row in table["files"]}
    rows["one.txt"]["pieces"], rows["two.txt"]["pieces"] = rows["two.txt"]["pieces"], rows["one.txt"]["pieces"]
    forge(tmp_path / "model", table)
    assert "its header does not verify" in refusal(tmp_path / "model")


def test_blobs_swapped_between_generations(path: Path) -> None:
    old = blob_of(path, "model.safetensors", 1).read_bytes()
    small(path, replace=True)
    file = blob_of(path, "model.safetensors", 1)
    assert len(file.read_bytes()) == len(old)
    file.write_bytes(old)
    assert "does not verify" in refusal(path)


def test_blobs_swapped_between_models(path: Path, tmp_path: Path) -> None:
    other = small(tmp_path / "other")
    blob_of(path, "model.safetensors", 1).write_bytes(blob_of(other, "model.safetensors", 1).read_bytes())
    assert "does not verify" in refusal(path)


def test_the_manifest_of_one_generation_with_the_blobs_of_another(path: Path) -> None:
    old = {file.name: file.read_bytes() for file in path.iterdir()}
    small(path, replace=True)
    (path / NAME).write_bytes(old[NAME])
    assert "keys of a sealed model" in refusal(path)  # those of this generation have another name
    [name] = [name for name in old if name.endswith(".keys")]
    (path / name).write_bytes(old[name])
    assert "cannot be opened" in refusal(path)
    [new] = [file for file in path.glob("*.keys") if file.name != name]
    (path / name).write_bytes(new.read_bytes())
    assert "no key opens" in refusal(path)  # a wrap is tied to its generation


def test_a_wrong_key(path: Path) -> None:
    assert refusal(path, key=OTHER).startswith("no key opens the sealed model")


def test_a_wrap_that_yields_another_data_key(path: Path) -> None:
    context = maker(path).header.context
    forged = EnvKey().wrap(KEY, bytes(32), context)  # as whoever may encrypt with a KMS key, and not decrypt, could
    keys_file(path).write_bytes(encode_wraps([Wrap("", forged)]))
    assert "does not fit its manifest" in refusal(path)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_wrap_that_yields_no_data_key(path: Path, size: int) -> None:
    forged = EnvKey().wrap(KEY, bytes(size), maker(path).header.context)
    keys_file(path).write_bytes(encode_wraps([Wrap("", forged)]))
    assert "does not fit its manifest" in refusal(path)


def test_an_older_generation_is_refused_only_by_a_pin(path: Path) -> None:
    old = path.parent / "old"
    shutil.copytree(path, old)
    right = see(path)
    small(path, replace=True)
    digest = Pins(manifest_sha384=inspect(path).manifest_sha384)
    shutil.rmtree(path)
    shutil.copytree(old, path)
    assert see(path) == right  # FORMAT.md says so: the files alone cannot tell
    for pins, told in ((Pins(min_generation=2), "older than min_generation = 2"), (digest, "manifest_sha384")):
        for reads in (open_sealed, verify):
            with pytest.raises(SealError, match=told):
                reads(path, key=KEY, pins=pins)


def test_another_model_that_the_same_key_opens_is_refused_by_a_pin(path: Path, tmp_path: Path) -> None:
    pins = Pins(model_id=maker(path).header.model_id.hex())
    shutil.rmtree(path)
    small(tmp_path / "other").rename(path)
    with pytest.raises(SealError, match="another model than model_id pins"):
        open_sealed(path, key=KEY, pins=pins)


@pytest.mark.parametrize("suite", [0, 2, -1, 1.0, True, "1", None, [1], 1 << 64])
def test_another_suite(path: Path, suite: object) -> None:
    manifest = (path / NAME).read_bytes()
    clear = json.loads(manifest[12 : 12 + int.from_bytes(manifest[8:12])])
    (path / NAME).write_bytes(with_header(manifest, canonical(clear | {"suite": suite})))
    assert "its suite" in refusal(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("generation", value) for value in (0, -1, 1 << 63, 1.0, "1", True, None)]
    + [("model_id", value) for value in ("", "00" * 15, "AB" * 16, "zz" * 16, 7, "٠" * 32)]
    + [("commit", value) for value in ("00" * 31, "00" * 33, None)]
    + [("wraps", []), ("kdf", {"memory": 1 << 40})],
)
def test_a_clear_header_that_is_not_as_it_must_be(path: Path, name: str, value: object) -> None:
    manifest = (path / NAME).read_bytes()
    clear = json.loads(manifest[12 : 12 + int.from_bytes(manifest[8:12])])
    (path / NAME).write_bytes(with_header(manifest, canonical(clear | {name: value})))
    assert "the manifest of the sealed model is damaged" in refusal(path)


@pytest.mark.parametrize("length", [0, 65_537, (1 << 32) - 1])
def test_the_length_of_the_clear_header(path: Path, length: int) -> None:
    manifest = (path / NAME).read_bytes()
    (path / NAME).write_bytes(manifest[:8] + length.to_bytes(4) + manifest[12:] + bytes(70_000))
    assert "its header's length" in refusal(path)


def test_a_manifest_or_keys_larger_than_any_may_be(path: Path) -> None:
    os.truncate(keys_file(path), (1 << 20) + 1)
    assert "the keys of a sealed model" in (told := refusal(path))
    assert "larger than" in told
    os.truncate(path / NAME, MANIFEST_CAP_BYTES + 1)
    assert "larger than" in refusal(path)


@pytest.mark.parametrize("split", ["before", "after"])
def test_a_key_twice_in_the_clear_header(path: Path, split: str) -> None:
    manifest = (path / NAME).read_bytes()
    clear = manifest[12 : 12 + int.from_bytes(manifest[8:12])]
    twice = b'"generation":1,' if split == "before" else b'"generation":7,'
    (path / NAME).write_bytes(with_header(manifest, clear.replace(b'"generation":1,', twice + b'"generation":1,')))
    assert "its header" in refusal(path)


def test_a_key_twice_in_the_keys(path: Path) -> None:
    file = keys_file(path)
    data = file.read_bytes()
    for changed in (data[:-1] + b',"wraps":[]}', data.replace(b'"label":""', b'"label":"x","label":""')):
        file.write_bytes(changed)
        assert "are damaged" in refusal(path)


def test_a_key_twice_in_the_table_of_who_has_the_key(path: Path) -> None:
    model = maker(path)
    text = canonical(table_of(model))
    twice = text.replace(b'"bytes"', b'"bytes":1,"bytes"', 1)
    for changed in (twice, text[:-1] + b',"files":[]}', text.replace(b":", b": ", 1)):
        (path / NAME).write_bytes(manifest_of(model, changed))
        assert "its table" in refusal(path)
