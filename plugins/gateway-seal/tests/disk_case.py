"""What a disk may hold when the power fails."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class Disk:
    """What of one directory would be there after a power cut: names by what fsync was called for, and bytes likewise."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def start(self) -> None:
        self._names = self._there()
        """What lasts, None without the directory."""
        self._synced: dict[str, int] = {}
        """What lasts in a directory that does not itself last yet."""
        self._bytes = {inode: (self._path / name).read_bytes() for name, inode in (self._names or {}).items()}
        self._open = [os.open(self._path / name, os.O_RDONLY) for name in self._names or {}]
        """Kept, so that no inode gets the number of one that was removed."""

    def fsync(self, handle: int) -> None:
        facts = os.fstat(handle)
        if not stat.S_ISDIR(facts.st_mode):
            self._open.append(os.open(f"/proc/self/fd/{handle}", os.O_RDONLY))
            self._bytes[facts.st_ino] = os.pread(self._open[-1], facts.st_size, 0)
        elif self._path.exists() and os.path.samestat(facts, self._path.stat()):
            self._synced = self._there() or {}
            if self._names is not None:
                self._names = self._synced
        elif os.path.samestat(facts, self._path.parent.stat()):
            self._names = self._synced if self._path.exists() else None

    def after_a_cut(self) -> list[dict[str, bytes] | None]:
        there = self._there()
        gone = self._names and {name: inode for name, inode in self._names.items() if name in (there or {})}
        return [self._files(names) for names in (self._names, gone, there)]

    def _there(self) -> dict[str, int] | None:
        if not self._path.exists():
            return None
        return {name: (self._path / name).stat().st_ino for name in os.listdir(self._path)}

    def _files(self, names: dict[str, int] | None) -> dict[str, bytes] | None:
        return None if names is None else {name: self._bytes.get(inode, b"") for name, inode in names.items()}
