"""The wraps of a data key: one for each key that opens the model, in a file of their own beside the manifest.

The file is not authenticated: it cannot be, by whoever does not know the key yet. A wrap is tied to its model and data key by
its context, and what comes out of it must fit the manifest's commitment. So who writes here can lock the model, no more.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gateway import KeyNotMine, Keys, MissingSecret
from gateway_seal.errors import SealError
from gateway_seal.files import read_capped
from gateway_seal.manifest import DataKey, Header, canonical, is_visible, parse

WRAPS_CAP = 16
WRAP_CAP_BYTES = 16 << 10
LABEL_CAP = 200
FILE_CAP_BYTES = 1 << 20


@dataclass(frozen=True)
class Wrap:
    """The data key under one key. The label is for people: anybody may have changed it, and it decides nothing."""

    label: str
    data: bytes = field(repr=False)


def read_wraps(file: Path) -> list[Wrap]:
    """The wraps. SealError when the file is damaged."""
    data = read_capped(file, FILE_CAP_BYTES, "the keys of a sealed model")
    wrong = SealError(f"the keys of the sealed model, {str(file)!r}, are damaged")
    try:
        rows = parse(data, {"wraps"}, "")["wraps"]
    except SealError:
        raise wrong from None
    if not isinstance(rows, list) or not 1 <= len(rows) <= WRAPS_CAP:
        raise wrong
    out = []
    for row in rows:
        if not isinstance(row, dict) or set(row) != {"label", "wrap"}:
            raise wrong
        if not all(isinstance(value, str) for value in row.values()) or len(row["wrap"]) > 2 * WRAP_CAP_BYTES:
            raise wrong
        if not _is_label(row["label"]):
            raise wrong
        try:
            out.append(Wrap(row["label"], base64.b64decode(row["wrap"], validate=True)))
        except ValueError:
            raise wrong from None
    return out


def encode_wraps(wraps: list[Wrap]) -> bytes:
    """The file of the wraps. SealError when there are none or too many."""
    if not 1 <= len(wraps) <= WRAPS_CAP:
        raise SealError(f"a sealed model has at least one key, and at most {WRAPS_CAP}: {len(wraps)} were given")
    if large := [wrap for wrap in wraps if len(wrap.data) > WRAP_CAP_BYTES]:
        raise SealError(f"the wrap of a key is too large: {len(large[0].data)} bytes")
    if odd := [wrap.label for wrap in wraps if not _is_label(wrap.label)]:
        raise SealError(f"{odd[0][:LABEL_CAP]!r} cannot be a label: at most {LABEL_CAP} characters, no control characters")
    return canonical({"wraps": [{"label": wrap.label, "wrap": base64.b64encode(wrap.data).decode()} for wrap in wraps]})


def _is_label(text: str) -> bool:
    """Whether it can be shown: it is not authenticated, and would speak to whoever's terminal it is printed on."""
    return len(text) <= LABEL_CAP and is_visible(text)


def wrap_for(keys: Keys, key: bytes, header: Header, labels: list[str] | None = None) -> list[Wrap]:
    """The data key wrapped under each of the caller's keys."""
    if not keys.refs:
        raise SealError('no key to seal with: give one, such as key = "env:NAME"')
    told = labels or [""] * len(keys.refs)
    return [Wrap(label, keys.wrap(ref, key, header.context)) for ref, label in zip(keys.refs, told, strict=True)]


def opened_by(file: Path, header: Header, keys: Keys) -> list[int]:
    """The numbers of all wraps that one of the keys opens: the same key may have several."""
    _, first = unlock(file, header, keys)
    found = [first]
    for at, wrap in list(enumerate(read_wraps(file)))[first + 1 :]:
        for ref in keys.refs:
            with suppress(KeyNotMine, MissingSecret):
                keys.unwrap(ref, wrap.data, header.context)
                found.append(at)
                break
    return found


def unlock(file: Path, header: Header, keys: Keys) -> tuple[DataKey, int]:
    """The data key, checked, and the number of the wrap that it came from.

    The keys are tried in the caller's order. KeyNotMine and a secret that is not set mean: try the next one; anything else is
    fatal. SealError lists what was tried; MissingSecret when no key was even there.
    """
    if not keys.refs:
        raise SealError('no key is configured for the sealed model: give its row a key = "env:NAME", or set plugin.seal.keys')
    wraps = read_wraps(file)
    tried, missing = [], []
    for ref in keys.refs:
        try:
            for at, wrap in enumerate(wraps):
                try:
                    key = keys.unwrap(ref, wrap.data, header.context)
                except KeyNotMine:
                    continue
                return DataKey.for_header(key, header), at
            tried.append(f"{ref!r} did not wrap it")
        except MissingSecret as error:
            missing.append(error)
            tried.append(str(error))
    if len(missing) == len(keys.refs):
        raise missing[0]
    raise SealError(f"no key opens the sealed model (it has {len(wraps)}): {'; '.join(tried)}")
