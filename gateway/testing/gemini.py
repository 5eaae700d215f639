"""Gemini's generateContent API, as the loopback server speaks it. Truth: `google.genai.types`."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote

from gateway.testing.dialect import Asked, Dialect, Spoken, as_event, as_json, said_by
from gateway.testing.http11 import Request
from gateway.testing.script import JSON, Refusal, embed, required, tokens

LIST = "/v1beta/models"
CALL = re.compile(
    r"/v1(?:alpha|beta)?/(?P<model>(?:models|tunedModels)/[^:]+)"
    r":(?P<verb>generateContent|streamGenerateContent|batchEmbedContents)"
)
FIELDS = frozenset(
    {
        "cachedContent", "contents", "continuationToken", "generationConfig", "labels", "safetySettings", "serviceTier",
        "store", "systemInstruction", "toolConfig", "tools",
    }
)  # fmt: skip
"""What a request may hold (`_GenerateContentParameters_to_mldev`)."""
SETTINGS = frozenset(
    {
        "audioTranscriptionConfig", "candidateCount", "enableEnhancedCivicAnswers", "frequencyPenalty", "imageConfig",
        "logprobs", "maxOutputTokens", "mediaResolution", "presencePenalty", "responseJsonSchema", "responseLogprobs",
        "responseMimeType", "responseModalities", "responseSchema", "seed", "speechConfig", "stopSequences", "temperature",
        "thinkingConfig", "topK", "topP",
    }
)  # fmt: skip
"""What its generationConfig may (`_GenerateContentConfig_to_mldev`)."""
HELD = frozenset({"text", "inlineData", "fileData", "functionCall", "functionResponse"})
"""Of these a part holds one."""
CHOICES = {"AUTO": "auto", "ANY": "required", "NONE": "none", "VALIDATED": "auto", "MODE_UNSPECIFIED": "auto"}
LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")
FINISHES = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
STATUSES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ABORTED",
    429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 500: "INTERNAL", 501: "UNIMPLEMENTED", 503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}  # fmt: skip
REASONS = {"invalid_api_key": "API_KEY_INVALID"}
FACTS = {
    "version": "1", "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536,
    "supportedGenerationMethods": ["generateContent", "batchEmbedContents"],
}  # fmt: skip
BYPASS = "skip_thought_signature_validator"
"""What may stand for the signature of a call that another model made."""


class Gemini(Dialect):
    """Gemini's generateContent API, for a model that thinks and signs as Gemini 3 does; one named gemini-2 signs nothing.

    The first call of a turn is signed, and so is the end of a text that it thought about; a call that comes back without its
    signature is refused. A call gets no id. `chunks` are text (``{"content": ...}``), whole chunks, or strings, sent as the
    content of a data line; a script's `usage` may be in either API's form.
    """

    def takes(self, path: str) -> bool:
        return path == LIST or CALL.fullmatch(path) is not None

    def method(self, path: str) -> str:
        return "GET" if path == LIST else "POST"

    def key(self, request: Request) -> str:
        return request.headers.get("x-goog-api-key") or parse_qs(request.query).get("key", [""])[0]

    def model(self, request: Request) -> str:
        found = CALL.fullmatch(request.path)
        return unquote(found["model"]).removeprefix("models/") if found else ""

    def speak(self, asked: Asked) -> Spoken:
        query = {name: values[0] for name, values in parse_qs(asked.request.query).items()}
        found = CALL.fullmatch(asked.request.path)
        if found is None:
            return Spoken([as_json(listing(asked.models, query))])
        model = self.model(asked.request)
        if found["verb"] == "batchEmbedContents":
            return Spoken([as_json(embeddings(asked.body, model))])
        whole = response(said_by(asked, chat_of(asked.body, model)), number=asked.number)
        if found["verb"] == "generateContent":
            return Spoken([as_json(whole)])
        sent = chunks_of(whole, chunks=asked.reply.chunks if asked.reply else ())
        if query.get("alt") == "sse":
            return Spoken([as_event(each) for each in sent], True)
        return Spoken([as_json(sent)])

    def error(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> JSON:
        told: JSON = {"code": status, "message": message, "status": STATUSES.get(status, "UNKNOWN")}
        details: list[JSON] = []
        if code is not None:
            info = "type.googleapis.com/google.rpc.ErrorInfo"
            details.append({"@type": info, "reason": REASONS.get(code, code.upper()), "domain": "googleapis.com"})
        if param is not None:
            violations = [{"field": param, "description": message}]
            details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations})
        return {"error": {**told, "details": details} if details else told}


def chat_of(body: JSON, model: str) -> JSON:
    """The same request as one of Chat Completions. A Refusal for what the API does not take."""
    body = _known(body, FIELDS, "")
    chat: JSON = {"model": model, "messages": []}
    if system := body.get("systemInstruction"):
        chat["messages"].append({"role": "system", "content": _words(_parts(system, "systemInstruction"))})
    signs = "gemini-2" not in model
    called: list[str] = []
    for at, content in enumerate(required(body, "contents", list)):
        messages, called = _turn(content, called, f"contents[{at}]", signs=signs)
        chat["messages"] += messages
    if not body["contents"]:
        raise _refusal("contents", "contents are required")
    chat |= _settings(_known(body.get("generationConfig") or {}, SETTINGS, "generationConfig."), signs=signs)
    tools = [_known(tool, None, "tools.") for tool in body.get("tools") or ()]
    declared = [each for tool in tools for each in tool.get("functionDeclarations") or ()]
    if declared:
        chat["tools"] = [_tool(each) for each in declared]
    config = _known((body.get("toolConfig") or {}), None, "toolConfig.").get("functionCallingConfig") or {}
    if config:
        config = _known(config, frozenset({"mode", "allowedFunctionNames"}), "toolConfig.functionCallingConfig.")
        names, mode = config.get("allowedFunctionNames") or (), config.get("mode", "AUTO")
        if mode not in CHOICES or (names and mode not in ("ANY", "VALIDATED")):
            raise _refusal("toolConfig.functionCallingConfig.mode", "no such value, or none for allowed names")
        chat["tool_choice"] = {"type": "function", "function": {"name": names[0]}} if names else CHOICES[mode]
    return chat


def response(made: JSON, *, number: int) -> JSON:
    """A reply of Chat Completions as a GenerateContentResponse."""
    [choice] = made["choices"]
    said, finish, signs = choice["message"], choice["finish_reason"], "gemini-2" not in made["model"]
    parts: list[JSON] = []
    if thought := said.get("reasoning_content"):
        parts.append({"text": thought, "thought": True})
    if said["content"]:
        parts.append({"text": said["content"]})
        if thought and signs:
            parts[-1]["thoughtSignature"] = signature(said["content"])
    for at, call in enumerate(said.get("tool_calls", ())):
        name, arguments = call["function"]["name"], _arguments(call["function"]["arguments"])
        if arguments is None:
            parts, finish = [], "MALFORMED_FUNCTION_CALL"
            break
        parts.append({"functionCall": {"name": name, "args": arguments}})
        if at == 0 and signs:
            parts[-1]["thoughtSignature"] = signature(name)
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": FINISHES.get(finish, finish), "index": 0}
    return {
        "candidates": [candidate], "usageMetadata": _usage(made["usage"]), "modelVersion": made["model"],
        "responseId": f"response-{number}",
    }  # fmt: skip


def chunks_of(whole: JSON, *, chunks: Sequence[Mapping[str, Any] | str] = ()) -> list[Any]:
    """A whole reply as the chunks of its stream; the last one says why it ended, and holds the signature of a text."""
    [candidate] = whole["candidates"]
    around = {name: value for name, value in whole.items() if name != "candidates"}

    def chunk(part: JSON, **more: Any) -> JSON:
        return {"candidates": [{"content": {"parts": [part], "role": "model"}, "index": 0, **more}], **around}

    parts, last = candidate["content"]["parts"], {"text": ""}
    sent: list[Any] = []
    if chunks:
        for each in chunks:
            sent.append(chunk({"text": each["content"]}) if not isinstance(each, str) and "content" in each else each)
        if any(not isinstance(each, str) and "finishReason" in json.dumps(each) for each in sent):
            return sent
    else:
        for part in parts:
            sent += [chunk(piece) for piece in _pieces(part)]
            if "text" in part and "thoughtSignature" in part:
                last = {"text": "", "thoughtSignature": part["thoughtSignature"]}
    return [*sent, chunk(last, finishReason=candidate["finishReason"])]


def embeddings(body: JSON, model: str) -> JSON:
    """The reply of :batchEmbedContents."""
    out, heard = [], 0
    for at, each in enumerate(required(body, "requests", list)):
        where = f"requests[{at}]."
        each = _known(each, frozenset({"model", "content", "taskType", "title", "outputDimensionality"}), where)
        if each.get("model") != (model if model.startswith("tunedModels/") else f"models/{model}"):
            raise _refusal(f"{where}model", "must match the model in the URL")
        size = {} if each.get("outputDimensionality") is None else {"dimensions": each["outputDimensionality"]}
        made = embed({"model": model, "input": _words(_parts(each.get("content"), where)), **size})
        heard += made["usage"]["prompt_tokens"]
        out.append({"values": made["data"][0]["embedding"]})
    return {"embeddings": out, "usageMetadata": {"promptTokenCount": heard, "totalTokenCount": heard}}


def listing(models: Sequence[str], query: Mapping[str, str]) -> JSON:
    """The reply of GET /models, a page of it: `pageSize` of them, 50 where none is given."""
    start, size = int(query.get("pageToken", "0")), int(query.get("pageSize", "50"))
    listed = [{"name": f"models/{name}", "displayName": name, **FACTS} for name in models[start : start + size]]
    return {"models": listed} | ({"nextPageToken": str(start + size)} if start + size < len(models) else {})


def signature(said: str) -> str:
    """What proves that the model said this: always the same for the same words."""
    return base64.b64encode(hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()).decode()


def _known(value: Any, names: frozenset[str] | None, where: str) -> JSON:
    """An object by the JSON names of its fields; the API takes their original ones too. A Refusal for those it has not."""
    if not isinstance(value, dict):
        raise _refusal(where.rstrip("."), "expected an object")
    named = {re.sub(r"_([a-z])", lambda found: found[1].upper(), name): each for name, each in value.items()}
    if names is not None and (unknown := named.keys() - names):
        raise _refusal(where + min(unknown), "Unknown name: Cannot find field")
    return named


def _parts(content: Any, where: str) -> list[JSON]:
    parts = _known(content, frozenset({"role", "parts"}), where).get("parts")
    if not isinstance(parts, list) or not parts:
        raise _refusal(f"{where}.parts", "must not be empty")
    out = [_known(part, HELD | {"thought", "thoughtSignature"}, f"{where}.parts.") for part in parts]
    if not all(len(part.keys() & HELD) == 1 for part in out):
        raise _refusal(f"{where}.parts", "required oneof field 'data' must have one initialized field")
    return out


def _turn(content: Any, called: list[str], where: str, *, signs: bool) -> tuple[list[JSON], list[str]]:
    """A content's messages, and the calls in it that want results."""
    parts, role = _parts(content, where), content.get("role", "user")
    if role not in ("user", "model"):
        raise _refusal(f"{where}.role", "Please use a valid role: user, model")
    calls = [(part["functionCall"], part) for part in parts if "functionCall" in part]
    results = [part["functionResponse"] for part in parts if "functionResponse" in part]
    if role == "model":
        if results:
            raise _refusal(where, "a model's content holds no function response")
        if signs and calls and not _signed(*calls[0]):
            raise _refusal(f"{where}.parts", "Function call is missing a thought_signature, or has another's")
        made = [
            {
                "id": f"call_{at}",
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call.get("args") or {})},
            }
            for at, (call, _) in enumerate(calls)
        ]
        told = [part for part in parts if "functionCall" not in part and not part.get("thought")]
        message: JSON = {"role": "assistant", "content": _words(told)} | ({"tool_calls": made} if made else {})
        return [message], [call["name"] for call, _ in calls]
    if calls:
        raise _refusal(where, "a user's content holds no function call")
    if (results or called) and [each.get("name") for each in results] != called:
        raise _refusal(where, "the function responses must be those of the function calls of the turn before, in their order")
    answers = [{"role": "tool", "tool_call_id": f"call_{at}", "content": _result(each)} for at, each in enumerate(results)]
    asked = [part for part in parts if "functionResponse" not in part]
    return [*answers, *([{"role": "user", "content": _content(asked)}] if asked else [])], []


