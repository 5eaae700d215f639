"""Importing torch and transformers: when first needed, one thread at a time, and no further than anybody waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module

from gateway import WeightsError

HEAVY = ("torch", "transformers", "gateway_local.answer", "gateway_local.load", "gateway_local.rewrite")

_importing = threading.Lock()
"""Their modules import each other in circles: of two threads that import them at once, one may meet a half-made module."""


def import_code(architecture: str, *, gone: Callable[[], bool]) -> None:
    """Import all that a model of this architecture runs on: some 8 s the first time, and nothing afterwards."""
    with _importing:
        for name in HEAVY:
            if gone():
                raise WeightsError("the load was given up")
            import_module(name)
        # transformers imports the module of a class when the class is asked for.
        for name in ("AutoModel", architecture):
            getattr(import_module("transformers"), name, None)
