"""Scrubber: texts, JSON values, chat messages and pandas columns covered and restored, without any gateway.

    scrubber = Scrubber()
    sent = scrubber.scrub({"to": "jane@example.com"})        # {"to": "<EMAIL_1:3fa9c2xk>"}
    scrubber.restore(sent)                                   # {"to": "jane@example.com"}

It looks by rules; models are asked by the transform of a gateway only.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from gateway import ConfigError
from gateway_scrub import frames, values
from gateway_scrub.build import detectors_of
from gateway_scrub.conversation import MASK, Conversation, How
from gateway_scrub.errors import ScrubError
from gateway_scrub.model import TYPES
from gateway_scrub.options import ACTIONS, PERSONAL, SECRET, Action, ScrubOptions
from gateway_scrub.restore import Restorer
from gateway_scrub.rules import Rule, builtin_rules, rule_of
from gateway_scrub.spans import Span
from gateway_scrub.walk import LEAST, Bare, Piece, walk, walk_json

T = TypeVar("T")

MAX_TOKENS = 1_000_000
"""How many different values a Scrubber's own conversation holds."""
ALONE: Mapping[str, Action] = {SECRET: "placeholder", PERSONAL: "placeholder"}
NUMBER = "_NUM"
"""Ends the type of a number's placeholder, which is another than that of the same digits in a string."""
HUGE = 1 << 256
"""From here on a number is nobody's."""
TOLD = 10
"""How many places a message names."""


@dataclass(eq=False, repr=False)
class Blocked(ScrubError):
    """Something was found whose action is "block", or that cannot be replaced where it stands; nothing was scrubbed.

    `types` and `places` tell of each find, in order, and never the text: ``messages.1.content, line 3``.
    """

    types: tuple[str, ...] = ()
    places: tuple[str, ...] = ()

    @classmethod
    def of(cls, finds: Iterable[tuple[str, str]]) -> Blocked:
        """Of each find its type and its place."""
        types, places = zip(*finds, strict=True)
        told = [f"{kind} at {place}" for kind, place in zip(types[:TOLD], places[:TOLD], strict=True)]
        told += [f"and {len(types) - TOLD:,} more"] if len(types) > TOLD else []
        return cls(f"this may not be passed on: {', '.join(told)}", types, places)


