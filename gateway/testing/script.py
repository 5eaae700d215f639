"""What the loopback server answers: pure functions from a request's JSON to a reply's JSON.

Nothing here touches a socket, a clock or chance, so the same request always gets the same answer. The shapes
are those of the OpenAI HTTP API: Chat Completions, Completions and Embeddings.
"""

import base64
import hashlib
import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.testing.schemas import Unbuildable, instance

JSON = dict[str, Any]
Answer = Callable[[JSON], str]

CREATED = 1_700_000_000  # fixed: a reply that told the time would differ from run to run
DIMENSIONS = 64
MARKS = {"image_url": "[image]", "input_image": "[image]", "input_audio": "[audio]"}


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer said word for word: what is left out is what the server would have said by itself.

    `tool_calls` holds (name, arguments); arguments given as a string are sent as they are, even if they are
    no JSON. `chunks` are raw deltas of a stream, sent instead of those made from the text; one with "choices"
    is sent as a whole chunk, a string as the data line's content. Limits of the request (`stop`,
    `max_tokens`) leave a given text alone. `headers` are added to the HTTP headers.
    """

    text: str | None = None
    tool_calls: Sequence[tuple[str, Mapping[str, Any] | str]] = ()
    chunks: Sequence[Mapping[str, Any] | str] = ()
    usage: Mapping[str, Any] | None = None
    reasoning: str | None = None
    finish_reason: str | None = None
    headers: Mapping[str, str] | None = None


class Refusal(Exception):
    """A request that the API refuses; `.body` is the error as OpenAI words it."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = error(status, message, param=param, code=code)


def error(status: int, message: str, *, param: str | None = None, code: str | None = None) -> JSON:
    """The body of an error of that status, in OpenAI's shape."""
    kinds = {429: "rate_limit_error", 401: "authentication_error", 403: "permission_error"}
    kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def tokens(text: str) -> list[str]:
    """The text in tokens, which joined give it again: at most four characters, with the space before them."""
    return re.findall(r"\s*\S{1,4}|\s+", text)


def said(message: Mapping[str, Any]) -> str:
    """The words of one message; other parts become "[image]", "[audio]" or their type in brackets."""
    content = message.get("content")
    if not isinstance(content, list):
        return str(content or "")
    parts = (part if isinstance(part, dict) else {"text": str(part)} for part in content)
    return " ".join(
        str(part["text"]) if "text" in part else MARKS.get(str(part.get("type")), f"[{part.get('type')}]") for part in parts
    )


def last_user(body: JSON) -> str:
    """The words of the last user message, or "" when there is none."""
    return next((said(each) for each in reversed(body["messages"]) if each["role"] == "user"), "")


def echo(body: JSON) -> str:
    """The default answer: it says back what the user said last."""
    return f"You said: {last_user(body)}"


def chat(body: JSON, *, number: int = 1, reply: Reply | None = None, answer: Answer = echo) -> JSON:
    """The reply to POST /chat/completions, not streamed; raises Refusal for a body that the API refuses."""
    model, messages = required(body, "model", str), required(body, "messages", list)
    for at, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _bad(f"messages[{at}]", "a message is an object with a role")
    if not messages:
        raise _bad("messages", "empty array")
    if body.get("n") not in (None, 1):
        raise _bad("n", "this server makes one choice")
    reply = reply or Reply()
    scripted = reply.text is not None or bool(reply.tool_calls or reply.chunks)
    effort = body.get("reasoning_effort")
    reasoning = reply.reasoning or (f"Thinking it over, effort {effort}." if effort not in (None, "none") else None)
    wanted = [*reply.tool_calls] if scripted else _chosen_calls(body)
    first = 1 + sum(len(each.get("tool_calls") or ()) for each in messages)  # an id is used once in a conversation
    calls = [_call(f"call_{at}", name, given) for at, (name, given) in enumerate(wanted, first)]
    text, finish = reply.text, "tool_calls" if calls else "stop"
    if not scripted and not calls:
        reasoning, text, finish = _limited(reasoning, _own_words(body, answer), body)
    elif reply.chunks and text is None:
        text = "".join(each.get("content") or "" for each in reply.chunks if not isinstance(each, str))

    said_back: JSON = {"role": "assistant", "content": text}
    said_back |= {"reasoning_content": reasoning} if reasoning else {}
    said_back |= {"tool_calls": calls} if calls else {}
    heard = sum(len(tokens(said(message))) for message in messages)
    thought = len(tokens(reasoning or ""))
    told = thought + len(tokens(text or ""))
    told += sum(len(tokens(part)) for each in calls for part in each["function"].values())
    usage: JSON = {"prompt_tokens": heard, "completion_tokens": told, "total_tokens": heard + told}
    usage |= {"completion_tokens_details": {"reasoning_tokens": thought}} if thought else {}
    choice = {
        "index": 0,
        "message": said_back,
        "logprobs": None,
        "finish_reason": reply.finish_reason or finish,
    }
    return {
        "id": f"chatcmpl-{number}", "object": "chat.completion", "created": CREATED, "model": model,
        "choices": [choice], "usage": usage if reply.usage is None else dict(reply.usage),
    }  # fmt: skip


