"""What the gateway finds in this plugin. Nothing heavy is imported before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway import KeyProvider, hookimpl

gateway_api = 1


@hookimpl
def gateway_keys(config: Mapping[str, Any]) -> Iterable[KeyProvider]:
    """Who wraps data keys, beside the gateway's own ``env:``, ``file:`` and ``keyring:``."""
    from gateway_seal.aws_kms import AwsKey
    from gateway_seal.passphrase import PassphraseKey
    from gateway_seal.vault import VaultKey

    return [PassphraseKey(), AwsKey(), VaultKey()]
