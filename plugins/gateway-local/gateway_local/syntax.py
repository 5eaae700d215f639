"""How models write tool calls and thoughts, by the family that a chat template's own text shows. Pure; no torch.

The formats are those that the templates themselves ask for; where they leave something open, what vLLM and llama.cpp read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Thoughts(NamedTuple):
    """The marks around what a model thinks."""

    opens: str
    closes: str


PAIRS = (Thoughts("<think>", "</think>"), Thoughts("[THINK]", "[/THINK]"))
RESPONSE = ("<response>", "</response>")
"""What Granite puts around its answer after a thought; it is not shown."""


Tagged = Callable[[str, bool, Mapping[str, Any]], str | None]
"""Arguments as written, whether their end was, and their schemas by name: as JSON, None where they cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family of models writes a call.

    ``opens`` [``[``] JSON object, ... [``closes``]; or, with `head`, ``opens`` head arguments [``closes``].
    """

    name: str
    opens: tuple[str, ...] = ()
    """What begins a call, or a list of them. Without any, a reply may begin with the JSON of a call."""
    closes: str = ""
    """What ends it; "" where its JSON's own end does."""
    head: re.Pattern[str] | None = None
    """What comes before the arguments; group `name` is the tool's. Without one it is all JSON, name and arguments."""
    begins: str = ""
    """How a head begins, where that is always the same."""
    never: re.Pattern[str] | None = None
    """What no head begins with."""
    tagged: Tagged | None = None
    """Reads arguments that are no JSON."""
    dropped: tuple[str, ...] = ()
    """Marks around calls that say nothing themselves."""
    forced: str = ""
    """How a call that must come begins, up to its JSON; ``{name}`` is the tool's. "" where that is no JSON."""
    key: str = "arguments"
    """The key of the arguments, where name and arguments are one JSON object."""

    @property
    def marks(self) -> frozenset[str]:
        """Every mark that must stay visible in the decoded text."""
        return frozenset({*self.opens, *self.dropped, self.closes}) - {""} | EXTRA.get(self.name, frozenset())

    def forced_for(self, tools: Sequence[Any]) -> bool:
        """Whether it can be held to calling one of these tools: where a name comes first, there must be but one."""
        by_name = self.head is not None or "{name}" in self.forced
        return self.tagged is None and (not by_name or len(tools) == 1)


def valued(text: str, schema: Any) -> Any:
    """An argument that is written bare: a text where its schema says so, else the JSON that it is, else a text."""
    if isinstance(schema, Mapping) and schema.get("type") == "string":
        return text
    words = {"True": True, "False": False, "None": None}  # templates write them as Python does
    bare = text.strip()
    try:
        return words[bare] if bare in words else json.loads(bare)
    except (ValueError, RecursionError):
        return text


def paired(pattern: re.Pattern[str], end: str = "") -> Tagged:
    """Reads arguments that are written one after the other, each as `pattern` has it: groups `key` and `value`.

    They end with `end`; without one, what follows them must have been written.
    """

    def read(text: str, ended: bool, schemas: Mapping[str, Any]) -> str | None:
        text = text.strip()
        if not (text.endswith(end) if end else ended):
            return None
        out, at, text = {}, 0, text.removesuffix(end)
        for found in pattern.finditer(text):
            if text[at : found.start()].strip():
                return None
            key = found["key"].strip()
            out[key], at = valued(found["value"], schemas.get(key)), found.end()
        return None if text[at:].strip() else dumped(out)

    return read


def escaped(text: str, ended: bool, schemas: Mapping[str, Any]) -> str | None:
    """FunctionGemma's: ``{place:<escape>Rome<escape>,days:2}``."""
    pieces = text.strip().split("<escape>")
    for at, piece in enumerate(pieces):
        quoted = re.sub(r"([{,]\s*)([^\s{}\[\],:\"]+)\s*:", lambda found: f"{found[1]}{json.dumps(found[2])}: ", piece)
        pieces[at] = json.dumps(piece, ensure_ascii=False) if at % 2 else quoted
    try:
        value = json.loads("".join(pieces))
    except (ValueError, RecursionError):
        return None
    return dumped(value) if isinstance(value, dict) else None


HERMES = Family(name="hermes", opens=("<tool_call>",), closes="</tool_call>", forced="<tool_call>\n")
QWEN_CODER = Family(
    name="qwen-coder", opens=("<tool_call>",), closes="</tool_call>", begins="<function=",
    head=re.compile(r"\s*<function=(?P<name>[^>\n]+)>"),
    tagged=paired(re.compile(r"<parameter=(?P<key>[^>\n]+)>\n?(?P<value>.*?)\n?</parameter>", re.DOTALL), "</function>"),
)  # fmt: skip
GLM = Family(
    name="glm", opens=("<tool_call>",), closes="</tool_call>",
    head=re.compile(r"\s*(?P<name>[^\s<{\[]+)\s*(?=<arg_key>|</tool_call>)"), never=re.compile(r"[^\s<]+\s+[^\s<]"),
    tagged=paired(
        re.compile(r"<arg_key>(?P<key>.*?)</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>", re.DOTALL)
    ),
)  # fmt: skip
LLAMA = Family(name="llama", dropped=("<|python_tag|>",), forced="", key="parameters")
MISTRAL = Family(name="mistral", opens=("[TOOL_CALLS]",), forced="[TOOL_CALLS] [")
MISTRAL_ARGS = Family(
    name="mistral-args", opens=("[TOOL_CALLS]",), forced="[TOOL_CALLS]{name}[ARGS]",
    head=re.compile(r"\s*(?P<name>[^\s\[{]+)\s*(?:\[CALL_ID\][^\[{]*)?(?:\[ARGS\])?\s*(?=\{)"),
)  # fmt: skip
DEEPSEEK = Family(
    name="deepseek", opens=("<｜tool▁call▁begin｜>",), closes="<｜tool▁call▁end｜>",
    head=re.compile(
        r"\s*(?:\w*<｜tool▁sep｜>\s*(?P<old>[^\s<]+)\s*```json|(?P<new>[^\s<]+)<｜tool▁sep｜>)\s*(?=\{)"
    ),
    dropped=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    forced="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{name}<｜tool▁sep｜>",
)  # fmt: skip
DEEPSEEK_JSON = Family(
    name="deepseek-json", opens=DEEPSEEK.opens, closes=DEEPSEEK.closes, head=DEEPSEEK.head, dropped=DEEPSEEK.dropped,
    forced="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n",
)  # fmt: skip
PHI = Family(name="phi", opens=("<|tool_call|>",), closes="<|/tool_call|>", forced="<|tool_call|>[")
GRANITE = Family(name="granite", opens=("<|tool_call|>",), forced="<|tool_call|>[")
GEMMA = Family(
    name="gemma", opens=("<start_function_call>",), closes="<end_function_call>", begins="call:",
    head=re.compile(r"\s*call:(?P<name>[^\s{]+)\s*(?=\{)"), tagged=escaped,
)  # fmt: skip
HARMONY = Family(name="harmony", forced="<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>")

EXTRA: Mapping[str, frozenset[str]] = {
    "mistral-args": frozenset({"[ARGS]", "[CALL_ID]"}),
    "deepseek": frozenset({"<｜tool▁sep｜>"}),
    "deepseek-json": frozenset({"<｜tool▁sep｜>"}),
    "glm": frozenset({"<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"}),
    "gemma": frozenset({"<escape>"}),
    "harmony": frozenset({"<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>"}),
}
"""Marks within a call."""

SHOWN: tuple[tuple[tuple[str, ...], Family], ...] = (
    (("<|channel|>", "<|message|>"), HARMONY),
    (("<｜tool▁call▁begin｜>", "```json"), DEEPSEEK_JSON),
    (("<｜tool▁call▁begin｜>",), DEEPSEEK),
    (("[TOOL_CALLS]", "[ARGS]"), MISTRAL_ARGS),
    (("[TOOL_CALLS]",), MISTRAL),
    (("<start_function_call>",), GEMMA),
    (("<tool_call>", "<arg_key>"), GLM),
    (("<tool_call>", "<function="), QWEN_CODER),
    (("<tool_call>",), HERMES),
    (("<|tool_call|>", "<|/tool_call|>"), PHI),
    (("<|tool_call|>",), GRANITE),
    (("<|start_header_id|>", '"parameters"'), LLAMA),
)
"""What a template of each family holds; the first that fits is it."""


def family_of(template: str) -> Family | None:
    """The family whose calls a template speaks of, None where it speaks of none that is known."""
    return next((family for shown, family in SHOWN if all(mark in template for mark in shown)), None)


def thoughts_of(template: str) -> Thoughts | None:
    """The marks of thoughts that a template speaks of."""
    return next((pair for pair in PAIRS if pair.closes in template or pair.opens in template), None)


def drops_of(template: str) -> tuple[str, ...]:
    """Marks around answers that are not shown."""
    return RESPONSE if all(mark in template for mark in RESPONSE) else ()


def markers(template: str) -> frozenset[str]:
    """Every mark that the parser of a template's replies must see, special token or not."""
    family, thoughts = family_of(template), thoughts_of(template)
    return (family.marks if family else frozenset()) | frozenset(thoughts or ()) | frozenset(drops_of(template))


KEYS = ("name", "type", "function", "parameters", "arguments", "id")
"""What the JSON of a call may begin with."""
FIRST = re.compile(r'\{\s*"(\w*)"')
FIRST_CUT = re.compile(r'\{\s*(?:"(\w*))?\Z')
NAMED = re.compile(r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")')
ARGUED = re.compile(r'\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')


class Head(NamedTuple):
    """The beginning of a call's JSON. `arguments`: where its arguments begin; 0 while that is not known."""

    name: str = ""
    arguments: int = 0


def call_head(text: str) -> Head | None:
    """What is known of a call from the beginning of its JSON; None where it can be no call."""
    first = FIRST.match(text)
    if first is None:
        cut = FIRST_CUT.match(text)
        return Head() if cut and any(key.startswith(cut[1] or "") for key in KEYS) else None
    if first[1] not in KEYS:
        return None
    named = NAMED.match(text)
    if named is None:
        return Head()
    try:
        name = str(json.loads(named[1]))
    except ValueError:
        return None
    argued = ARGUED.match(text, named.end())
    return Head(name, argued.end() if argued else 0) if name else None


def call_in(text: str) -> tuple[str, str] | None:
    """The name and the arguments' JSON in a call's whole JSON, None where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    value = value["function"] if isinstance(value, dict) and isinstance(value.get("function"), dict) else value
    if not isinstance(value, dict):
        return None
    name, arguments = value.get("name", value.get("function")), value.get("arguments", value.get("parameters"))
    written = arguments if isinstance(arguments, str) else dumped({} if arguments is None else arguments)
    return (name, written) if isinstance(name, str) and name and written is not None else None


def dumped(value: Any) -> str | None:
    """A value as JSON, None where it is nested too deeply."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return None


def schemas_of(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schemas of a tool's arguments by name."""
    properties = parameters.get("properties")
    return properties if isinstance(properties, Mapping) else {}


class Scan:
    """How deep in brackets a growing JSON text is, whatever pieces it comes in."""

    def __init__(self, closes: str, depth: int = 0) -> None:
        self._pattern = re.compile(r"\\.|[\"{}\[\]]" + (f"|{re.escape(closes)}" if closes else ""), re.DOTALL)
        self._closes = closes
        self._depth, self._quoted = depth, False
        self.at = 0
        """Up to here it has been read."""

    def step(self, text: str, *, last: bool = False) -> int | None:
        """The end of the value in `text`: after its last bracket, or where the call's end is; None while there is none."""
        limit = len(text) - (0 if last else overlap(text, (self._closes,)))
        for found in self._pattern.finditer(text, self.at, limit):
            mark, self.at = found[0], found.end()
            if mark == '"':
                self._quoted = not self._quoted
            elif self._quoted or mark[0] == "\\":
                continue
            elif mark == self._closes:
                self.at = found.start()
                return self.at
            else:
                self._depth += 1 if mark in "{[" else -1
                if self._depth <= 0:
                    return self.at
        self.at = limit - (1 if self.at < limit and text.endswith("\\", self.at, limit) else 0)
        return None

    def cut(self, size: int) -> None:
        """The text is to begin `size` characters later."""
        self.at -= size


def overlap(text: str, marks: tuple[str, ...]) -> int:
    """How many characters at the end of a text may be the beginning of a mark."""
    return max((size for mark in marks for size in range(1, len(mark)) if text.endswith(mark[:size])), default=0)
