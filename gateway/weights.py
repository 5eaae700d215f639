"""WeightStore: where weights come from. "file": a directory of safetensors shards and small files.

A store opens a uri and gives names, shapes, dtypes and bytes at once, and each tensor's bytes when asked. What is
read is checked against the safetensors format (github.com/huggingface/safetensors, "Format"): a u64-LE header length,
a JSON header, then the tensors' bytes without hole or overlap. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from gateway.errors import WeightsError
from gateway.keys import Keys

HEADER_CAP_BYTES = 100_000_000
SMALL_FILE_CAP_BYTES = 64 << 20

DTYPE_BITS: Mapping[str, int] = MappingProxyType(
    {
        "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
        "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
        "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
    }
)  # fmt: skip
"""Bits per element of each safetensors dtype."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its safetensors dtype name, shape and size."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int


class Weights(ABC):
    """An opened model: its tensors' facts, read at once, and their bytes, read when asked."""

    tensors: Mapping[str, TensorInfo]
    files: tuple[str, ...]
    """Names of the small files beside the tensors, such as config.json, or 1_Pooling/config.json in a folder."""

    @property
    def params(self) -> int:
        """The number of stored parameters."""
        return sum(math.prod(info.shape) for info in self.tensors.values())

    @property
    def dtype(self) -> str | None:
        """The dtype that most parameters are stored in, None without tensors."""
        size: dict[str, int] = {}
        for info in self.tensors.values():
            size[info.dtype] = size.get(info.dtype, 0) + info.bytes
        return max(size, key=lambda name: (size[name], name), default=None)

    @abstractmethod
    def read(self, name: str) -> memoryview:
        """A tensor's bytes, row-major, little-endian, writable without touching what is stored. WeightsError when absent."""

    @abstractmethod
    def file(self, name: str) -> bytes:
        """A small file's bytes. WeightsError when absent."""

    def json(self, name: str) -> dict[str, Any]:
        """A small file read as a JSON object. WeightsError when it is something else."""
        try:
            value = json.loads(self.file(name))
        except (ValueError, RecursionError) as error:
            raise WeightsError(f"{name!r} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise WeightsError(f"{name!r} is not a JSON object")
        return value

    def close(self) -> None:  # noqa: B027 - nothing to do is a right answer
        """Let go of files; views already given stay valid."""

    # Last, because its name hides the built-in type from the annotations below it.
    @property
    def bytes(self) -> int:
        """What the tensors take."""
        return sum(info.bytes for info in self.tensors.values())


class WeightsWriter(ABC):
    """A model being written; nothing is at the uri until `commit`. As a context manager it commits at a clean end."""

    @abstractmethod
    def add_file(self, name: str, data: bytes) -> None:
        """Add a small file."""

    @abstractmethod
    def add_tensors(self, name: str, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes | memoryview]]) -> None:
        """Add one shard `name` (such as model.safetensors) of tensors: dtype, shape, bytes."""

    @abstractmethod
    def commit(self) -> None:
        """Make the whole model appear at its uri at once."""

    @abstractmethod
    def abort(self) -> None:
        """Leave no trace."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.commit()
        else:
            self.abort()


@runtime_checkable
class WeightStore(Protocol):
    """A place that weights come from, by uri scheme. Both methods block: the gateway calls them off its loop."""

    scheme: str

    def open(self, uri: str, keys: Keys) -> Weights:
        """Open the model at ``scheme:rest``, reading headers only. WeightsError says what is wrong and where."""

    def create(self, uri: str, keys: Keys) -> WeightsWriter:
        """Begin a new model at ``scheme:rest``, which must not exist yet."""


class FileStore:
    """``file:DIR``: safetensors shards and small files in a directory, or one .safetensors file."""

    scheme = "file"

    def open(self, uri: str, keys: Keys) -> Weights:
        return FileWeights(_path(uri))

    def create(self, uri: str, keys: Keys) -> WeightsWriter:
        return FileWriter(_path(uri))


class FileWeights(Weights):
    """A directory (or one shard) opened for reading. Tensors are private copy-on-write maps of the shard."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise WeightsError(f"no weights at {str(path)!r}")
        self._directory = path if path.is_dir() else path.parent
        self._maps: dict[Path, mmap.mmap] = {}
        self._where: dict[str, tuple[Path, int]] = {}
        tensors: dict[str, TensorInfo] = {}
        for shard in [path] if path.is_file() else _shards(path):
            for name, (info, offset) in read_header(shard).items():
                if name in tensors:
                    raise WeightsError(f"tensor {name!r} is in two shards of {str(path)!r}")
                tensors[name] = info
                self._where[name] = (shard, offset)
        self.tensors = MappingProxyType(tensors)
        self.files = tuple(sorted(_small_files(self._directory)))

    def read(self, name: str) -> memoryview:
        if name not in self._where:
            raise WeightsError(f"there is no tensor {name!r}")
        shard, offset = self._where[name]
        size = self.tensors[name].bytes
        if size == 0:
            return memoryview(bytearray())
        if shard not in self._maps:
            with shard.open("rb") as file:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return memoryview(self._maps[shard])[offset : offset + size]

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


