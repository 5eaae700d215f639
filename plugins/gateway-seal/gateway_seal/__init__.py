"""gateway-seal: model weights encrypted at rest, verified as they load.

errors      SealError
wraps       what the key providers share
passphrase  keys under a passphrase
aws_kms     keys in AWS KMS
vault       keys in Vault's transit engine
"""

from gateway_seal.errors import SealError

__all__ = ["SealError"]
