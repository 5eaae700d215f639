"""Bars: how far something long has come, drawn on standard error where that is a terminal and rich is installed."""

from __future__ import annotations

import os
import sys
import threading
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def on_terminal(stream: IO[str] | None) -> bool:
    """True where tables may be drawn and lines redrawn."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(stream: IO[str]) -> bool:
    """True where escape codes may be written (no-color.org)."""
    return on_terminal(stream) and not os.environ.get("NO_COLOR")


class Bars:
    """A bar a label: pass it to a gateway, or to `map`, as `progress`. Where none can be drawn it does nothing."""

    def __init__(self) -> None:
        self._shown = on_terminal(sys.stderr)
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """So many bytes are done."""
        self._draw(label, done, total, None)

    def count(self, label: str, done: int, total: int | None, *, failed: int = 0) -> None:
        """So many things are done, and so many of these have failed."""
        self._draw(label, done, total, failed)

    def close(self) -> None:
        """Wipe the bars: what follows has the terminal for itself."""
        with self._lock:
            self._shown = False
            if self._progress is not None:
                self._progress.stop()
                self._progress = None

    def _draw(self, label: str, done: int, total: int | None, failed: int | None) -> None:
        with self._lock:
            if not self._shown:
                return
            if self._progress is None:
                try:
                    self._progress = _progress()
                except ImportError:
                    self._shown = False
                    return
                self._progress.start()
            if label not in self._bars:
                self._bars[label] = self._progress.add_task(label, total=total, failed=failed)
            visible = total is None or done < total
            self._progress.update(self._bars[label], completed=done, total=total, failed=failed, visible=visible)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Amount(DownloadColumn):
        """Bytes done and in all, where there is an all: a start without one only pulses. Or things done, how fast, failed."""

        def render(self, task: Task) -> Text:
            if (failed := task.fields["failed"]) is None:
                return super().render(task) if task.total is not None else Text()
            of = "" if task.total is None else f"/{task.total:,.0f}"
            speed = "" if task.speed is None else f"  {task.speed:,.1f}/s"
            return Text(f"{task.completed:,.0f}{of}{speed}" + (f"  {failed:,} failed" if failed else ""))

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        Amount(binary_units=True),
        TimeRemainingColumn(compact=True),
    )
    return Progress(
        *columns,
        console=Console(stderr=True, color_system="auto" if coloured(sys.stderr) else None),
        transient=True,
        redirect_stdout=on_terminal(sys.stdout),  # what goes to a file or a pipe is not to be printed above the bar instead
    )
