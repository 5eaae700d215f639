"""Random changes to what lies on the disk: to bytes, to JSON, and by whoever has the data key to what is encrypted, too."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

from gateway_seal.manifest import NAME, Entry, Piece, Table, canonical
from gateway_seal.reading import SealedModel
from hostile_case import manifest_of, sealed_alone, table_of, with_header

DEEP: Any = []
for _ in range(900):
    DEEP = [DEEP]
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, -1, 1 << 31, 1 << 32, (1 << 50) + 1, 1 << 63, 1 << 64, 10**400, 0.0, 1.0, 1.5, 1e308,
    "", "1", "x" * 5000, "\0", "\x1b[2J", "\ud800", "é", "../out", "/etc/passwd", "config.json", "config.json/deeper",
    "0" * 32, "0" * 32 + ".blob", "00" * 16, "00" * 32, "00" * 74, [], {}, [[]], {"": 0}, ["a"] * 100, DEEP,
)  # fmt: skip
Files = dict[str, bytes]


def change_bytes(rng: Random, data: bytes) -> tuple[bytes, str]:
    """A few bytes changed, cut, put in, moved or repeated."""
    at, size = rng.randrange(len(data) + 1), rng.choice([1, 1, 2, 4, 16, 32, 100, len(data)])
    some = data[at : at + size]
    other = rng.randrange(len(data) + 1)
    which = rng.randrange(9)
    if which == 0 and some:
        return data[:at] + bytes([some[0] ^ 1 << rng.randrange(8)]) + data[at + 1 :], f"a bit of byte {at}"
    if which == 1:
        return data[:at] + rng.randbytes(len(some)) + data[at + size :], f"{len(some)} random bytes at {at}"
    if which == 2:
        byte = rng.choice(b'\0\xff\x01 0"{[:,}]\\')
        return data[:at] + bytes([byte]) * len(some) + data[at + size :], f"{len(some)} bytes {byte} at {at}"
    if which == 3:
        return data[:at], f"cut at {at}"
    if which == 4:
        return data[:at] + data[at + size :], f"{len(some)} bytes away at {at}"
    if which == 5:
        return data[:at] + rng.randbytes(size) + data[at:], f"{size} bytes put in at {at}"
    if which == 6:
        return data[:other] + some + data[other:], f"{len(some)} bytes of {at} again at {other}"
    if which == 7:
        return data[:other] + some + data[other + len(some) :], f"{len(some)} bytes of {at} over {other}"
    return rng.choice([b"", data[::-1], data + data, data[at:] + data[:at], bytes(len(data))]), f"whole, turned about {at}"


def change_json(rng: Random, value: Any) -> tuple[Any, str]:
    """A value somewhere in it replaced, removed, repeated or exchanged with its neighbour, or one put in."""
    value = deepcopy(value)
    around: Any = value
    while True:
        where = rng.choice(list(around)) if isinstance(around, dict) and around else None
        if isinstance(around, list) and around:
            where = rng.randrange(len(around))
        inner = around[where] if where is not None else None
        if where is None or not isinstance(inner, dict | list) or not inner or rng.random() < 0.25:
            break
        around = inner
    odd = rng.choice(ODD)
    which = rng.randrange(5)
    if where is None or which == 0:
        if isinstance(around, dict):
            around[rng.choice(["", "x", "suite", "wraps", "path", "link", "bytes"])] = odd
        elif isinstance(around, list):
            around.insert(rng.randrange(len(around) + 1), odd)
        return value, f"{odd!r:.40} put in at {where!r}"
    if which == 1:
        del around[where]
        return value, f"{where!r} away"
    if which == 2:
        other = rng.choice(list(around)) if isinstance(around, dict) else rng.randrange(len(around))
        around[where], around[other] = around[other], around[where]
        return value, f"{where!r} and {other!r} exchanged"
    if which == 3 and isinstance(around, list):
        around.extend([around[where]] * rng.choice([1, 1, 20]))
        return value, f"{where!r} repeated"
    if isinstance(inner, str) and rng.random() < 0.6:
        around[where], told = _change_text(rng, inner)
        return value, f"{where!r}: {told}"
    if type(inner) is int and rng.random() < 0.6:
        around[where] = inner + rng.choice([-1, 1, 32, 1 << 20, 1 << 40])
        return value, f"{where!r} {around[where]}"
    around[where] = odd
    return value, f"{where!r} {odd!r:.40}"


def _change_text(rng: Random, text: str) -> tuple[str, str]:
    changed, told = change_bytes(rng, text.encode())
    return changed.decode("utf-8", "replace"), told


def written(rng: Random, value: Any) -> bytes:
    """As it must be, most times; or in another way that means the same."""
    which = rng.randrange(12)
    if which == 0:
        return json.dumps(value, indent=1).encode()
    if which == 1:
        return json.dumps(value, separators=(",", ":")).encode()
    if which == 2:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("utf-16")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass") + (b"\n" if which == 3 else b"")


class Mutator:
    """Changes the files of a model, whose data key it has. `strange` are files of other generations and models."""

    def __init__(self, model: SealedModel, files: Files, texts: list[tuple[str, bytes]], strange: list[bytes]) -> None:
        self.model, self.files, self.texts, self.strange = model, files, texts, strange
        self.table = table_of(model)
        self.wraps = json.loads(files[model.header.keys_file])
        manifest = files[NAME]
        self.clear = json.loads(manifest[12 : 12 + int.from_bytes(manifest[8:12])])
        self.blobs = sorted(name for name in files if name.endswith(".blob"))
        self.ways: dict[str, Callable[[Random], tuple[Files, str]]] = {
            "bytes of the manifest": lambda rng: self._bytes(rng, NAME),
            "bytes of the keys": lambda rng: self._bytes(rng, model.header.keys_file),
            "bytes of a blob": lambda rng: self._bytes(rng, rng.choice(self.blobs)),
            "another file's bytes": self._other,
            "clear header": self._header,
            "wraps": self._wraps,
            "table, by who has the key": self._table,
            "bytes of the table, by who has the key": self._table_bytes,
            "pieces, by who has the key": self._pieces,
            "text, by who has the key": self._text,
        }

    def _bytes(self, rng: Random, name: str) -> tuple[Files, str]:
        data, told = change_bytes(rng, self.files[name])
        for _ in range(rng.choice([0, 0, 0, 1, 3])):
            data, more = change_bytes(rng, data)
            told += f"; {more}"
        return {name: data}, told

    def _other(self, rng: Random) -> tuple[Files, str]:
        one, other = rng.sample(sorted(self.files), 2)
        if rng.random() < 0.5:
            return {one: self.files[other], other: self.files[one]}, f"{one} and {other} exchanged"
        strange = [data for data in self.strange if len(data) == len(self.files[one])] or self.strange
        return {one: rng.choice(strange)}, f"{one} of another model"

    def _header(self, rng: Random) -> tuple[Files, str]:
        clear, told = change_json(rng, self.clear)
        return {NAME: with_header(self.files[NAME], written(rng, clear))}, told

    def _wraps(self, rng: Random) -> tuple[Files, str]:
        wraps, told = change_json(rng, self.wraps)
        if rng.random() < 0.3:
            raw, more = change_bytes(rng, base64.b64decode(self.wraps["wraps"][0]["wrap"]))
            wraps, told = {"wraps": [{"label": "", "wrap": base64.b64encode(raw).decode()}]}, f"the wrap: {more}"
        return {self.model.header.keys_file: written(rng, wraps)}, told

    def _table(self, rng: Random) -> tuple[Files, str]:
        table, told = change_json(rng, self.table)
        return {NAME: manifest_of(self.model, written(rng, table))}, told

    def _table_bytes(self, rng: Random) -> tuple[Files, str]:
        text, told = change_bytes(rng, canonical(self.table))
        return {NAME: manifest_of(self.model, text)}, told

    def _pieces(self, rng: Random) -> tuple[Files, str]:
        """The same files in another order, cut at other places."""
        texts = rng.sample(self.texts, len(self.texts))
        cuts = [sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(2))) for _, text in texts]
        rows = [
            (path, [text[begin:end] for begin, end in zip([0, *cut], [*cut, len(text)], strict=True)])
            for (path, text), cut in zip(texts, cuts, strict=True)
        ]
        return self.sealed(rows), f"{[path for path, _ in texts]} cut at {cuts}"

    def _text(self, rng: Random) -> tuple[Files, str]:
        """A file with other bytes, such as a safetensors header that lies."""
        texts = dict(self.texts)
        path = rng.choice(["model.safetensors", "model.safetensors", *texts])
        text, told = change_bytes(rng, texts[path])
        if path == "model.safetensors" and rng.random() < 0.7:
            length = int.from_bytes(texts[path][:8], "little")
            header, told = change_json(rng, json.loads(texts[path][8 : 8 + length]))
            raw = json.dumps(header).encode()
            text = len(raw).to_bytes(8, "little") + raw + texts[path][8 + length :]
        if rng.random() < 0.1:
            index, told = change_json(rng, {"weight_map": {"a": path, "b": path}})
            texts["model.safetensors.index.json"] = written(rng, index)
        return self.sealed([(name, [text if name == path else old]) for name, old in texts.items()]), f"{path}: {told}"

    def sealed(self, rows: list[tuple[str, list[bytes]]]) -> Files:
        """All files of a model of these pieces, but for its keys."""
        out: Files = {}
        entries, index = [], 0
        for path, parts in rows:
            pieces = []
            for part in parts:
                floe = self.model.key.new(index, len(part), path)
                piece = Piece(blob=f"{index:032x}.blob", size=len(part), header=floe.header)
                out[piece.blob] = sealed_alone(floe, part)
                pieces.append(piece)
                index += 1
            entries.append(Entry(path=path, pieces=tuple(pieces)))
        return out | {NAME: Table(tuple(entries)).seal(self.model.header, self.model.key)}
