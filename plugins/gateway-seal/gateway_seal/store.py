"""SealedStore, ``sealed:DIR``: models that `gateway seal` or `Resources.create` have written."""

from __future__ import annotations

import os
from pathlib import Path

from gateway import FileStore, Keys, Weights, WeightsWriter
from gateway_seal.errors import SealError
from gateway_seal.options import SealedPath, SealOptions, refs


class SealedStore:
    """Opens a sealed directory, or ``sealed:DIR/FOLDER`` within one, with the keys that the caller configured.

    Those are the model's own, or else the section's; what the directory says of keys decides nothing. Plain weights in the
    place of sealed ones are refused.
    """

    scheme = "sealed"

    def __init__(self, options: SealOptions | None = None) -> None:
        self._options = options or SealOptions()

    def open(self, uri: str, keys: Keys) -> Weights:
        """SealError says why a model does not open. Blocks."""
        from gateway_seal.manifest import NAME
        from gateway_seal.reading import SealedWeights

        path = _path(uri)
        root, folder, known = self._root(path, NAME)
        if not os.path.exists(root):
            raise SealError(f"there is no sealed model at {str(path)!r}")
        if not os.path.exists(root / NAME):
            if self._options.require_sealed:
                why = "`gateway seal` seals it; plugin.seal.require_sealed = false takes it as it is"
                raise SealError(f"{str(path)!r} is not sealed: {why}")
            return FileStore().open(f"file:{path}", keys)
        return SealedWeights.open(root, self._given(known, keys), known, folder)

    def create(self, uri: str, keys: Keys) -> WeightsWriter:
        """A new model, sealed with each of the caller's keys. Blocks."""
        from gateway_seal.writing import SealedWriter

        path = _path(uri)
        return SealedWriter(path, self._given(self._options.known(path), keys))

    def _root(self, path: Path, manifest: str) -> tuple[Path, str, SealedPath | None]:
        """The sealed directory that a path is, or is within, the folder within it, and what is known of it.

        Where the caller has said something of a directory, that is the one: another, put into it, would not have its pins.
        """
        around = (path, *path.parents)
        for above in around:
            if known := self._options.known(above):
                return above, _within(path, above), known
        for above in around:
            if os.path.exists(above / manifest):
                return above, _within(path, above), None
            if os.path.exists(above):
                break
        return path, "", None

    def _given(self, known: SealedPath | None, keys: Keys) -> Keys:
        own = refs(known.key) if known is not None else ()
        return keys if keys.refs else keys.given(own or refs(self._options.keys))


def _within(path: Path, above: Path) -> str:
    return "" if above == path else f"{path.relative_to(above).as_posix()}/"


def _path(uri: str) -> Path:
    return Path(os.path.expanduser(uri.removeprefix("sealed:")))
