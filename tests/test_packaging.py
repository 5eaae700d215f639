"""The wheels of core and plugins build, install into an empty environment from a local folder, and work."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECTS = (ROOT, *(ROOT / "plugins" / f"gateway-{name}" for name in ("local", "remote", "seal", "scrub")))


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_wheels_build_install_and_work(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    for project in PROJECTS:
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, project, folder=tmp_path)
    inside = {path.name.split("-")[0]: zipfile.ZipFile(path).namelist() for path in wheels.glob("*.whl")}
    assert set(inside) == {"gateway_sdk", "gateway_local", "gateway_remote", "gateway_seal", "gateway_scrub"}
    for package in ("gateway", "gateway_local", "gateway_remote", "gateway_seal", "gateway_scrub"):
        assert any(f"{package}/py.typed" in names for names in inside.values())
    assert "gateway_local/starter/model/model.safetensors" in inside["gateway_local"]
    assert not any(name.endswith(".pth") or "/tests/" in name for names in inside.values() for name in names)

    environment = tmp_path / "empty"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    offline = ("-m", "pip", "install", "-q", "--no-index", "--no-deps", "--find-links", wheels)
    run(python, *offline, "gateway-sdk", "gateway-local", "gateway-remote", "gateway-seal", "gateway-scrub", folder=tmp_path)
    # What the wheels depend on is lent by this environment: a test has no network to fetch it from.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=tmp_path).strip())
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")

    where = run(python, "-c", "import gateway, gateway_local; print(gateway.__file__, gateway_local.__file__)", folder=tmp_path)
    assert where.count(str(site)) == 2
    code = "from gateway import Gateway\nwith Gateway.discover() as gw: print(gw.chat('Good morrow', max_tokens=5).model)"
    assert run(python, "-c", code, folder=tmp_path).strip() == "starter"
    listed = run(environment / "bin" / "gateway", "plugins", folder=tmp_path)
    assert "gateway-local" in listed
    assert "gateway-remote" in listed
    assert "gateway-seal" in listed
    assert "gateway-scrub" in listed