def read_header(path: Path) -> dict[str, tuple[TensorInfo, int]]:
    """The tensors of one safetensors file: facts and absolute offset, by name. WeightsError for any breach of the format."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > HEADER_CAP_BYTES or 8 + length > size:
                raise WeightsError(f"{path.name!r}: a header of {length} bytes does not fit a file of {size}")
            raw = file.read(length)
    except OSError as error:
        raise WeightsError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    return parse_header(raw, data_bytes=size - 8 - length, data_offset=8 + length, name=path.name)


def parse_header(
    raw: bytes, *, data_bytes: int, data_offset: int = 0, name: str = "header"
) -> dict[str, tuple[TensorInfo, int]]:
    """Check a safetensors JSON header against the size of its data; offsets come back with `data_offset` added."""
    try:
        header = json.loads(raw.decode(), object_pairs_hook=_no_duplicates)  # UTF-8 only
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{name!r}: the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise WeightsError(f"{name!r}: the header is not a JSON object")
    header.pop("__metadata__", None)
    out: dict[str, tuple[TensorInfo, int]] = {}
    spans = []
    for tensor, entry in header.items():
        info, begin, end = _entry(entry, f"{name!r}: tensor {tensor!r}")
        out[tensor] = (info, data_offset + begin)
        spans.append((begin, end))
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise WeightsError(f"{name!r}: tensors overlap or leave a hole at byte {at} of the data")
        at = end
    if at != data_bytes:
        raise WeightsError(f"{name!r}: tensors take {at} bytes, the file holds {data_bytes}: truncated or extended")
    return out


def _entry(entry: Any, where: str) -> tuple[TensorInfo, int, int]:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise WeightsError(f"{where}: needs dtype, shape and two data_offsets") from None
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise WeightsError(f"{where}: unknown dtype")
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise WeightsError(f"{where}: shape and data_offsets must be whole numbers of at least 0")
    if (end - begin) * 8 != math.prod(shape) * DTYPE_BITS[dtype]:
        raise WeightsError(f"{where}: {end - begin} bytes do not hold shape {list(shape)} of {dtype}")
    return TensorInfo(dtype, shape, end - begin), begin, end


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
        header: dict[str, Any] = {}
        at = 0
        for tensor, (dtype, shape, data) in tensors.items():
            if tensor == "__metadata__":
                raise WeightsError("'__metadata__' is no name for a tensor: the format keeps it for itself")
            size = memoryview(data).nbytes
            header[tensor] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
            _entry(header[tensor], f"tensor {tensor!r}")
            at += size
        raw = json.dumps(header, separators=(",", ":")).encode()
        raw += b" " * (-len(raw) % 8)  # the format asks for data aligned to 8 bytes
        self._write(name, [len(raw).to_bytes(8, "little"), raw, *(data for _, _, data in tensors.values())])

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


def _shards(directory: Path) -> list[Path]:
    """The shards of a model: those that its index names, or else model.safetensors, or else every .safetensors file."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
            raise WeightsError(f"{str(index)!r} is no shard index") from error
        if not all(isinstance(name, str) and PurePosixPath(name).name == name for name in names):
            raise WeightsError(f"{str(index)!r} names a shard outside its directory")
        if missing := [name for name in names if not (directory / name).is_file()]:
            raise WeightsError(f"{str(directory)!r} lacks the shard {missing[0]!r}")
        return [directory / name for name in names]
    single = directory / "model.safetensors"
    return [single] if single.is_file() else sorted(directory.glob("*.safetensors"))


def _small_files(directory: Path) -> Iterator[str]:
    """The small files of a model, also those one folder down: sentence-transformers keeps ``1_Pooling/config.json``."""
    for path in directory.iterdir():
        if _is_small(path):
            yield path.name
        elif path.is_dir() and not path.name.startswith("."):
            yield from (f"{path.name}/{inner.name}" for inner in path.iterdir() if _is_small(inner))


def _is_small(path: Path) -> bool:
    large = path.suffix in (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".h5", ".msgpack", ".gguf")
    return path.is_file() and not large and path.stat().st_size <= SMALL_FILE_CAP_BYTES


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name is given twice")
    return out