def complete(body: JSON, *, number: int = 1, reply: Reply | None = None, answer: Answer = echo) -> JSON:
    """The reply to POST /completions, which takes one prompt, not streamed."""
    prompt = required(body, "prompt", (str, list))
    if isinstance(prompt, list):
        prompt = prompt[0] if len(prompt) == 1 else None
    if not isinstance(prompt, str):
        raise _bad("prompt", "this server takes one string")
    asked: JSON = {"messages": [{"role": "user", "content": prompt}]}
    asked |= {key: body[key] for key in body.keys() & {"model", "n", "stop", "max_tokens"}}
    made = chat(asked, number=number, reply=reply, answer=answer)
    [choice] = made["choices"]
    choice["text"] = choice.pop("message")["content"] or ""
    return made | {"id": f"cmpl-{number}", "object": "text_completion"}


def streamed(made: JSON, *, chunks: Sequence[Mapping[str, Any] | str] = (), include_usage: bool = False) -> list[Any]:
    """A whole reply as the payloads of a stream, without the last [DONE]; `chunks` are those of a Reply."""
    [choice] = made["choices"]
    top = {key: made[key] for key in ("id", "object", "created", "model")}
    top |= {"usage": None} if include_usage else {}
    is_chat = "message" in choice
    if is_chat:
        top["object"] = "chat.completion.chunk"

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> JSON:
        piece = {"delta": delta} if is_chat else {"text": delta.get("content", "")}
        return {**top, "choices": [{"index": 0, **piece, "logprobs": None, "finish_reason": finish}]}

    deltas = chunks or _deltas(choice["message"] if is_chat else {"content": choice["text"]})
    sent: list[Any] = [each if isinstance(each, str) or "choices" in each else chunk(each) for each in deltas]
    sent.append(chunk({}, choice["finish_reason"]))
    return [*sent, {**top, "choices": [], "usage": made["usage"]}] if include_usage else sent


def embed(body: JSON) -> JSON:
    """The reply to POST /embeddings: unit vectors of hashed words, nearer the more words two texts share."""
    model, given = required(body, "model", str), required(body, "input", (str, list))
    texts = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given
    bags = [_words(text) for text in texts]
    if not bags or not all(bags):
        raise _bad("input", "a text must not be empty")
    size = body.get("dimensions", DIMENSIONS)
    encoding = body.get("encoding_format", "float")
    if not isinstance(size, int) or size < 1 or encoding not in ("float", "base64"):
        raise _bad("dimensions" if encoding in ("float", "base64") else "encoding_format", "no such value")
    data = []
    for at, bag in enumerate(bags):
        vector: Any = _vector(bag, size)
        if encoding == "base64":
            vector = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
        data.append({"object": "embedding", "index": at, "embedding": vector})
    count = sum(map(len, bags))
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def required(body: JSON, name: str, kind: type | tuple[type, ...]) -> Any:
    """The field of that name; a Refusal that names it when it is missing or of another type."""
    if name not in body:
        code = "missing_required_parameter"
        raise Refusal(400, f"Missing required parameter: '{name}'.", param=name, code=code)
    if not isinstance(body[name], kind):
        raise _bad(name, "wrong type")
    return body[name]


def _bad(param: str, why: str) -> Refusal:
    return Refusal(400, f"Invalid '{param}': {why}.", param=param, code="invalid_value")


