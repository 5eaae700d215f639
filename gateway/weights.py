"""WeightStore: where weights come from; Weights: names, shapes and dtypes at once, and each tensor's bytes when asked."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from gateway.errors import WeightsError
from gateway.keys import Keys
from gateway.safetensors import TensorInfo, read_safetensors_header, shards_of

SMALL_FILE_CAP_BYTES = 64 << 20
LARGE = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".h5", ".msgpack", ".gguf")
"""Suffixes of what is no small file: weights, which are read as safetensors or not at all."""


class Weights(ABC):
    """An opened model: its tensors' facts, read at once, and their bytes, read when asked."""

    tensors: Mapping[str, TensorInfo]
    sealed: bool = False
    """Whether what is stored is encrypted, and verified when it is read: `require_sealed` accepts no other."""
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

    def part(self, name: str, begin: int, end: int) -> memoryview:
        """A tensor's bytes from `begin` to `end`. A store that reads from afar or decrypts does so for these alone."""
        return self.read(name)[begin:end]

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
        """Let go of files; views already given stay valid. As a context manager it is closed at the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # Last, because its name hides the built-in type from the annotations below it.
    @property
    def bytes(self) -> int:
        """What the tensors take."""
        return sum(info.bytes for info in self.tensors.values())


class ShardedWeights(Weights):
    """A model in safetensors files, wherever these lie: a subclass says how their bytes are had.

    `sizes` is every file's size by its name within the model, at most one folder deep; `where` is for messages. The
    tensors are those of `shards`, by default those that the index names, or model.safetensors, or all there are.
    """

    def __init__(self, where: str, sizes: Mapping[str, int], shards: list[str] | None = None) -> None:
        self.where, self.sizes = where, dict(sizes)
        self.places: dict[str, tuple[str, int]] = {}
        """Of each tensor: the file that it lies in, and where its bytes begin there."""
        self.files = tuple(sorted(name for name, size in sizes.items() if _is_small(name, size)))
        tensors: dict[str, TensorInfo] = {}
        for shard in shards_of(sizes, self.file, where) if shards is None else shards:
            for name, (info, offset) in self._header(shard).items():
                if name in tensors:
                    raise WeightsError(f"tensor {name!r} is in two shards of {where}")
                tensors[name] = info
                self.places[name] = (shard, offset)
        self.tensors = MappingProxyType(tensors)

    @abstractmethod
    def span(self, file: str, begin: int, end: int) -> memoryview:
        """The bytes of one of the files from `begin` to `end`, writable without touching what is stored."""

    def read(self, name: str) -> memoryview:
        return self.part(name, 0, self.info(name).bytes)

    def part(self, name: str, begin: int, end: int) -> memoryview:
        begin, end, _ = slice(begin, end).indices(self.info(name).bytes)
        if begin >= end:
            return memoryview(bytearray())
        shard, offset = self.places[name]
        return self.span(shard, offset + begin, offset + end)

    def file(self, name: str) -> bytes:
        if name not in self.files:
            raise WeightsError(f"there is no file {name!r} in {self.where}")
        return bytes(self.span(name, 0, self.sizes[name]))

    def info(self, name: str) -> TensorInfo:
        """A tensor's facts. WeightsError when there is no such tensor."""
        if name not in self.tensors:
            raise WeightsError(f"there is no tensor {name!r}")
        return self.tensors[name]

    def _header(self, shard: str) -> dict[str, tuple[TensorInfo, int]]:
        return read_safetensors_header(lambda begin, end: self.span(shard, begin, end), self.sizes[shard], shard)


class WeightsWriter(ABC):
    """A model being written; nothing is at the uri until `commit`. As a context manager it commits at a clean end."""

    sealed: bool = False
    """Whether what is written is encrypted."""

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


def _is_small(name: str, size: int) -> bool:
    return PurePosixPath(name).suffix not in LARGE and size <= SMALL_FILE_CAP_BYTES
