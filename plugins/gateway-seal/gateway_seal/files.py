"""Reading and writing small files: never more than a bound, and the old file or the new one, whole."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from gateway_seal.errors import SealError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A disk, a quota or a limit has no room left."""


class Handle:
    """The number of an open file, which is closed at the latest when nobody has it any more: Ctrl-C comes when it likes."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    __del__ = close


def read_capped(file: Path, cap: int, what: str) -> bytes:
    """A file's bytes, at most `cap`. SealError when it is missing, larger or not a file."""
    data = b""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe in its place is not waited for
        try:
            facts = os.fstat(handle)
            plain = stat.S_ISREG(facts.st_mode)
            if plain:
                with open(handle, "rb", closefd=False) as opened:
                    data = opened.read(min(facts.st_size, cap) + 1)
        finally:
            os.close(handle)
    except OSError as error:
        raise SealError(f"{what} {str(file)!r} cannot be read: {error.strerror}") from error
    if not plain:
        raise SealError(f"{what} {str(file)!r} is not a file")
    if len(data) > cap:
        raise SealError(f"{what} {str(file)!r} is larger than {cap} bytes")
    return data


def put_file(file: Path, data: bytes) -> None:
    """Put a file where it is to be in one step, and make that last. OSError when the disk refuses."""
    temporary = file.parent / f".{os.urandom(8).hex()}.new"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.rename(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(file.parent)


def sync_directory(path: Path) -> None:
    """Make what was written or renamed in a directory last through a crash."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def told(error: OSError, path: Path) -> SealError:
    """What the disk refused, for a caller."""
    what = "; make room there, or choose another place: what was there is as it was" if error.errno in FULL else ""
    return SealError(f"{str(path)!r} cannot be written: {error.strerror or type(error).__name__}{what}")