def _call(call_id: str, name: str, given: Mapping[str, Any] | str) -> JSON:
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _chosen_calls(body: JSON) -> list[tuple[str, Mapping[str, Any]]]:
    given = body.get("tools") or ()
    tools: list[Any] = [each.get("function") for each in given if isinstance(each, dict)]
    if len(tools) < len(given) or not all(isinstance(tool, dict) and tool.get("name") for tool in tools):
        raise _bad("tools", "a tool is an object with a function that has a name")
    choice = body.get("tool_choice") or ("auto" if tools else "none")
    asked = last_user(body)
    wanted = [tool for tool in tools if re.search(rf"\b{re.escape(tool['name'])}\b", asked)]
    if choice == "none" or (choice == "auto" and body["messages"][-1]["role"] == "tool"):
        wanted = []
    elif choice == "required":
        wanted = wanted or tools[:1]
    elif choice != "auto":
        name = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
        wanted = [tool for tool in tools if tool["name"] == name]
    if choice not in ("none", "auto") and not wanted:
        raise _bad("tool_choice", "no such tool in 'tools'")
    if body.get("parallel_tool_calls") is False:
        wanted = wanted[:1]
    return [(tool["name"], _made(tool.get("parameters") or {"type": "object"}, "tools")) for tool in wanted]


def _own_words(body: JSON, answer: Answer) -> str:
    form = body.get("response_format") or {"type": "text"}
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_schema":
        schema = (form.get("json_schema") or {}).get("schema")
        if not isinstance(schema, dict):
            raise _bad("response_format", "json_schema.schema must be an object")
        return json.dumps(_made(schema, "response_format"), ensure_ascii=False)
    if kind not in ("text", "json_object"):
        raise _bad("response_format", "unknown type")
    messages = body["messages"]
    if messages[-1]["role"] == "tool":
        after = 1 + max((at for at, each in enumerate(messages) if each["role"] != "tool"), default=-1)
        text = "The tool said: " + "; ".join(map(said, messages[after:]))
    else:
        text = answer(body)
    return json.dumps({"answer": text}, ensure_ascii=False) if kind == "json_object" else text


def _made(schema: Any, param: str) -> Any:
    try:
        return instance(schema)
    except Unbuildable as why:
        raise _bad(param, f"no value satisfies the schema: {why}") from why


def _limited(reasoning: str | None, text: str, body: JSON) -> tuple[str | None, str, str]:
    stops = body.get("stop") or []
    stops = [stops] if isinstance(stops, str) else stops
    if not isinstance(stops, list) or not all(isinstance(each, str) and each for each in stops):
        raise _bad("stop", "expected a string or an array of strings")
    text = text[: min((at for at in map(text.find, stops) if at >= 0), default=len(text))]
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    most = body.get(name)
    if most is None:
        return reasoning, text, "stop"
    if not isinstance(most, int) or most < 1:
        raise _bad(name, "expected an integer of at least 1")
    thought, spoken = tokens(reasoning or ""), tokens(text)
    finish = "length" if len(thought) + len(spoken) > most else "stop"
    return "".join(thought[:most]) or None, "".join(spoken[: max(0, most - len(thought))]), finish


def _deltas(message: JSON) -> Iterable[JSON]:
    text, calls = message["content"], message.get("tool_calls", ())
    yield {"role": "assistant", "content": None if text is None else ""}
    yield from ({"reasoning_content": piece} for piece in tokens(message.get("reasoning_content", "")))
    yield from ({"content": piece} for piece in tokens(text or ""))
    for at, call in enumerate(calls):
        yield {"tool_calls": [{"index": at, **call, "function": {**call["function"], "arguments": ""}}]}
        for piece in tokens(call["function"]["arguments"]):
            yield {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}


def _words(text: Any) -> list[str]:
    if isinstance(text, list):  # token ids stand for themselves
        return [str(each) for each in text]
    return (re.findall(r"\w+", text.lower()) or text.split()) if isinstance(text, str) else []


def _vector(words: Iterable[str], size: int) -> list[float]:
    sums = [0.0] * size
    for word in words:
        # A byte is never 127.5, so no word is a zero vector.
        digest = hashlib.shake_128(word.encode("utf-8", "surrogatepass")).digest(size)
        sums = [total + byte - 127.5 for total, byte in zip(sums, digest, strict=True)]
    length = math.hypot(*sums) or 1.0
    return [each / length for each in sums]
