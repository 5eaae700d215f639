"""Shapes: JSON that fits a schema, token by token. llguidance says which tokens may come next. Imports torch.

llguidance, because it is small (3 MB, no dependency, MIT), takes schemas as they are written, and names what it cannot do;
xgrammar would bring triton, outlines-core knows regular expressions alone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import llguidance
import numpy as np
import torch

from gateway import ServiceCrashed, UnsupportedOption

WRITTEN: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As Python's json writes it: where any white space may stand, a weak model writes nothing else."""


CLOSING = ('"', "}", "]", ", ", ",")
"""What closes something, or goes on to what must still come; the first that may come next is taken where tokens run short."""
SHORT = 96
"""So many tokens before the limit it is looked after that the answer can be finished."""
NAMED = frozenset({"properties", "$defs", "definitions"})
"""Keywords that hold schemas by name."""
VALUES = frozenset({"enum", "const", "default", "examples"})
"""Keywords that hold values, and no schema."""
OTHERS = frozenset(
    {
        "additionalProperties", "unevaluatedProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref", "if",
        "dependentSchemas",
    }
)  # fmt: skip
"""Keywords that say more of an object's properties."""


class Shapes:
    """What one model's tokens can spell. Made when first needed: it takes a moment, up to a second for a large vocabulary."""

    def __init__(self, tokenizer: Any, vocabulary: int, eos_ids: Collection[int], *, model: str) -> None:
        spelled = tokenizer.backend_tokenizer.to_str()
        self._tokens = llguidance.LLTokenizer(spelled, n_vocab=vocabulary, eos_token=sorted(eos_ids) or None)
        self._model = model
        spelt = [self._tokens.tokenize_str(mark) for mark in CLOSING]
        self._closing = [ids[0] for ids in spelt if len(ids) == 1]

    def of(self, schema: Mapping[str, Any], *, option: str = "response_format") -> Shape:
        """The shape that a schema describes. UnsupportedOption when it is none, or asks for what cannot be held to.

        `option` is where the request says it.
        """
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(sparing(schema)), defaults=WRITTEN)
            matcher = llguidance.LLMatcher(self._tokens, grammar, log_level=0)
        except (TypeError, ValueError):
            matcher = None
        if matcher is None or matcher.is_error():
            # Why is not repeated: it may quote the schema's own words.
            message = f"model {self._model!r} cannot be held to this schema: it is none, or uses keywords beyond llguidance's"
            raise UnsupportedOption(message, model=self._model, option=option)
        return Shape(matcher, self._closing, self._model)


def _allowed(matcher: Any) -> Any:
    """Which tokens may come next, `(vocabulary,)`, of bools."""
    return np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little").astype(bool)


def sparing(schema: Any) -> Any:
    """The schema without what nobody has asked for: an object has no other properties than those that are named.

    What fits this fits the schema too. Where several schemas speak of one object, it is left as it is.
    """
    if isinstance(schema, list):
        return [sparing(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    out = {word: value if word in VALUES or word == "allOf" else sparing(value) for word, value in schema.items()}
    for word in NAMED & schema.keys():
        if isinstance(schema[word], Mapping):
            out[word] = {name: sparing(each) for name, each in schema[word].items()}
    if "properties" in schema and not OTHERS & schema.keys():
        out["additionalProperties"] = False
    return out


class Shape:
    """One answer as it grows."""

    def __init__(self, matcher: Any, closing: Sequence[int], model: str) -> None:
        self._matcher, self._closing, self._model = matcher, closing, model
        self.hurried = False
        """True once something was closed for want of tokens."""

    @property
    def whole(self) -> bool:
        """True when nothing more may come."""
        return bool(self._matcher.is_stopped())

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits `(1, vocabulary)` with those of tokens that must not come next at minus infinity."""
        allowed = torch.from_numpy(_allowed(self._matcher)[: logits.shape[-1]]).to(logits.device)
        return logits.masked_fill(~allowed, -torch.inf)

    def within(self, token: int, left: int) -> int:
        """The token, if the answer can be finished in `left` more after it; else one that closes what is open."""
        if left > SHORT:
            return token
        ahead = self._matcher.deep_copy()
        if ahead.consume_token(token) and self._needed(ahead) <= left:
            return token
        self.hurried = True
        return self._next(self._matcher)

    def _needed(self, matcher: Any) -> int:
        """How many tokens the shortest end takes, or nearly: what can be closed is closed. At most `SHORT` + 1."""
        for count in range(SHORT + 1):
            if matcher.is_stopped():
                return count
            if not matcher.consume_token(self._next(matcher)):
                break
        return SHORT + 1

    def _next(self, matcher: Any) -> int:
        allowed = _allowed(matcher)
        return next((token for token in self._closing if allowed[token]), int(allowed.argmax()))

    def took(self, token: int) -> None:
        """A token has been written. ServiceCrashed when it must not have been."""
        if not self._matcher.consume_token(token):
            message = f"model {self._model!r} has lost the shape of its answer"
            raise ServiceCrashed(message, model=self._model, cause="LLMatcher")
