"""``sealed:`` as a store of weights: its contract, which keys open what, pins, and plain weights in a sealed model's place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from gateway_seal import SealedStore, SealError, inspect, open_sealed, seal, unseal, verify
from gateway_seal.blob import TEXT
from gateway_seal.options import SealedPath, SealOptions
from gateway_seal.providers import default_keys

from gateway import FileStore, Gateway, GatewayConfig, Keys, MissingSecret, WeightsError
from gateway.plugins import load_plugins
from gateway.testing.contract import WeightStoreContract
from gateway.testing.fakes import resources

NO_KEYS = Keys({})


class TestSealedStore(WeightStoreContract):
    @pytest.fixture
    def store(self) -> SealedStore:
        return SealedStore()

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return f"sealed:{tmp_path / 'model'}"

    @pytest.fixture
    def keys(self) -> Keys:
        return default_keys().given("env:SEAL_KEY")


def sealed(plain: Path, *keys: str) -> Path:
    target = plain.parent / "sealed"
    seal(plain, target, key=keys or "env:SEAL_KEY")
    return target


def opened(store: SealedStore, path: Path | str, *keys: str) -> None:
    store.open(f"sealed:{path}", default_keys().given(keys)).close()


def test_a_sealed_directory_reads_as_the_plain_one(plain: Path) -> None:
    there = FileStore().open(str(plain), NO_KEYS)
    weights = open_sealed(sealed(plain), key="env:SEAL_KEY")
    assert weights.sealed
    assert not there.sealed
    assert weights.tensors == there.tensors
    assert weights.files == there.files
    assert (weights.params, weights.bytes, weights.dtype) == (there.params, there.bytes, there.dtype)
    for name in there.tensors:
        assert bytes(weights.read(name)) == bytes(there.read(name))
    for name in there.files:
        assert weights.file(name) == there.file(name)


def test_unsealing_gives_every_file_back_byte_by_byte(plain: Path, tmp_path: Path) -> None:
    (plain / "2_Dense" / "deep").mkdir(parents=True)
    (plain / "2_Dense" / "deep" / "weights.bin").write_bytes(os.urandom(100))
    unseal(sealed(plain), tmp_path / "again", key="env:SEAL_KEY")
    found = {path.relative_to(plain): path.read_bytes() for path in plain.rglob("*") if path.is_file()}
    assert found == {
        path.relative_to(tmp_path / "again"): path.read_bytes() for path in (tmp_path / "again").rglob("*") if path.is_file()
    }
    with pytest.raises(SealError, match="exists already"):
        unseal(tmp_path / "sealed", tmp_path / "again", key="env:SEAL_KEY")


def test_facts_are_known_without_decrypting_a_tensor(plain: Path) -> None:
    path = sealed(plain)
    weights = open_sealed(path, key="env:SEAL_KEY")
    assert weights.tensors["big"].bytes == 3_000_000
    large = max(path.glob("*.blob"), key=lambda blob: blob.stat().st_size)
    weights.close()
    large.write_bytes(bytes(large.stat().st_size))  # the tensors themselves are spoilt
    weights = open_sealed(path, key="env:SEAL_KEY")
    assert weights.tensors["big"].bytes == 3_000_000
    assert bytes(weights.read("a")) == bytes(range(24))
    with pytest.raises(SealError, match="does not verify"):
        weights.read("big")
    weights.close()


def test_a_part_reads_only_the_segments_that_cover_it(plain: Path) -> None:
    path = sealed(plain)
    whole = bytes(FileStore().open(str(plain), NO_KEYS).read("big"))
    large = max(path.glob("*.blob"), key=lambda blob: blob.stat().st_size)
    with large.open("r+b") as file:  # the second of three segments is spoilt
        file.seek((1 << 20) + 500)
        file.write(b"spoilt")
    weights = open_sealed(path, key="env:SEAL_KEY")
    assert bytes(weights.part("big", 5, 905)) == whole[5:905]
    assert bytes(weights.part("big", TEXT - 9, TEXT)) == whole[TEXT - 9 : TEXT]
    assert bytes(weights.part("big", 2 * TEXT, 2 * TEXT + 7)) == whole[2 * TEXT : 2 * TEXT + 7]
    assert bytes(weights.part("big", 7, 7)) == b""
    with pytest.raises(SealError, match="segment 1 does not verify"):
        weights.part("big", TEXT - 1, TEXT + 1)
    assert bytes(weights.part("big", 0, 9)) == whole[:9]  # what was verified before stays
    weights.close()


def test_load_brings_in_what_read_then_gives(plain: Path) -> None:
    weights = open_sealed(sealed(plain), key="env:SEAL_KEY", threads=3)
    told: list[tuple[int, int]] = []
    weights.load(progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (3_000_032, 3_000_032)
    assert bytes(weights.read("big")) == bytes(FileStore().open(str(plain), NO_KEYS).read("big"))
    weights.close()
    with pytest.raises(SealError, match="closed"):
        weights.read("a")


def test_a_view_outlives_the_weights(plain: Path) -> None:
    weights = open_sealed(sealed(plain), key="env:SEAL_KEY")
    view = weights.read("a")
    weights.close()
    del weights
    assert bytes(view) == bytes(range(24))


def test_keys_are_tried_in_turn_and_the_error_lists_them(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sealed(plain)
    opened(SealedStore(), path, "env:OTHER_KEY", "env:SEAL_KEY")
    opened(SealedStore(), path, "env:NOT_SET", "env:SEAL_KEY")
    with pytest.raises(SealError, match=r"'env:OTHER_KEY' did not wrap it; environment variable NOT_SET is not set"):
        opened(SealedStore(), path, "env:OTHER_KEY", "env:NOT_SET")
    with pytest.raises(MissingSecret, match="NOT_SET"):
        opened(SealedStore(), path, "env:NOT_SET")
    with pytest.raises(SealError, match="no key is configured"):
        opened(SealedStore(), path)
    monkeypatch.setenv("SHORT", "abcd")
    with pytest.raises(Exception, match="32 bytes"):  # a key that is none is final
        opened(SealedStore(), path, "env:SHORT", "env:SEAL_KEY")


def test_each_of_several_keys_opens_it(plain: Path) -> None:
    path = sealed(plain, "env:SEAL_KEY", "env:OTHER_KEY")
    opened(SealedStore(), path, "env:SEAL_KEY")
    opened(SealedStore(), path, "env:OTHER_KEY")


def test_the_section_of_the_configuration_has_keys_for_all_models_or_for_one(plain: Path) -> None:
    path = sealed(plain)
    opened(SealedStore(SealOptions(keys="env:SEAL_KEY")), path)
    opened(SealedStore(SealOptions(keys="env:OTHER_KEY", models=[SealedPath(path=path, key="env:SEAL_KEY")])), path)
    with pytest.raises(SealError, match="OTHER_KEY"):  # the model's own row in the plugin that asks for it comes first
        opened(SealedStore(SealOptions(keys="env:SEAL_KEY")), path, "env:OTHER_KEY")


def test_plain_weights_in_the_place_of_sealed_ones_are_refused(plain: Path) -> None:
    with pytest.raises(SealError, match="is not sealed"):
        opened(SealedStore(), plain, "env:SEAL_KEY")
    path = sealed(plain)
    (path / "manifest.gws").unlink()
    shutil.copytree(plain, path, dirs_exist_ok=True)
    with pytest.raises(SealError, match="is not sealed"):
        opened(SealedStore(), path, "env:SEAL_KEY")
    opened(SealedStore(SealOptions(require_sealed=False)), plain)


def test_a_folder_of_a_sealed_model_is_a_model_of_its_own(plain: Path) -> None:
    with FileStore().create(str(plain / "adapter"), NO_KEYS) as writer:
        writer.add_file("config.json", b'{"r": 8}')
        writer.add_tensors("model.safetensors", {"lora": ("F32", (1,), b"1234")})
    path = sealed(plain)
    weights = SealedStore().open(f"sealed:{path}/adapter", default_keys().given("env:SEAL_KEY"))
    assert weights.files == ("config.json",)
    assert bytes(weights.read("lora")) == b"1234"
    weights.close()


@pytest.mark.parametrize(
    ("pins", "told"),
    [
        ({"min_generation": 2}, "older than min_generation"),
        ({"model_id": "00" * 16}, "another model"),
        ({"manifest_sha384": "00" * 48}, "manifest_sha384"),
    ],
)
def test_a_pin_that_does_not_hold_is_refused(plain: Path, pins: dict[str, object], told: str) -> None:
    path = sealed(plain)
    link = plain.parent / "link"
    link.symlink_to(path)
    store = SealedStore(SealOptions(keys="env:SEAL_KEY", models=[SealedPath(path=path, **pins)]))  # type: ignore[arg-type]
    for way in (path, link):
        with pytest.raises(SealError, match=told):
            opened(store, way)
    found = inspect(path)
    right = SealedPath(path=path, model_id=found.model_id, min_generation=1, manifest_sha384=found.manifest_sha384)
    opened(SealedStore(SealOptions(keys="env:SEAL_KEY", models=[right])), path)


def test_require_sealed_holds_for_the_whole_gateway(plain: Path, tmp_path: Path) -> None:
    path = sealed(plain)
    stores = {"file": FileStore(), "sealed": SealedStore(SealOptions(require_sealed=False))}
    strict = resources(stores=stores, keys=default_keys(), require_sealed=True)
    with strict.weights(f"sealed:{path}", key="env:SEAL_KEY") as weights:
        assert weights.sealed
    for uri in (str(plain), f"sealed:{plain}"):
        with pytest.raises(WeightsError, match="require_sealed"):
            strict.weights(uri, key="env:SEAL_KEY")
    with pytest.raises(WeightsError, match="require_sealed"):
        strict.create(str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    with strict.create(f"sealed:{tmp_path / 'new'}", key="env:SEAL_KEY") as writer:
        writer.add_tensors("model.safetensors", {"w": ("U8", (2,), b"ab")})
    verify(tmp_path / "new", key="env:SEAL_KEY")


def test_a_gateway_that_requires_sealed_weights_refuses_the_plain_starter() -> None:
    pytest.importorskip("gateway_local")
    config = GatewayConfig(require_sealed=True, plugins=["local", "seal"])
    with Gateway(config=config, plugins=load_plugins(config)) as gw:
        [status] = [status for status in gw.models() if status.name == "starter"]
    assert "require_sealed" in str(status.error)
