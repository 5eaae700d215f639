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

sys.path.insert(0, str(Path(__file__).parent))
from warm import Warm

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


TEN, _, REST = README.partition("## How a model is chosen")
PLUGIN = REST.partition("## A plugin in ten minutes")[2]
SNIPPETS = blocks("python", TEN)


@pytest.fixture(scope="module")
def hosted() -> Iterator[LoopbackServer]:
    with LoopbackServer(key="test-key") as server:
        yield server


def run(arguments: list[str], folder: Path, warm: Warm | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    env = {**inherited, "HF_HUB_OFFLINE": "1", **environment}
    if warm is not None:
        return warm.run(arguments, folder, env)
    command = [sys.executable, "-W", "error::ResourceWarning", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, env=env)


def test_there_are_ten_snippets() -> None:
    assert len(SNIPPETS) == 10


@pytest.mark.parametrize("number", range(1, 11))
def test_a_snippet_of_the_readme_runs_as_it_stands(
    number: int, tmp_path: Path, hosted: LoopbackServer, with_torch: Warm
) -> None:
    [configuration] = blocks("toml", TEN)
    preset = 'preset = "openai"'
    assert preset in configuration
    (tmp_path / "gateway.toml").write_text(configuration.replace(preset, f'{preset}\nbase_url = "{hosted.url}"'))
    (tmp_path / "snippet.py").write_text(SNIPPETS[number - 1])
    first = number == 1  # which is run as a reader does, imports and all
    done = run(["snippet.py"], tmp_path, None if first else with_torch, OPENAI_API_KEY="test-key")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr == ""


@pytest.mark.parametrize("number", range(4, 9))
def test_without_a_key_the_starter_answers_what_it_can(number: int, tmp_path: Path, with_torch: Warm) -> None:
    [configuration] = blocks("toml", TEN)
    (tmp_path / "gateway.toml").write_text(configuration)
    (tmp_path / "snippet.py").write_text(SNIPPETS[number - 1])
    done = run(["snippet.py"], tmp_path, with_torch, OPENAI_API_KEY="")
    if number == 8:  # it knows no city, and is held to naming one all the same
        assert done.returncode == 0 and done.stdout.strip(), done.stderr
    elif number < 7:
        assert done.returncode == 0 and "starter" in done.stdout, done.stderr
    else:
        assert done.returncode == 1 and "NoEligibleModel" in done.stderr
        assert "environment variable OPENAI_API_KEY is not set" in done.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_is_short(example: Path, tmp_path: Path, with_torch: Warm) -> None:
    assert len(example.read_text().splitlines()) <= 40
    done = run([str(example)], tmp_path, None if example.stem == "hello" else with_torch)
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
        assert set(load_config(path).plugins or ()) >= {"local", "remote"}


def test_the_readmes_plugin_is_found_routed_to_and_keeps_its_contract(tmp_path: Path) -> None:
    project, module, contract = blocks("toml", PLUGIN)[0], *blocks("python", PLUGIN)[:2]
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


CONTRACTS = """
import pytest
from codenames import Codenames
from gateway import Chat
from gateway.testing import contract
from night_off import NightOff
from vault import Counts, Lockbox, Shelf

class TestNightOff(contract.PolicyContract):
    policy = pytest.fixture(lambda self: NightOff("full", "acme"))

class TestCodenames(contract.TransformContract):
    transform = pytest.fixture(lambda self: Codenames({"Bluebird": "P-ONE", "Redwing": "P-TWO"}))
    requests = pytest.fixture(lambda self: [Chat.ask("Is Bluebird late? And Redwing?"), Chat.ask("Hello.")])

class TestShelf(contract.WeightStoreContract):
    store = pytest.fixture(lambda self, tmp_path: Shelf(tmp_path))
    uri = pytest.fixture(lambda self: "shelf:model")

class TestLockbox(contract.KeyProviderContract):
    provider = pytest.fixture(lambda self: Lockbox())
    uri = pytest.fixture(lambda self: "lockbox:one")
    other_uri = pytest.fixture(lambda self: "lockbox:two")

class TestCounts(contract.StateStoreContract):
    state = pytest.fixture(lambda self, clock: Counts(clock))
"""

USED = """
from gateway import Gateway, Meta, Need, NoEligibleModel
from gateway.config import load_config
from gateway.plugins import load_plugins
from gateway.testing import Echo

names = ["parrot", "night_off", "codenames", "vault", "meter"]
config = load_config({"plugins": names, "plugin": {"codenames": {"names": {"Bluebird": "P-ONE"}}}})
plugins = load_plugins(config)
seen = []

class Hosted(Echo):
    async def run(self, request, /):
        seen.append(request.messages[-1].text)
        return await super().run(request)

with Gateway([Hosted("big", place="hosted")], config=config, plugins=plugins) as gw:
    print(gw.chat("hello there", Need(model="parrot")).text)
    reply = gw.chat("Is Bluebird late?", Need(model="big"), meta=Meta(tenant="acme"))
    print(reply.text, seen, reply.trace.notes)
    try:
        gw.chat("hello", Need(model="big"), meta=Meta(tenant="nobody"))
    except NoEligibleModel as error:
        print(error)
"""


def test_the_plugins_that_the_guide_shows_are_whole_and_keep_their_contracts(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    guide = (ROOT / "plugins" / "README.md").read_text()
    shown = dict(re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", guide, re.DOTALL))
    assert len(shown) == guide.count("```python")
    hooks = {hook for code in shown.values() for hook in re.findall(r"@hookimpl\ndef (\w+)\(config\)", code)}
    assert hooks == set(re.findall(r"^\| `(gateway_\w+)`", guide, re.MULTILINE))
    for name, code in {**shown, "test_rest.py": CONTRACTS}.items():
        (tmp_path / name).write_text(code)
        if "@hookimpl" in code:
            plugin = name.removesuffix(".py")
            info = tmp_path / f"{plugin}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {plugin}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[gateway]\n{plugin} = {plugin}\n")
    used = run(["-c", USED], tmp_path, PYTHONPATH=str(tmp_path))
    assert used.returncode == 0, used.stderr
    said, answered, *_ = used.stdout.splitlines()
    assert said == "hello there !"
    assert answered.startswith("Is Bluebird late? ['Is P-ONE late?']") and "codenames: 1 known" in answered
    assert "tenant: nobody (allowed: acme)" in used.stdout
    tested = run(
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)], tmp_path, PYTHONPATH=str(tmp_path)
    )
    assert tested.returncode == 0 and "skipped" not in tested.stdout, tested.stdout
    command = ["-m", "gateway", "meter", "--days", "3"]
    assert run(command, tmp_path, PYTHONPATH=str(tmp_path)).stdout == "the last 3 days\n"


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


