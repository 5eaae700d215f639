"""What tests of key providers share: facts to wrap, and a look behind an error."""

from __future__ import annotations

import base64
import os
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

import pytest

E = TypeVar("E", bound=Exception)
KEY = bytes(range(32, 64))
CONTEXT = {"suite": "GWS1", "model_id": "00ff" * 8, "generation": "1", "commit": "ab" * 32}


def raised(kind: type[E], call: Callable[[], object], *secrets: str | bytes) -> E:
    """The error that a call raises: of just this kind, and nothing secret in it, or in any error behind it."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    hides(caught.value, KEY, *secrets)
    return caught.value


def hides(error: BaseException, *secrets: str | bytes) -> None:
    """Nothing secret is in an error's message, attributes or traceback, nor in those of what caused it."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in seen:
            seen.append(one)
            waiting += [one.__cause__, one.__context__]
    told = "".join(
        "".join([str(one), repr(one), repr(one.args), repr(vars(one)), *traceback.format_exception(one)]) for one in seen
    )
    for secret in secrets:
        raw = secret.encode() if isinstance(secret, str) else secret
        for form in (raw.decode("latin-1"), repr(raw), base64.b64encode(raw).decode(), raw.hex()):
            assert form not in told, told


def without(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a library were not installed."""
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)


def fresh() -> str:
    """A key of the caller's own."""
    return base64.b64encode(os.urandom(32)).decode()
