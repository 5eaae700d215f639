"""gateway-local: Transformer models in this process, on GPU or CPU, from safetensors weights."""

from gateway_local.service import LocalModel

__all__ = ["LocalModel"]
