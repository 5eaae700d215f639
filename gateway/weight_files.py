"""FileStore, ``file:``: weights in a directory of safetensors shards and small files. Nothing is ever unpickled."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.errors import WeightsError
from gateway.keys import Keys
from gateway.safetensors import safetensors_header
from gateway.weights import ShardedWeights, Weights, WeightsWriter


class FileStore:
    """``file:DIR``: safetensors shards and small files in a directory, or one .safetensors file."""

    scheme = "file"

    def open(self, uri: str, keys: Keys) -> Weights:
        return FileWeights(_path(uri))

    def create(self, uri: str, keys: Keys) -> WeightsWriter:
        return FileWriter(_path(uri))


class FileWeights(ShardedWeights):
    """A directory (or one shard) opened for reading. Tensors are private copy-on-write maps of the shard."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise WeightsError(f"no weights at {str(path)!r}")
        self._directory = path if path.is_dir() else path.parent
        self._maps: dict[str, mmap.mmap] = {}
        try:
            sizes = dict(_sizes(self._directory))
        except OSError as error:
            raise WeightsError(f"{str(path)!r} cannot be read: {error.strerror}") from error
        super().__init__(repr(str(path)), sizes, [path.name] if path.is_file() else None)

    def span(self, file: str, begin: int, end: int) -> memoryview:
        if file not in self._maps:
            try:
                with (self._directory / file).open("rb") as opened:
                    self._maps[file] = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
            except (OSError, ValueError) as error:
                raise WeightsError(f"{file!r} cannot be read: {getattr(error, 'strerror', None) or 'it is empty'}") from error
        return memoryview(self._maps[file])[begin:end]

    def file(self, name: str) -> bytes:
        if name not in self.files:
            raise WeightsError(f"there is no file {name!r} in {str(self._directory)!r}")
        try:
            return (self._directory / name).read_bytes()
        except OSError as error:
            raise WeightsError(f"{name!r} cannot be read: {error.strerror}") from error

    def close(self) -> None:
        for mapped in self._maps.values():
            with contextlib.suppress(BufferError):  # a view is still in use: the map goes when the view does
                mapped.close()
        self._maps.clear()


class FileWriter(WeightsWriter):
    """Writes beside the target under a temporary name, syncs, and renames in one step."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise WeightsError(f"{str(path)!r} exists already")
        self._path = path
        self._temporary = path.parent / f".{path.name}.{os.urandom(8).hex()}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.mkdir()
        except OSError as error:
            raise WeightsError(f"{str(path)!r} cannot be written: {error.strerror}") from error

    def add_file(self, name: str, data: bytes) -> None:
        self._write(name, [data])

    def add_tensors(self, name: str, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes | memoryview]]) -> None:
        self._write(name, [safetensors_header(tensors), *(data for _, _, data in tensors.values())])

    def commit(self) -> None:
        try:
            _sync(self._temporary)
            os.rename(self._temporary, self._path)
            _sync(self._path.parent)
        except OSError as error:
            self.abort()
            raise WeightsError(f"{str(self._path)!r} cannot be written: {error.strerror}") from error

    def abort(self) -> None:
        import shutil

        shutil.rmtree(self._temporary, ignore_errors=True)

    def _write(self, name: str, pieces: list[bytes | memoryview]) -> None:
        steps = name.split("/")
        if len(steps) > 2 or "\0" in name or any(not step or step.startswith(".") for step in steps):
            raise WeightsError(f"{name!r} is no plain file name, nor one in a folder")
        try:
            (self._temporary / name).parent.mkdir(exist_ok=True)
            with (self._temporary / name).open("xb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise WeightsError(f"{name!r} cannot be written: {error.strerror}") from error


def _sync(directory: Path) -> None:
    """Make what was written or renamed in a directory last through a crash."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _path(uri: str) -> Path:
    return Path(os.path.expanduser(uri.removeprefix("file:")))


def _sizes(directory: Path) -> Iterator[tuple[str, int]]:
    """A model's files, also those one folder down: sentence-transformers keeps ``1_Pooling/config.json``."""
    for path in directory.iterdir():
        if path.is_file() or path.suffix == ".safetensors":
            yield path.name, path.stat().st_size
        elif path.is_dir() and not path.name.startswith("."):
            yield from ((f"{path.name}/{inner.name}", inner.stat().st_size) for inner in path.iterdir() if inner.is_file())
