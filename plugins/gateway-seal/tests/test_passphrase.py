"""Keys wrapped under a passphrase: what opens them, what does not, and what a file may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateway_seal.passphrase import CEILING, COST, FLOOR, Cost, PassphraseKey
from key_case import CONTEXT, KEY, raised

from gateway import ConfigError, KeyNotMine, KeyProvider, MissingSecret
from gateway.testing.contract import KeyProviderContract

PHRASE = "correct horse battery 4711"
OTHER = "another one, just as long"
SHORT = "elevenchars"
ODD = "no text at all"
CHEAP = Cost(memory_kib=64, passes=1, lanes=1)
MOST = Cost(memory_kib=1 << 10, passes=8, lanes=8)


def cheap() -> PassphraseKey:
    """A provider of which a try costs next to nothing."""
    return PassphraseKey(cost=CHEAP, floor=CHEAP, ceiling=MOST)


@pytest.fixture(autouse=True)
def phrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", PHRASE)
    monkeypatch.setenv("OTHER", OTHER)


class TestPassphraseKey(KeyProviderContract):
    @pytest.fixture
    def provider(self) -> PassphraseKey:
        return cheap()

    @pytest.fixture
    def uri(self) -> str:
        return "passphrase:env:ONE"

    @pytest.fixture
    def other_uri(self) -> str:
        return "passphrase:env:OTHER"


def test_a_wrap_says_what_a_try_costs_and_the_defaults_are_dear() -> None:
    assert isinstance(PassphraseKey(), KeyProvider)
    assert (COST, FLOOR.memory_kib, CEILING.memory_kib) == (Cost(memory_kib=262_144, passes=3, lanes=4), 65_536, 1 << 20)
    provider = PassphraseKey(cost=FLOOR)
    wrapped = provider.wrap("passphrase:env:ONE", KEY, CONTEXT)
    assert wrapped[:10] == b"gwp1" + (65_536).to_bytes(4, "big") + b"\3\4"
    assert len(wrapped) == 4 + 6 + 32 + len(KEY) + 16
    assert PassphraseKey().unwrap("passphrase:env:ONE", wrapped, CONTEXT) == KEY  # dearer by default, it opens what is cheaper


@pytest.mark.parametrize(
    "cost",
    [
        Cost(memory_kib=64 << 20, passes=3, lanes=4), Cost(memory_kib=2**32 - 1, passes=255, lanes=255),
        Cost(memory_kib=1 << 20, passes=11, lanes=4), Cost(memory_kib=1 << 20, passes=3, lanes=17),
        Cost(memory_kib=(64 << 10) - 1, passes=3, lanes=4), Cost(memory_kib=64 << 10, passes=2, lanes=4),
        Cost(memory_kib=64 << 10, passes=3, lanes=3), Cost(memory_kib=0, passes=0, lanes=0),
    ],
)  # fmt: skip
def test_what_a_file_asks_for_is_looked_at_before_any_work(cost: Cost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONE")  # not even the passphrase is looked for
    hostile = b"gwp1" + cost.packed() + bytes(32 + 48)
    error = raised(KeyNotMine, lambda: PassphraseKey().unwrap("passphrase:env:ONE", hostile, CONTEXT))
    assert f"asks for {cost.memory_kib} KiB" in str(error)


def test_another_provider_s_wrap_is_refused_without_the_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONE")
    for other in (b"", b"gwk1" + bytes(200), b"gwp1" + bytes(20)):
        raised(KeyNotMine, lambda other=other: PassphraseKey().unwrap("passphrase:env:ONE", other, CONTEXT))


def test_a_provider_whose_own_cost_is_out_of_range_is_refused() -> None:
    raised(ConfigError, lambda: PassphraseKey(cost=CHEAP))
    raised(ConfigError, lambda: PassphraseKey(cost=Cost(memory_kib=2 << 20, passes=3, lanes=4)))


def test_the_forms_of_one_letter_are_one_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "caf\u00e9 au lait, please")
    wrapped = cheap().wrap("passphrase:env:ONE", KEY, CONTEXT)
    monkeypatch.setenv("ONE", "cafe\u0301 au lait, please")
    assert cheap().unwrap("passphrase:env:ONE", wrapped, CONTEXT) == KEY
    monkeypatch.setenv("ONE", "cafe au lait, please")
    raised(KeyNotMine, lambda: cheap().unwrap("passphrase:env:ONE", wrapped, CONTEXT))


def test_a_passphrase_may_be_in_a_file_of_its_owner_s(tmp_path: Path) -> None:
    path = tmp_path / "phrase"
    path.write_text(f"{PHRASE}\n")
    path.chmod(0o600)
    wrapped = cheap().wrap(f"passphrase:file:{path}", KEY, CONTEXT)
    assert cheap().unwrap("passphrase:env:ONE", wrapped, CONTEXT) == KEY
    path.chmod(0o644)
    raised(ConfigError, lambda: cheap().wrap(f"passphrase:file:{path}", KEY, CONTEXT), PHRASE)


def test_a_passphrase_that_is_missing_blank_short_or_no_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrapping() -> bytes:
        return cheap().wrap("passphrase:env:ONE", KEY, CONTEXT)

    wrapped = wrapping()
    monkeypatch.setenv("ONE", "")
    assert raised(MissingSecret, wrapping).ref == "env:ONE"
    monkeypatch.setenv("ONE", " " * 20)
    assert "is blank" in str(raised(ConfigError, wrapping))
    monkeypatch.setenv("ONE", SHORT)
    assert "fewer than 12" in str(raised(ConfigError, wrapping, SHORT))
    # It may have been wrapped by another program: that it does not fit is all that there is to say.
    raised(KeyNotMine, lambda: cheap().unwrap("passphrase:env:ONE", wrapped, CONTEXT), SHORT)
    monkeypatch.setenv("ONE", f"{ODD} \udcff\udcfe")
    error = raised(ConfigError, wrapping, ODD)
    assert "is no UTF-8" in str(error) and error.__context__ is None


@pytest.mark.parametrize("uri", [f"passphrase:{PHRASE}", "passphrase:", "passphrase:env:", f"passphrase:aws-kms:{PHRASE}"])
def test_a_pasted_passphrase_is_not_repeated(uri: str) -> None:
    for call in (lambda: cheap().wrap(uri, KEY, CONTEXT), lambda: cheap().unwrap(uri, b"gwk1", CONTEXT)):
        assert "passphrase:env:NAME" in str(raised(ConfigError, call, PHRASE))


def test_nothing_of_it_shows_when_it_does_not_open() -> None:
    wrapped = cheap().wrap("passphrase:env:OTHER", KEY, CONTEXT)
    error = raised(KeyNotMine, lambda: cheap().unwrap("passphrase:env:ONE", wrapped, CONTEXT), PHRASE, OTHER)
    assert "'passphrase:env:ONE' did not wrap this key" in str(error)


def test_a_machine_without_argon2_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf import argon2

    def absent(**given: object) -> object:
        raise UnsupportedAlgorithm("no such thing")

    monkeypatch.setattr(argon2, "Argon2id", absent)
    assert "needs Argon2id" in str(raised(ConfigError, lambda: cheap().wrap("passphrase:env:ONE", KEY, CONTEXT), PHRASE))
