"""Who may import whom; what an import costs; where time and chance may enter."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gateway

ROOT = Path(gateway.__file__).parent.parent

# A module imports only from those before it in this list.
ROOMS = (
    "errors", "decision", "trace", "card", "parts", "request", "tasks", "text_tasks", "media_tasks", "wire",
    "clock", "toml_lines", "config", "keys", "safetensors", "weights", "weight_files",
    "service", "transform", "state", "sqlite", "events", "breaker", "histogram", "live", "vitals", "remember", "registry",
    "survey",
    "routing", "policies", "routes", "ranking", "judge", "record", "basis", "router", "replay", "hookspecs", "plugins", "otel",
    "retry", "hop", "settle", "outcome", "journal", "call", "patience", "asking", "stream",
    "bars", "batch_journal", "batch", "gateway", "loop", "sync",
    "cli_config", "cli_show", "cli_setup", "cli_options", "cli_map", "cli_commands", "cli",
)  # fmt: skip


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a file imports, other than for type checking alone."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(child for statement in node.body for child in ast.walk(statement))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            if node.module == "gateway":
                yield from ((node.lineno, f"gateway.{alias.name}") for alias in node.names)
            yield node.lineno, node.module or ""


def core_files() -> list[Path]:
    return sorted(path for path in (ROOT / "gateway").glob("*.py") if path.stem not in ("__init__", "__main__"))


def test_a_room_imports_only_from_the_rooms_before_it() -> None:
    faults = []
    for path in core_files():
        assert path.stem in ROOMS, f"{path.name} has no place among the rooms"
        allowed = ROOMS[: ROOMS.index(path.stem)]
        for line, name in imports(path):
            if name.startswith("gateway.") and (room := name.split(".")[1]) not in allowed and room in (*ROOMS, "testing"):
                faults.append(f"{path.name}:{line} imports {name}")
    assert not faults


def test_the_core_needs_no_heavy_or_network_library() -> None:
    banned = {"torch", "transformers", "httpx", "numpy", "requests", "aiohttp", "pickle", "anyio"}
    for path in core_files():
        found = [f"{path.name}:{line} {name}" for line, name in imports(path) if name.split(".")[0] in banned]
        assert not found


def test_time_and_chance_enter_through_the_clock_alone() -> None:
    # plugins.py and the command line measure how long loading takes; no decision depends on it.
    for path in core_files():
        if path.stem in ("clock", "plugins", "cli", "cli_show"):
            continue
        found = [f"{path.name}:{line}" for line, name in imports(path) if name.split(".")[0] in ("time", "random")]
        assert not found


def test_plugins_use_public_names_and_never_each_other() -> None:
    packages = {path.name for path in (ROOT / "plugins").glob("*/gateway_*") if path.is_dir()}
    assert {"gateway_local", "gateway_remote", "gateway_seal", "gateway_scrub"} <= packages
    for package in (ROOT / "plugins").glob("*/gateway_*"):
        for path in package.rglob("*.py"):
            for line, name in imports(path):
                where = f"{path.relative_to(ROOT)}:{line} imports {name}"
                top = name.split(".")[0]
                assert top not in packages - {package.name}, where
                if top == "gateway" and name != "gateway":
                    assert name.split(".")[1] in {"testing", *gateway.__all__}, where


def test_examples_import_gateway_and_no_plugin() -> None:
    for path in (ROOT / "examples").glob("*.py"):
        for line, name in imports(path):
            assert not name.startswith("gateway_"), f"{path.name}:{line} imports {name}"


def test_no_file_is_longer_than_400_lines() -> None:
    long = []
    for folder in ("gateway", "plugins", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            if "tests" not in path.parts and len(path.read_text().splitlines()) > 400:
                long.append(str(path.relative_to(ROOT)))
    assert not long


def test_every_public_name_is_exported_once_and_exists() -> None:
    assert len(set(gateway.__all__)) == len(gateway.__all__)
    for name in gateway.__all__:
        assert hasattr(gateway, name)
    public = {name for name, value in vars(gateway).items() if not name.startswith("_") and not isinstance(value, type(sys))}
    assert public == set(gateway.__all__)


def test_importing_and_discovering_load_nothing_heavy() -> None:
    code = (
        "import sys, gateway; gw = gateway.Gateway.discover(); gw.close(); "
        "heavy = {'torch', 'transformers', 'httpx', 'numpy', 'cryptography', 'rich', 'typer'} & set(sys.modules); "
        "sys.exit(str(sorted(heavy)) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
