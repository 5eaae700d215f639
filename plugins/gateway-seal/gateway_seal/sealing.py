"""What can be done with a sealed model: seal, unseal, verify, inspect; rotate, add and remove keys."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha384
from pathlib import Path

from gateway import Keys, TensorInfo, WeightsError, read_safetensors_header
from gateway_seal.blob import stream
from gateway_seal.crew import Crew
from gateway_seal.errors import SealError
from gateway_seal.files import put_file, sync_directory, told
from gateway_seal.manifest import NAME, Entry, Header, Piece
from gateway_seal.options import Pins
from gateway_seal.providers import default_keys
from gateway_seal.reading import Progress, SealedModel, SealedWeights, no_progress, read_header
from gateway_seal.wraps import encode_wraps, opened_by, read_wraps, unlock, wrap_for
from gateway_seal.writing import OURS, Fill, SealedWriter, locked, write_at

Refs = str | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was sealed, unsealed or verified, and how fast."""

    model_id: str
    generation: int
    files: int
    bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What is known of a sealed model: without a key the first six, and nothing of it is verified."""

    model_id: str
    generation: int
    commit: str
    manifest_sha384: str
    labels: tuple[str, ...]
    """One for each key that opens it: "" for most, and anybody may have changed it."""
    sealed_bytes: int
    files: Mapping[str, int] | None = None
    """Every file's size."""
    tensors: Mapping[str, TensorInfo] | None = None
    orphans: tuple[str, ...] = ()
    """Blobs that a crash left: the next writer removes them."""


def open_sealed(
    path: Path, *, key: Refs, keys: Keys | None = None, pins: Pins | None = None, threads: int | None = None
) -> SealedWeights:
    """A sealed model's weights. SealError says why it does not open."""
    return SealedWeights.open(path, _given(keys, key), pins, threads=threads)


