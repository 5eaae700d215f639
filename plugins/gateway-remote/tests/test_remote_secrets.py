"""A key shows nowhere: in no repr, error, log record, event or trace, and in nothing that the program prints."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_remote.secrets import Headers
from gateway_remote.service import RemoteModel
from remote_case import HELLO, row, streamed

from gateway import AsyncGateway, Chat, ConfigError, GatewayError, Image, InvalidRequest, Message, Meta
from gateway.config import load_config
from gateway.testing import Fault, LoopbackServer, Recorder, Reply, resources

CANARY = "canary4711hunter2"
KEY = f"sk-{CANARY}"
PROXY = f"http://me:{CANARY}@127.0.0.1:1"
CLIENTS = pytest.mark.parametrize("client", ["ours", "httpx", "own"])
JSON = {"content-type": "application/json"}
FAULTS = {
    "401": Fault(status=401, body={"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}),
    "403": Fault(status=403, body=f"{KEY} may not"),
    "429": Fault(status=429, retry_after="soon", body=KEY),
    "400": Fault(status=400, body={"error": {"message": KEY, "param": KEY}}),
    "500": Fault(status=500, html=True),
    "302": Fault(status=302, headers={"location": "https://example.com/"}),
    "200 error": Fault(status=200, body={"error": {"message": KEY, "type": f"{KEY}!"}}, headers=JSON),
    "no JSON": Fault(status=200, body=f"{KEY} is no JSON", headers=JSON),
    "encoding": Fault(status=200, body=KEY, headers={"content-encoding": "gzip"}),
    "reset": Fault(reset=True),
    "closed": Fault(close=True),
    "cut": Fault(cut_after=1),
    "dropped": Fault(drop_after=1),
    "malformed": Fault(malformed_after=1),
    "error": Fault(error_after=1),
    "finish": Fault(reply=Reply(text="x", finish_reason=f"{KEY} is no name")),
    "finish as the key": Fault(reply=Reply(text="x", finish_reason=KEY)),
    "code": Fault(status=401, body={"error": {"code": KEY, "type": KEY, "status": KEY}}),
    "stalls": Fault(stall_after=1),
}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_KEY", KEY)
    monkeypatch.setenv("CANARY_PROXY", PROXY)


def shown(error: BaseException | None, seen: frozenset[int] = frozenset()) -> str:
    """All that an error says, and all that lies behind it, shown or not."""
    if error is None or id(error) in seen:
        return ""
    seen |= {id(error)}
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    behind = [shown(each, seen) for each in (error.__cause__, error.__context__, *inner)]
    said = [str(error), repr(error), repr(error.args), repr({k: v for k, v in vars(error).items() if k != "partial"})]
    return "\n".join([*said, *traceback.format_exception(error), *behind, *getattr(error, "__notes__", ())])


def logged(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(f"{each.name} {each.getMessage()} {each.args!r} {each.exc_text}" for each in caplog.records)


@CLIENTS
@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_no_failure_shows_the_key(server: LoopbackServer, fault: Fault, client: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    facts: dict[str, Any] = {
        "api_key": ["env:CANARY_KEY"], "headers": {"x-auth-token": "env:CANARY_KEY"}, "http2": client == "httpx",
        "limits": {"reply_s": 0.3, "first_token_s": 0.3, "between_s": 0.3},
    }  # fmt: skip

    async def whole() -> None:
        transport = httpx.AsyncHTTPTransport() if client == "own" else None
        recorder = Recorder()
        model = RemoteModel(row(server.url, **facts), transport=transport)
        async with AsyncGateway([model], observers=[recorder], config=load_config({"retry": {"attempts": 1}})) as gw:
            server.always(fault, path="/chat/completions")
            for stream in (False, True):
                try:
                    if stream:
                        async with gw.stream(HELLO) as answer:
                            reply = await answer.result()
                    else:
                        reply = await gw.run(HELLO)
                    assert CANARY not in f"{reply!r}{reply.trace}{reply.trace!r}{reply.trace.decision}"
                except GatewayError as error:
                    assert CANARY not in shown(error)
                    assert CANARY.encode() not in pickle.dumps(error) and CANARY not in str(getattr(error, "attempts", ""))
            server.clear()
            server.always(fault)
            try:
                assert CANARY not in str(await gw.check())
                await gw.offered("loopback")
            except GatewayError as error:
                assert CANARY not in shown(error)
            decision = await gw.explain(HELLO)
            assert CANARY not in f"{decision}{decision!r}{decision.to_json()}{await gw.models()}"
            assert CANARY not in repr(recorder.events) and recorder.events
        if transport is not None:
            await transport.aclose()
        assert any(request.headers["authorization"] == f"Bearer {KEY}" for request in server.requests)
        assert any(request.headers["x-auth-token"] == KEY for request in server.requests)

    asyncio.run(whole(), debug=True)
    assert CANARY not in logged(caplog)


def variables(error: BaseException | None) -> str:
    """What is in the variables of our own frames, which error trackers keep beside a traceback."""
    out = []
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if "gateway" in Path(frame.f_code.co_filename).parent.name:
                out += [f"{frame.f_code.co_name}: {name} = {value!r}" for name, value in frame.f_locals.items()]
        error = error.__cause__ or error.__context__
    return "\n".join(out)


@CLIENTS
@pytest.mark.parametrize("fault", [Fault(reset=True), Fault(status=401), Fault(status=200, body="no JSON", headers=JSON)])
def test_no_variable_that_an_error_tracker_keeps_shows_the_key(server: LoopbackServer, fault: Fault, client: str) -> None:
    async def whole() -> None:
        transport = httpx.AsyncHTTPTransport() if client == "own" else None
        model = RemoteModel(row(server.url, api_key="env:CANARY_KEY", http2=client == "httpx"), transport=transport)
        async with AsyncGateway([model], config=load_config({"retry": {"attempts": 1}})) as gw:
            server.always(fault)
            for call in (gw.run(HELLO), model.run(HELLO), streamed(model), gw.offered("loopback")):
                with pytest.raises(GatewayError) as caught:
                    await call
                kept = variables(caught.value)
                assert "headers = " in kept or "self = " in kept
                assert CANARY not in kept
            server.always(Fault(delay_s=60))
            asking = asyncio.create_task(model.run(HELLO))
            await server.wait_for(lambda s: s.in_flight == 1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await asking
            assert CANARY not in variables(cancelled.value)
        if transport is not None:
            await transport.aclose()

    asyncio.run(whole())


@CLIENTS
def test_no_success_shows_the_key(server: LoopbackServer, client: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def whole() -> None:
        transport = httpx.AsyncHTTPTransport() if client == "own" else None
        model = RemoteModel(row(server.url, api_key="env:CANARY_KEY", http2=client == "httpx"), transport=transport)
        lent = resources()
        await model.describe(lent)
        await model.start(lent)
        await model.run(HELLO)
        _, reply = await streamed(model)
        link: Any = model._link
        things = [model, model.row, model.card, model._headers, model._rests, model._keys, link, link._transport, reply, lent]
        assert CANARY not in "".join(f"{thing!r}{thing}" for thing in things)
        await model.aclose()
        if transport is not None:
            await transport.aclose()

    asyncio.run(whole(), debug=True)
    assert CANARY not in logged(caplog)


@pytest.mark.parametrize("client", [{}, {"http2": True}], ids=["ours", "httpx"])
@pytest.mark.parametrize("url", ["http://api.example.invalid/v1", "https://api.example.invalid/v1"])
def test_no_connection_that_fails_shows_the_key_or_the_proxy_s_password(
    url: str, client: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def whole() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            for facts in (
                {"proxy": "env:CANARY_PROXY"},
                {"proxy": f"http://127.0.0.1:{closed.getsockname()[1]}"},
                {"proxy": ""},
            ):
                model = RemoteModel({"name": "m", "base_url": url, "api_key": "env:CANARY_KEY", **facts, **client})
                lent = resources()
                await model.describe(lent)
                await model.start(lent)
                link: Any = model._link
                assert CANARY not in f"{model!r}{link!r}{link._transport!r}{model.row!r}"
                for work in (model.run(HELLO), streamed(model), model.check(lent)):
                    with pytest.raises(GatewayError) as caught:
                        await work
                    assert CANARY not in shown(caught.value)
                await model.aclose()

    asyncio.run(whole(), debug=True)
    assert CANARY not in logged(caplog)


@pytest.mark.parametrize("value", [f"{CANARY}\nx: y", f"{CANARY}é", f"{CANARY}\x00", f"\t{CANARY}"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_bytes(f"x{value}y".encode())
    (tmp_path / "key").chmod(0o600)
    model = RemoteModel({"name": "m", "base_url": "http://x/v1", "api_key": f"file:{tmp_path / 'key'}"})
    with pytest.raises(ConfigError, match="holds characters that an HTTP header cannot carry") as caught:
        asyncio.run(model.describe(resources()))
    assert CANARY not in shown(caught.value)


def test_what_is_resolved_again_forgets_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = Headers(RemoteModel({"name": "m", "base_url": "http://x/v1", "api_key": ["env:CANARY_KEY", "env:OTHER"]}).row)
    monkeypatch.setenv("OTHER", "other")
    headers.resolve(resources())
    assert headers.present == ("env:CANARY_KEY", "env:OTHER")
    monkeypatch.delenv("CANARY_KEY")
    headers.resolve(resources())
    assert headers.present == ("env:OTHER",)


def test_the_headers_of_one_key_hold_nothing_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER", "other")
    headers = Headers(RemoteModel({"name": "m", "base_url": "http://x/v1", "api_key": ["env:CANARY_KEY", "env:OTHER"]}).row)
    headers.resolve(resources())
    assert headers.of("env:OTHER", "application/json")["authorization"] == "Bearer other"
    assert headers.of("env:CANARY_KEY", "application/json")["authorization"] == f"Bearer {KEY}"
    assert CANARY not in repr(headers.of("env:OTHER", "application/json"))


def test_content_does_not_show_either(server: LoopbackServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asked = Chat(messages=(Message.user(CANARY),), meta=Meta(tenant="blue"))

    async def whole() -> None:
        recorder = Recorder()
        async with AsyncGateway([RemoteModel(row(server.url))], observers=[recorder]) as gw:
            reply = await gw.run(asked)
            assert CANARY in reply.text and CANARY not in f"{reply!r}{reply.trace}{recorder.events}"
            server.always(FAULTS["malformed"])
            with pytest.raises(GatewayError) as caught:
                await gw.run(asked)
            assert CANARY not in shown(caught.value)
            with pytest.raises(InvalidRequest) as refused:
                await gw.run(Chat(messages=(Message(role="user", parts=(Image(url=f"http://127.0.0.1/{KEY}", fetch=True),)),)))
            assert CANARY not in shown(refused.value)

    asyncio.run(whole(), debug=True)
    assert CANARY not in logged(caplog)


CALLS = """
import json, os, sys
import gateway.cli_commands, gateway_remote.hooks, gateway_remote.service
from gateway.cli import main
for number, args in enumerate(json.loads(sys.argv[1])):
    if not (child := os.fork()):
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT), stream)
        main(args)
    os.waitpid(child, 0)
