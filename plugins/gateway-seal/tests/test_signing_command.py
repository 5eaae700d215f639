"""`gateway seal-sign`, as it is typed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from gateway_seal.signing import check_signature
from signing_case import MANIFEST, keys, sealed


def program(folder: Path, *args: object, given: str = "") -> subprocess.CompletedProcess[str]:
    """The gateway program with this plugin alone, and no terminal."""
    (folder / "gateway.toml").write_text('plugins = ["seal"]\n')
    command = [sys.executable, "-W", "ignore", "-m", "gateway", "seal-sign", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, input=given, start_new_session=True)


def test_the_command_signs_a_sealed_model(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    model = sealed(tmp_path / "model")
    done = program(tmp_path, model, "--private-key", pair[0])
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{model / 'manifest.gws.sig'}\n", "")
    check_signature(MANIFEST, model / "manifest.gws.sig", pair[1])
    done = program(tmp_path, model, "--private-key", pair[0], "--signature", tmp_path / "other.sig")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'other.sig'}\n")
    check_signature(MANIFEST, tmp_path / "other.sig", pair[1])


def test_the_command_asks_for_a_password(tmp_path: Path) -> None:
    model = sealed(tmp_path / "model")
    private, public = keys(tmp_path, "one", password=b"secret words")
    done = program(tmp_path, model, "--private-key", private, "--password", given="secret words\n")
    assert done.returncode == 0 and "secret words" not in done.stdout + done.stderr
    check_signature(MANIFEST, model / "manifest.gws.sig", public)
    for given_, told in (("other words\n", "does not open with this password"), ("", "no password was typed")):
        done = program(tmp_path, model, "--private-key", private, "--password", given=given_)
        assert done.returncode > 0 and told in done.stderr and "other words" not in done.stderr


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    done = program(tmp_path, tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: missing option '--private-key' (see `gateway seal-sign --help`)\n")
    done = program(tmp_path, tmp_path, "--private-key", pair[0])
    assert done.returncode == 1 and re.fullmatch(
        r"error: the manifest of .*manifest\.gws' cannot be read: No such file.*\n", done.stderr
    )
    shown = program(tmp_path, "--help")
    assert shown.returncode == 0
    for option in ("--private-key", "--signature", "--password"):
        assert option in shown.stdout