class Scrubber:
    """Finds, covers and restores. One Scrubber is one conversation: a value has the same placeholder in all that it scrubs.

    `actions` say by type, by pattern of types (``"US_*"``), or for "secret" and "personal", what is done: placeholder (the
    default), surrogate, mask, drop, keep, or block, which raises Blocked. `types` limits what is looked for, `threshold` is the
    score from which it counts, texts of `allow` are never touched, `rules` are added to those of the package. `options` may say
    all that as ``[plugin.scrub]`` does, with `remote` as the actions. Another Scrubber's `conversation` may be shared.
    Any thread may use it.
    """

    def __init__(
        self,
        options: ScrubOptions | None = None,
        *,
        actions: Mapping[str, Action] | None = None,
        types: Iterable[str] | None = None,
        threshold: float | None = None,
        allow: Iterable[str] = (),
        rules: Iterable[Rule | Mapping[str, Any]] = (),
        conversation: Conversation | None = None,
    ) -> None:
        given = options or ScrubOptions()
        for kind, action in (actions or {}).items():
            if action not in ACTIONS:
                raise ConfigError(f"actions[{kind!r}] must be one of {', '.join(ACTIONS)}, not {action!r}")
        self._options = replace(
            given,
            remote=_first(actions or {}, given.remote, ALONE),
            types=given.types if types is None else list(types),
            threshold=given.threshold if threshold is None else threshold,
            allow=[*given.allow, *allow],
            rules=[*given.rules, *(_row(rule) for rule in rules)],
        )
        self._detectors, self._secrets = detectors_of(self._options)
        self.conversation = Conversation(max_tokens=MAX_TOKENS) if conversation is None else conversation
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, Action]] = Counter()
        self._numbers: dict[str, str] = {}
        self._known: dict[str, Action] = {}

    def __repr__(self) -> str:
        done: Counter[str] = Counter()
        for (kind, _), number in self._counts.items():
            done[kind] += number
        return f"<Scrubber {', '.join(f'{number} {kind}' for kind, number in sorted(done.items())) or 'nothing yet'}>"

    @property
    def options(self) -> ScrubOptions:
        """What it was made with, all together."""
        return self._options

    @property
    def types(self) -> frozenset[str]:
        """The types that there are to look for."""
        options = self._options
        rules = [*builtin_rules(), *(rule_of(row, "rules") for row in options.rules)]
        return frozenset(TYPES.values()) | {rule.type for rule in rules}

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How often what was done, by type: ``{"EMAIL": {"placeholder": 2}}``."""
        out: dict[str, dict[str, int]] = {}
        with self._lock:
            for (kind, action), number in sorted(self._counts.items()):
                out.setdefault(kind, {})[action] = number
        return out

    def fresh(self) -> Scrubber:
        """Another one of the same options, for another conversation."""
        return Scrubber(self._options)

    def find(self, text: str, label: str = "") -> list[Span]:
        """What is found in a text, in order of place. `label` says what it is, as a key or a column's name does: "phone"."""
        types = self._options.types
        spans = self._detectors.look(text, label)
        return spans if types is None else [span for span in spans if span.type in types]

    def action(self, kind: str) -> Action:
        """What is done with finds of a type."""
        made = self._known.get(kind)
        if made is None:
            made = self._known[kind] = self._options.action(kind, secret=kind in self._secrets, place="hosted")
        return made

    def scrub(self, value: T, *, label: str = "") -> T:
        """The same with what was found in it replaced, as a new value of the same type.

        A text, a JSON value (in which keys speak for what they lead to, and a number that is replaced becomes a string), a chat
        message in OpenAI's form or the gateway's, any request or response of the gateway, a pandas Series or DataFrame.
        Blocked: some of it may not be passed on, and nothing was.
        """
        work = Work(self, value)
        made: T = work.scrubbed(value, label)
        if work.blocked:
            raise Blocked.of(work.blocked)
        with self._lock:
            self._counts.update(work.counts)
        return made

    def restore(self, value: T) -> T:
        """The same with every placeholder and surrogate of this conversation replaced by what it stands for, once.

        What was masked or dropped does not come back, and a placeholder that is not known stays as it is.
        """
        made: T = self._restored(value)
        return made

    def restorer(self, *, json: bool = False) -> Restorer:
        """The same for a text that comes in pieces: `feed` each, then `flush`. `json`: it is JSON, as tools' arguments are."""
        return self.conversation.restorer(json=json)

    def number(self, kind: str, raw: str) -> str:
        """The placeholder of a number, as JSON writes it; where it is all of a string of a JSON value, a number it becomes."""
        token = self.conversation.token(f"{kind}{NUMBER}", raw)
        self._numbers[token] = raw
        return token

    def _restored(self, value: Any) -> Any:
        match value:
            case str():
                return self.conversation.restore(value)
            case _ if is_dataclass(value) and not isinstance(value, type):
                return walk(value, self._back)
            case _ if frames.is_frame(value):
                return frames.mapped(value, self._cell, narrow=True)
            case _:
                return self._cell(value, "", "")

    def _cell(self, value: Any, label: str, where: str) -> Any:
        return values.mapped(value, self._value, lambda text, where: walk_json(text, self._back, where), label, where)

    def _value(self, value: Any, label: str, where: str) -> Any:
        if not isinstance(value, str):
            return value
        raw = self._numbers.get(value)
        if raw is not None:
            return json.loads(raw)
        made = self.conversation.restore(value)
        return value if made == value else made

    def _back(self, piece: Piece) -> str:
        raw = self._numbers.get(piece.text)
        return self.conversation.restore(piece.text) if raw is None else Bare(raw)


