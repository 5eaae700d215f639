"""JSON and JSON Lines of any size, scrubbed in constant memory: only strings and numbers change, and it stays JSON.

It is read token by token (RFC 8259), whatever is between them stays as it was. A string that is longer than a window is looked
at in windows. The key of a value speaks for it, and keys are scrubbed, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress

from gateway_scrub.errors import ScrubError
from gateway_scrub.spans import Span
from gateway_scrub.stretches import AHEAD, WINDOW, Changes, Stretch, Windows
from gateway_scrub.walk import LEAST

SPACE = re.compile(r"[ \t\r\n]*+")
STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
WORD = re.compile(r"[0-9A-Za-z+\-.]++")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
WORDS = frozenset({"true", "false", "null", "NaN", "Infinity", "-Infinity"})
INSIDE = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|[^u])")
DECODER = json.JSONDecoder(strict=False)
DEPTH = 10_000
KEYS, LABEL = 4096, 64
"""Of how many keys it is remembered what was found in them, and how long one is at most that speaks for its value."""
CONTROL = {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}
"""Halves of characters, which UTF-8 cannot write."""


class JsonFile:
    """The stretches of a file of JSON values. ScrubError: it is no JSON, at this line."""

    def __init__(self, changes: Changes, name: str = "the input", *, window: int = WINDOW, ahead: int = AHEAD) -> None:
        self._name = name
        self._changes, self._window, self._ahead = changes, window, ahead
        self._text = ""
        self._at = self._out = 0  # up to where it was read, and given out
        self._line, self._offset = 1, 0  # of what `_out` is at
        self._keys: dict[str, list[Span]] = {}
        self._stack: list[tuple[str, str]] = []  # brackets that are open, and the label of what is in them
        self._label = ""
        self._wants = "value"  # or: key, colon, comma; "first" is a value or a key or the end of what was just opened
        self._long: Windows | None = None
        self._long_offset = 0

    def feed(self, text: str) -> Iterator[Stretch]:
        """What is ready: strings as stretches with `raw`, all else as such without changes."""
        self._text = self._text[self._out :] + text
        self._at = self._out = 0
        yield from self._go(final=False)
        yield from self._run()

    def flush(self) -> Iterator[Stretch]:
        """The rest."""
        yield from self._go(final=True)
        yield from self._run()
        if self._at < len(self._text) or self._stack or self._long is not None:
            raise self._error("it ends too early")

    def _go(self, *, final: bool) -> Iterator[Stretch]:
        if self._offset == 0 and self._text.startswith("\ufeff"):
            self._at = 1
        while self._at < len(self._text):
            if self._long is not None:
                yield from self._longer()
                if self._long is not None:
                    return
                continue
            space = SPACE.match(self._text, self._at)
            if space is not None and space.end() > self._at:
                self._at = space.end()
                continue
            char = self._text[self._at]
            if char == '"':
                string = STRING.match(self._text, self._at)
                if string is None and len(self._text) - self._at < self._window + self._ahead:
                    return
                yield from self._begun() if string is None else self._string(string.group())
            elif char in "{}[],:":
                self._punctuation(char)
                self._at += 1
            else:
                word = WORD.match(self._text, self._at)
                if word is None:
                    raise self._error("this begins no value")
                if word.end() == len(self._text) and not final:
                    if len(word.group()) > self._ahead:
                        raise self._error("this number has no end")
                    return
                yield from self._word(word.group())

    def _run(self) -> Iterator[Stretch]:
        """What was read and stays as it is."""
        if self._at > self._out:
            yield self._passed(Stretch(self._text[self._out : self._at], (), self._line, self._offset), self._at)

    def _passed(self, stretch: Stretch, end: int) -> Stretch:
        """The stretch, whose text in the file ends here."""
        self._line += self._text.count("\n", self._out, end)
        self._offset += end - self._out
        self._at = self._out = end
        return stretch

    def _punctuation(self, char: str) -> None:
        wants, inside = self._wants, self._stack[-1][0] if self._stack else ""
        if char in "{[" and wants in ("value", "first value"):
            if len(self._stack) == DEPTH:
                raise self._error(f"it is more than {DEPTH:,} deep")
            self._stack.append((char, self._label))
            self._wants = "first key" if char == "{" else "first value"
        elif char in "}]" and inside == "{["["}]".index(char)] and wants in ("comma", "first key", "first value"):
            self._label = self._stack.pop()[1]
            self._done()
        elif char == "," and wants == "comma":
            self._wants = "key" if inside == "{" else "value"
            self._label = self._stack[-1][1] if inside == "[" else ""
        elif char == ":" and wants == "colon":
            self._wants = "value"
        else:
            raise self._error(f"{char} is not expected here")

    def _done(self) -> None:
        """A value is whole."""
        self._wants = "comma" if self._stack else "value"
        self._label = "" if not self._stack else self._label

    def _string(self, token: str) -> Iterator[Stretch]:
        text, label, key = self._decoded(token), self._label_here(), "key" in self._wants
        spans = self._keys.get(text) if key else None
        if spans is None:
            spans = self._changes.find(text, label)
            if key and len(self._keys) < KEYS and len(text) <= LABEL:
                self._keys[text] = spans
        self._string_done(text)
        if not spans:
            self._at += len(token)
            return
        self._at += 1
        yield from self._run()
        changes = self._changes.of(text, spans, self._line, lines=False, key=key)
        yield self._passed(Stretch(text, changes, self._line, self._offset, token[1:-1]), self._at + len(token) - 2)
        self._at += 1

    def _label_here(self) -> str:
        if self._wants in ("key", "first key"):
            return ""
        if self._wants not in ("value", "first value"):
            raise self._error("a string is not expected here")
        return self._label

    def _string_done(self, text: str) -> None:
        if self._wants in ("key", "first key"):
            self._label = text if len(text) <= LABEL else ""
            self._wants = "colon"
        else:
            self._done()

    def _begun(self) -> Iterator[Stretch]:
        """A string that is longer than what is held."""
        label = self._label_here()
        self._long = Windows(lambda text: self._changes.find(text, label), window=self._window, ahead=self._ahead)
        self._at += 1
        yield from self._run()
        self._long_offset = self._offset

    def _longer(self) -> Iterator[Stretch]:
        """More of the long string, or its end."""
        assert self._long is not None
        inside = INSIDE.match(self._text, self._at)
        assert inside is not None
        stop = inside.end()
        closed = self._text[stop : stop + 1] == '"'
        if not closed:
            stop = _whole(self._text, self._at, stop)
            if len(self._text) - stop > 12:
                raise self._error("a string has an escape that is none")
        text = self._decoded(f'"{self._text[self._at : stop]}"')
        for piece, spans in [*self._long.feed(text), *(self._long.flush() if closed else ())]:
            yield Stretch(piece, self._changes.of(piece, spans, self._line, lines=False), self._line, self._long_offset, "")
            self._long_offset += len(piece)
        self._passed(Stretch("", ()), stop)
        if closed:
            self._long = None
            self._string_done("")
            self._at += 1

    def _word(self, word: str) -> Iterator[Stretch]:
        label = self._label_here()
        if word not in WORDS and NUMBER.fullmatch(word) is None:
            raise self._error("this is no number, and none of true, false, null")
        number = word not in WORDS and sum(map(str.isdigit, word)) >= LEAST
        spans = self._changes.find(word, label) if number else []
        self._done()
        if not spans:
            self._at += len(word)
            return
        yield from self._run()
        whole = Span(0, len(word), spans[0].type, spans[0].score, spans[0].why, spans[0].rank)
        changes = self._changes.of(word, [whole], self._line)
        yield self._passed(Stretch(word, changes, self._line, self._offset), self._at + len(word))

    def _decoded(self, token: str) -> str:
        if "\\" not in token:
            return token[1:-1]
        text: str | None = None
        with suppress(ValueError):  # raised below: the context would hold the string
            text = DECODER.decode(token)
        if text is None:
            raise self._error("a string has an escape that is none")
        return text

    def _error(self, why: str) -> ScrubError:
        line = self._line + self._text.count("\n", self._out, self._at)
        return ScrubError(f"{self._name} is not JSON at line {line:,}: {why}")


def _whole(text: str, at: int, stop: int) -> int:
    """Up to where a piece of a string, which begins at no escape's middle, has only whole escapes and whole characters."""
    end, last = at, None
    for last in ESCAPED.finditer(text, at, stop):
        end = last.end()
    cut = text.find("\\", end, stop)
    if cut >= 0 or end == stop:
        stop = cut if cut >= 0 else stop
        if (
            last is not None
            and last.end() == stop
            and last.group(1)
            and last.group(1).lower().startswith(("d8", "d9", "da", "db"))
        ):
            return last.start()
    return stop


def written(stretch: Stretch) -> str:
    """What of a JSON file's stretch is written: JSON again."""
    if stretch.raw is None:
        if not stretch.changes:
            return stretch.text
        made = stretch.changes[0].made  # a number, which becomes a string
        return json.dumps(made) if made else "null"
    if stretch.raw and not stretch.changes:
        return stretch.raw
    return json.dumps(stretch.made, ensure_ascii=False)[1:-1].translate(CONTROL)
