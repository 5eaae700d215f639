"""HubStore: weights from the Hugging Face hub, ``hf:org/name`` or ``hf:org/name@revision``, kept in the hub's local cache."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gateway import FileStore, Keys, TensorInfo, Weights, WeightsError, WeightsWriter

SMALL = ("*.json", "*.txt", "*.model", "*.jinja")
TENSORS = "*.safetensors"
"""What is downloaded: never a pickle, never code."""


class HubStore:
    """A model of the hub. Opening one that is not in the cache fetches its small files and asks for its tensors' facts;
    the tensors themselves are downloaded when the first of them is read.

    ``HF_HUB_OFFLINE``, ``HF_HOME`` and ``HF_TOKEN`` mean what they mean to huggingface_hub. ``hf:org/name/folder`` is a
    folder of the repository. A model that is in the cache is opened without the network, and so never updated.
    """

    scheme = "hf"

    def __init__(self, *, cache_dir: Path | None = None) -> None:
        self._cache_dir = cache_dir

    def open(self, uri: str, keys: Keys) -> Weights:
        """The model's facts. WeightsError says which repository, why not, and where it was looked for."""
        import huggingface_hub

        repo_id, revision, folder = parse_uri(uri)

        def whole(**limits: Any) -> Weights:
            path = huggingface_hub.snapshot_download(
                repo_id, revision=revision, cache_dir=self._cache_dir, ignore_patterns=[f"*/{TENSORS}"], **limits
            )
            return FileStore().open(f"file:{Path(path) / folder}", keys)

        everything = [*SMALL, TENSORS]
        cached = _or_none(lambda: whole(allow_patterns=everything, local_files_only=True))
        if cached is not None and (cached.tensors or folder):
            return cached
        with self._explained(repo_id, revision):
            small = whole(allow_patterns=list(SMALL))
            if folder:
                return small
            found = huggingface_hub.get_safetensors_metadata(repo_id, revision=revision)
            tensors = {
                name: TensorInfo(info.dtype, tuple(info.shape), info.data_offsets[1] - info.data_offsets[0])
                for file in found.files_metadata.values()
                for name, info in file.tensors.items()
            }

        def fetch() -> Weights:
            with self._explained(repo_id, revision):
                return whole(allow_patterns=everything)

        return HubWeights(small, tensors, fetch)

    def create(self, uri: str, keys: Keys) -> WeightsWriter:
        """Refused: nothing is uploaded from here."""
        raise WeightsError(f"{uri!r}: the hub is read only here; write to a directory")

    @contextmanager
    def _explained(self, repo_id: str, revision: str | None) -> Iterator[None]:
        """Turns what huggingface_hub raises into one WeightsError."""
        import huggingface_hub
        from huggingface_hub import errors

        where = str(self._cache_dir or huggingface_hub.constants.HF_HUB_CACHE)
        what = f"hub model {repo_id!r}" + (f" at {revision!r}" if revision else "")
        try:
            yield
        except errors.NotASafetensorsRepoError as error:
            raise WeightsError(f"{what} has no safetensors weights") from error
        except errors.RepositoryNotFoundError as error:
            raise WeightsError(f"{what}: no such repository, or HF_TOKEN may not read it") from error
        except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
            why = "HF_HUB_OFFLINE is set" if huggingface_hub.is_offline_mode() else "the hub was not reached"
            raise WeightsError(f"{what} is not in the cache at {where!r}, and {why}") from error
        except (errors.HfHubHTTPError, errors.SafetensorsParsingError, OSError, ValueError) as error:
            raise WeightsError(f"{what} could not be fetched into {where!r}: {type(error).__name__}") from error


class HubWeights(Weights):
    """A model whose tensors are not here yet: `fetch` downloads it when the first one is read."""

    def __init__(self, small: Weights, tensors: dict[str, TensorInfo], fetch: Callable[[], Weights]) -> None:
        self.tensors = MappingProxyType(tensors)
        self.files = small.files
        self._small = small
        self._fetch = fetch
        self._lock = threading.Lock()
        self._whole: Weights | None = None

    def read(self, name: str) -> memoryview:
        with self._lock:  # tensors are read by several threads; one of them downloads
            if self._whole is None:
                self._whole = self._fetch()
        return self._whole.read(name)

    def file(self, name: str) -> bytes:
        return self._small.file(name)

    def close(self) -> None:
        for opened in (self._small, self._whole):
            if opened is not None:
                opened.close()


def parse_uri(uri: str) -> tuple[str, str | None, str]:
    """Repository, revision and folder of ``hf:org/name[@revision][/folder]``."""
    rest = uri.removeprefix("hf:")
    steps = rest.split("/")
    if len(steps) < 2 or not all(steps) or any(step in (".", "..") for step in steps):
        raise WeightsError(f"{uri!r}: write hf:org/name, as the model's page on the hub shows it")
    name, _, revision = steps[1].partition("@")
    return f"{steps[0]}/{name}", revision or None, "/".join(steps[2:])


def _or_none(open_cached: Callable[[], Weights]) -> Weights | None:
    """What is in the cache, None when it is not, or not all of it."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return open_cached()
    except (LocalEntryNotFoundError, WeightsError):
        return None
