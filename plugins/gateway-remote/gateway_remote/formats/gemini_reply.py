"""Replies of Gemini's generateContent API as responses: whole ones here, streams in gemini_stream.py. No I/O.

A whole reply is read as a stream of one chunk, so that both ways of asking give the same parts.

A `thoughtSignature` may stand on a part of any kind, and has to go back on the same part. Here it is always the signature of a
Reasoning part, and its tag says which part of the wire it belongs to:

    "gemini:..."     on a thought: the signature of that thought itself
    "gemini:>..."    on a call or on media: a Reasoning part without text, right before it
    "gemini:<..."    on text: a Reasoning part without text, right after it

After the text and not before it, because a stream brings it last, often on a text of its own that is empty: what has been
delivered by then cannot be moved. Such an empty text is taken for the end of the text before it, and a signature ends a text:
what comes then is another part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from gateway import (
    Audio,
    Chat,
    ChatResponse,
    ContentFiltered,
    Delta,
    Denied,
    Embed,
    EmbedResponse,
    File,
    Finish,
    Image,
    Logprob,
    Part,
    Rejected,
    ServiceError,
    ToolCall,
    Usage,
    assemble,
)
from gateway_remote.failures import payload_failure
from gateway_remote.formats.api import Heard
from gateway_remote.formats.gemini_citations import Sources
from gateway_remote.formats.openai_reply import checked_vectors, vector_of
from gateway_remote.formats.values import (
    arguments_of,
    bad,
    broken,
    count,
    each_said,
    estimate,
    finish_of,
    holds_error,
    number,
    object_of,
    objects,
    said,
    string,
    unbase64,
    value_of,
)

TAG = "gemini:"
"""What begins a signature of this format."""
BEFORE, AFTER = TAG + ">", TAG + "<"
"""What begins one that belongs to the part after it, or to the part before it; base64 has neither sign."""

FINISHES: Mapping[str, Finish] = {
    "STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length",
    "SAFETY": "filter", "RECITATION": "filter", "BLOCKLIST": "filter", "PROHIBITED_CONTENT": "filter", "SPII": "filter",
    "LANGUAGE": "filter", "ESCALATION": "filter", "MODEL_ARMOR": "filter", "IMAGE_SAFETY": "filter",
    "IMAGE_PROHIBITED_CONTENT": "filter", "IMAGE_RECITATION": "filter",
}  # fmt: skip
"""`google.genai.types.FinishReason`."""
BROKEN_OFF = frozenset({"FINISH_REASON_UNSPECIFIED", "OTHER", "IMAGE_OTHER", "NO_IMAGE"})
"""It stopped, and the API does not say why."""
MALFORMED = frozenset({"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"})
"""What the model wrote is none of what was asked for; it may well be when it is asked again."""


class Turn:
    """One reply as its chunks come, each a GenerateContentResponse; of several candidates the first.

    Text that is of one kind goes on in one part, until another kind, or a signature, comes between.
    """

    def __init__(self, request: Chat, model: str) -> None:
        self.reason = ""
        """Why it ended, as the wire has it; "" until it has."""
        self.usage: Usage | None = None
        self.logprobs: list[Logprob] = []
        self.id = self.served_by = ""
        self._request, self._model = request, model
        self._parts = 0
        self._open, self._at = "", 0  # the kind of the part in which more text of that kind goes on, and its number
        self._answered = False
        self._calls = 0
        self._said: list[str] = []
        self._characters = 0
        self._sources = Sources()

    def add(self, chunk: Mapping[str, Any], *, whole: bool = False) -> list[Delta]:
        """What a chunk adds, or a whole reply. ContentFiltered when it says that the prompt is refused."""
        self.usage = usage_of(chunk.get("usageMetadata")) or self.usage
        self.id = self.id or string(chunk.get("responseId"))
        self.served_by = self.served_by or string(chunk.get("modelVersion"))
        candidate = next((each for each in objects(chunk.get("candidates")) if not each.get("index")), None)
        if candidate is None:
            feedback = chunk.get("promptFeedback")
            if isinstance(feedback, dict) and feedback.get("blockReason"):
                raise ContentFiltered(f"model {self._model!r}: the provider refuses this prompt", model=self._model)
            return []
        content = candidate.get("content")
        if not isinstance(content, dict) and content is not None:
            raise broken(self._model, "the content of the reply is no object")
        parts = each_said(content and content.get("parts"), self._model)
        out = [delta for part in parts for delta in self._part(part)]
        if self._request.logprobs is not None:
            self.logprobs += logprobs_of(candidate.get("logprobsResult"))
        self.reason = self.reason or said(candidate.get("finishReason"), self._model) or ("STOP" if whole else "")
        self._sources.hear(candidate)
        if self.reason:  # only now the text is whole that they speak of
            cited = self._sources.told("".join(self._said))
            out += [Delta("", self._next(), "whole", whole=citation) for citation in cited]
        return out

    def finish(self) -> Finish:
        """Why it ended. A ServiceError when that is a failure, or when a filter has left nothing of the answer."""
        reason, model = self.reason, self._model
        if reason in MALFORMED:
            raise broken(model, f"the reply ended with {reason}")
        if reason in BROKEN_OFF:
            raise ServiceError(f"model {model!r}: the provider broke the reply off ({reason})", model=model, retryable=True)
        if reason == "MISSING_THOUGHT_SIGNATURE":
            what = "it wants the signatures of an earlier turn: pass a reply's parts on whole, its reasoning among them"
            raise Rejected(f"model {model!r}: {what}", model=model, fallbackable=True)
        if reason == "PUP_LIMITED_DISABLED":
            raise Denied(f"model {model!r}: the provider has limited or disabled the account ({reason})", model=model)
        finish = finish_of(reason, FINISHES, model)
        if finish == "filter" and not self._answered:
            message = f"model {model!r}: the provider's filter has left nothing of the reply ({reason})"
            raise ContentFiltered(message, model=model, fallbackable=reason == "LANGUAGE")
        return "tool_calls" if finish == "stop" and self._calls else finish

    def _part(self, wire: Mapping[str, Any]) -> Iterator[Delta]:
        signature, thought, text = string(wire.get("thoughtSignature")), wire.get("thought") is True, wire.get("text")
        call = wire.get("functionCall")
        if call is not None:
            if not isinstance(call, dict):
                raise broken(self._model, "a tool call is no object")
            self._begin("")
            yield from self._before(signature)
            yield self._call(call)
        elif text is not None:
            yield from self._text(said(text, self._model), signature, "reasoning" if thought else "text")
        else:
            self._begin("")
            # Code that the provider runs, its own tools, and the pictures that a model only thinks of are no part of a reply.
            if not thought and (media := media_of(wire, self._model)) is not None:
                yield from self._before(signature)
                self._answered = True
                yield Delta("", self._next(), "whole", whole=media)

    def _text(self, text: str, signature: str, kind: Literal["text", "reasoning"]) -> Iterator[Delta]:
        if text or (signature and kind == "reasoning"):
            if self._open != kind:
                self._begin(kind)
                self._at = self._next()
            if kind == "reasoning":
                yield Delta(text, self._at, kind, signature=TAG + signature if signature else "")
            else:
                self._answered = True
                self._said.append(text)
                self._characters += len(text)
                yield Delta(text, self._at)
        if signature:
            self._open = ""
            if kind == "text":
                yield Delta("", self._next(), "reasoning", signature=AFTER + signature)

    def _call(self, wire: Mapping[str, Any]) -> Delta:
        name = string(wire.get("name"))
        if not name:
            raise broken(self._model, "a tool call without a name")
        if wire.get("partialArgs") or wire.get("willContinue"):
            raise bad(self._model, "a tool call comes in pieces: leave streamFunctionCallArguments out of the row's `body`")
        # Where the API gives none it is made, and is used once in a conversation.
        id = string(wire.get("id")) or f"call_{calls_in(self._request) + self._calls}"
        self._calls += 1
        self._answered = True
        return Delta(arguments_of(wire.get("args")) or "{}", self._next(), "tool_call", id, name)

    def _before(self, signature: str) -> Iterator[Delta]:
        if signature:
            yield Delta("", self._next(), "reasoning", signature=BEFORE + signature)

    def _begin(self, kind: str) -> None:
        """Another part of the wire."""
        self._open = kind
        self._sources.begin(self._characters)

    def _next(self) -> int:
        self._parts += 1
        return self._parts - 1


def chat_response(body: bytes, request: Chat, heard: Heard) -> ChatResponse:
    """The reply of POST :generateContent; or all chunks of :streamGenerateContent in a list, which it sends without alt=sse."""
    payload, model = value_of(body, heard), heard.model
    turn, deltas = Turn(request, model), list[Delta]()
    whole = not isinstance(payload, list)
    for chunk in [payload] if whole else payload:
        if not isinstance(chunk, dict):
            raise broken(model, "the reply is no JSON object")
        if holds_error(chunk):
            raise payload_failure(chunk, model=model, headers=heard.headers, now_s=heard.now_s)
        deltas += turn.add(chunk, whole=whole)
    if not turn.reason:
        raise broken(model, "the reply holds no candidate" if whole else "the stream ended early")
    parts = assemble(deltas)
    return ChatResponse(
        parts=parts,
        finish=turn.finish(),
        usage=turn.usage or estimate(request, parts),
        id=turn.id or heard.headers.get("x-request-id", ""),
        served_by=turn.served_by,
        logprobs=tuple(turn.logprobs),
        quota=heard.quota,
    )


def embed_response(body: bytes, request: Embed, heard: Heard) -> EmbedResponse:
    """The vectors of POST :batchEmbedContents, in the texts' order."""
    payload, model = object_of(body, heard), heard.model
    given = payload.get("embeddings")
    if not isinstance(given, list) or len(given) != len(request.texts):
        raise bad(model, f"{len(given) if isinstance(given, list) else 'no'} vectors for {len(request.texts)} texts")
    vectors = [vector_of(each.get("values") if isinstance(each, dict) else None, model) for each in given]
    used = usage_of(payload.get("usageMetadata")) or estimate(request)
    return EmbedResponse(vectors=checked_vectors(vectors, request, model), usage=used, quota=heard.quota)


