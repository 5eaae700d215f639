"""Conversations as chat templates take them: rendered by transformers itself, and refused by name where they would be lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gateway_local.render import offered, opening, refuse_options, template_messages, template_options
from gateway_local.reply import ReplyParser
from gateway_local.template import reads_of, template_features
from gateway_local.tokens import hidden_ids

from gateway import Chat, Image, Message, Meta, Options, Reasoning, Tool, ToolCall, UnsupportedOption

from . import template_case as t

LOOK = Tool(name="look", description="Looks.", parameters={"type": "object", "properties": {"place": {"type": "string"}}})
WAIT = Tool(name="wait")
ROUND = (
    Message.user("Where?"),
    Message.assistant(Reasoning("hm"), "I look.", ToolCall("call_1", "look", '{"place": "Rome"}')),
    Message.tool("call_1", "sun"),
    Message.user("And?"),
)
CALLING = (
    "HERMES", "QWEN3", "QWEN3_THINKING", "QWEN_CODER", "GLM", "LLAMA", "MISTRAL", "MISTRAL_ARGS", "DEEPSEEK", "PHI",
    "GRANITE", "GEMMA", "HARMONY",
)  # fmt: skip


def rendered(template: str, request: Chat) -> str:
    """The prompt, by transformers' own rendering."""
    from transformers.utils.chat_template_utils import render_jinja_template

    options = template_options(request, template)
    messages = template_messages(request, "tiny", template)
    prompts, _ = render_jinja_template([messages], chat_template=template, add_generation_prompt=True, **options)
    return str(prompts[0])


def refused(template: str, request: Chat) -> str:
    """The option that is refused; "" if none is."""
    try:
        refuse_options(request, Options(request, "tiny"), template)
        template_messages(request, "tiny", template)
    except UnsupportedOption as error:
        assert "tiny" in str(error)
        return str(error.option)
    return ""


@pytest.mark.parametrize("name", CALLING)
def test_a_round_of_a_tool_call_is_written_whole(name: str) -> None:
    template = getattr(t, name)
    request = Chat(messages=ROUND, tools=(LOOK,))
    assert "tools" in template_features(template) and refused(template, request) == ""
    prompt = rendered(template, request)
    for word in ("Where?", "Looks.", "look", "Rome", "sun", "And?"):
        assert word in prompt
    assert "'place'" not in prompt.replace("'place':", "") and "{'" not in prompt  # JSON, not Python


