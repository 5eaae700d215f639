"""The README's snippets and the examples run as they stand; the whole plugin in the README installs and keeps its contract."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.testing import LoopbackServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


TEN, _, REST = README.partition("## A plugin in ten minutes")
SNIPPETS = blocks("python", TEN)


@pytest.fixture(scope="module")
def hosted() -> Iterator[LoopbackServer]:
    with LoopbackServer(key="test-key") as server:
        yield server


def run(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error::ResourceWarning", *arguments]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
        env={**inherited, "HF_HUB_OFFLINE": "1", **environment},
    )


def test_there_are_ten_snippets() -> None:
    assert len(SNIPPETS) == 10


@pytest.mark.parametrize("number", range(1, 11))
def test_a_snippet_of_the_readme_runs_as_it_stands(number: int, tmp_path: Path, hosted: LoopbackServer) -> None:
    [configuration] = blocks("toml", TEN)
    (tmp_path / "gateway.toml").write_text(configuration.replace("https://api.openai.com/v1", hosted.url))
    (tmp_path / "snippet.py").write_text(SNIPPETS[number - 1])
    done = run(["snippet.py"], tmp_path, OPENAI_API_KEY="test-key")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr == ""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_is_short(example: Path, tmp_path: Path) -> None:
    assert len(example.read_text().splitlines()) <= 40
    done = run([str(example)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_demo_shows_all_five_things(tmp_path: Path) -> None:
    done = run([str(ROOT / "examples" / "demo" / "main.py")], tmp_path)
    assert done.returncode == 0, done.stderr
    for text in (
        "1. A question",
        "[hosted, $",
        "[starter: a toy",
        "need.place: hosted",
        "5. The hosted model fails",
        "Overloaded",
    ):
        assert text in done.stdout


def test_the_readmes_configuration_is_valid(tmp_path: Path) -> None:
    from gateway.config import load_config

    for number, table in enumerate(block for block in blocks("toml", REST) if "[project]" not in block):
        path = tmp_path / f"{number}.toml"
        path.write_text(table)
        assert load_config(path).plugins == ["local", "remote"]


def test_the_readmes_plugin_is_found_routed_to_and_keeps_its_contract(tmp_path: Path) -> None:
    project, module, contract = blocks("toml", REST)[0], *blocks("python", REST)[:2]
    (tmp_path / "pyproject.toml").write_text(project)
    (tmp_path / "gateway_shout.py").write_text(module)
    (tmp_path / "test_shout.py").write_text(contract)
    site = tmp_path / "site"
    pip = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site), "."]
    installed = run(pip, tmp_path, PIP_DISABLE_PIP_VERSION_CHECK="1")
    assert installed.returncode == 0, installed.stderr
    (tmp_path / "gateway_shout.py").unlink()
    code = "from gateway import Gateway, Need\nwith Gateway.discover() as gw: print(gw.chat('hello', Need(model='shout')).text)"
    assert run(["-c", code], tmp_path, PYTHONPATH=str(site)).stdout == "HELLO\n"
    tested = run(["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shout.py"], tmp_path, PYTHONPATH=str(site))
    assert tested.returncode == 0, tested.stdout


def test_links_between_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", ROOT / "plugins" / "README.md", *(ROOT / "plugins").glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_hook_and_contract_is_documented() -> None:
    from gateway.plugins import HOOKS
    from gateway.testing import contract

    text = (ROOT / "plugins" / "README.md").read_text()
    for hook, *_ in HOOKS:
        assert f"`{hook}`" in text
    for name in vars(contract):
        if name.endswith("Contract"):
            assert f"`{name}`" in text
