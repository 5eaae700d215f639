"""`gateway seal` and its siblings, as somebody types them, and the functions behind them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gateway_seal import Pins, SealError, add_key, open_sealed, remove_key, rotate, seal, verify

from gateway import ConfigError
from gateway.cli import run_program

PLUGINS = '[plugin.seal]\nkeys = ["env:SEAL_KEY"]\n'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sealed(plain: Path, tmp_path: Path) -> Path:
    seal(plain, tmp_path / "sealed", key="env:SEAL_KEY")
    return tmp_path / "sealed"


def typed(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a command line."""
    code = run_program(line.split()[1:])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_model_is_sealed_verified_and_unsealed(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = typed("gateway seal plain --to deep/sealed --key env:SEAL_KEY", capsys)
    assert (code, err) == (0, "")
    assert out.startswith("sealed 6 files, 3.0 MB")
    code, out, _ = typed("gateway verify deep/sealed --key env:SEAL_KEY", capsys)
    assert (code, out.split(" in ")[0]) == (0, "verified 6 files, 3.0 MB,")
    assert "generation 1" in out
    assert typed("gateway unseal deep/sealed --to again --key env:SEAL_KEY", capsys)[0] == 0
    assert subprocess.run(["diff", "-r", "plain", "again"], check=False).returncode == 0


def test_what_is_there_is_replaced_only_when_asked(plain: Path, sealed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = typed("gateway seal plain --to sealed --key env:SEAL_KEY", capsys)
    assert code == 1
    assert "already" in err
    before = set(os.listdir(sealed))
    assert typed("gateway seal plain --to sealed --key env:SEAL_KEY --replace", capsys)[0] == 0
    assert "generation 2" in typed("gateway verify sealed --key env:SEAL_KEY", capsys)[1]
    assert before & set(os.listdir(sealed)) == {"manifest.gws"}
    code, _, err = typed("gateway seal plain --to sealed --key env:OTHER_KEY --replace", capsys)
    assert (code, "no key opens" in err) == (1, True)  # who cannot open it does not replace it


def test_inspect_tells_little_without_a_key_and_all_with_one(sealed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed("gateway inspect sealed", capsys)
    assert code == 0
    assert "not verified" in out
    assert "config.json" not in out
    code, out, _ = typed("gateway inspect sealed --key env:SEAL_KEY", capsys)
    assert "config.json" in out
    assert "2x3" in out
    shown = json.loads(typed("gateway inspect sealed --key env:SEAL_KEY --json", capsys)[1])
    assert shown["tensors"]["a"] == {"dtype": "F32", "shape": [2, 3], "bytes": 24}
    assert shown["files"]["config.json"] == 22
    assert json.loads(typed("gateway inspect sealed --json", capsys)[1])["tensors"] is None


def test_keys_are_rotated_added_and_removed(sealed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blobs = {path: path.stat().st_mtime_ns for path in sealed.glob("*.blob")}
    manifest = (sealed / "manifest.gws").read_bytes()
    assert typed("gateway rotate sealed --key env:SEAL_KEY --new env:OTHER_KEY --label laptop", capsys)[0] == 0
    assert typed("gateway verify sealed --key env:SEAL_KEY", capsys)[0] == 1
    assert typed("gateway verify sealed --key env:OTHER_KEY", capsys)[0] == 0
    assert typed("gateway add-key sealed --key env:OTHER_KEY --new env:SEAL_KEY", capsys)[0] == 0
    assert "laptop, (no label)" in typed("gateway inspect sealed", capsys)[1]
    assert typed("gateway verify sealed --key env:SEAL_KEY", capsys)[0] == 0
    assert typed("gateway remove-key sealed --key env:SEAL_KEY --label laptop", capsys)[0] == 0
    assert typed("gateway verify sealed --key env:OTHER_KEY", capsys)[0] == 1
    code, _, err = typed("gateway remove-key sealed --key env:SEAL_KEY --remove env:SEAL_KEY", capsys)
    assert (code, "last key" in err) == (1, True)
    assert blobs == {path: path.stat().st_mtime_ns for path in sealed.glob("*.blob")}
    assert (sealed / "manifest.gws").read_bytes() == manifest


def test_a_key_is_removed_by_its_reference_and_never_the_one_that_removes(sealed: Path) -> None:
    add_key(sealed, key="env:SEAL_KEY", new="env:OTHER_KEY", label="b")
    with pytest.raises(SealError, match="must not be the one that is removed"):
        remove_key(sealed, key="env:OTHER_KEY", remove="env:OTHER_KEY")
    with pytest.raises(SealError, match="0 keys"):
        remove_key(sealed, key="env:OTHER_KEY", label="no such")
    for given in ({}, {"remove": "env:SEAL_KEY", "label": "b"}):
        with pytest.raises(SealError, match="say which key"):
            remove_key(sealed, key="env:OTHER_KEY", **given)  # type: ignore[arg-type]
    remove_key(sealed, key="env:OTHER_KEY", remove="env:SEAL_KEY")
    verify(sealed, key="env:OTHER_KEY")
    with pytest.raises(SealError, match="no key opens"):
        open_sealed(sealed, key="env:SEAL_KEY")


def test_a_key_that_opens_it_already_is_not_added_again(sealed: Path) -> None:
    with pytest.raises(SealError, match="opens it already"):
        add_key(sealed, key="env:SEAL_KEY", new="env:SEAL_KEY")


def test_a_model_has_at_most_sixteen_keys(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import base64

    for number in range(15):
        monkeypatch.setenv(f"K{number}", base64.b64encode(os.urandom(32)).decode())
        add_key(sealed, key="env:SEAL_KEY", new=f"env:K{number}")
    with pytest.raises(SealError, match="at most 16"):
        add_key(sealed, key="env:SEAL_KEY", new="env:OTHER_KEY")
    verify(sealed, key="env:K14")


def test_after_a_rotation_whoever_kept_the_old_keys_file_can_still_read(sealed: Path) -> None:
    """What FORMAT.md says of rotation: only sealing anew makes a new data key."""
    [old] = sealed.glob("*.keys")
    kept = old.read_bytes()
    rotate(sealed, key="env:SEAL_KEY", new="env:OTHER_KEY")
    old.write_bytes(kept)
    verify(sealed, key="env:SEAL_KEY")


def test_the_configuration_may_name_the_keys(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.toml").write_text(PLUGINS)
    assert typed("gateway seal plain --to sealed", capsys)[0] == 0
    assert typed("gateway verify sealed", capsys)[0] == 0
    (tmp_path / "gateway.toml").write_text('[plugin.seal]\nkeyz = "env:SEAL_KEY"\n')
    code, _, err = typed("gateway verify sealed", capsys)
    assert code != 0
    assert "keyz" in err
    (tmp_path / "gateway.toml").write_text("")
    code, _, err = typed("gateway verify sealed", capsys)
    assert (code, "--key" in err) == (2, True)


def test_pins_hold_for_commands_too(sealed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.toml").write_text(
        '[plugin.seal]\nkeys = "env:SEAL_KEY"\n[[plugin.seal.models]]\npath = "sealed"\nmin_generation = 2\n'
    )
    code, _, err = typed("gateway verify sealed", capsys)
    assert (code, "older than min_generation" in err) == (1, True)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("gateway seal nowhere --to x --key env:SEAL_KEY", "no directory 'nowhere'"),
        ("gateway seal plain --to plain/inside --key env:SEAL_KEY", "must lie apart"),
        ("gateway seal plain --to . --key env:SEAL_KEY", "must lie apart"),
        ("gateway seal plain --to other --key env:SEAL_KEY", "is no part of a sealed model"),
        ("gateway seal sealed --to x --key env:SEAL_KEY", "sealed already"),
        ("gateway seal plain --to x --key env:NOT_SET", "NOT_SET is not set"),
        ("gateway seal plain --to x --key nothing", "scheme:rest"),
        ("gateway verify plain --key env:SEAL_KEY", "manifest"),
        ("gateway verify nowhere --key env:SEAL_KEY", "no sealed model"),
        ("gateway unseal sealed --to plain --key env:SEAL_KEY", "exists already"),
        ("gateway rotate sealed --key env:SEAL_KEY --new env:NOT_SET", "NOT_SET is not set"),
    ],
)
def test_what_is_wrong_is_one_line(
    sealed: Path, tmp_path: Path, line: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    code, out, err = typed(line, capsys)
    assert code in (1, 2)
    assert out == ""
    assert told in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "x").exists()
    assert os.listdir(tmp_path / "other") == ["thesis.txt"]


def test_a_file_that_cannot_be_sealed_is_named_and_nothing_is_left(plain: Path, tmp_path: Path) -> None:
    (plain / "model-3.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(SealError, match=r"model-3\.safetensors.*no safetensors file"):
        seal(plain, tmp_path / "sealed", key="env:SEAL_KEY")
    (plain / "model-3.safetensors").unlink()
    (plain / "odd\nname.json").write_bytes(b"{}")
    with pytest.raises(SealError, match="cannot be the path"):
        seal(plain, tmp_path / "sealed", key="env:SEAL_KEY")
    (plain / "odd\nname.json").unlink()
    os.mkfifo(plain / "pipe")
    with pytest.raises(SealError, match="pipe"):
        seal(plain, tmp_path / "sealed", key="env:SEAL_KEY")
    assert not (tmp_path / "sealed").exists()


def test_links_to_files_are_followed_as_a_hub_cache_has_them(plain: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (plain / "config.json").rename(blobs / "abc")
    (plain / "config.json").symlink_to(blobs / "abc")
    seal(plain, tmp_path / "sealed", key="env:SEAL_KEY")
    assert open_sealed(tmp_path / "sealed", key="env:SEAL_KEY").json("config.json") == {"model_type": "tiny"}


def test_neither_importing_nor_listing_commands_loads_what_is_heavy() -> None:
    code = (
        "import sys, gateway_seal, gateway_seal.hooks as h; h.gateway_commands({}); h.gateway_keys({}); h.gateway_stores({});"
        "heavy = {'cryptography', 'typer', 'rich', 'boto3', 'hvac', 'keyring', 'model_signing', 'torch'} & set(sys.modules);"
        "sys.exit(str(sorted(heavy)) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_rotation_leaves_no_second_wrap_of_the_old_key(sealed: Path) -> None:
    [file] = sealed.glob("*.keys")
    [wrap] = json.loads(file.read_bytes())["wraps"]
    file.write_text(json.dumps({"wraps": [wrap, wrap]}, separators=(",", ":"), sort_keys=True))
    rotate(sealed, key=["env:SEAL_KEY", "env:OTHER_KEY"], new="env:OTHER_KEY")
    assert len(json.loads(file.read_bytes())["wraps"]) == 1
    with pytest.raises(SealError, match="no key opens"):
        open_sealed(sealed, key="env:SEAL_KEY")


def test_replacing_holds_to_the_pins_and_refuses_the_remains_of_a_model(plain: Path, sealed: Path) -> None:
    with pytest.raises(SealError, match="older than min_generation"):
        seal(plain, sealed, key="env:SEAL_KEY", replace=True, pins=Pins(min_generation=2))
    (sealed / "manifest.gws").unlink()
    with pytest.raises(SealError, match="has lost its manifest"):
        seal(plain, sealed, key="env:SEAL_KEY", replace=True)
    with pytest.raises(ConfigError, match="needs a public_key"):
        Pins(signature=Path("x"))
