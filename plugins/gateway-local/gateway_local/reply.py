"""A model's text, piece by piece, as the parts of a reply: text, thoughts and tool calls. Pure; no torch.

What comes out does not depend on how the text was cut. A call's name is told as soon as it is known, its arguments as they
come, just as the model writes them: whether they are JSON is for `ToolCall.parsed` to say, as with any other model. What
turns out to be no call is text, as it was written.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway import Delta, Finish, Part, Tool, assemble
from gateway_local.harmony import Harmony
from gateway_local.syntax import (
    HARMONY,
    MISTRAL_ARGS,
    Family,
    Scan,
    Thoughts,
    call_head,
    call_in,
    drops_of,
    family_of,
    overlap,
    schemas_of,
    thoughts_of,
)
from gateway_local.written import Written

LETTERS = string.ascii_letters + string.digits


def random_id() -> str:
    """A name for a call: nine letters and digits, as Mistral's templates want it."""
    return "".join(secrets.choice(LETTERS) for _ in range(9))


class _Reader(Protocol):
    thinking: bool

    def feed(self, text: str) -> None: ...
    def flush(self) -> None: ...


class ReplyParser:
    """One reply. `feed` and `flush` give the deltas to send; `parts` is what they add up to."""

    def __init__(self, reader: _Reader, written: Written) -> None:
        self._reader, self._written = reader, written

    @classmethod
    def of(
        cls,
        template: str,
        *,
        prompt: str = "",
        tools: Sequence[Tool] = (),
        parallel: bool = True,
        new_id: Callable[[], str] = random_id,
    ) -> ReplyParser:
        """For a reply to `prompt`, as `template` wrote it. Calls are looked for only where there are `tools`.

        Not `parallel`: the reply is `done` after its first call.
        """
        written, family = Written(new_id, most=None if parallel else 1), family_of(template)
        reader: _Reader
        if family is HARMONY:
            reader = Harmony(written, calls=bool(tools))
        else:
            thoughts = thoughts_of(template)
            reader = _Tagged(written, family if tools else None, thoughts, drops_of(template), tools)
            if thoughts is not None and prompt.rstrip().endswith(thoughts.opens):
                reader.begin_thinking()
        return cls(reader, written)

    def feed(self, text: str) -> list[Delta]:
        """What more text makes certain. Nothing once it is `done`."""
        self._reader.feed(text)
        return self._written.taken()

    def flush(self) -> list[Delta]:
        """What is left when the text has ended."""
        self._reader.flush()
        return self._written.taken()

    @property
    def parts(self) -> tuple[Part, ...]:
        """The reply so far."""
        return tuple(assemble(self._written.deltas))

    @property
    def thinking(self) -> bool:
        """True within a thought: what is written now is reasoning."""
        return self._reader.thinking

    @property
    def done(self) -> bool:
        """True when no more is wanted: the one call that was allowed is whole."""
        return self._written.full

    def finish(self, finish: Finish) -> Finish:
        """Why the reply ended, given why the text did."""
        return "tool_calls" if finish == "stop" and self._written.calls else finish


