"""What an endpoint offers, as the `gateway` program shows it: real processes, a real server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gateway_remote.service import RemoteModel
from remote_case import row

from gateway import Denied
from gateway.testing import Fault, LoopbackServer, resources

pytest.importorskip("typer")

SECRET = "sk-hunter2"
LISTED = {
    "data": [
        {"id": "gpt-5-mini", "context_length": 1234},
        {"id": "text-embedding-3-small"},
        {"id": "gpt-9-imaginary", "max_model_len": 4096, "max_completion_tokens": 100},
        {"id": 5},
        "nonsense",
    ]
}


@pytest.fixture
def listing() -> Fault:
    return Fault(status=200, body=LISTED, headers={"content-type": "application/json"})


def program(path: Path, url: str, *args: str, toml: str | None = None) -> subprocess.CompletedProcess[str]:
    rows = f"""
plugins = ["remote"]
[[plugin.remote.models]]
name = "mine"
base_url = "{url}"
api_key = ["env:OFFERS_KEY"]
provider = "somebody"
prices = "openai"
[[plugin.remote.models]]
name = "keyless"
base_url = "{url}"
api_key = "env:NO_SUCH_KEY"
"""
    (path / "gateway.toml").write_text(rows if toml is None else toml)
    env = {**os.environ, "OFFERS_KEY": SECRET, "COLUMNS": "200", "NO_COLOR": "1", "no_proxy": "*"}
    env.pop("GATEWAY_CONFIG", None)
    command = [sys.executable, "-m", "gateway", *args]
    return subprocess.run(command, cwd=path, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["mine", "somebody"])
def test_all_that_an_endpoint_offers_is_listed(server: LoopbackServer, listing: Fault, tmp_path: Path, name: str) -> None:
    server.always(listing)
    done = program(tmp_path, server.url, "models", "--remote", name)
    assert done.returncode == 0, done.stderr
    head, *rows = [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip(" ─━-")]
    assert head == "name context $/M in/out"
    assert rows == ["gpt-5-mini 1,234 0.25/2", "gpt-9-imaginary 4,096 unknown", "text-embedding-3-small 8,192 0.02/0"]
    [request] = server.requests
    assert (request.method, request.path, request.headers["authorization"]) == ("GET", "/v1/models", f"Bearer {SECRET}")
    assert SECRET not in done.stdout + done.stderr


def test_the_list_as_json_has_the_cards(server: LoopbackServer, listing: Fault, tmp_path: Path) -> None:
    server.always(listing)
    done = program(tmp_path, server.url, "models", "--remote", "mine", "--json")
    cards: list[dict[str, Any]] = json.loads(done.stdout)
    assert [(card["name"], card["context"]) for card in cards] == [
        ("gpt-5-mini", 1234), ("gpt-9-imaginary", 4096), ("text-embedding-3-small", 8192),
    ]  # fmt: skip
    assert cards[0]["price"]["output"] == 2.0 and "features" not in cards[0]
    assert "price" not in cards[1] and cards[1]["max_output"] == 100


def test_a_name_that_nobody_has_is_one_clear_line(server: LoopbackServer, tmp_path: Path) -> None:
    done = program(tmp_path, server.url, "models", "--remote", "opnai")
    assert done.returncode != 0 and not done.stdout and not server.requests
    assert "no model and no provider is named 'opnai'" in done.stderr and "mine" in done.stderr and "somebody" in done.stderr
    assert "Traceback" not in done.stderr
    nothing = program(tmp_path, "", "models", "--remote", "openai", toml='plugins = ["remote"]\n')
    assert nothing.returncode != 0 and "there are the models: none" in nothing.stderr


def test_a_check_tries_each_key_and_names_the_one_that_is_refused(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_ONE", "one")
    monkeypatch.setenv("KEY_TWO", "two")
    refused = Fault(status=401)
    server.always(refused, when=lambda request: request.headers.get("authorization") == "Bearer two")

    async def whole() -> None:
        model = RemoteModel(row(server.url, api_key=["env:KEY_ONE", "env:KEY_TWO"]))
        with pytest.raises(Denied, match="the key is env:KEY_TWO"):
            await model.check(resources())
        keys = [request.headers["authorization"] for request in server.requests]
        assert keys == ["Bearer one", "Bearer two"]
        with pytest.raises(Denied):  # though that key is to rest: a check is asked for now
            await model.check(resources())

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(status=401), "the key is missing, wrong, or may not use this model"),
        (Fault(status=404), "127.0.0.1 answers, but has no list of models at http://"),
        (Fault(status=200, html=True), "the list of models is none: check base_url"),
        (Fault(reset=True), "the connection broke before the reply was whole"),
    ],
)
def test_an_endpoint_that_does_not_tell_is_one_clear_line(
    server: LoopbackServer, tmp_path: Path, fault: Fault, told: str
) -> None:
    server.always(fault)
    done = program(tmp_path, server.url, "models", "--remote", "mine")
    assert done.returncode != 0 and told in " ".join(done.stderr.split()) and SECRET not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_without_its_key_says_which(server: LoopbackServer, tmp_path: Path) -> None:
    done = program(tmp_path, server.url, "models", "--remote", "keyless")
    assert done.returncode != 0 and "NO_SUCH_KEY is not set" in done.stderr and not server.requests