class Work:
    """One call of `scrub`: what was done, and what is blocked. `whole` is all that is scrubbed."""

    def __init__(self, scrubber: Scrubber, whole: Any) -> None:
        self.counts: Counter[tuple[str, Action]] = Counter()
        self.blocked: list[tuple[str, str]] = []
        self._scrubber = scrubber
        self._whole = whole

    @cached_property
    def _beside(self) -> list[str]:
        """Every text of the whole: no surrogate may be one of them."""
        if frames.is_frame(self._whole):
            return [text for cell in frames.cells(self._whole) for text in values.texts(cell)]
        if not is_dataclass(self._whole):
            return list(values.texts(self._whole))
        out: list[str] = []

        def visit(piece: Piece) -> str:
            out.append(piece.text)
            return piece.text

        walk(self._whole, visit)
        return out

    def scrubbed(self, value: Any, label: str) -> Any:
        """The value, replaced."""
        match value:
            case str():
                return self._text(value, label, "")
            case _ if is_dataclass(value) and not isinstance(value, type):
                return walk(value, self._piece)
            case _ if frames.is_frame(value):
                return frames.mapped(value, self._cell)
            case None | bool() | int() | float() | Mapping() | list() | tuple() | set() | frozenset():
                return self._cell(value, label, "")
            case _:
                raise TypeError(
                    f"scrub takes text, JSON values, chat messages, Series and DataFrames, not {type(value).__name__}"
                )

    def _cell(self, value: Any, label: str, where: str) -> Any:
        return values.mapped(value, self._value, lambda text, where: walk_json(text, self._piece, where), label, where)

    def _value(self, value: Any, label: str, where: str) -> Any:
        if isinstance(value, str):
            if values.is_media(value, label):
                return self._piece(Piece(value, "media", where, label))
            made = self._text(value, label, where)
            return value if made == value else made
        if type(value) not in (int, float) or abs(value) >= HUGE:  # or a truth value, or another library's number
            return value
        return self._number(value, json.dumps(value), label, where)

    def _piece(self, piece: Piece) -> str:
        """A text of a message. What is fixed in it cannot be replaced, only refused."""
        options = self._scrubber.options
        if piece.kind == "media":
            if options.media == "block":
                self._block("media", piece.where or "the value")
        elif piece.kind == "unknown":
            self._block("what cannot be looked into", piece.where or "the value")
        elif piece.kind == "fixed":
            spans = self._scrubber.find(piece.text, piece.label) if options.fixed == "block" else ()
            for span in spans:
                if self._scrubber.action(span.type) != "keep":
                    self._block(span.type, f"{piece.where or 'a key'}, where it cannot be replaced")
        elif piece.number:
            made = self._number(piece.text, piece.text, piece.label, piece.where)
            return Bare("null") if made is None else str(made)
        else:
            return self._text(piece.text, piece.label, piece.where)
        return piece.text

    def _text(self, text: str, label: str, where: str) -> str:
        spans = self._wanted(text, label, where)
        hows = {span: self._how(span) for span in spans}
        beside = self._beside if "surrogate" in hows.values() else ()
        return self._scrubber.conversation.cover(text, spans, hows.__getitem__, beside=beside)

    def _how(self, span: Span) -> How:
        action = self._scrubber.action(span.type)
        return "mask" if action == "block" else action  # what is blocked is not given to anybody, whole or masked

    def _number(self, value: Any, raw: str, label: str, where: str) -> Any:
        """A number is replaced whole, by a string: by a placeholder where a surrogate was asked for, which may be another's."""
        if sum(map(str.isdigit, raw)) < LEAST:
            return value
        spans = self._wanted(raw.removesuffix(".0"), label, where)
        if not spans:
            return value
        how = self._how(spans[0])
        if how == "drop":
            return None
        return MASK if how == "mask" else self._scrubber.number(spans[0].type, raw)

    def _wanted(self, text: str, label: str, where: str) -> list[Span]:
        spans = []
        for span in self._scrubber.find(text, label):
            action = self._scrubber.action(span.type)
            if action == "block":
                line = [f"line {text.count(chr(10), 0, span.start) + 1}"] if "\n" in text or not where else []
                self._block(span.type, ", ".join([*([where] if where else []), *line]))
            elif action != "keep":
                self.counts[span.type, action] += 1
            if action != "keep":
                spans.append(span)
        return spans

    def _block(self, kind: str, where: str) -> None:
        for span in reversed(self._scrubber.find(where)):  # a key of an object may itself be what nobody is to see
            where = f"{where[: span.start]}<{span.type}>{where[span.end :]}"
        self.blocked.append((kind, where))


def _first(*tables: Mapping[str, Action]) -> dict[str, Action]:
    """The tables as one: what an earlier one says goes before, in order too."""
    out: dict[str, Action] = {}
    for table in tables:
        for kind, action in table.items():
            out.setdefault(kind, action)
    return out


def _row(rule: Rule | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(rule, Rule):
        return {f.name: getattr(rule, f.name) for f in fields(rule)}
    return dict(rule)
