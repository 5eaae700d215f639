"""Remember: what was measured of the models, kept in a small file from one run of the app to the next."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from gateway.errors import told
from gateway.vitals import Knowledge

FORMAT = 1
MODELS_KEPT = 1000
MOST_BYTES = 64_000_000

log = logging.getLogger(__name__)


def recall(path: str | Path, knowledge: Knowledge) -> None:
    """Take up what `write` wrote. A file that is not there is a first run; a damaged one is left out, with a warning."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MOST_BYTES)
        kept = json.loads(text)
        if not isinstance(kept, dict) or kept.get("format") != FORMAT or not isinstance(kept.get("models"), dict):
            raise ValueError("not what was remembered of models")
        knowledge.kept = {str(name): one for name, one in list(kept["models"].items())[:MODELS_KEPT]}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError) as error:
        log.warning("policy.remember: %r cannot be read (%s): what it held is measured anew", str(path), told(error))


def snapshot(knowledge: Knowledge) -> dict[str, Any]:
    """What is known now, as plain JSON values. Models of earlier runs that are not there today are kept too."""
    now = {name: vitals.to_json() for name, vitals in knowledge.vitals.items()}
    models = {**knowledge.kept, **now}
    return {"format": FORMAT, "models": dict(list(models.items())[-MODELS_KEPT:])}


def write(path: str | Path, kept: dict[str, Any]) -> None:
    """Put a snapshot in place of what the file held; only its owner may read it. Where that fails, a warning says so."""
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(kept, file)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        log.warning("policy.remember: %r cannot be written (%s)", str(path), told(error))