def test_calls_and_results_are_dicts_as_templates_take_them() -> None:
    _, said, result, _ = template_messages(Chat(messages=ROUND), "tiny", t.HERMES)
    function = {"name": "look", "arguments": {"place": "Rome"}}
    assert said == {
        "role": "assistant", "content": "I look.", "reasoning_content": "hm",
        "tool_calls": [{"type": "function", "id": "call_1", "function": function}],
    }  # fmt: skip
    assert result == {"role": "tool", "content": "sun", "tool_call_id": "call_1", "name": "look"}
    assert template_options(Chat(messages=ROUND, tools=(LOOK,)), t.HERMES) == {
        "tools": [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": LOOK.parameters}}]
    }
    failed = Chat(messages=(*ROUND[:2], Message.tool("call_1", "rain", error=True)))
    assert template_messages(failed, "tiny", t.HERMES)[2]["content"] == "Error: rain"


def test_a_template_gets_arguments_content_and_ids_as_it_wants_them() -> None:
    silent = Chat(messages=(ROUND[0], Message.assistant(ToolCall("a", "look", '{"place":"Köln"}')), Message.tool("a", "sun")))
    said = template_messages(silent, "tiny", t.DEEPSEEK)[1]
    assert said["tool_calls"][0]["function"]["arguments"] == '{"place": "Köln"}' and said["content"] is None
    assert template_messages(silent, "tiny", t.HERMES)[1]["content"] == ""
    _, said, result = template_messages(silent, "tiny", t.MISTRAL)
    id = said["tool_calls"][0]["id"]
    assert len(id) == 9 and id.isalnum() and result["tool_call_id"] == id
    kept = Chat(messages=(ROUND[0], Message.assistant(ToolCall("abcDEF123", "look"))))
    assert template_messages(kept, "tiny", t.MISTRAL)[1]["tool_calls"][0]["id"] == "abcDEF123"
    thought = template_messages(Chat(messages=ROUND), "tiny", t.HARMONY)[1]
    assert thought["thinking"] == "hm" and "reasoning_content" not in thought


@pytest.mark.parametrize("template", [t.LLAMA, t.HARMONY])
def test_several_calls_go_one_by_one_to_a_template_that_writes_one(template: str) -> None:
    two = Message.assistant("So.", ToolCall("a", "look", '{"place": "Rome"}'), ToolCall("b", "wait"))
    request = Chat(
        messages=(ROUND[0], two, Message.tool("b", "waited"), Message.tool("a", "sun"), ROUND[3]), tools=(LOOK, WAIT)
    )
    prompt = rendered(template, request)
    order = [prompt.index(word) for word in ('"Rome"', "sun", "waited", "And?")]
    assert order == sorted(order) and prompt.count("wait") >= 2


def test_what_a_template_would_leave_out_is_refused_by_name() -> None:
    asked = Chat.ask("hi", tools=(LOOK,))
    cases: list[tuple[str, Chat, str]] = [
        (t.PLAIN, asked, "tools"),
        (t.PLAIN, Chat.ask("hi", tools=(LOOK,), tool_choice="none"), ""),
        (t.PLAIN, Chat(messages=ROUND[:2]), "tools"),
        (t.PLAIN, Chat(messages=(ROUND[0], ROUND[2])), "tools"),
        (t.DEEPSEEK_R1, asked, "tools"),
        (t.HERMES.replace("tool_call>", "call>"), asked, "tools"),
        (t.HERMES, asked, ""),
        (t.HERMES, Chat.ask("hi", Image(data=b"x")), "images"),
        (t.HERMES, Chat.ask("hi", tools=(LOOK,), response_format={"type": "object"}), "tools"),
        (t.HERMES, Chat.ask("hi", tools=(LOOK, WAIT), tool_choice="required"), ""),
        (t.HERMES, Chat.ask("hi", tool_choice="required"), "tool_choice"),
        (t.GLM, Chat.ask("hi", tools=(LOOK,), tool_choice="look"), "tool_choice"),
        (t.DEEPSEEK, Chat.ask("hi", tools=(LOOK, WAIT), tool_choice="wait"), ""),
        (t.DEEPSEEK, Chat.ask("hi", tools=(LOOK, WAIT), tool_choice="required"), "tool_choice"),
        (t.HERMES, Chat(messages=(ROUND[0], Message.assistant(ToolCall("a", "look", "no JSON")))), "tools"),
        (t.HERMES, Chat.ask("hi", reasoning="low"), "reasoning"),
        (t.HERMES, Chat.ask("hi", reasoning="none"), ""),
        (t.QWEN3, Chat.ask("hi", reasoning="low"), ""),
        (t.QWEN3, Chat.ask("hi", reasoning="none"), ""),
        (t.QWEN3, Chat.ask("hi", reasoning="low", response_format={"type": "object"}), "reasoning"),
        (t.QWEN3_THINKING, Chat.ask("hi", reasoning="high"), ""),
        (t.QWEN3_THINKING, Chat.ask("hi", reasoning="none"), "reasoning"),
        (t.HARMONY, Chat.ask("hi", reasoning="minimal"), "reasoning"),
        (t.HARMONY, Chat.ask("hi", reasoning="none"), "reasoning"),
        (t.HARMONY, Chat.ask("hi", reasoning="high"), ""),
    ]
    for template, request, option in cases:
        assert refused(template, request) == option


def test_an_effort_may_be_let_go_where_it_only_tunes() -> None:
    request = Chat.ask("hi", reasoning="high", meta=Meta(drop_unsupported=True))
    options = Options(request, "tiny")
    refuse_options(request, options, t.HERMES)
    assert options.dropped == ["reasoning"]


def test_a_card_says_what_its_template_can_do() -> None:
    both, none = {"tools", "reasoning"}, frozenset[str]()
    told = {"PLAIN": none, "HERMES": {"tools"}, "QWEN3": both, "QWEN3_THINKING": both, "LLAMA": {"tools"}, "DEEPSEEK": both}
    told |= {"DEEPSEEK_R1": {"reasoning"}, "MISTRAL": {"tools"}, "MISTRAL_ARGS": {"tools"}, "GRANITE": both, "HARMONY": both}
    assert {name: template_features(getattr(t, name)) for name in told} == told
    assert template_features("{% if %}") == none
    assert "tools" in template_features(t.HERMES + "{% generation %}{{ x }}{% endgeneration %}")


def test_thinking_is_turned_on_and_off_where_the_template_has_a_switch() -> None:
    def asked(template: str, **options: Any) -> dict[str, Any]:
        return template_options(Chat.ask("hi", **options), template)

    assert asked(t.QWEN3) == {} and asked(t.PLAIN, reasoning="none") == {}
    assert asked(t.QWEN3, reasoning="none") == {"enable_thinking": False} and asked(t.QWEN3, reasoning="low") == {
        "enable_thinking": True
    }
    assert asked(t.DEEPSEEK, reasoning="high") == {"thinking": True}
    assert asked(t.HARMONY, reasoning="high") == {"reasoning_effort": "high"}
    assert asked(t.QWEN3, response_format={"type": "object"}) == {"enable_thinking": False}
    assert asked(t.QWEN3, tools=(LOOK,), tool_choice="none") == {}
    assert rendered(t.QWEN3, Chat.ask("hi", reasoning="none")).endswith("<think>\n\n</think>\n\n")


def written(schema: Any) -> str:
    """JSON that fits a schema of a call, in the order of its properties."""
    if "anyOf" in schema:
        schema = schema["anyOf"][-1]
    if "name" not in schema["properties"]:
        return '{"place": "Rome"}'
    (key,) = set(schema["properties"]) - {"name"}
    return json.dumps({"name": schema["properties"]["name"]["const"], key: {"place": "Rome"}})


@pytest.mark.parametrize("name", [name for name in CALLING if name not in ("QWEN_CODER", "GLM", "GEMMA")])
def test_a_call_that_must_come_begins_as_the_model_would_begin_it(name: str) -> None:
    template = getattr(t, name)
    request = Chat.ask("hi", tools=(WAIT, LOOK), tool_choice="look")
    assert refused(template, request) == "" and offered(request) == (LOOK,)
    prompt = rendered(template, request)
    begun = opening(request, prompt, template)
    assert begun.schema is not None
    parser = ReplyParser.of(template, prompt=prompt, tools=offered(request), new_id=lambda: "id1")
    deltas = [*parser.feed(begun.text), *parser.feed(written(begun.schema)), *parser.flush()]
    assert parser.parts == (ToolCall("id1", "look", '{"place": "Rome"}'),) and parser.finish("stop") == "tool_calls"
    assert all(delta.kind == "tool_call" for delta in deltas)
    free = Chat.ask("hi", tools=(LOOK,))
    assert opening(free, rendered(template, free), template).text == ""


def test_any_of_several_tools_may_be_the_one_that_must_be_called() -> None:
    request = Chat.ask("hi", tools=(WAIT, LOOK), tool_choice="required")
    begun = opening(request, "<|im_start|>assistant\n", t.HERMES)
    assert begun.text == "<tool_call>\n" and begun.schema is not None
    assert [each["properties"]["name"]["const"] for each in begun.schema["anyOf"]] == ["wait", "look"]


@pytest.mark.parametrize(("template", "choice"), [(t.HERMES, "required"), (t.LLAMA, "look"), (t.DEEPSEEK, "look")])
def test_a_model_that_knows_nothing_makes_the_call_that_must_come(llama: Path, template: str, choice: str) -> None:
    import torch
    import transformers
    from gateway_local.shape import Shapes

    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    tools = (WAIT, Tool(name="look", parameters={**LOOK.parameters, "required": ["place"]}))
    request = Chat.ask("hi", tools=tools, tool_choice=choice)
    begun = opening(request, rendered(template, request), template)
    shapes = Shapes(tokenizer, len(tokenizer), {1}, model="tiny")
    for seed in range(6):
        chance = torch.Generator().manual_seed(seed)
        assert begun.schema is not None
        shape, ids = shapes.of(begun.schema, option="tool_choice"), []
        for left in range(99, 0, -1):
            token = int(shape.mask(torch.randn(1, len(tokenizer), generator=chance)).argmax())
            ids.append(shape.within(token, left - 1))
            shape.took(ids[-1])
            if shape.whole:
                break
        parser = ReplyParser.of(template, tools=offered(request))
        parser.feed(begun.text + tokenizer.decode(ids))
        parser.flush()
        (made,) = parser.parts
        assert isinstance(made, ToolCall) and set(made.parsed()) == ({"place"} if made.name == "look" else set())
        assert made.name in [tool.name for tool in offered(request)]
    with pytest.raises(UnsupportedOption) as caught:
        shapes.of({"not": {}}, option="tool_choice")
    assert caught.value.option == "tool_choice"


def test_an_answer_with_a_schema_is_no_thought() -> None:
    request = Chat.ask("hi", response_format={"type": "object"})
    prompt = rendered(t.QWEN3_THINKING, request)
    begun = opening(request, prompt, t.QWEN3_THINKING)
    assert begun.schema == {"type": "object"}
    parser = ReplyParser.of(t.QWEN3_THINKING, prompt=prompt)
    assert parser.feed(begun.text) == [] and [delta.text for delta in parser.feed("{}")] == ["{}"]
    harmony = ReplyParser.of(t.HARMONY)
    assert harmony.feed(opening(request, "", t.HARMONY).text) == [] and harmony.feed("{}")[0].text == "{}"


def test_what_a_template_reads_is_read_from_it() -> None:
    assert reads_of(t.MISTRAL).tools and reads_of(t.LLAMA).tools  # set where they are not given
    assert reads_of(t.LLAMA).one_call and reads_of(t.HARMONY).one_call and not reads_of(t.HERMES).one_call
    assert reads_of(t.DEEPSEEK).text_arguments and reads_of(t.DEEPSEEK_R1).text_arguments
    assert not any(reads_of(template).text_arguments for template in (t.HERMES, t.GLM, t.MISTRAL_ARGS, t.PHI))


@pytest.mark.parametrize(
    ("template", "word", "said"),
    [
        ("{% if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}{% if not tools is defined %}"
         "{% set tools = [] %}{% endif %}", "tools", True),
        ("{% for tools in messages %}{{ tools }}{% endfor %}", "tools", False),
        ("{% set tools = messages[0].tools %}{{ tools }}", "tools", False),
        ("{% macro system() %}{% if reasoning_effort is not defined %}{% set reasoning_effort = 'low' %}{% endif %}"
         "{{ reasoning_effort }}{% endmacro %}{{ system() }}", "effort", True),
        ("{{ messages[0].thinking }}", "switch", ""),
        ("{% if not thinking is defined %}{% set thinking = enable_thinking %}{% endif %}", "switch", "enable_thinking"),
        ("{{ m.get('tool_calls') }}", "calls", True),
        ("{{ '' ~ call['function'].arguments }}", "text_arguments", True),
        ("{{ call.arguments if call.arguments is string else call.arguments | tojson }}", "text_arguments", False),
    ],
)  # fmt: skip
def test_odd_ways_to_read_are_seen(template: str, word: str, said: Any) -> None:
    assert getattr(reads_of(template), word) == said


def test_marks_stay_in_the_text_and_other_special_tokens_do_not() -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.add_special_tokens([AddedToken(mark, special=True) for mark in ("<|end|>", "[TOOL_CALLS]")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")
    ids = tokenizer("a[TOOL_CALLS]b<|end|>", add_special_tokens=False)["input_ids"]
    hidden = hidden_ids(tokenizer, {"[TOOL_CALLS]", "[ARGS]"})
    shown = [id for id in ids if id not in hidden]
    assert tokenizer.decode(shown, skip_special_tokens=False) == "a[TOOL_CALLS]b"
