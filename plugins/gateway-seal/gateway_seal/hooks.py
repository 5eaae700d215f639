"""What the gateway finds in this plugin. Nothing heavy is imported before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway import Command, KeyProvider, WeightStore, hookimpl, parse_config

gateway_api = 1


@hookimpl
def gateway_keys(config: Mapping[str, Any]) -> Iterable[KeyProvider]:
    """Who wraps data keys, beside the gateway's own ``env:``, ``file:`` and ``keyring:``."""
    from gateway_seal.aws_kms import AwsKey
    from gateway_seal.passphrase import PassphraseKey
    from gateway_seal.vault import VaultKey

    return [PassphraseKey(), AwsKey(), VaultKey()]


@hookimpl
def gateway_stores(config: Mapping[str, Any]) -> Iterable[WeightStore]:
    """``sealed:DIR``, as ``[plugin.seal]`` says."""
    from gateway_seal.options import SealOptions
    from gateway_seal.store import SealedStore

    return [SealedStore(parse_config(SealOptions, dict(config), "plugin.seal"))]


@hookimpl
def gateway_commands(config: Mapping[str, Any]) -> Iterable[Command]:
    """`gateway seal`, and what else is done with a sealed model."""
    told = {
        "seal": "Encrypt every file of a model.",
        "unseal": "Write a sealed model's plain files.",
        "verify": "Check every byte of a sealed model.",
        "inspect": "Show what a sealed model holds.",
        "rotate": "Let another key open a sealed model in the place of this one.",
        "add-key": "Let another key open a sealed model, too.",
        "remove-key": "Remove a key of a sealed model.",
        "seal-sign": "Sign a sealed model's manifest.",
    }
    return [Command(name=name, run=f"gateway_seal.commands:{name.replace('-', '_')}", help=line) for name, line in told.items()]
