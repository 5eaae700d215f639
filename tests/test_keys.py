"""Keys and secrets: wrapped keys open only as they were wrapped; secrets show nowhere."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keyring.backend import KeyringBackend
from keyring.backends import chainer, fail, null
from keyring.errors import KeyringLocked

from gateway import ConfigError, KeyNotMine, KeyProvider, Keys, MissingSecret, Secret
from gateway.keys import EnvKey, FileKey, KeyringKey, secret
from gateway.testing.contract import KeyProviderContract

CANARY = "canary-4711"
CONTEXT = {"model": "tiny", "use": "weights"}


def fresh() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def key_file(path: Path, text: str | bytes, mode: int = 0o600) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return f"file:{path}"


class TestEnvKey(KeyProviderContract):
    @pytest.fixture
    def provider(self, monkeypatch: pytest.MonkeyPatch) -> EnvKey:
        monkeypatch.setenv("ONE_KEY", fresh())
        monkeypatch.setenv("OTHER_KEY", fresh())
        return EnvKey()

    @pytest.fixture
    def uri(self) -> str:
        return "env:ONE_KEY"

    @pytest.fixture
    def other_uri(self) -> str:
        return "env:OTHER_KEY"


class TestFileKey(KeyProviderContract):
    @pytest.fixture
    def provider(self) -> FileKey:
        return FileKey()

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return key_file(tmp_path / "one", fresh() + "\n")

    @pytest.fixture
    def other_uri(self, tmp_path: Path) -> str:
        return key_file(tmp_path / "other", fresh())


class Ring(KeyringBackend):
    """A keyring in memory."""

    priority = 5

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password


class PlaintextKeyring(Ring):
    """One that keeps what it is given for all to read, named as those of keyrings.alt are."""

    priority = 0.5


class OfOnesOwn(PlaintextKeyring):
    """Another by name, but still one of them."""


class Locked(Ring):
    def get_password(self, service: str, username: str) -> str | None:
        raise KeyringLocked(CANARY)


class Chain(chainer.ChainerBackend):
    """Some, one after the other."""

    backends: Any = ()

    def __init__(self, *backends: KeyringBackend) -> None:
        super().__init__()
        self.backends = backends


@pytest.fixture
def ring() -> Iterator[Ring]:
    """The keyring of this process, with two keys in it."""
    before, ring = keyring.get_keyring(), Ring()
    keyring.set_keyring(ring)
    keyring.set_password("gateway", "one", fresh())
    keyring.set_password("gateway", "other", fresh())
    yield ring
    keyring.set_keyring(before)


class TestKeyringKey(KeyProviderContract):
    @pytest.fixture
    def provider(self, ring: Ring) -> KeyringKey:
        return KeyringKey()

    @pytest.fixture
    def uri(self) -> str:
        return "keyring:gateway/one"

    @pytest.fixture
    def other_uri(self) -> str:
        return "keyring:gateway/other"


@pytest.mark.parametrize(
    ("unsafe", "name"),
    [
        (null.Keyring(), "keyring.backends.null.Keyring"),
        (fail.Keyring(), "keyring.backends.fail.Keyring"),
        (PlaintextKeyring(), "PlaintextKeyring"),
        (OfOnesOwn(), "PlaintextKeyring"),
        (Chain(Ring(), PlaintextKeyring()), "PlaintextKeyring"),
    ],
)
def test_a_keyring_that_keeps_no_secret_is_refused_by_name(ring: Ring, unsafe: KeyringBackend, name: str) -> None:
    wrapped = KeyringKey().wrap("keyring:gateway/one", b"k", CONTEXT)
    for one in getattr(unsafe, "backends", [unsafe]):
        if isinstance(one, Ring):
            one.kept.update(ring.kept)
    keyring.set_keyring(unsafe)
    for call in (
        lambda: KeyringKey().wrap("keyring:gateway/one", b"k", CONTEXT),
        lambda: KeyringKey().unwrap("keyring:gateway/one", wrapped, CONTEXT),
    ):
        with pytest.raises(ConfigError, match="keeps no secret") as caught:
            call()
        assert name in str(caught.value) and "'keyring:gateway/one'" in str(caught.value)


def test_a_chain_of_keyrings_that_all_encrypt_will_do(ring: Ring) -> None:
    wrapped = KeyringKey().wrap("keyring:gateway/one", b"k", CONTEXT)
    keyring.set_keyring(Chain(Ring(), ring))
    assert KeyringKey().unwrap("keyring:gateway/one", wrapped, CONTEXT) == b"k"


def test_a_key_of_the_keyring_that_is_locked_missing_or_none_is_told_without_being_shown(ring: Ring) -> None:
    ring.kept["gateway", "bad"] = CANARY
    for uri, told in (("keyring:gateway/none", "keyring set gateway none"), ("keyring:gateway/bad", "32 bytes in base64")):
        with pytest.raises(ConfigError, match=told) as caught:
            KeyringKey().wrap(uri, b"k", CONTEXT)
        assert CANARY not in "".join(traceback.format_exception(caught.value))
    keyring.set_keyring(Locked())
    with pytest.raises(MissingSecret, match="KeyringLocked") as missing:
        KeyringKey().wrap("keyring:gateway/one", b"k", CONTEXT)
    assert CANARY not in "".join(traceback.format_exception(missing.value)) and missing.value.__context__ is None


def test_one_key_opens_the_same_wraps_wherever_it_is_kept(ring: Ring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ring.kept["gateway", "one"]
    monkeypatch.setenv("ONE_KEY", own)
    keys = Keys({"env": EnvKey(), "file": FileKey(), "keyring": KeyringKey()})
    uris = ["env:ONE_KEY", key_file(tmp_path / "one", own), "keyring:gateway/one"]
    for wrapping in uris:
        wrapped = keys.wrap(wrapping, b"k", CONTEXT)
        assert {keys.unwrap(uri, wrapped, CONTEXT) for uri in uris} == {b"k"}


def test_another_provider_s_wrap_is_refused_before_the_key_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    for other in (b"", b"gwk1", b"gwp1" + bytes(99), b"gwk1" + bytes(47)):
        with pytest.raises(KeyNotMine):
            EnvKey().unwrap("env:NO_SUCH_KEY", other, CONTEXT)


@given(st.binary(max_size=64), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), st.data())
def test_any_change_to_a_wrap_or_its_context_keeps_it_shut(key: bytes, context: dict[str, str], data: st.DataObject) -> None:
    os.environ["GATEWAY_TEST_KEY"] = base64.b64encode(bytes(range(32))).decode()
    try:
        provider = EnvKey()
        wrapped = provider.wrap("env:GATEWAY_TEST_KEY", key, context)
        assert provider.unwrap("env:GATEWAY_TEST_KEY", wrapped, context) == key
        bit = data.draw(st.integers(0, len(wrapped) * 8 - 1))
        flipped = bytearray(wrapped)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(KeyNotMine):
            provider.unwrap("env:GATEWAY_TEST_KEY", bytes(flipped), context)
        with pytest.raises(KeyNotMine):
            provider.unwrap("env:GATEWAY_TEST_KEY", wrapped, {**context, "more": "x" * 9})
        with pytest.raises(KeyNotMine):
            provider.unwrap("env:GATEWAY_TEST_KEY", wrapped[: data.draw(st.integers(0, len(wrapped) - 1))], context)
    finally:
        del os.environ["GATEWAY_TEST_KEY"]


@pytest.mark.parametrize(
    "value", [CANARY, "é" * 43, base64.b64encode(bytes(31)).decode(), base64.b64encode(bytes(33)).decode(), CANARY * 4]
)
def test_a_key_that_is_not_32_bytes_in_base64_is_refused_without_being_shown(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAD_KEY", value)
    for provider, uri in ((EnvKey(), "env:BAD_KEY"), (FileKey(), key_file(tmp_path / "k", value))):
        with pytest.raises(ConfigError, match="32 bytes in base64") as caught:
            provider.wrap(uri, b"k", {})
        assert value not in "".join(traceback.format_exception(caught.value))


def test_keys_ask_the_provider_that_the_scheme_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE_KEY", fresh())
    keys = Keys({"env": EnvKey(), "file": FileKey()})
    assert keys.unwrap("env:ONE_KEY", keys.wrap("env:ONE_KEY", b"k", CONTEXT), CONTEXT) == b"k"
    with pytest.raises(ConfigError, match=r"'kms'.*env, file"):
        keys.wrap("kms:alias/x", b"k", CONTEXT)
    with pytest.raises(ConfigError, match=r"the scheme 'aws-kms'.*env, file"):
        keys.wrap("aws-kms:alias/x", b"k", CONTEXT)
    assert isinstance(EnvKey(), KeyProvider) and isinstance(FileKey(), KeyProvider)


@pytest.mark.parametrize("pasted", [CANARY, f"sk-{CANARY}:x", f"{CANARY}{CANARY}=", "", ":", f"x y:{CANARY}"])
def test_a_pasted_key_is_refused_without_being_shown(pasted: str) -> None:
    for ask in (lambda: secret(pasted), lambda: Keys({"env": EnvKey()}).wrap(pasted, b"k", {})):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_variable_that_is_missing_or_empty_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    monkeypatch.setenv("EMPTY_KEY", "")
    for name in ("NO_SUCH_KEY", "EMPTY_KEY"):
        with pytest.raises(MissingSecret, match=name) as caught:
            secret(f"env:{name}")
        assert caught.value.ref == f"env:{name}"


def test_a_secret_file_is_read_without_the_newline_at_its_end(tmp_path: Path) -> None:
    assert secret(key_file(tmp_path / "s", f"{CANARY}\n")).reveal() == CANARY


def test_a_secret_file_may_be_below_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    key_file(tmp_path / "s", CANARY)
    assert secret("file:~/s").reveal() == CANARY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o777])
def test_a_secret_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    ref = key_file(tmp_path / "s", CANARY, mode)
    with pytest.raises(ConfigError, match="chmod 600") as caught:
        secret(ref)
    assert not isinstance(caught.value, MissingSecret) and CANARY not in str(caught.value)


def test_a_secret_file_that_cannot_be_read_or_is_empty_is_missing(tmp_path: Path) -> None:
    refs = [
        f"file:{tmp_path / 'none'}", f"file:{tmp_path}", "file:a\0b", "file:~no-such-user-4711/x",
        key_file(tmp_path / "empty", " \n"), key_file(tmp_path / "latin", CANARY.encode() + b"\xff"),
    ]  # fmt: skip
    for ref in refs:
        with pytest.raises((MissingSecret, ConfigError)) as caught:
            secret(ref)
        shown = "".join(traceback.format_exception(caught.value))
        assert CANARY not in shown and caught.value.__cause__ is None


def test_a_secret_shows_nowhere() -> None:
    hidden = Secret(CANARY)
    shown = [str(hidden), repr(hidden), f"{hidden}", f"{hidden!r:>30}", f"{[hidden]}", "%s" % hidden]  # noqa: UP031
    assert not any(CANARY in text for text in shown)
    assert not hasattr(hidden, "__dict__")
    assert hidden == Secret(CANARY) and hash(hidden) == hash(Secret(CANARY)) and hidden != CANARY


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_a_secret_is_never_serialised(way: Any) -> None:
    for thing in (Secret(CANARY), {"key": Secret(CANARY)}):
        if way is copy.copy and isinstance(thing, dict):
            continue
        with pytest.raises(TypeError) as caught:
            way(thing)
        assert CANARY not in str(caught.value)


BACKEND = f'''
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

class Backend(KeyringBackend):
    """Its passwords are known, and it may be locked."""

    priority = 1

    def get_password(self, service, username):
        match service:
            case "locked":
                raise KeyringLocked("{CANARY}")
            case "broken":
                raise ZeroDivisionError("{CANARY}")
            case "https://example.com/v1":
                return "by-url" if username == "me" else None
            case "openai":
                return "{CANARY}" if username == "me" else None
            case "empty":
                return ""

    def set_password(self, service, username, password):
        raise NotImplementedError

class NotABackend:
    pass
'''
ASKED = """
import sys, traceback
from gateway import ConfigError, MissingSecret
from gateway.keys import secret
for ref in sys.argv[1:]:
    try:
        print(secret(ref).reveal())
    except ConfigError as error:
        traceback.print_exception(error, file=sys.stderr)
        print(f"{type(error).__name__}: {error}")
        while error := error.__cause__ or error.__context__:
            print(f"behind it: {error!r}")
