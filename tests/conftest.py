"""For all tests of the core."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from warm import Warm

# A runner that was started in the background ignores Ctrl-C, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def with_torch() -> Iterator[Warm]:
    """An interpreter for programs that load a model of the local plugin, as the starter."""
    ours = ("gateway_local.answer", "gateway_local.decoder", "gateway_remote.service", "gateway_remote.formats.openai")
    theirs = ("genai_prices.data", "llguidance", "sympy", "torch", "transformers.models.llama.modeling_llama")
    with Warm(*ours, *theirs, flags=["-W", "error::ResourceWarning"]) as warm:
        yield warm