"""
"""Each call in a process of its own, which need not import everything again."""


def test_nothing_that_the_program_prints_shows_a_key(server: LoopbackServer, tmp_path: Path) -> None:
    pytest.importorskip("typer")
    (tmp_path / "gateway.toml").write_text(f"""
plugins = ["remote"]
events = "events.jsonl"
[plugin.remote.defaults]
headers = {{ "x-auth-token" = "env:CANARY_KEY" }}
[[plugin.remote.models]]
name = "good"
base_url = "{server.url}"
model = "loopback"
api_key = ["env:CANARY_KEY", "keyring:team/me", "file:~/no-such-file"]
[[plugin.remote.models]]
name = "down"
base_url = "http://api.example.invalid/v1"
api_key = "env:CANARY_KEY"
proxy = "env:CANARY_PROXY"
""")
    env = {**os.environ, "COLUMNS": "300", "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    env.pop("GATEWAY_CONFIG", None)
    said = {}
    calls = (
        ("config",), ("config", "--json"), ("models",), ("models", "--json"), ("check",), ("check", "--json"),
        ("explain", "chat", "Hi", "--record", "record.json"), ("explain", "chat", "Hi", "--json"),
        ("run", "chat", "Hi", "--model", "good", "--trace"), ("run", "chat", "Hi", "--model", "down"),
        ("models", "--remote", "good", "--json"), ("models", "--remote", "down"), ("plugins",),
    )  # fmt: skip
    subprocess.run([sys.executable, "-c", CALLS, json.dumps(calls)], cwd=tmp_path, env=env, check=True)
    for number, args in enumerate(calls):
        out, err = ((tmp_path / f"{number}.{name}").read_text() for name in ("out", "err"))
        said[" ".join(args)] = out + err
        assert out + err and CANARY not in out + err and "Traceback" not in err, args
    for file in ("record.json", "events.jsonl"):
        assert CANARY not in (tmp_path / file).read_text()
    # References stay: they say where a key is, not what it is.
    for reference in ("env:CANARY_KEY", "keyring:team/me", "file:~/no-such-file", "env:CANARY_PROXY"):
        assert reference in said["config"]
    assert json.loads(said["config --json"])["plugin"]["remote"]["defaults"]["headers"] == {"x-auth-token": "env:CANARY_KEY"}
    assert "keyring:team/me is not there; file:~/no-such-file is not there" in said["check"]
    assert any(request.headers.get("authorization") == f"Bearer {KEY}" for request in server.requests)
