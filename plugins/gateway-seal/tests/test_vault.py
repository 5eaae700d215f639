"""Keys wrapped by Vault's transit engine, over HTTP on loopback."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_seal.vault import VaultKey
from key_case import CONTEXT, KEY, raised, without
from transit_case import TOKEN, Transit, TransitKey, serving

from gateway import ConfigError, KeyNotMine, KeyProvider, MissingSecret, Unreachable
from gateway.testing.contract import KeyProviderContract


@pytest.fixture
def transit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Transit]:
    with serving(Transit()) as server:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("VAULT_ADDR", server.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        monkeypatch.delenv("VAULT_NAMESPACE", raising=False)
        yield server


class TestVaultKey(KeyProviderContract):
    @pytest.fixture
    def provider(self, transit: Transit) -> VaultKey:
        return VaultKey()

    @pytest.fixture
    def uri(self) -> str:
        return "vault:one"

    @pytest.fixture
    def other_uri(self) -> str:
        return "vault:transit/other"


class TestAnOldVaultKey(KeyProviderContract):
    """Before 1.13 transit took no notice of associated data: what is wrapped is tied to its context all the same."""

    @pytest.fixture
    def provider(self, transit: Transit) -> VaultKey:
        transit.old = True
        return VaultKey()

    @pytest.fixture
    def uri(self) -> str:
        return "vault:one"

    @pytest.fixture
    def other_uri(self) -> str:
        return "vault:other"


def wrapping(uri: str = "vault:one") -> bytes:
    return VaultKey().wrap(uri, KEY, CONTEXT)


def unwrapping(wrapped: bytes, uri: str = "vault:one") -> bytes:
    return VaultKey().unwrap(uri, wrapped, CONTEXT)


def test_the_context_goes_to_vault_as_associated_data_and_the_key_behind_its_digest(transit: Transit) -> None:
    assert isinstance(VaultKey(), KeyProvider)
    wrapped = wrapping("vault:transit/one")
    assert unwrapping(wrapped) == KEY
    [(path, given), (opened, _)] = transit.asked
    assert (path, opened) == ("/v1/transit/encrypt/one", "/v1/transit/decrypt/one")
    assert json.loads(base64.b64decode(given["associated_data"])) == CONTEXT
    assert base64.b64decode(given["plaintext"]).endswith(KEY) and len(base64.b64decode(given["plaintext"])) == 48 + 32
    assert wrapped[:8] == b"gwv1\0\0\0\1" and len(wrapped) == 8 + 12 + 48 + 32 + 16


def test_a_mount_may_be_anywhere_and_a_namespace_is_named(transit: Transit, monkeypatch: pytest.MonkeyPatch) -> None:
    transit.keys["team/transit/weights-1"] = TransitKey()
    transit.namespace = "ours"
    monkeypatch.setenv("VAULT_NAMESPACE", "ours")
    assert unwrapping(wrapping("vault:team/transit/weights-1"), "vault:team/transit/weights-1") == KEY
    monkeypatch.setenv("VAULT_NAMESPACE", "theirs")
    assert "VAULT_NAMESPACE" in str(raised(ConfigError, wrapping, TOKEN))


def test_a_key_that_was_rotated_opens_what_it_wrapped_before(transit: Transit) -> None:
    before = wrapping()
    transit.keys["transit/one"].rotate()
    after = wrapping()
    assert (before[4:8], after[4:8]) == (b"\0\0\0\1", b"\0\0\0\2")
    assert unwrapping(before) == unwrapping(after) == KEY
    transit.keys["transit/one"].least = 2
    raised(KeyNotMine, lambda: unwrapping(before), TOKEN)
    transit.keys["transit/one"].versions.pop()
    raised(KeyNotMine, lambda: unwrapping(after), TOKEN)


def test_version_0_which_transit_takes_for_1_does_not_open(transit: Transit) -> None:
    wrapped = wrapping()
    raised(KeyNotMine, lambda: unwrapping(wrapped[:7] + b"\0" + wrapped[8:]), TOKEN)


def test_the_token_may_be_in_the_file_that_vault_login_writes(
    transit: Transit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("VAULT_TOKEN")
    error = raised(MissingSecret, wrapping)
    assert "VAULT_TOKEN" in str(error) and "vault login" in str(error) and error.__context__ is None
    path = tmp_path / ".vault-token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    assert unwrapping(wrapping()) == KEY
    path.chmod(0o644)
    assert "chmod 600" in str(raised(ConfigError, wrapping, TOKEN))


def test_another_provider_s_wrap_is_refused_without_asking(transit: Transit) -> None:
    for other in (b"", b"gwa1" + bytes(99), b"gwv1\0\0\0\1"):
        raised(KeyNotMine, lambda other=other: unwrapping(other), TOKEN)
    assert not transit.asked


@pytest.mark.parametrize(
    "uri", ["vault:", f"vault:{TOKEN}", f"vault:transit/../{TOKEN}", "vault:a//b", "vault:/a", "vault:a b", "vault:a\n"]
)
def test_what_is_no_reference_to_a_key_is_not_repeated(uri: str, transit: Transit) -> None:
    for call in (lambda: wrapping(uri), lambda: unwrapping(b"", uri)):
        assert "vault:MOUNT/KEY" in str(raised(ConfigError, call, TOKEN))
    assert not transit.asked


def test_what_vault_refuses_is_told_in_words_of_our_own(transit: Transit, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = wrapping()
    calls = (wrapping, lambda: unwrapping(wrapped))

    def each(kind: type[Exception], told: str) -> None:
        for call in calls:
            error = raised(kind, call, TOKEN)
            assert told in str(error) and "'vault:one'" in str(error)
            assert error.__cause__ is None and error.__context__ is None

    one = transit.keys.pop("transit/one")
    each(ConfigError, "there is no such key")
    transit.keys["transit/one"] = TransitKey(kind="rsa-2048")
    each(ConfigError, "another AEAD")
    transit.keys["transit/one"] = TransitKey(derived=True)
    each(ConfigError, "derived key")
    transit.keys["transit/one"] = one
    transit.may = ()
    each(ConfigError, "no policy of its lets it")
    transit.may = ("encrypt", "decrypt")
    transit.mounts = ()
    each(ConfigError, "no transit engine")
    transit.mounts = ("transit",)
    transit.sealed = True
    each(Unreachable, "sealed")
    transit.sealed = False
    monkeypatch.setenv("VAULT_TOKEN", "hvs.another")
    each(ConfigError, "the token is not valid")


@pytest.mark.parametrize(
    ("status", "said", "kind", "told"),
    [
        (500, b'{"errors": ["hvs.CAESIJ4711canary"]}', Unreachable, "InternalServerError"),
        (429, b"{}", Unreachable, "RateLimitExceeded"),
        (502, b"<html>hvs.CAESIJ4711canary</html>", Unreachable, "BadGateway"),
        (400, b'{"errors": ["hvs.CAESIJ4711canary"]}', ConfigError, "audit log"),
        (400, b"[1]", ConfigError, "cannot be read"),
        (200, b"hvs.CAESIJ4711canary", ConfigError, "status 200"),
        (200, b'{"data": null}', ConfigError, "cannot be read"),
        (200, b'{"data": {"plaintext": 4711, "ciphertext": 4711}}', ConfigError, "cannot be read"),
        (200, b'{"data": {"plaintext": "a", "ciphertext": "hvs:v1:AAAA"}}', ConfigError, "cannot be read"),
        (204, b"", ConfigError, "status 204"),
    ],
)
def test_an_answer_that_is_none_is_told_without_what_it_says(
    status: int, said: bytes, kind: type[Exception], told: str, transit: Transit
) -> None:
    wrapped = wrapping()
    transit.broken = (status, said)
    for call in (wrapping, lambda: unwrapping(wrapped)):
        error = raised(kind, call, TOKEN)
        assert told in str(error) and error.__cause__ is None and error.__context__ is None


def test_an_answer_that_leads_elsewhere_is_not_followed(transit: Transit) -> None:
    with serving(Transit()) as other:
        transit.broken, transit.location = (307, b""), f"{other.url}/v1/transit/encrypt/one"
        assert "status 307" in str(raised(ConfigError, wrapping, TOKEN))
        assert not other.asked


def test_a_server_that_is_down_or_says_nothing_is_unreachable(transit: Transit, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{silent.getsockname()[1]}")
        error = raised(Unreachable, lambda: VaultKey(timeout_s=0.1).wrap("vault:one", KEY, CONTEXT), TOKEN)
        assert "ReadTimeout" in str(error)
    error = raised(Unreachable, wrapping, TOKEN)
    assert "Vault cannot be reached: ConnectionError" in str(error) and error.retryable and error.__context__ is None


@pytest.mark.parametrize(
    "url", ["http://vault.example.com:8200", "http://10.0.0.1:8200", "vault:8200", "https://", "http://[x"]
)
def test_no_key_goes_to_another_machine_in_clear(url: str, transit: Transit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_ADDR", url)
    assert "VAULT_ADDR" in str(raised(ConfigError, wrapping, TOKEN))


def test_what_stays_on_this_machine_goes_through_no_proxy(transit: Transit, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Transit()) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert unwrapping(wrapping()) == KEY
        assert not proxy.asked and len(transit.asked) == 2


def test_a_token_that_is_no_header_is_not_shown(transit: Transit, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in (f"{TOKEN}\nmore", f"{TOKEN}\u20ac"):
        monkeypatch.setenv("VAULT_TOKEN", token)
        assert "Vault cannot be asked" in str(raised(ConfigError, wrapping, TOKEN))


def test_without_an_address_or_hvac_it_is_told_what_to_do(transit: Transit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_ADDR")
    assert "needs VAULT_ADDR" in str(raised(ConfigError, wrapping, TOKEN))
    without("hvac", monkeypatch)
    told = "key 'vault:one' needs the package hvac: pip install 'gateway-seal[vault]'"
    assert str(raised(ConfigError, wrapping, TOKEN)) == told
