"""The safetensors format (github.com/huggingface/safetensors, "Format"), read strictly and written.

A file is a u64-LE header length, a JSON header, then the tensors' bytes without hole or overlap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from gateway.errors import WeightsError

HEADER_CAP_BYTES = 100_000_000
INDEX = "model.safetensors.index.json"
"""Names the shards of a model that has several."""

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


def read_safetensors_header(
    read: Callable[[int, int], bytes | memoryview], size: int, name: str
) -> dict[str, tuple[TensorInfo, int]]:
    """The tensors of the safetensors file `name` of `size` bytes: facts and absolute offset, by name.

    `read` gives its bytes from one offset to another. WeightsError for any breach of the format.
    """
    length = int.from_bytes(read(0, 8), "little") if size >= 8 else 0
    if size < 8 or length > HEADER_CAP_BYTES or 8 + length > size:
        raise WeightsError(f"{name!r}: a header of {length} bytes does not fit a file of {size}")
    return parse_header(bytes(read(8, 8 + length)), data_bytes=size - 8 - length, data_offset=8 + length, name=name)


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


def safetensors_header(tensors: Mapping[str, tuple[str, tuple[int, ...], bytes | memoryview]]) -> bytes:
    """What stands before the tensors' bytes in a safetensors file. WeightsError when dtype, shape and bytes disagree."""
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
    return len(raw).to_bytes(8, "little") + raw


def shards_of(files: Iterable[str], read: Callable[[str], bytes], where: str) -> list[str]:
    """Which of a model's files hold its tensors: those that its index names, or else model.safetensors, or else every
    .safetensors file. `read` gives the index's bytes; `where` is for messages."""
    there = {name for name in files if "/" not in name}
    if INDEX in there:
        try:
            names = sorted(set(json.loads(read(INDEX))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise WeightsError(f"{where}: {INDEX} is no shard index") from error
        if not all(isinstance(name, str) and PurePosixPath(name).name == name for name in names):
            raise WeightsError(f"{where}: {INDEX} names a shard outside its directory")
        if missing := [name for name in names if name not in there]:
            raise WeightsError(f"{where} lacks the shard {missing[0]!r}")
        return names
    if "model.safetensors" in there:
        return ["model.safetensors"]
    return sorted(name for name in there if name.endswith(".safetensors"))


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name is given twice")
    return out
