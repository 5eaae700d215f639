"""gateway-seal: model weights encrypted at rest, verified as they load. FORMAT.md says what lies on the disk.

errors, options, files      SealError; what [plugin.seal] may say; small files, bounded and whole
floe                        the cipher: segments that can be read in any order
manifest, wraps             which files there are, and the keys that follow from the data key; who can unwrap that
memory, crew, blob          memory for text; threads that go through segments; a piece's ciphertext, and its text in memory
reading, writing            a model whose manifest was verified, and its tensors; a model being written
sealing, signing            seal, unseal, verify, inspect, changing keys; who made a manifest
wrapping                    what the providers of keys share
passphrase, aws_kms, vault  who wraps keys, beside the gateway's own
providers, hooks, store     all of them; what the gateway finds
commands                    the subcommands of `gateway`
"""

from gateway_seal.errors import SealError
from gateway_seal.options import Pins
from gateway_seal.reading import SealedWeights
from gateway_seal.sealing import (
    Inspection,
    Report,
    add_key,
    inspect,
    open_sealed,
    remove_key,
    rotate,
    seal,
    unseal,
    verify,
)
from gateway_seal.signing import check_signature, sign
from gateway_seal.store import SealedStore

__all__ = [
    "Inspection",
    "Pins",
    "Report",
    "SealError",
    "SealedStore",
    "SealedWeights",
    "add_key",
    "check_signature",
    "inspect",
    "open_sealed",
    "remove_key",
    "rotate",
    "seal",
    "sign",
    "unseal",
    "verify",
]
