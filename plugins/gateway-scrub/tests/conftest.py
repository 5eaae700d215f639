"""What the tests of scrubbing have in common."""

from __future__ import annotations

import sys
from pathlib import Path

# The repository's tests are imported by path, so what they share must be findable by name.
sys.path.insert(0, str(Path(__file__).parent))
