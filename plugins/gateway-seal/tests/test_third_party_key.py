"""A key provider of another plugin, with this one installed: it is lent to services, and wraps beside this plugin's own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from gateway_seal import SealError, open_sealed, rotate, seal, verify
from key_case import CONTEXT, KEY

from gateway import AsyncGateway, KeyNotMine, Keys, PluginError, Resources
from gateway.plugins import load
from gateway.testing import Echo
from gateway.testing.contract import KeyProviderContract

PLUGIN = '''
import json, os
from gateway import KeyNotMine, hookimpl


class Lockbox:
    """``lockbox:NAME``: as a company would write it for a KMS of its own. Its keys live as long as the process."""

    scheme = "SCHEME"

    def __init__(self):
        self.keys = {}

    def cipher(self, uri):
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self.keys.setdefault(uri, os.urandom(32)))

    def wrap(self, uri, key, context):
        nonce = os.urandom(12)
        return b"lbx1" + nonce + self.cipher(uri).encrypt(nonce, key, json.dumps(dict(context), sort_keys=True).encode())

    def unwrap(self, uri, wrapped, context):
        if not wrapped.startswith(b"lbx1"):
            raise KeyNotMine(f"{uri!r} did not wrap this key")
        try:
            return self.cipher(uri).decrypt(wrapped[4:16], wrapped[16:], json.dumps(dict(context), sort_keys=True).encode())
        except Exception:
            raise KeyNotMine(f"{uri!r} did not wrap this key") from None


@hookimpl
def gateway_keys(config):
    return [Lockbox()]
'''

Install = Callable[..., None]


class Lent(Echo):
    """A service that keeps what the gateway lends it."""

    keys: Keys

    async def start(self, resources: Resources) -> None:
        await super().start(resources)
        self.keys = resources.keys


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Make a distribution with one plugin, as pip would lay it out, and put it on the path."""

    def make(scheme: str = "lockbox") -> None:
        (tmp_path / "acme_lockbox_4711.py").write_text(PLUGIN.replace("SCHEME", scheme))
        info = tmp_path / "acme_lockbox-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-lockbox\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text("[gateway]\nlockbox = acme_lockbox_4711\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    yield make
    sys.modules.pop("acme_lockbox_4711", None)


def lent() -> Keys:
    """The keys that a gateway of what is installed lends a service, once it has started it."""

    async def whole() -> Keys:
        config, plugins = load({"plugins": ["seal", "lockbox"]})
        service = Lent("lent")
        async with AsyncGateway([service], config=config, plugins=plugins) as gw:
            await gw.chat("Hello")
            return service.keys

    return asyncio.run(whole())


def test_the_keys_of_every_plugin_are_lent_to_services(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    keys = lent()
    monkeypatch.setenv("PHRASE", "correct horse battery")
    wrapped = keys.wrap("lockbox:weights", KEY, CONTEXT)
    assert wrapped.startswith(b"lbx1") and keys.unwrap("lockbox:weights", wrapped, CONTEXT) == KEY
    for uri, context in (
        ("lockbox:other", CONTEXT),
        ("lockbox:weights", {**CONTEXT, "generation": "2"}),
        ("passphrase:env:PHRASE", CONTEXT),
        ("aws-kms:alias/x", CONTEXT),
        ("vault:weights", CONTEXT),
        ("env:NO_SUCH_KEY", CONTEXT),
        ("file:/no/such/key", CONTEXT),
        ("keyring:gateway/none", CONTEXT),
    ):
        with pytest.raises(KeyNotMine):  # and so the next of the caller's keys is tried
            keys.unwrap(uri, wrapped, context)


def test_a_key_of_another_plugin_seals_and_opens_a_model(install: Install, plain: Path, tmp_path: Path) -> None:
    install()
    keys = lent()
    seal(plain, tmp_path / "sealed", key=["lockbox:weights", "env:SEAL_KEY"], keys=keys)
    for key in ("lockbox:weights", "env:SEAL_KEY"):
        verify(tmp_path / "sealed", key=key, keys=keys)
    rotate(tmp_path / "sealed", key="env:SEAL_KEY", new="lockbox:other", keys=keys)
    with open_sealed(tmp_path / "sealed", key="lockbox:other", keys=keys) as weights:
        assert bytes(weights.read("a")) == bytes(range(24))
    with pytest.raises(SealError, match="lockbox:none"):
        verify(tmp_path / "sealed", key="lockbox:none", keys=keys)


def test_two_plugins_that_provide_one_scheme_are_both_named(install: Install) -> None:
    install("vault")
    with pytest.raises(PluginError, match="two keys are named 'vault'"):
        lent()


def test_a_provider_of_another_plugin_is_held_to_the_same_contract(install: Install) -> None:
    install()
    provider = import_module("acme_lockbox_4711").Lockbox()
    check = KeyProviderContract()
    for name in (name for name in dir(check) if name.startswith("test_")):
        getattr(check, name)(provider, "lockbox:one", "lockbox:other")
