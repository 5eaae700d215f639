"""gateway-seal: model weights encrypted at rest, verified as they load.

errors      SealError
"""

from gateway_seal.errors import SealError

__all__ = ["SealError"]
