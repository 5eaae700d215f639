"""Writer: one answer as a decoder writes it, from tokens to text. Pure but for its picker."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway import Delta, Finish, Usage
from gateway_local.picking import Picked, Picker
from gateway_local.reply import ReplyParser
from gateway_local.text import Telling


class Writer:
    """Takes one token after the other until it is `done`; each gives what may be shown by then.

    `parser` tells thoughts and calls from text; without one all is text. `begun`: what the answer begins with, in the prompt.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        picker: Picker,
        decode: Callable[[Sequence[int]], str],
        *,
        limit: int,
        stop: Sequence[str],
        eos_ids: frozenset[int],
        parser: ReplyParser | None = None,
        begun: str = "",
    ) -> None:
        self.prompt, self.picker, self.limit, self.parser = prompt, picker, limit, parser
        self.count = self.thought = 0
        self.written: list[Picked] = []
        """Its tokens, but for one that ends a text."""
        self.finish: Finish = "length"
        self.done = limit <= 0
        self._eos_ids = eos_ids
        self._telling = Telling(decode, stop, prompt)
        self._first = parser.feed(begun) if parser is not None and begun else []
        self._pieces: list[str] = []

    @property
    def left(self) -> int:
        """How many tokens may follow the next one."""
        return self.limit - self.count - 1

    @property
    def text(self) -> str:
        """What has been shown, without a parser."""
        return "".join(self._pieces)

    @property
    def usage(self) -> Usage:
        """What it took so far."""
        return Usage(input_tokens=len(self.prompt), output_tokens=self.count, reasoning_tokens=self.thought)

    def take(self, token: Picked) -> Sequence[Delta]:
        """What this token makes certain; when it is the last one, all that is left."""
        parser, deltas, self._first = self.parser, self._first, []
        if parser is None:
            piece = self._written(token)
            self._pieces.append(piece)
            return [Delta(piece)] if piece else []
        self.thought += parser.thinking
        deltas = [*deltas, *parser.feed(self._written(token))]
        if parser.done and not self.done:
            self.finish, self.done = "stop", True
        return [*deltas, *parser.flush()] if self.done else deltas

    def _written(self, token: Picked) -> str:
        self.count += 1
        shape, piece = self.picker.shape, ""
        if token.id in self._eos_ids:
            self.finish, self.done = "stop", True
        else:
            self.written.append(token)
            piece = self._telling.feed(token.id)
            if self._telling.stopped:
                self.finish, self.done = "stop", True
        if shape is not None and shape.whole:
            self.finish, self.done = "length" if shape.hurried else "stop", True
        self.done = self.done or self.count >= self.limit
        if self.done:
            piece += self._telling.flush()
            self.finish = "stop" if self._telling.stopped else self.finish
        return piece