def seal(
    source: Path,
    target: Path,
    *,
    key: Refs,
    keys: Keys | None = None,
    replace: bool = False,
    pins: Pins | None = None,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Seal every file below the directory `source` into `target`, for each of the keys to open. `source` stays as it is.

    `replace` makes it the next generation of the sealed model that is at `target`; one of the keys must open that, and `pins`
    hold for it. Until the end, and whatever happens, what was there before stays whole. SealError names the file that cannot
    be sealed.
    """
    began = time.monotonic()
    given = _given(keys, key)
    if target.resolve().is_relative_to(source.resolve()) or source.resolve().is_relative_to(target.resolve()):
        raise SealError(f"{str(source)!r} and {str(target)!r} must lie apart: choose another directory to seal into")
    sizes = dict(_listed(source))
    if not sizes:
        raise SealError(f"{str(source)!r} holds no file to seal")
    old = SealedModel.open(target, given, pins) if replace and _holds_one(target) else None
    total = sum(sizes.values())
    with SealedWriter(target, given, old=old, threads=threads, progress=progress, total=total) as writer:
        for name, size in sizes.items():
            with _reading(source / name, name, size) as (fill, split):
                writer.add(name, [(split, fill), (size - split, _after(fill, split))] if split else [(size, fill)])
    _, header = read_header(target)
    return _report(header, len(sizes), total, began)


def unseal(
    source: Path,
    target: Path,
    *,
    key: Refs,
    keys: Keys | None = None,
    pins: Pins | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Write the plain files of a sealed model into `target`, which must not exist yet, and appears whole or not at all.

    Only its owner may enter it.
    """
    began = time.monotonic()
    model = SealedModel.open(source, _given(keys, key), pins)
    if target.exists():
        raise SealError(f"{str(target)!r} exists already")
    temporary = target.parent / f".{target.name}.{os.urandom(8).hex()}"
    tally = _Tally(model, progress)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(mode=0o700)
        with Crew() as crew:
            for entry in model.table.entries:
                file = temporary / entry.path
                file.parent.mkdir(parents=True, exist_ok=True)
                with open(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as out:
                    tally.into(entry.path, crew, out.fileno())
                    os.fsync(out.fileno())
        os.rename(temporary, target)
        sync_directory(target.parent)
    except OSError as error:
        raise told(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        model.key.forget()
    return _report(model.header, len(model.table.entries), tally.total, began)


def verify(
    path: Path, *, key: Refs, keys: Keys | None = None, pins: Pins | None = None, progress: Progress = no_progress
) -> Report:
    """Check every tag of a sealed model, in constant memory. SealError names the first file that is not as it was sealed."""
    began = time.monotonic()
    model = SealedModel.open(path, _given(keys, key), pins)
    tally = _Tally(model, progress)
    with Crew() as crew:
        for entry in model.table.entries:
            tally.into(entry.path, crew, None)
    SealedWeights(model).close()  # and its tensors are those of its index
    return _report(model.header, len(model.table.entries), tally.total, began)


def inspect(path: Path, *, key: Refs = (), keys: Keys | None = None) -> Inspection:
    """What can be known of a sealed model without a key, and with one also its files and tensors."""
    model = SealedModel.open(path, _given(keys, key)) if key else None
    manifest, header = read_header(path) if model is None else (model.manifest, model.header)  # what was verified is shown
    wraps = read_wraps(path / header.keys_file)
    try:
        sizes = {name: (path / name).stat().st_size for name in os.listdir(path)}
    except OSError as error:
        raise SealError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    files = tensors = None
    orphans: tuple[str, ...] = ()
    if model is not None:
        files = {entry.path: entry.size for entry in model.table.entries}
        known = {NAME, header.keys_file, f"{NAME}.sig", *(piece.blob for _, _, piece in model.table.pieces())}
        orphans = tuple(sorted(name for name in sizes if name not in known and OURS.fullmatch(name)))
        weights = SealedWeights(model)
        tensors = dict(weights.tensors)
        weights.close()
    return Inspection(
        model_id=header.model_id.hex(),
        generation=header.generation,
        commit=header.commit.hex(),
        labels=tuple(wrap.label for wrap in wraps),
        sealed_bytes=sum(sizes.values()),
        files=files,
        tensors=tensors,
        orphans=orphans,
        manifest_sha384=sha384(manifest).hexdigest(),
    )


def rotate(path: Path, *, key: Refs, new: str, keys: Keys | None = None, label: str = "") -> None:
    """Let the key `new` open the model in the place of `key`. Only the wrap is written again, in one step.

    Whoever had `key` and a copy of the old file, or the data key, can still read these weights: seal anew to shut them out.
    """

    _change(path, key, keys, new, label, keep=False)


def add_key(path: Path, *, key: Refs, new: str, keys: Keys | None = None, label: str = "") -> None:
    """Let the key `new` open the model, too."""
    _change(path, key, keys, new, label, keep=True)


def remove_key(path: Path, *, key: Refs, remove: str | None = None, label: str | None = None, keys: Keys | None = None) -> None:
    """Remove the wrap that the key `remove` opens, or the one that is labelled `label`. `key` must open the model without it.

    This does not take back what the removed key could read before: seal anew for that.
    """
    with locked(path), _settled(path):
        _, header = read_header(path)
        wraps = read_wraps(path / header.keys_file)
        if (remove is None) == (label is None):
            raise SealError("say which key to remove: by its reference, or by its label")
        if remove is not None:
            going = opened_by(path / header.keys_file, header, _given(keys, remove))
        else:
            going = [at for at, wrap in enumerate(wraps) if wrap.label == label]
        if label is not None and len(going) != 1:
            raise SealError(f"{len(going)} keys of {str(path)!r} are labelled {label!r}: one must be")
        kept = [wrap for at, wrap in enumerate(wraps) if at not in going]
        if not kept:
            raise SealError(f"the last key of {str(path)!r} cannot be removed")
        _, mine, _ = unlock(path / header.keys_file, header, _given(keys, key))
        if mine in going:
            raise SealError("the key that opens the model must not be the one that is removed: give one that stays as key")
        put_file(path / header.keys_file, encode_wraps(kept))


def _change(path: Path, key: Refs, keys: Keys | None, new: str, label: str, *, keep: bool) -> None:
    """Add a wrap for the key `new`, and `keep` those of the key that opened the model, or not."""
    with locked(path), _settled(path):
        model = SealedModel.open(path, _given(keys, key))
        file = path / model.header.keys_file
        if _opens(file, model.header, _given(keys, new)):
            raise SealError(f"the key {new!r} opens it already")
        [made] = wrap_for(_given(keys, new), model.key.reveal(), model.header, [label])
        going = [] if keep else opened_by(file, model.header, _given(keys, model.ref))
        put_file(file, encode_wraps([*(wrap for at, wrap in enumerate(read_wraps(file)) if at not in going), made]))
        model.key.forget()


def _opens(file: Path, header: Header, keys: Keys) -> bool:
    try:
        unlock(file, header, keys)
    except SealError:
        return False
    return True


@contextmanager
def _settled(path: Path) -> Iterator[None]:
    """What the disk refuses, told as a SealError."""
    try:
        yield
    except OSError as error:
        raise told(error, path) from error


class _Tally:
    """How many of a model's bytes have been through."""

    def __init__(self, model: SealedModel, progress: Progress) -> None:
        self.total = sum(entry.size for entry in model.table.entries)
        self._model, self._progress, self._done = model, progress, 0
        self._rows: dict[str, list[tuple[int, Entry, Piece]]] = {}
        for row in model.table.pieces():
            self._rows.setdefault(row[1].path, []).append(row)
        self._counting = threading.Lock()

    def into(self, path: str, crew: Crew, handle: int | None) -> None:
        """Verify a file, and write its text into an open one."""
        base = 0
        for row in self._rows[path]:
            blob = self._model.blob(*row)

            def each(offset: int, text: memoryview, base: int = base) -> None:
                if handle is not None:
                    write_at(handle, text, base + offset)
                with self._counting:
                    self._done += len(text)
                    done = self._done
                self._progress(done, self.total)

            try:
                stream(blob, crew, each)
            finally:
                blob.close()
            base += blob.size


def _holds_one(target: Path) -> bool:
    """Whether there is a model to make the next generation of. SealError for the remains of one: it would begin anew."""
    if (target / NAME).exists():
        return True
    if target.is_dir() and any(file.suffix == ".keys" for file in target.iterdir()):
        raise SealError(f"{str(target)!r} has lost its {NAME}: put it back, or seal into another directory")
    return False


def _listed(source: Path) -> Iterator[tuple[str, int]]:
    """Every file below a directory, by its path in it, with its size. Links to files are followed, as in a hub's cache."""
    if not source.is_dir():
        raise SealError(f"there is no directory {str(source)!r} to seal")
    if (source / NAME).exists():
        raise SealError(f"{str(source)!r} is sealed already")
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(folders):
            if (Path(folder) / name).is_symlink():
                raise SealError(f"{str(Path(folder) / name)!r} is a link to a directory: put the files themselves there")
        for name in sorted(names):
            file = Path(folder) / name
            if not file.is_file():
                raise SealError(f"{str(file)!r} is no file: only files can be sealed")
            yield file.relative_to(source).as_posix(), file.stat().st_size


@contextmanager
def _reading(file: Path, name: str, size: int) -> Iterator[tuple[Fill, int]]:
    """A file's bytes, and where the tensors of a safetensors file begin, 0 for another file."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SealError(f"{str(file)!r} cannot be read: {error.strerror}") from error

    def fill(offset: int, text: memoryview) -> None:
        done = 0
        while done < len(text):
            got = os.preadv(handle, [text[done:]], offset + done)
            if not got:
                raise SealError(f"{str(file)!r} became shorter while it was read")
            done += got

    def span(begin: int, end: int) -> bytes:
        out = bytearray(end - begin)
        fill(begin, memoryview(out))
        return bytes(out)

    try:
        split = 0
        if name.endswith(".safetensors"):
            try:
                read_safetensors_header(span, size, name)
            except WeightsError as error:
                raise SealError(f"{str(file)!r} is no safetensors file, and would not load: {error.message}") from error
            split = 8 + int.from_bytes(span(0, 8), "little")
        yield fill, split
    finally:
        os.close(handle)


def _after(fill: Fill, split: int) -> Fill:
    return lambda offset, text: fill(split + offset, text)


def _given(keys: Keys | None, refs: Refs) -> Keys:
    return (keys or default_keys()).given(refs)


def _report(header: Header, files: int, size: int, began: float) -> Report:
    seconds = time.monotonic() - began
    return Report(model_id=header.model_id.hex(), generation=header.generation, files=files, bytes=size, seconds=seconds)