class _Tagged:
    """A reader of marks in text. Each state reads from `_held` and says whether to go on; `last` when no more text comes."""

    def __init__(
        self, out: Written, family: Family | None, thoughts: Thoughts | None, drops: tuple[str, ...], tools: Sequence[Tool]
    ) -> None:
        self._out, self._family, self._thoughts = out, family or Family(name=""), thoughts
        self._bare = family is not None and not family.opens
        self._names = frozenset(tool.name for tool in tools)
        self._schemas = {tool.name: schemas_of(tool.parameters) for tool in tools}
        self._drops, self._after_thought = self._family.dropped, drops
        self._held = ""
        self._raw = ""  # the marks before what is held, which are text if no call comes of it
        self._trim = False  # white space beside a mark belongs to the mark
        self._listed = False
        self._tool, self._seen = "", 0
        self._scan = Scan("")
        self._state: Callable[[bool], bool] = self._start
        self.thinking = False

    def feed(self, text: str) -> None:
        self._held += text
        while not self._out.full and self._state(False):
            pass

    def flush(self) -> None:
        while not self._out.full and self._state(True):
            pass

    def begin_thinking(self) -> None:
        """The prompt has opened a thought."""
        self._state, self._trim, self.thinking = self._thought, True, True

    def _start(self, last: bool) -> bool:
        said = self._held.lstrip()
        opens = self._thoughts.opens if self._thoughts else ""
        if opens and said.startswith(opens):
            self._held = said[len(opens) :]
            self.begin_thinking()
            return True
        if not last and opens.startswith(said):
            return False
        self._state = self._answer
        return True

    def _thought(self, last: bool) -> bool:
        closes = self._thoughts.closes if self._thoughts else ""
        self._trimmed()
        at = self._held.find(closes)
        if at >= 0:
            self._out.thought(self._held[:at].rstrip())
            self._held = self._held[at + len(closes) :]
            self._state, self._trim, self.thinking = self._answer, True, False
            self._drops = (*self._after_thought, *self._family.dropped)
            return True
        self._out.thought(self._take((closes,), last))
        return False

    def _answer(self, last: bool) -> bool:
        """Where the answer begins, and with some models may be a call without a mark."""
        self._trimmed()
        if not self._bare:
            return self._no_call()
        said = self._held.lstrip()
        mark = next((each for each in self._drops if said.startswith(each)), "")
        if not mark and not last and any(each != said and each.startswith(said) for each in (*self._drops, "{")):
            return False
        if not mark and not said.startswith("{"):
            return self._no_call()
        self._raw += self._held[: len(self._held) - len(said)] + mark
        self._held = said[len(mark) :]
        if not mark:
            self._object_begins()
        return True

    def _text(self, last: bool) -> bool:
        self._trimmed()
        marks = (*self._family.opens, *(() if self._bare else self._drops))
        found = [(at, mark) for mark in marks if (at := self._held.find(mark)) >= 0]
        if not found:
            self._out.text(self._take(marks, last))
            return False
        at, mark = min(found)
        said = self._held[:at].rstrip()
        self._out.text(said)
        self._raw, self._held = self._held[len(said) : at] + mark, self._held[at + len(mark) :]
        if mark in self._drops:
            self._raw, self._trim = "", True
        else:
            self._state, self._listed = self._head if self._family.head else self._block, False
        return True

    def _block(self, last: bool) -> bool:
        """After the mark of a call that is JSON, or of a list of them."""
        said = self._held.lstrip()
        if not said:
            return last and self._no_call()
        if said[0] == "[" and not self._listed:
            self._raw += self._held[: len(self._held) - len(said) + 1]
            self._held, self._listed = said[1:], True
            return True
        if said[0] != "{":
            return self._no_call()
        self._raw += self._held[: len(self._held) - len(said)]
        self._held = said
        self._object_begins()
        return True

    def _object_begins(self) -> None:
        self._state, self._scan = self._object, Scan(self._family.closes)

    def _object(self, last: bool) -> bool:
        """Within a call's JSON, until its name and the beginning of its arguments are known."""
        if (head := call_head(self._held)) is None or (self._bare and head.name and head.name not in self._names):
            return self._no_call()
        if head.arguments:
            self._called(head.name)
            self._held = self._held[head.arguments :]
            self._state, self._scan, self._after = self._arguments, Scan(self._family.closes), self._rest
            return True
        end = self._scan.step(self._held, last=last)
        if end is None:
            return last and self._no_call()
        call = call_in(self._held[:end])
        if call is None or (self._bare and call[0] not in self._names):
            return self._no_call()
        self._called(call[0])
        self._out.arguments(call[1])
        self._held = self._held[end:]
        return self._ended()

    def _head(self, last: bool) -> bool:
        """After the mark of a call whose name stands before its arguments."""
        head, closes = self._family.head, self._family.closes
        said, begins, never = self._held.lstrip(), self._family.begins, self._family.never
        if said[:1] in ("[", "{"):
            if self._family is not MISTRAL_ARGS:
                return self._no_call()
            self._state = self._block  # the older way, which these models know too
            return True
        size = min(len(said), len(begins))
        if begins[:size] != said[:size] or (never and never.match(said)):
            return self._no_call()
        found = head.match(self._held) if head else None
        if found is None:
            return (last or (closes != "" and closes in self._held)) and self._no_call()
        self._called(str(found[found.lastgroup or 0]))
        self._held = self._held[found.end() :]
        if self._family.tagged:
            self._state, self._seen = self._inside, 0
        else:
            self._state, self._scan = self._arguments, Scan(closes)
            self._after = self._tail if closes else self._between
        return True

    def _arguments(self, last: bool) -> bool:
        end = self._scan.step(self._held, last=last)
        if end is None:
            size = len(self._held) if last else self._scan.at
            if size:
                self._out.arguments(self._held[:size])
            self._held = self._held[size:]
            self._scan.cut(size)
            return False
        self._out.arguments(self._held[:end])
        self._held = self._held[end:]
        self._state, self._scan = self._after, Scan(self._family.closes, depth=1)
        return True

    def _rest(self, last: bool) -> bool:
        """What a call's JSON holds after its arguments."""
        end = self._scan.step(self._held, last=last)
        if end is None:
            return False
        self._held = self._held[end:]
        return self._ended()

    def _inside(self, last: bool) -> bool:
        """Arguments that are no JSON: read when they are whole. Until then a sign of life."""
        closes = self._family.closes
        end = self._held.find(closes, self._seen)
        if end < 0 and not last:
            self._seen = max(0, len(self._held) - len(closes))
            self._out.arguments("")
            return False
        size = end + len(closes) if end >= 0 else len(self._held)
        inside, self._held = self._held[:size], self._held[size:]
        read = self._family.tagged
        arguments = read(inside.removesuffix(closes), end >= 0, self._schemas.get(self._tool, {})) if read else None
        self._out.arguments(inside.removesuffix(closes).strip() if arguments is None else arguments)
        return self._ended(self._text) if end >= 0 else False

    def _tail(self, last: bool) -> bool:
        """What comes between the arguments and the mark that ends a call."""
        closes = self._family.closes
        at = self._held.find(closes)
        if at < 0:
            return False
        self._held = self._held[at + len(closes) :]
        return self._ended(self._text)

    def _between(self, last: bool) -> bool:
        """After a call: another, the end of the list, or the mark that ends it."""
        said, closes = self._held.lstrip(), self._family.closes
        if not said or (closes and closes != said and closes.startswith(said)):
            self._held = "" if last else self._held  # a mark that was cut off says nothing
            return False
        if closes and said.startswith(closes):
            self._held, self._state, self._trim = said[len(closes) :], self._text, True
            return True
        if self._listed and said[0] == "]":
            self._held, self._listed = said[1:], False
            return True
        separator = "," if self._listed else ";"
        following = said[1:].lstrip() if said[0] == separator else said
        if not following:
            self._held = "" if last else self._held
            return False
        if following.startswith("{") and not (self._family.head and not self._listed):
            self._raw, self._held = self._held[: len(self._held) - len(following)], following
            self._object_begins()
            return True
        self._state, self._trim = self._text, True
        return True

    def _called(self, name: str) -> None:
        self._raw, self._tool = "", name
        self._out.call(name)

    def _ended(self, state: Callable[[bool], bool] | None = None) -> bool:
        self._out.whole += 1
        self._state, self._trim = state or self._between, True
        return True

    def _no_call(self) -> bool:
        """What was held back for a call is text."""
        self._out.text(self._raw)
        self._raw, self._state, self._trim = "", self._text, self._trim and not self._raw
        return True

    def _trimmed(self) -> None:
        if self._trim:
            self._held = self._held.lstrip()
            self._trim = not self._held

    def _take(self, marks: tuple[str, ...], last: bool) -> str:
        """What is held and can be part of no mark; the white space before a mark is part of it."""
        said = self._held
        if not last and marks:
            said = said[: len(said) - overlap(said, marks)].rstrip()
        self._held = self._held[len(said) :]
        return said
