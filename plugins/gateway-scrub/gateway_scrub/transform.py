"""Scrub: the transform. It looks before a model is chosen, covers what is sent to models that may not see it, and restores."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from operator import itemgetter
from typing import Any

from gateway import (
    Answer,
    Chat,
    ChatResponse,
    Citation,
    Delta,
    Embed,
    Extract,
    Findings,
    ModelCard,
    Part,
    Policy,
    Reasoning,
    Request,
    Rerank,
    Resources,
    Response,
    Rewrite,
    Shape,
    Text,
    ToolCall,
    Transform,
    Veto,
)
from gateway_scrub.across import spread, text_runs
from gateway_scrub.conversation import MASK, Conversation, How
from gateway_scrub.conversations import Conversations
from gateway_scrub.detect import THREAD_CHARACTERS, Detectors, apart
from gateway_scrub.options import PERSONAL, SECRET, ScrubOptions
from gateway_scrub.restore import Restorer
from gateway_scrub.spans import Span
from gateway_scrub.walk import Piece, walk

SILENT = (Embed, Rerank)
"""Tasks whose answers hold no text: a type is enough there, and a text then gives the same vector in every conversation."""
HOSTED = "hosted"
Stop = tuple[int, int, int, int]
"""From where to where something stands in a text, and where in the text before it."""
PLACES = (HOSTED, "private", "host", "process")
CHANGED = "the request was changed after it was inspected: let scrub be the first of the transforms"


def pieces_of(request: Request[Any]) -> list[Piece]:
    """All that a request holds."""
    pieces: list[Piece] = []

    def visit(piece: Piece) -> str:
        pieces.append(piece)
        return piece.text

    walk(request, visit)
    return pieces


def kept_from(place: str) -> str:
    """The data class of requests that models of a place may not have."""
    return f"scrub:not {place}"


@dataclass(frozen=True)
class Seen:
    """What was found in a request, by label and text of its pieces."""

    spans: dict[tuple[str, str], tuple[Span, ...]] = field(repr=False)
    conversation: Conversation
    """One for all attempts at the request."""
    fixed: frozenset[str] = frozenset()
    """Types of what was found where it cannot be replaced."""
    media: bool = False
    ready: dict[str, tuple[Request[Any], Request[Any], str]] = field(default_factory=dict, repr=False)
    """Covered already, by place: the request, as it goes out, and the note."""


class Scrub(Transform):
    """Covers what models may not see. `look` makes the detectors when the first request comes, and tells the types that are
    credentials: compiling the rules takes a moment that a start should not."""

    name = "scrub"

    def __init__(
        self, options: ScrubOptions, look: Callable[[], tuple[Detectors, frozenset[str]]], conversations: Conversations
    ) -> None:
        self._options, self._look, self._conversations = options, look, conversations

    @cached_property
    def _made(self) -> tuple[Detectors, frozenset[str]]:
        return self._look()

    @property
    def _secrets(self) -> frozenset[str]:
        return self._made[1]

    async def inspect(self, request: Request[Any], resources: Resources) -> Findings:
        """What is found decides where the request may go. What goes wrong keeps it on this machine."""
        long = request.traits().input_bytes > THREAD_CHARACTERS
        pieces = await apart(long, pieces_of, request)
        if any(piece.kind == "unknown" for piece in pieces):
            raise ValueError("the request holds an object that cannot be looked into")
        runs = text_runs(request)
        spans = await self._made[0].find([*pieces, *(Piece("".join(run)) for run in runs)], resources, request.meta)
        spread(runs, spans)
        fixed = {span.type for piece in pieces if piece.kind == "fixed" for span in spans.get((piece.label, piece.text), ())}
        meta = request.meta
        conversation = self._conversations.get(meta.tenant, meta.conversation)
        seen = Seen(spans, conversation, frozenset(fixed), any(piece.kind == "media" for piece in pieces))
        types = {span.type for found in spans.values() for span in found}
        classes = {SECRET if kind in self._secrets else PERSONAL for kind in types}
        if long and not self._blocked(seen, types, HOSTED):
            await asyncio.to_thread(self._prepare, request, seen)
        classes |= {kept_from(place) for place in PLACES if self._blocked(seen, types, place)}
        return Findings(data_classes=frozenset(classes), detail=seen)

    def begin(self, request: Request[Any], findings: Findings | None, card: ModelCard) -> Rewrite | None:
        """The request as this model may see it."""
        if self._options.untouched(card):
            return None
        if findings is None or not isinstance(findings.detail, Seen):
            raise ValueError("the request was not inspected")
        seen: Seen = findings.detail
        types = {span.type for found in seen.spans.values() for span in found}
        if self._blocked(seen, types, card.place):
            raise ValueError("the request holds what this model may not have")
        covered = Covered(request, seen, card.place, self._options, self._secrets)
        self._conversations.save()  # before it is sent: what comes back must be known, also after a crash
        return covered

    def _prepare(self, request: Request[Any], seen: Seen) -> None:
        """Cover what is long beforehand: `begin` would let the event loop wait for it."""
        with suppress(Exception):  # `begin` does it again, and tells
            covered = Covered(request, seen, HOSTED, self._options, self._secrets)
            seen.ready[HOSTED] = (request, covered.request, covered.note)

    def _blocked(self, seen: Seen, types: Iterable[str], place: str) -> bool:
        """Whether a model of this place may not have the request at all."""
        options, local = self._options, place in ("host", "process")
        if seen.media and options.media == "block" and not local:
            return True
        if any(options.action(kind, secret=kind in self._secrets, place=place) == "block" for kind in types):
            return True
        if options.fixed == "keep":
            return False
        return any(options.action(kind, secret=kind in self._secrets, place=place) != "keep" for kind in seen.fixed)


class ScrubPolicy(Policy):
    """Keeps requests from models that may not have them, on every fallback too."""

    name = "scrub"

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        if kept_from(card.place) not in shape.data_classes:
            return None
        what = ", ".join(sorted(shape.data_classes & {SECRET, PERSONAL})) or "media"
        return Veto("scrub", f"{card.place}; the request holds what may not go there: {what}", "see [plugin.scrub]")


class Covered(Rewrite):
    """One attempt: the covered request goes out, and what comes back is restored."""

    def __init__(
        self,
        request: Request[Any],
        seen: Seen,
        place: str,
        options: ScrubOptions,
        secrets: frozenset[str],
    ) -> None:
        self._seen, self._conversation, self._options = seen, seen.conversation, options
        self._secrets, self._place = secrets, place
        self._silent = isinstance(request, SILENT)
        self._original = request
        self._counts: Counter[str] = Counter()
        inspected, ready, note = seen.ready.get(place, (None, request, ""))
        super().__init__(ready if inspected is request else walk(request, self._cover))
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(self._counts.items()))
        self.note = note if inspected is request else f"scrub: {told}" if told else ""
        self._json = isinstance(request, Chat) and request.response_format is not None
        self._kinds: dict[int, tuple[str, str]] = {}
        self._held: dict[int, Restorer] = {}
        self._nameless: dict[int, str] = {}
        """Arguments of calls whose tool is not told yet, where that decides whether they are restored."""
        self._texts: dict[int, str] = {}

    def incoming(self, response: Response) -> Response:
        if isinstance(response, ChatResponse):
            return replace(response, parts=self._parts(response.parts))
        back: Response = walk(response, lambda piece: self._conversation.restore(piece.text))
        return self._replaced(back) if isinstance(self._original, (Extract, Answer)) else back

    def feed(self, delta: Delta) -> Iterable[Delta]:
        at = delta.part
        if delta.whole is not None:
            texts = "".join(self._texts[part] for part in sorted(self._texts))
            return (replace(delta, whole=self._parts((delta.whole,), texts)[0]),)
        first = at not in self._kinds
        if first:
            self._kinds[at] = delta.kind, delta.name
            if delta.kind == "tool_call" and not delta.name and self._options.keep_from_tools:
                self._nameless[at] = ""
        kind, name = self._kinds[at]
        if at in self._nameless:
            if not delta.name:
                self._nameless[at] += delta.data
                return (replace(delta, data=""),)
            name = delta.name
            self._kinds[at], delta = (kind, name), replace(delta, data=self._nameless.pop(at) + delta.data)
        if kind == "reasoning" or (kind == "tool_call" and kept_from_tool(name, self._options.keep_from_tools)):
            return (delta,)
        if kind == "text":
            self._texts[at] = self._texts.get(at, "") + delta.data
        data = self._restorer(at).feed(delta.data)
        if not data and not first and not delta.signature and not delta.name:
            return ()  # all of it waits for what follows
        return (replace(delta, data=data),)

    def flush(self) -> Iterable[Delta]:
        out = []
        for part, data in self._nameless.items():
            out.append(
                Delta(
                    data if kept_from_tool("", self._options.keep_from_tools) else self._restorer(part).feed(data),
                    part,
                    "tool_call",
                )
            )
        for part, restorer in self._held.items():
            if rest := restorer.flush():
                out.append(Delta(rest, part, "tool_call" if self._kinds[part][0] == "tool_call" else "text"))
        return [delta for delta in out if delta.data]

    def _restorer(self, part: int) -> Restorer:
        if part not in self._held:
            self._held[part] = self._conversation.restorer(json=self._json or self._kinds[part][0] == "tool_call")
        return self._held[part]

    def _parts(self, parts: Sequence[Part], texts: str | None = None) -> tuple[Part, ...]:
        return restored_parts(parts, self._conversation, self._options.keep_from_tools, json=self._json, texts=texts)

    def _cover(self, piece: Piece) -> str:
        if not piece.text:
            if piece.kind == "unknown" or (piece.kind == "media" and not self._seen.media):
                raise ValueError(CHANGED)
            return piece.text
        spans = self._spans(piece)
        if piece.kind != "text":
            if self._options.fixed == "block" and any(self._how(span) != "keep" for span in spans):
                raise ValueError(CHANGED)
            return piece.text
        for span in spans:
            if self._how(span) != "keep":
                self._counts[span.type] += 1
        if self._silent:
            return self._typed(piece.text, spans)
        return self._conversation.cover(piece.text, spans, self._how)

    def _spans(self, piece: Piece) -> Sequence[Span]:
        spans = self._seen.spans.get((piece.label, piece.text))
        if spans is None:  # another transform, which came before, wrote this: what was not looked at is not sent
            raise ValueError(CHANGED)
        return spans

    def _how(self, span: Span) -> How:
        action = self._options.action(span.type, secret=span.type in self._secrets, place=self._place)
        if action == "block":  # which `begin` has looked for
            raise ValueError("the request holds what this model may not have")
        return action

    def _typed(self, text: str, spans: Sequence[Span]) -> str:
        out, at = [], 0
        for span in spans:
            action = self._how(span)
            if action == "keep":
                continue
            made = "" if action == "drop" else "***" if action == "mask" else f"<{span.type}>"
            out += [text[at : span.start], made]
            at = span.end
        return "".join((*out, text[at:]))

    def _replaced(self, response: Any) -> Any:
        """Spans of characters lead into the text that the model saw: here they are made to lead into the caller's."""
        field_name = "inputs" if isinstance(self._original, Extract) else "context"
        text: str = getattr(self._original, field_name)
        spans = self._seen.spans.get(("", text), ())
        way = Way(text, getattr(self.request, field_name), spans, self._conversation, self._how)
        many = "spans" if isinstance(self._original, Extract) else "answers"
        word = "word" if isinstance(self._original, Extract) else "answer"
        moved = []
        for item in getattr(response, many):
            start, end = way.start(item.start), way.end(item.end)
            moved.append(replace(item, start=start, end=end, **({word: text[start:end]} if end > start else {})))
        return replace(response, **{many: tuple(moved)})


