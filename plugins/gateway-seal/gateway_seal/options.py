"""What ``[plugin.seal]`` of gateway.toml may say, checked."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What the caller knows of a model beforehand, against an older generation or another model in its place."""

    model_id: str | None = None
    min_generation: int = 1
    manifest_sha384: str | None = None
    """As `gateway inspect` prints it; it stays the same when keys are changed."""
    public_key: Path | None = None
    """A PEM file: the manifest must be signed by it (OpenSSF model signing)."""
    signature: Path | None = None
    """Where the signature lies; None: beside the manifest, in manifest.gws.sig."""


@dataclass(frozen=True, kw_only=True)
class SealedPath(Pins):
    """One row of ``models``."""

    path: Path
    key: str | list[str] = field(default_factory=list)
    """Reference of the key that opens it, or several to try in turn; by default those of the section."""


@dataclass(frozen=True, kw_only=True)
class SealOptions:
    """The whole section."""

    keys: str | list[str] = field(default_factory=list)
    """References of the keys that may open models, such as ``env:NAME``, and that new ones are sealed with."""
    require_sealed: bool = True
    """Refuse plain weights where ``sealed:`` asks for sealed ones."""
    models: list[SealedPath] = field(default_factory=list)
    """What is known of the models at some paths."""

    def known(self, path: Path) -> SealedPath | None:
        """The row of a path, by whatever links it is reached."""
        there = os.path.realpath(path)
        return next((row for row in self.models if os.path.realpath(row.path.expanduser()) == there), None)


def refs(given: str | list[str]) -> tuple[str, ...]:
    """One reference, or several."""
    return (given,) if isinstance(given, str) else tuple(given)
