"""StateFile: bytes in a file that only who has the key can read or change, and that one process uses at a time.

    "gws1" | nonce, 12 random bytes | AES-256-GCM ciphertext and tag, with "gws1" as the associated data

Each write has a fresh nonce, replaces the file in one step, and is on the disk before it returns. What the key does not open
is an error and never an empty file. That an older file was put back cannot be seen.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from gateway import ConfigError
from gateway_scrub.errors import ScrubError

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None  # type: ignore[assignment]

MAGIC = b"gws1"
NONCE_BYTES = 12
TAG_BYTES = 16
MAX_BYTES = 1 << 30


class StateFile:
    """The file at `path`, which need not be there yet, under a key of 32 bytes. ConfigError: another process has it."""

    def __init__(self, path: Path, key: bytes) -> None:
        self.path = path
        self._cipher = _cipher(key, path)
        self._lock = self._locked()

    def read(self) -> bytes | None:
        """What was written last. None: nothing yet. ConfigError: the key is another one, or the file was changed."""
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe in its place is not waited for
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"state file {str(self.path)!r} cannot be read: {error.strerror}") from error
        try:
            facts = os.fstat(handle)
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_BYTES:
                raise damaged(self.path, f"it is no regular file of at most {MAX_BYTES} bytes")
            with open(handle, "rb", closefd=False) as file:
                sealed = file.read()
        except OSError as error:
            raise ConfigError(f"state file {str(self.path)!r} cannot be read: {error.strerror}") from error
        finally:
            os.close(handle)
        from cryptography.exceptions import InvalidTag

        nonce, sealed_text = sealed[len(MAGIC) :][:NONCE_BYTES], sealed[len(MAGIC) + NONCE_BYTES :]
        if not sealed.startswith(MAGIC) or len(sealed_text) < TAG_BYTES:
            raise damaged(self.path, "it was cut short, or is another file")
        try:
            return bytes(self._cipher.decrypt(nonce, sealed_text, MAGIC))
        except InvalidTag:
            raise damaged(self.path, "this key did not write it, or it was changed") from None

    def write(self, text: bytes) -> None:
        """Put this in the place of what was there. ScrubError: the disk refuses; what was there still is."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = MAGIC + nonce + self._cipher.encrypt(nonce, text, MAGIC)
        temporary = self.path.parent / f".{os.urandom(8).hex()}.new"
        try:
            try:
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
                    out.write(sealed)
                    out.flush()
                    os.fsync(out.fileno())
                os.rename(temporary, self.path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise ScrubError(f"state file {str(self.path)!r} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Let another process have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _locked(self) -> int:
        """The handle of a lock beside the file: the file itself is another one after each write."""
        if fcntl is None:
            raise ConfigError(f"state file {str(self.path)!r}: this system has no locks that keep two processes apart")
        path = self.path.with_name(self.path.name + ".lock")
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"state file {str(self.path)!r}: its lock cannot be made: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise ConfigError(
                f"state file {str(self.path)!r} is in use by another process: give each process a file of its own"
            ) from None
        return handle


def damaged(path: Path, why: str) -> ConfigError:
    """Why the file is not used, and what to do."""
    return ConfigError(f"state file {str(path)!r} cannot be used: {why}; give its key, or move the file away to begin anew")


def _cipher(key: bytes, path: Path) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ConfigError(
            f"state file {str(path)!r} needs the package cryptography: pip install 'gateway-scrub[encrypted]'"
        ) from error
    return AESGCM(key)