"""


def from_keyring(path: Path, *refs: str, backend: str = "backend_4711.Backend", program: str = ASKED) -> list[str]:
    """What another process, with a keyring of its own, gets for each reference."""
    (path / "backend_4711.py").write_text(BACKEND)
    env = {**os.environ, "PYTHONPATH": str(path), "PYTHON_KEYRING_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", program, *refs], env=env, capture_output=True, text=True, check=True)
    if CANARY not in done.stdout.splitlines():
        assert CANARY not in done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_secret_is_read_from_the_keyring_of_the_operating_system(tmp_path: Path) -> None:
    assert from_keyring(tmp_path, "keyring:openai/me", "keyring:https://example.com/v1/me") == [CANARY, "by-url"]


def test_what_the_keyring_does_not_have_is_missing_and_it_is_told_how_to_put_it_there(tmp_path: Path) -> None:
    hint = "is not in the keyring: `keyring set {} {}` puts it there"
    assert from_keyring(tmp_path, "keyring:openai/you", "keyring:empty/me") == [
        f"MissingSecret: secret 'keyring:openai/you' {hint.format('openai', 'you')}",
        f"MissingSecret: secret 'keyring:empty/me' {hint.format('empty', 'me')}",
    ]


def test_a_keyring_that_is_locked_or_broken_is_told_by_its_error_s_name_alone(tmp_path: Path) -> None:
    assert from_keyring(tmp_path, "keyring:locked/me", "keyring:broken/me") == [
        "MissingSecret: secret 'keyring:locked/me': the keyring cannot be read: KeyringLocked",
        "MissingSecret: secret 'keyring:broken/me': the keyring cannot be read: ZeroDivisionError",
    ]
    [none] = from_keyring(tmp_path, "keyring:openai/me", backend="keyring.backends.fail.Keyring")
    assert none == "MissingSecret: secret 'keyring:openai/me': the keyring cannot be read: NoKeyringError"
    for backend in ("no_such_module_4711.Backend", "backend_4711.NoSuchClass"):
        [wrong] = from_keyring(tmp_path, "keyring:openai/me", backend=backend)
        assert wrong.startswith("MissingSecret: secret 'keyring:openai/me': the keyring cannot be read: ")


def test_a_reference_to_the_keyring_needs_a_service_and_a_user(tmp_path: Path) -> None:
    told = "ConfigError: a secret of the keyring is given as keyring:SERVICE/USER"
    assert from_keyring(tmp_path, "keyring:openai", "keyring:/me", "keyring:openai/") == [told] * 3


def test_without_the_package_keyring_it_is_told_what_to_install(tmp_path: Path) -> None:
    hides = "import sys; sys.modules['keyring'] = None\n"  # as if it were not installed
    [told] = from_keyring(tmp_path, "keyring:openai/me", program=hides + ASKED)
    assert told == "ConfigError: secret 'keyring:openai/me' needs the package keyring: pip install 'gateway-sdk[keyring]'"
    # Nobody else needs it.
    one = "import sys, gateway.keys; sys.exit('keyring' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", one], check=False).returncode == 0


def test_a_file_that_cannot_be_decoded_leaves_nothing_of_it_behind_the_error(tmp_path: Path) -> None:
    with pytest.raises(MissingSecret) as caught:
        secret(key_file(tmp_path / "latin", CANARY.encode() + b"\xff"))
    assert caught.value.__cause__ is None and caught.value.__context__ is None


@pytest.mark.parametrize("scheme", ["env", "file"])
def test_a_key_in_the_place_of_its_name_is_not_repeated(scheme: str) -> None:
    """As ``env:$WEIGHTS_KEY`` gives it."""
    pasted = base64.b64encode(os.urandom(32)).decode()
    with pytest.raises(ConfigError) as caught:
        secret(f"{scheme}:{pasted}")
    assert pasted not in str(caught.value)
