"""A loopback server for each test."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.testing import LoopbackServer

# The repository's tests are imported by path, so what they share must be findable by name.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """A server in a thread of its own."""
    with LoopbackServer() as running:
        yield running