class Way:
    """From places in a covered text to places in the text that it was."""

    def __init__(
        self, text: str, sent: str, spans: Sequence[Span], conversation: Conversation, how: Callable[[Span], How]
    ) -> None:
        back: list[Stop] = []
        shift = 0
        for start, end, value in conversation.hits(sent):
            back.append((start, end, start + shift, start + shift + len(value)))
            shift += len(value) - (end - start)
        lost: list[Stop] = []
        shift = 0
        for span in spans:
            if (action := how(span)) in ("mask", "drop"):
                length = len(MASK) if action == "mask" else 0
                lost.append((span.start + shift, span.start + shift + length, span.start, span.end))
                shift += length - (span.end - span.start)
        self._steps, self._length = (back, lost), len(text)

    def start(self, at: int) -> int:
        return self._to(at, end=False)

    def end(self, at: int) -> int:
        return self._to(at, end=True)

    def _to(self, at: int, *, end: bool) -> int:
        for stops in self._steps:
            last = (bisect_left if end else bisect_right)(stops, at, key=itemgetter(0)) - 1
            if last >= 0:
                _, stop, start, to = stops[last]
                inside = at <= stop if end else at < stop
                at = (to if end else start) if inside else to + at - stop
        return min(at, self._length)


def restored_parts(
    parts: Sequence[Part], conversation: Conversation, kept: Sequence[str], *, json: bool = False, texts: str | None = None
) -> tuple[Part, ...]:
    """The parts of a reply with the caller's values. Reasoning stays as it is: it goes back to the model, who signed it.

    `json`: the answer is JSON, by the request's schema, and must stay it. `texts`: what citations lead into; None: these parts.
    """
    out: list[Part] = []
    if texts is None:
        texts = "".join(part.text for part in parts if isinstance(part, Text))
    for part in parts:
        match part:
            case Text():
                out.append(replace(part, text=conversation.restore(part.text, json=json)))
            case ToolCall() if not kept_from_tool(part.name, kept):
                out.append(replace(part, arguments=conversation.restore(part.arguments, json=True)))
            case Citation():
                back = conversation.restore
                start, end = (at if at is None else len(back(texts[:at], json=json)) for at in (part.start, part.end))
                url, title, quote = back(part.url), back(part.title), back(part.quote)
                out.append(replace(part, url=url, title=title, quote=quote, start=start, end=end))
            case Reasoning() | _:
                out.append(part)
    return tuple(out)


def kept_from_tool(name: str, kept: Sequence[str]) -> bool:
    """Whether placeholders stay in the arguments of a tool's calls."""
    return any(fnmatchcase(name, pattern) for pattern in kept)
