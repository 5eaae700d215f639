"""What the tests of scrubbing have in common."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The repository's tests are imported by path, so what they share must be findable by name.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def ner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model that finds names, trained once."""
    from ner_case import trained_ner

    return trained_ner(tmp_path_factory.mktemp("models") / "ner")
