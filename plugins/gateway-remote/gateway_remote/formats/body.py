"""Body: the body of one request as it is written. What the format or the model's card cannot carry is refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from gateway import Chat, Media, Message, Options, Request
from gateway_remote.formats.api import Sending
from gateway_remote.jsonbytes import dumps

if TYPE_CHECKING:
    from gateway_remote.config import ModelRow

FEATURES: Mapping[str, str] = {
    "tools": "tools", "response_format": "json_schema", "stop": "stop", "seed": "seed", "reasoning": "reasoning",
    "logprobs": "logprobs", "top_k": "top_k", "presence_penalty": "penalties", "frequency_penalty": "penalties",
    "dimensions": "dimensions", "candidate_labels": "zero_shot", "return_timestamps": "timestamps",
}  # fmt: skip
"""The feature that a card must list for an option to be sent."""
ELSEWHERE: Mapping[str, str] = {option: feature for option, feature in FEATURES.items() if option != "top_k"}
"""The same for tasks that are no chat: `top_k` is how many answers come back there."""
NEEDED = frozenset(
    {
        "tools", "tool_choice", "response_format", "messages", "candidate_labels", "n", "top_n", "src_lang", "tgt_lang",
        "return_timestamps", "width", "height", "negative_prompt", "media_type",
    }
)  # fmt: skip
"""Options without which the answer would be another one: they are refused even where others may be dropped."""


class Body:
    """The fields of one body. Every option of the request is taken, or else refused when the body is finished."""

    def __init__(self, request: Request[Any], row: ModelRow, **given: Any) -> None:
        self.fields: dict[str, Any] = given
        self._row = row
        self._features = FEATURES if isinstance(request, Chat) else ELSEWHERE
        self._options = Options(request, row.name)
        # Of a dozen options a request sets two or three: only these are looked at again.
        kind: Any = type(request)
        self.left = {name: value for name, default in _options(kind) if (value := getattr(request, name)) != default}
        """The options that nobody has taken yet."""

    def take(self, option: str) -> Any:
        """The option's value where it is given and may be sent, else None: whoever takes it sends it."""
        value = self.left.pop(option, None)
        if value is None:
            return None
        feature = self._features.get(option)
        off = value == "none" if option == "reasoning" else value is False and feature is not None
        if off and feature not in self._row.card.features:
            return None  # what the model does anyway
        if option in self._row.refuses:
            self.refuse(option, "its row says so in `refuses`")
            return None
        if feature is not None and feature not in self._row.card.features:
            self.refuse(option, f"its card does not list the feature {feature!r}")
            return None
        return value

    def carry(self, names: Mapping[str, str]) -> None:
        """Take options that the format has under these names and in the same form."""
        for option in [option for option in self.left if option in names]:
            value = self.take(option)
            if value is not None:
                self.fields[names[option]] = value

    def beside(self, name: str, ours: dict[str, Any], *, within: str = "") -> None:
        """Send an object under this name, with what the row's `body` has in the same place; ours goes before it.

        So does the one that is called `within` in it.
        """
        given = self._row.body.get(name)
        if isinstance(given, Mapping):
            if within in ours and isinstance(given.get(within), Mapping):
                ours = {**ours, within: {**given[within], **ours[within]}}
            ours = {**given, **ours}
        self.fields[name] = ours

    def tools(self, ours: list[Any]) -> None:
        """Send these tools, after those of the row's `body`, which the provider runs itself."""
        given = self._row.body.get("tools")
        self.fields["tools"] = [*given, *ours] if isinstance(given, list) else ours

    def refuse(self, option: str, why: str) -> None:
        """UnsupportedOption; or a note that an option which only tunes the answer is left out, where the caller allows that."""
        self._options.refuse(option, why, tunes=option not in NEEDED)

    def fail(self, option: str, why: str) -> NoReturn:
        """UnsupportedOption, for what is content: that is never left out."""
        self._options.refuse(option, why)
        raise AssertionError

    def prefill(self, messages: Sequence[Message]) -> None:
        """Refuse an assistant's message that comes last, unless the model is known to go on with it: many answer it anew."""
        if messages[-1].role == "assistant" and "prefill" not in self._row.card.features:
            self.fail("messages", "its card does not list the feature 'prefill'")

    def media(self, part: Media) -> None:
        """Refuse a kind of media that the model does not take."""
        if part.type not in self._row.card.modalities:
            self.fail(f"messages.{part.type}", f"its card lists no {part.type} among its modalities")

    def sending(self, path: str) -> Sending:
        """The whole of it. UnsupportedOption for an option that nobody has taken."""
        if self.left:
            self._rest()
        fields = {**self._row.body, **self.fields} if self._row.body else self.fields
        return Sending(path, dumps(fields), dropped=self._options.dropped)

    def raw(self, path: str, body: bytes, content_type: str) -> Sending:
        """The same for a body that is no JSON."""
        self._rest()
        return Sending(path, body, content_type, self._options.dropped)

    def _rest(self) -> None:
        for option in self.left:
            self.refuse(option, "this API has no such option")


@lru_cache(maxsize=64)
def _options(task: Any) -> tuple[tuple[str, Any], ...]:
    """Every option of a task with its default; what must be given is no option."""
    out = []
    for f in fields(task):
        default = f.default if f.default_factory is MISSING else f.default_factory()
        if f.name != "meta" and default is not MISSING:
            out.append((f.name, default))
    return tuple(out)
