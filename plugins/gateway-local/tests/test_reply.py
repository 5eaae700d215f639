"""What models write, as parts of a reply; whatever pieces it comes in."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from gateway_local.reply import ReplyParser, random_id
from gateway_local.syntax import family_of, markers
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import Delta, Part, Reasoning, Text, Tool, ToolCall, assemble

from . import template_case as t

PROPERTIES = {"place": {"type": "string"}, "days": {"type": "integer"}, "wet": {"type": "boolean"}, "at": {"type": "array"}}
LOOK = Tool(name="look", parameters={"type": "object", "properties": PROPERTIES})
TOOLS = (LOOK, Tool(name="wait"))
ONE, TWO = '{"name": "look", "arguments": ', '{"name": "wait", "arguments": {}}'
ROME, WAIT = '{"place": "Rome", "days": 2}', "{}"


def read(template: str, pieces: list[str], *, tools: Any = TOOLS, **options: Any) -> tuple[Part, ...]:
    """The reply that pieces of text add up to, which is also what its deltas add up to."""
    count = itertools.count(1)
    parser = ReplyParser.of(template, tools=tools, new_id=lambda: f"id{next(count)}", **options)
    deltas: list[Delta] = []
    for piece in pieces:
        deltas += parser.feed(piece)
    deltas += parser.flush()
    assert parser.parts == assemble(deltas)
    parts = sorted({delta.part for delta in deltas})
    assert parts == list(range(len(parts)))
    return parser.parts


def call(number: int, name: str, arguments: str) -> ToolCall:
    return ToolCall(f"id{number}", name, arguments)


HERMES_ONE = '<tool_call>\n{"name": "look", "arguments": ' + ROME + "}\n</tool_call>"
LOOKED = call(1, "look", ROME)
BOTH = (LOOKED, call(2, "wait", WAIT))
CASES: dict[str, tuple[str, str, tuple[Part, ...]]] = {
    "hermes": (t.HERMES, HERMES_ONE, (LOOKED,)),
    "hermes, text around": (t.HERMES, f"Let me see.\n{HERMES_ONE}\nSo.", (Text("Let me see."), LOOKED, Text("So."))),
    "hermes, two": (t.HERMES, HERMES_ONE + '\n<tool_call>{"name":"wait","arguments":{}}</tool_call>', BOTH),
    "hermes, text between": (
        t.HERMES, HERMES_ONE + ' and <tool_call>{"name": "wait"}</tool_call>', (LOOKED, Text("and"), BOTH[1]),
    ),
    "hermes, a list": (t.HERMES, f"<tool_call>[{ONE}{ROME}}}, {TWO}]</tool_call>", BOTH),
    "hermes, arguments first": (t.HERMES, '<tool_call>{"arguments": ' + ROME + ', "name": "look"}</tool_call>', (LOOKED,)),
    "hermes, arguments twice encoded": (
        t.HERMES, '<tool_call>{"name": "look", "arguments": "{\\"place\\": \\"Rome\\", \\"days\\": 2}"}</tool_call>', (LOOKED,),
    ),
    "hermes, no end": (t.HERMES, HERMES_ONE.removesuffix("\n</tool_call>"), (LOOKED,)),
    "hermes, a mark in an argument": (
        t.HERMES, '<tool_call>{"name": "look", "arguments": {"place": "</tool_call> } \\" {"}}</tool_call>.',
        (call(1, "look", '{"place": "</tool_call> } \\" {"}'), Text(".")),
    ),
    "hermes, arguments that are no JSON": (
        t.HERMES, "<tool_call>{\"name\": \"look\", \"arguments\": {'place': 1}}</tool_call>.",
        (call(1, "look", "{'place': 1}"), Text(".")),
    ),
    "hermes, a brace too few": (
        t.HERMES, '<tool_call>' + ONE + '{"days": 2</tool_call>.', (call(1, "look", '{"days": 2'), Text(".")),
    ),
    "hermes, cut": (t.HERMES, '<tool_call>{"name": "look", "arguments": {"place": "Ro', (call(1, "look", '{"place": "Ro'),)),
    "hermes, cut before its name": (t.HERMES, 'Well <tool_call>\n{"na', (Text('Well <tool_call>\n{"na'),)),
    "hermes, cut within its end": (t.HERMES, HERMES_ONE[:-5], (LOOKED,)),
    "hermes, cut within its mark": (t.HERMES, "Well\n<tool_c", (Text("Well\n<tool_c"),)),
    "hermes, no call": (t.HERMES, "The <tool_call> mark\nopens a call.", (Text("The <tool_call> mark\nopens a call."),)),
    "hermes, no name": (t.HERMES, '<tool_call>{"type": 1}</tool_call>', (Text('<tool_call>{"type": 1}</tool_call>'),)),
    "hermes, broken": (
        t.HERMES, '<tool_call>{"id" "look"}</tool_call> ' + HERMES_ONE, (Text('<tool_call>{"id" "look"}</tool_call>'), LOOKED),
    ),
    "think": (t.QWEN3, "<think>\nHm, so.\n</think>\n\nYes.", (Reasoning("Hm, so."), Text("Yes."))),
    "think, then call": (t.QWEN3, f"<think>\nHm.\n</think>\n\n{HERMES_ONE}", (Reasoning("Hm."), LOOKED)),
    "think, of a call": (t.QWEN3, "<think><tool_call>?</think>Yes.", (Reasoning("<tool_call>?"), Text("Yes."))),
    "think, cut": (t.QWEN3, "<think>\nHm, </thi", (Reasoning("Hm, </thi"),)),
    "think, nothing": (t.QWEN3, "<think>\n\n</think>\n\nYes.", (Text("Yes."),)),
    "think, later": (t.QWEN3, "Write <think>a</think>.", (Text("Write <think>a</think>."),)),
    "think, unknown to it": (t.HERMES, "<think>a</think>.", (Text("<think>a</think>."),)),
    "qwen-coder": (
        t.QWEN_CODER,
        "I look.\n<tool_call>\n<function=look>\n<parameter=place>\nRome\n<b>\n</parameter>\n<parameter=days>\n2\n</parameter>\n"
        "<parameter=wet>\nTrue\n</parameter>\n</function>\n</tool_call>\n<tool_call><function=wait></function></tool_call>",
        (Text("I look."), call(1, "look", '{"place": "Rome\\n<b>", "days": 2, "wet": true}'), BOTH[1]),
    ),
    "qwen-coder, cut": (
        t.QWEN_CODER, "<tool_call>\n<function=look>\n<parameter=place>\nRo", (call(1, "look", "<parameter=place>\nRo"),),
    ),
    "qwen-coder, no call": (t.QWEN_CODER, "<tool_call> is a mark", (Text("<tool_call> is a mark"),)),
    "glm": (
        t.GLM,
        "<tool_call>look\n<arg_key>place</arg_key>\n<arg_value>7</arg_value>\n<arg_key>at</arg_key>\n<arg_value>[1]</arg_value>\n"
        "</tool_call>\n<tool_call>wait\n</tool_call>",
        (call(1, "look", '{"place": "7", "at": [1]}'), BOTH[1]),
    ),
    "glm, cut": (
        t.GLM, "<tool_call>look\n<arg_key>a</arg_key><arg_value>1</arg_value>",
        (call(1, "look", "<arg_key>a</arg_key><arg_value>1</arg_value>"),),
    ),
    "glm, no call": (t.GLM, "<tool_call> is a mark", (Text("<tool_call> is a mark"),)),
    "llama": (t.LLAMA, '{"name": "look", "parameters": ' + ROME + "}", (LOOKED,)),
    "llama, two": (t.LLAMA, '{"name": "look", "parameters": ' + ROME + '}; {"name": "wait", "parameters": {}}', BOTH),
    "llama, tagged": (t.LLAMA, '<|python_tag|>{"name": "look", "parameters": ' + ROME + "}", (LOOKED,)),
    "llama, with a type": (t.LLAMA, '{"type": "function", "name": "look", "parameters": ' + ROME + "}", (LOOKED,)),
    "llama, other JSON": (t.LLAMA, '{"name": "Rome", "parameters": {}}', (Text('{"name": "Rome", "parameters": {}}'),)),
    "llama, code": (t.LLAMA, "<|python_tag|>print(1)", (Text("<|python_tag|>print(1)"),)),
    "llama, later": (t.LLAMA, 'So: {"name": "look", "parameters": {}}', (Text('So: {"name": "look", "parameters": {}}'),)),
    "mistral": (
        t.MISTRAL, f'[TOOL_CALLS] [{ONE}{ROME}, "id": "abcdefghi"}}, {TWO}]', BOTH,
    ),
    "mistral, cut": (t.MISTRAL, '[TOOL_CALLS] [{"name": "look", "arguments": ' + ROME + "}, ", (LOOKED,)),
    "mistral, args": (t.MISTRAL_ARGS, "So.[TOOL_CALLS]look[ARGS]" + ROME + "[TOOL_CALLS]wait[ARGS]{}", (Text("So."), *BOTH)),
    "mistral, args and ids": (t.MISTRAL_ARGS, "[TOOL_CALLS]look[CALL_ID]abcdefghi[ARGS]" + ROME, (LOOKED,)),
    "mistral, args the old way": (t.MISTRAL_ARGS, '[TOOL_CALLS] [{"name": "look", "arguments": ' + ROME + "}]", (LOOKED,)),
    "mistral, think": (t.MISTRAL_ARGS, "[THINK]Hm.[/THINK]Yes.", (Reasoning("Hm."), Text("Yes."))),
    "deepseek": (
        t.DEEPSEEK,
        "So.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look<｜tool▁sep｜>" + ROME + "<｜tool▁call▁end｜>"
        "<｜tool▁call▁begin｜>wait<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        (Text("So."), *BOTH),
    ),
    "deepseek, fenced": (
        t.DEEPSEEK_R1,
        "<think>Hm.</think>\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n```json\n" + ROME
        + "\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>wait\n"
        "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        (Reasoning("Hm."), *BOTH),
    ),
    "phi": (t.PHI, f"<|tool_call|>[{ONE}{ROME}}}, {TWO}]<|/tool_call|>", BOTH),
    "phi, one object": (t.PHI, '<|tool_call|>{"name": "look", "arguments": ' + ROME + "}<|/tool_call|>", (LOOKED,)),
    "granite": (t.GRANITE, '<|tool_call|>[{"name": "look", "arguments": ' + ROME + "}]", (LOOKED,)),
    "granite, think": (
        t.GRANITE, "<think>Hm.</think>\n<response>Yes.</response>", (Reasoning("Hm."), Text("Yes.")),
    ),
    "granite, no thought": (t.GRANITE, "The <response> mark.", (Text("The <response> mark."),)),
    "gemma": (
        t.GEMMA,
        "<start_function_call>call:look{place:<escape>Rome: {a:1}<escape>,days:2,at:[{x:1},<escape>b<escape>]}"
        "<end_function_call>"
        "<start_function_call>call:wait{}<end_function_call>",
        (call(1, "look", '{"place": "Rome: {a:1}", "days": 2, "at": [{"x": 1}, "b"]}'), BOTH[1]),
    ),
    "harmony": (
        t.HARMONY,
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.look <|constrain|>json<|message|>" + ROME + "<|call|>",
        (Reasoning("Hm."), Text("I look."), LOOKED),
    ),
    "harmony, name first": (t.HARMONY, " to=functions.look<|channel|>commentary json<|message|>" + ROME, (LOOKED,)),
    "harmony, answer": (
        t.HARMONY, "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>a < b",
        (Reasoning("Hm."), Text("a < b")),
    ),
    "harmony, no head": (t.HARMONY, "Yes, <|maybe|>.", (Text("Yes, <|maybe|>."),)),
    "harmony, cut in a head": (t.HARMONY, "<|channel|>analysis<|message|>Hm.<|end|><|start|>assis", (Reasoning("Hm."),)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_reply_is_read_as_its_family_writes_it(name: str) -> None:
    template, text, parts = CASES[name]
    assert read(template, [text]) == parts


@pytest.mark.parametrize("name", CASES)
def test_letter_by_letter_comes_to_the_same(name: str) -> None:
    template, text, parts = CASES[name]
    assert read(template, list(text)) == parts
    for at in range(len(text)):
        assert read(template, [text[:at], text[at:]]) == parts


SCRAPS = (
    "<tool_call>", "</tool_call>", "<think>", "</think>", ONE, '{"name": "look", "parameters": ', "{}", '{"a": "\\"', '"}',
    "}", "]", "[", ", ", "; ", " ", "\n", "\\", '"', "text", "<", "[TOOL_CALLS]", "look", "[ARGS]", "[THINK]", "[/THINK]",
    "<function=look>", "<parameter=a>", "</parameter>", "</function>", "<arg_key>", "</arg_key>", "<arg_value>",
    "</arg_value>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "look<｜tool▁sep｜>", "<｜tool▁call▁end｜>",
    "function<｜tool▁sep｜>look\n```json\n", "<|tool_call|>", "<|/tool_call|>", "<|python_tag|>", "<response>",
    "</response>", "<start_function_call>", "call:look{", "<escape>", "<end_function_call>", "<|channel|>", "analysis",
    "<|message|>", "<|end|>", "<|start|>assistant", " to=functions.look",
)  # fmt: skip
TEMPLATES = [value for name, value in vars(t).items() if name.isupper() and name not in ("CHATML", "PROMPT", "JSON_CALL")]


@given(st.sampled_from(TEMPLATES), st.lists(st.sampled_from(SCRAPS), max_size=14), st.data())
def test_no_cut_changes_a_reply(template: str, scraps: list[str], data: st.DataObject) -> None:
    text = "".join(scraps)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    for parallel in (True, False):
        assert read(template, pieces, parallel=parallel) == read(template, [text], parallel=parallel)


@given(st.sampled_from(TEMPLATES), st.text(st.characters(exclude_characters="<[{")))
@example(t.HERMES, " \n a \n ")
def test_text_without_a_mark_is_left_as_it_is(template: str, text: str) -> None:
    parts = read(template, list(text))
    assert (
        parts == ((Text(text),) if text else ())
        or (template is t.HARMONY and not text.strip())
        or "to=".startswith(text.strip())
    )


@pytest.mark.parametrize("template", TEMPLATES)
def test_without_tools_a_call_is_text(template: str) -> None:
    for text in (HERMES_ONE, '{"name": "look", "parameters": {}}', '[TOOL_CALLS] [{"name": "look", "arguments": {}}]'):
        assert read(template, list(text), tools=()) == (Text(text),)


def test_what_can_be_no_mark_is_shown_at_once() -> None:
    parser = ReplyParser.of(t.QWEN3, tools=TOOLS)
    shown = [[delta.data for delta in parser.feed(piece)] for piece in ("Hi", " there", " <", "b>", " <tool", "s", "\n", ".")]
    assert shown == [["Hi"], [" there"], [], [" <b>"], [], [" <tools"], [], ["\n."]]
    bare = ReplyParser.of(t.LLAMA, tools=TOOLS)
    shown = [[delta.data for delta in bare.feed(piece)] for piece in ('{"', "na", 'me": "Pa', 'ris"', ", ...")]
    assert shown == [[], [], [], ['{"name": "Paris"'], [", ..."]]
    free = ReplyParser.of(t.PLAIN)
    assert [delta.data for delta in free.feed("<tool_call> ")] == ["<tool_call> "]


def test_a_name_is_told_before_its_arguments_and_they_as_they_come() -> None:
    parser = ReplyParser.of(t.HERMES, tools=TOOLS, new_id=lambda: "id1")
    assert parser.feed('<tool_call>{"name": "look", "argu') == []
    assert parser.feed('ments": {"pl') == [Delta("", 0, "tool_call", "id1", "look"), Delta('{"pl', 0, "tool_call")]
    assert parser.feed('ace": "Rome') == [Delta('ace": "Rome', 0, "tool_call")]
    assert parser.feed('"}}') == [Delta('"}', 0, "tool_call")]
    assert parser.finish("stop") == "tool_calls" and parser.finish("length") == "length"
    glm = ReplyParser.of(t.GLM, tools=TOOLS, new_id=lambda: "id1")
    assert glm.feed("<tool_call>look\n<arg_key>")[0] == Delta("", 0, "tool_call", "id1", "look")
    assert glm.feed("place") == [Delta("", 0, "tool_call")]  # it goes on


def test_a_thought_that_the_prompt_has_begun_is_one() -> None:
    prompt = "<|im_start|>assistant\n<think>\n"
    parser = ReplyParser.of(t.QWEN3_THINKING, prompt=prompt)
    assert parser.thinking and parser.feed("Hm.\n") == [Delta("Hm.", 0, "reasoning")]
    assert parser.feed("</think>\n\nYes.") == [Delta("Yes.", 1)] and not parser.thinking
    assert read(t.QWEN3_THINKING, ["\nHm.\n"], prompt=prompt) == (Reasoning("Hm.\n"),)
    assert read(t.QWEN3, ["Yes."], prompt="<think>\n\n</think>\n\n") == (Text("Yes."),)


@pytest.mark.parametrize(
    "text", [HERMES_ONE * 2, "<tool_call>[" + HERMES_ONE[11:-12] + ", " + HERMES_ONE[11:-12] + "]</tool_call>"]
)
def test_without_parallel_calls_a_reply_is_done_after_one(text: str) -> None:
    assert read(t.HERMES, [text], parallel=False) == (LOOKED,)
    parser = ReplyParser.of(t.HERMES, tools=TOOLS, parallel=False)
    assert [piece for piece in text if not parser.done and (parser.feed(piece), True)[1]] == list(text[: text.index("}}") + 2])


def test_every_mark_of_a_family_is_named() -> None:
    assert markers(t.PLAIN) == frozenset()
    assert markers(t.HERMES) == {"<tool_call>", "</tool_call>"}
    assert markers(t.QWEN3) == {"<tool_call>", "</tool_call>", "<think>", "</think>"}
    assert {"<|channel|>", "<|message|>", "<|end|>"} <= markers(t.HARMONY)
    assert {"[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"} <= markers(t.MISTRAL_ARGS)
    assert "<|python_tag|>" in markers(t.LLAMA) and "<｜tool▁sep｜>" in markers(t.DEEPSEEK)


def test_a_template_of_a_family_is_known_for_it() -> None:
    names = {name: family_of(getattr(t, name)) for name in ("PLAIN", "HERMES", "QWEN_CODER", "GLM", "LLAMA", "PHI", "GRANITE")}
    told = [family.name if family else None for family in names.values()]
    assert told == [None, "hermes", "qwen-coder", "glm", "llama", "phi", "granite"]


def test_an_id_is_nine_letters_and_digits() -> None:
    ids = {random_id() for _ in range(99)}
    assert len(ids) == 99 and all(len(each) == 9 and each.isalnum() for each in ids)