def test_every_key_and_preset_of_a_hosted_model_is_documented() -> None:
    from dataclasses import fields

    from gateway_remote.config import TASKS, ModelRow
    from gateway_remote.formats.api import APIS, api_named
    from gateway_remote.formats.body import FEATURES
    from gateway_remote.presets import PRESETS

    text = (ROOT / "plugins" / "gateway-remote" / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    first = [line.split(" | ")[0] for line in rows]
    known = {name for cell in first for name in re.findall(r"`([\w-]+)`", cell)}
    assert {field.name for field in fields(ModelRow)} | set(PRESETS) | set(FEATURES.values()) <= known
    tasks = text.partition("\n## Tasks\n")[2].partition("\n```")[0]
    for api in APIS:
        [row] = [line for line in tasks.splitlines() if f"`{api}`" in line.split(" | ")[0]]
        told = set(re.findall(r"`(\w+)`", row.partition(" | ")[2]))
        assert told == {name for name, task in TASKS.items() if task in api_named(api).routes}


def test_the_configuration_of_hosted_models_in_their_readme_is_valid(tmp_path: Path) -> None:
    from gateway import Gateway

    for table in blocks("toml", (ROOT / "plugins" / "gateway-remote" / "README.md").read_text()):
        (tmp_path / "gateway.toml").write_text(f"plugins = ['remote']\n{table}" if "[[" in table else "plugins = ['remote']")
        with Gateway.from_config(tmp_path / "gateway.toml") as gw:
            assert len(gw.models()) == table.count("[[plugin.remote.models]]")


def test_the_readme_of_sealing_does_what_it_says(tmp_path: Path) -> None:
    """Its commands, its configuration and its Python, on the starter model, one after the other as they are printed."""
    local = pytest.importorskip("gateway_local")
    text = (ROOT / "plugins" / "gateway-seal" / "README.md").read_text()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny").symlink_to(Path(local.__file__).parent / "starter" / "model")
    first, *_ = blocks("sh", text)
    rows, section = blocks("toml", text)
    [snippet] = blocks("python", text)
    program = Path(sys.executable).parent
    script = f"set -e\nexport PATH={program}:$PATH\n{first}"
    (tmp_path / "gateway.toml").write_text(rows)
    script += (
        "gateway models\ngateway run chat 'Good morrow'\ngateway inspect tiny.sealed --key env:WEIGHTS_KEY\nrm -r tiny.sealed\n"
    )
    # No KMS here: what stands beside the key in the environment is a second one in it.
    snippet = snippet.replace('"aws-kms:alias/weights"', '"env:OTHER_KEY"')
    script += f"export OTHER_KEY=$(openssl rand -base64 32)\ncat > s.py <<'EOF'\n{snippet}EOF\npython s.py\n"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "verified 6 files" in done.stdout
    assert "tiny    " in done.stdout
    (tmp_path / "gateway.toml").write_text(section)
    done = subprocess.run(
        [program / "gateway", "models"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "WEIGHTS_KEY": "x"},
    )
    assert done.returncode == 0, done.stderr
    assert "require_sealed" in done.stdout  # the starter is not sealed


def test_the_configuration_of_scrubbing_in_its_readme_is_valid(tmp_path: Path) -> None:
    from gateway import Gateway

    text = (ROOT / "plugins" / "gateway-scrub" / "README.md").read_text()
    tables = blocks("toml", text)
    assert len(tables) == 4
    for table in tables:
        table = table.replace('weights = "hf:dslim/bert-base-NER"', 'weights = "no-such-folder"')
        (tmp_path / "gateway.toml").write_text(table)
        with Gateway.from_config(tmp_path / "gateway.toml") as gw:
            assert gw.models()