def calls_in(request: Chat) -> int:
    """How many tool calls a conversation holds."""
    return sum(isinstance(part, ToolCall) for message in request.messages for part in message.parts)


def usage_of(wire: Any) -> Usage | None:
    """The counts as the server states them, None when it does not.

    The prompt's include the cached ones; the candidates' do not include the thoughts' (`GenerateContentResponseUsageMetadata`).
    """
    if not isinstance(wire, dict) or not isinstance(wire.get("promptTokenCount"), int):
        return None
    thoughts = count(wire.get("thoughtsTokenCount"))
    return Usage(
        input_tokens=count(wire.get("promptTokenCount")) + count(wire.get("toolUsePromptTokenCount")),
        cached_tokens=count(wire.get("cachedContentTokenCount")),
        output_tokens=count(wire.get("candidatesTokenCount")) + thoughts,
        reasoning_tokens=thoughts,
    )


def logprobs_of(wire: Any) -> Iterator[Logprob]:
    """What a candidate says of its tokens: those that it chose, and the likeliest ones at each step."""
    if not isinstance(wire, dict):
        return
    steps = wire.get("topCandidates")
    for at, chosen in enumerate(objects(wire.get("chosenCandidates"))):
        step = steps[at] if isinstance(steps, list) and at < len(steps) else None
        likeliest = objects(step.get("candidates")) if isinstance(step, dict) else []
        yield Logprob(*_token(chosen), tuple(map(_token, likeliest)))


def media_of(wire: Mapping[str, Any], model: str) -> Part | None:
    """The image, sound or document in a part, as bytes or as a URL; None when there is none."""
    inline, linked = wire.get("inlineData"), wire.get("fileData")
    where: dict[str, Any] = {}
    if isinstance(inline, dict):
        where, given = {"data": unbase64(inline.get("data", ""), model)}, inline
    elif isinstance(linked, dict) and string(linked.get("fileUri")):
        where, given = {"url": linked["fileUri"]}, linked
    else:
        return None
    kind = string(given.get("mimeType"))
    if kind.startswith("image/"):
        return Image(media_type=kind, **where)
    if kind.startswith("audio/"):
        return Audio(media_type=kind, **where)
    name = string(given.get("displayName"))
    return File(media_type=kind if "/" in kind else "application/octet-stream", name=name, **where)


def _token(wire: Mapping[str, Any]) -> tuple[str, float]:
    return string(wire.get("token")), number(wire.get("logProbability")) or 0.0
