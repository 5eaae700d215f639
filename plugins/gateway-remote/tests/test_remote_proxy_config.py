"""Which proxy is used, as the configuration and the environment say it; and one that cannot be used."""

import asyncio
from typing import Any

import httpx
import pytest
from gateway_remote.transport import Network
from remote_case import HELLO, started

from gateway import ConfigError

CLIENTS = pytest.mark.parametrize("client", [{}, {"http2": True}], ids=["ours", "httpx"])
SCHEMES = pytest.mark.parametrize("scheme", ["http", "https"])
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
SECRET = "hunter2"
HOST = "api.example.invalid"  # nobody but the proxy knows where that is


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("API_KEY", f"sk-{SECRET}")


def test_a_transport_of_one_s_own_minds_its_own_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})

    async def whole() -> None:
        async with started("http://api.example.com/v1", transport=httpx.MockTransport(answer)) as model:
            assert (await model.run(HELLO)).text == "Hi"  # type: ignore[attr-defined]

    asyncio.run(whole())


def test_a_proxy_s_password_shows_in_no_repr() -> None:
    assert SECRET not in repr(Network(connect_s=1, proxy=f"http://me:{SECRET}@127.0.0.1:1"))


@pytest.mark.parametrize(
    ("no_proxy", "url", "through"),
    [
        ("", "http://api.example.com/v1", True),
        ("example.com", "http://api.example.com/v1", False),
        (".example.com", "http://api.example.com/v1", False),
        ("API.Example.com", "http://api.example.com/v1", False),
        ("other.com, example.com", "http://api.example.com:8080/v1", False),
        ("ample.com", "http://api.example.com/v1", True),
        ("*", "http://api.example.com/v1", False),
        ("api.example.com:8080", "http://api.example.com:8080/v1", False),
        ("api.example.com:8080", "http://api.example.com:8081/v1", True),
        ("127.0.0.1", "http://127.0.0.1:8000/v1", False),
        ("localhost", "http://127.0.0.1:8000/v1", True),
    ],
)
def test_no_proxy_names_whom_to_ask_directly(no_proxy: str, url: str, through: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert Network(connect_s=1).proxy_for(url) == ("http://proxy.example:3128" if through else None)
    assert Network(connect_s=1, proxy="http://mine:1").proxy_for(url) == "http://mine:1"  # that is about the environment's


@CLIENTS
@pytest.mark.parametrize(
    "value",
    [
        f"socks5://me:{SECRET}@127.0.0.1:1", f"{SECRET}", f"me:{SECRET}@127.0.0.1", f"http://me:{SECRET}", "http://",
        f"http://me:{SECRET}@proxy:port", f"http://me:{SECRET}@[::1", f"http://me:{SECRET}@pro xy:1", "ftp://127.0.0.1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("whose", ["PROXY", "https_proxy"])
def test_a_proxy_that_cannot_be_used_is_refused_without_being_shown(
    client: dict[str, Any], value: str, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if whose == "https_proxy" and "://" not in value:
        value = f"{value}:{SECRET}"  # a name alone would do
    monkeypatch.setenv(whose, value)

    async def whole() -> None:
        facts: dict[str, Any] = {"proxy": "env:PROXY"} if whose == "PROXY" else {}
        with pytest.raises(ConfigError, match="the proxy for https cannot be used: give an http:// or https:// URL") as caught:
            async with started("https://api.example.com/v1", **facts, **client):
                pass
        error: BaseException | None = caught.value
        while error is not None:
            assert SECRET not in f"{error}{error!r}{error.args}"
            error = error.__cause__ or error.__context__

    asyncio.run(whole())