def _signed(call: JSON, part: JSON) -> bool:
    given = part.get("thoughtSignature", "")
    return bool(given == BYPASS or given.replace("-", "+").replace("_", "/") == signature(call["name"]))  # of either alphabet


def _settings(config: JSON, *, signs: bool) -> JSON:
    chat: JSON = {}
    thinking = _known(config.get("thinkingConfig") or {}, frozenset({"includeThoughts", "thinkingBudget", "thinkingLevel"}), "")
    level, budget = thinking.get("thinkingLevel"), thinking.get("thinkingBudget")
    if level is not None and (not signs or budget is not None or level not in LEVELS):
        raise _refusal("generationConfig.thinkingConfig", "thinking level is not supported for this model, or beside a budget")
    if thinking.get("includeThoughts"):
        chat["reasoning_effort"] = level.lower() if level else f"of {budget} tokens"
    if config.get("responseJsonSchema") is not None:
        if config.get("responseMimeType") != "application/json":
            raise _refusal("generationConfig.responseMimeType", "must be application/json with a schema")
        form = {"name": "answer", "schema": config["responseJsonSchema"]}
        chat["response_format"] = {"type": "json_schema", "json_schema": form}
    if config.get("logprobs") is not None and not config.get("responseLogprobs"):
        raise _refusal("generationConfig.logprobs", "may only be set with responseLogprobs")
    for theirs, ours in (("maxOutputTokens", "max_tokens"), ("stopSequences", "stop")):
        if config.get(theirs) is not None:
            chat[ours] = config[theirs]
    return chat


def _tool(declared: Any) -> JSON:
    fields = frozenset(
        {"name", "description", "parameters", "parametersJsonSchema", "behavior", "response", "responseJsonSchema"}
    )
    tool = _known(declared, fields, "tools.functionDeclarations.")
    return {"type": "function", "function": {"name": tool.get("name"), "parameters": tool.get("parametersJsonSchema")}}


def _content(parts: list[JSON]) -> Any:
    """A user's parts as those of Chat Completions; plain text as a string."""
    if all("text" in part for part in parts) and len(parts) == 1:
        return parts[0]["text"]
    return [{"type": "text", "text": part["text"]} if "text" in part else {"type": _kind(part)} for part in parts]


def _kind(part: JSON) -> str:
    data = _known(
        part.get("inlineData") or part.get("fileData"), frozenset({"data", "fileUri", "mimeType", "displayName"}), "parts."
    )
    if not (data.get("data") or data.get("fileUri")) or "/" not in data.get("mimeType", ""):
        raise _refusal("parts", "media want their data or their URI, and a mimeType")
    return {"image": "image_url", "audio": "input_audio"}.get(data["mimeType"].partition("/")[0], "file")


def _words(parts: list[JSON]) -> str:
    return "".join(part.get("text", "") for part in parts)


def _result(result: Any) -> str:
    told = _known(result, frozenset({"id", "name", "response"}), "functionResponse.").get("response")
    if not isinstance(told, dict):
        raise _refusal("functionResponse.response", "expected an object")
    return f"Error: {told['error']}" if "error" in told else str(told.get("output", json.dumps(told)))


def _arguments(text: str) -> Any:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _pieces(part: JSON) -> Iterator[JSON]:
    if "text" not in part:
        yield part
        return
    rest = {name: value for name, value in part.items() if name not in ("text", "thoughtSignature")}
    yield from ({"text": piece, **rest} for piece in tokens(part["text"]))


def _usage(counted: Mapping[str, Any]) -> JSON:
    if "promptTokenCount" in counted or "prompt_tokens" not in counted:
        return dict(counted)
    thoughts = (counted.get("completion_tokens_details") or {}).get("reasoning_tokens", 0)
    cached = (counted.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    told = counted["completion_tokens"] - thoughts
    usage: JSON = {"promptTokenCount": counted["prompt_tokens"], "candidatesTokenCount": told}
    usage |= {"totalTokenCount": counted["prompt_tokens"] + told + thoughts}
    return (
        usage | ({"thoughtsTokenCount": thoughts} if thoughts else {}) | ({"cachedContentTokenCount": cached} if cached else {})
    )


def _refusal(param: str, why: str) -> Refusal:
    return Refusal(400, f"Invalid value at '{param}': {why}.", param=param)
