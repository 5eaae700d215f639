"""Requests and responses: what is refused when they are made, what routing learns of them, and what a repr shows."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, dataclass, field, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway import (
    Audio,
    Chat,
    ChatResponse,
    Embed,
    EmbedResponse,
    Generate,
    GenerateResponse,
    Image,
    InvalidRequest,
    Message,
    Meta,
    Reasoning,
    Request,
    Response,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    assemble,
)

CANARY = "canary-4711"
NO_TEMPERATURES: list[Any] = [math.nan, math.inf, -math.inf, -0.1, 2.1, True, CANARY, []]
USER = Message.user("hi")


class Point(BaseModel):
    x: int


def refused(kind: Any, **given: Any) -> InvalidRequest:
    """The error that making it raises; it never shows what was given."""
    with pytest.raises(InvalidRequest) as caught:
        kind(**given)
    assert CANARY not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "given_", "name"),
    [
        (Chat, {"messages": ()}, "messages"),
        (Chat, {"messages": "hi"}, "messages"),
        (Chat, {"messages": None}, "messages"),
        (Chat, {"messages": 5}, "messages"),
        (Chat, {"messages": [{"role": "user", "content": CANARY}]}, "messages"),
        (Chat, {"messages": [USER], "tools": [{"name": "f"}]}, "tools"),
        (Chat, {"messages": [USER], "tools": 5}, "tools"),
        (Chat, {"messages": [USER], "tools": [Tool(name="f"), Tool(name="f")]}, "tools"),
        (Chat, {"messages": [USER], "tool_choice": "f"}, "tool_choice"),
        (Chat, {"messages": [USER], "tool_choice": {"name": CANARY}}, "tool_choice"),
        (Chat, {"messages": [USER], "tool_choice": None}, "tool_choice"),
        (Chat, {"messages": [USER], "response_format": "json"}, "response_format"),
        (Chat, {"messages": [USER], "response_format": int}, "response_format"),
        (Chat, {"messages": [USER], "reasoning": "extreme"}, "reasoning"),
        (Chat, {"messages": [USER], "reasoning": []}, "reasoning"),
        (Generate, {"prompt": ""}, "prompt"),
        (Generate, {"prompt": None}, "prompt"),
        (Embed, {"texts": ()}, "texts"),
        (Embed, {"texts": [5]}, "texts"),
        (Embed, {"texts": ["a"], "dimensions": 0}, "dimensions"),
        (Embed, {"texts": ["a"], "dimensions": True}, "dimensions"),
        (Message, {"role": "developer", "parts": "hi"}, "messages.role"),
        (Message, {"role": None, "parts": "hi"}, "messages.role"),
        (Message, {"role": "user", "parts": None}, "messages.parts"),
        (Message, {"role": "user", "parts": [CANARY]}, "messages.parts"),
        (Message, {"role": "user", "parts": b"hi"}, "messages.parts"),
        (Message, {"role": "user", "parts": [Text(None)]}, "messages.parts"),  # type: ignore[arg-type]
        (Tool, {"name": ""}, "tools.name"),
        (Tool, {"name": 5}, "tools.name"),
        (Tool, {"name": "f", "parameters": "{}"}, "tools.parameters"),
        (Meta, {"deadline_s": -1}, "meta.deadline_s"),
        (Meta, {"deadline_s": math.nan}, "meta.deadline_s"),
        (Meta, {"deadline_s": True}, "meta.deadline_s"),
    ],
)
def test_what_is_wrong_by_itself_is_refused_by_field(kind: Any, given_: dict[str, Any], name: str) -> None:
    assert refused(kind, **given_).field == name


@pytest.mark.parametrize("kind", [Chat, Generate])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("temperature", value) for value in NO_TEMPERATURES],
        *[("top_p", value) for value in (math.nan, 0, -1, 1.1, False, CANARY)],
        *[("max_tokens", value) for value in (0, -5, 1.5, 5.0, True, CANARY, math.nan)],
        *[("seed", value) for value in (1.5, True, CANARY, math.inf)],
        *[("stop", value) for value in ([""], [5], 5, None)],
    ],
    ids=str,
)
def test_sampling_options_are_checked_by_field(kind: Any, name: str, value: Any) -> None:
    content = {"messages": (USER,)} if kind is Chat else {"prompt": "a"}
    assert refused(kind, **content, **{name: value}).field == name


def test_numbers_at_the_bounds_are_taken_however_large() -> None:
    Chat.ask("a", temperature=0, top_p=1, max_tokens=1, seed=-(10**400), reasoning="none")
    Chat.ask("a", temperature=2, top_p=1e-9, max_tokens=10**400)


def test_a_number_too_long_to_print_is_refused_like_any_other() -> None:
    assert refused(Generate, prompt="a", max_tokens=-(10**5000)).field == "max_tokens"


def test_lists_become_tuples_and_a_lone_string_one_item() -> None:
    chat = Chat(messages=[USER], tools=[Tool(name="f")], stop=["a"])  # type: ignore[arg-type]
    assert (chat.messages, chat.tools, chat.stop) == ((USER,), (Tool(name="f"),), ("a",))
    assert Embed(texts=["a", "b"]).texts == ("a", "b")  # type: ignore[arg-type]
    assert Embed(texts="a").texts == ("a",)  # type: ignore[arg-type]
    assert Generate(prompt="a", stop="end").stop == ("end",)  # type: ignore[arg-type]
    assert Message(role="user", parts="hi") == USER  # type: ignore[arg-type]


def test_what_the_caller_does_with_its_lists_does_not_reach_the_request() -> None:
    messages, parts = [USER], [Text("a")]
    chat, message = Chat(messages=messages), Message(role="user", parts=parts)  # type: ignore[arg-type]
    messages.clear()
    parts.clear()
    assert len(chat.messages) == 1 and message.text == "a"


def test_requests_and_responses_cannot_be_changed() -> None:
    for thing in (Chat.ask("a"), Generate(prompt="a"), Embed(texts=("a",)), ChatResponse.of("a"), Meta(), USER, Tool(name="f")):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, fields(thing)[0].name, "b")


def test_meta_is_no_part_of_equality() -> None:
    assert Chat.ask("a").with_meta(Meta(tenant="t")) == Chat.ask("a")
    assert Chat.ask("a").with_meta(Meta(tenant="t")).meta.tenant == "t"
    assert hash(Chat.ask("a").with_meta(Meta(tenant="t"))) == hash(Chat.ask("a"))


def test_a_reply_can_be_passed_on_as_the_next_turn() -> None:
    reply = ChatResponse(parts=(Reasoning("hm", "sig"), Text("a"), ToolCall("c", "f"), Text("b")))
    turn = Message.assistant(*reply.parts)
    assert turn.parts == reply.parts and turn.text == "ab"
    assert (reply.text, reply.reasoning, reply.tool_calls) == ("ab", "hm", (ToolCall("c", "f"),))
    assert Message.tool(reply.tool_calls[0], "42").parts == (ToolResult("c", "42"),)
    assert Message.tool("c", "no", error=True).parts == (ToolResult("c", "no", True),)


def test_ask_puts_system_first_and_media_after_the_text() -> None:
    image = Image(data=b"x")
    chat = Chat.ask("a", image, system="s", max_tokens=5)
    assert chat.messages == (Message.system("s"), Message.user("a", image)) and chat.max_tokens == 5


@given(st.text(), st.text(), st.text())
def test_chat_traits_count_utf8_bytes(system: str, text: str, result: str) -> None:
    chat = Chat(messages=(Message.system(system), Message.user(text), Message.tool("c", result)))
    assert chat.traits().input_bytes == len((system + text + result).encode())


def test_traits_name_what_a_model_must_be_able_to_do() -> None:
    chat = Chat.ask(
        "a",
        Image(data=b"x"),
        Audio(data=b"x"),
        tools=[Tool(name="f")],
        response_format=Point,
        reasoning="low",
        seed=1,
        max_tokens=7,
    )
    traits = chat.traits()
    assert traits.features == {"tools", "json_schema", "reasoning", "seed"}
    assert traits.modalities == {"text", "image", "audio"} and traits.output_tokens == 7
    plain = Chat.ask("a", reasoning="none").traits()
    assert plain.features == frozenset() and plain.modalities == {"text"} and plain.output_tokens is None
    assert Embed(texts=("a", "é"), dimensions=2).traits().input_bytes == 3
    assert Embed(texts=("a", "é")).traits().longest_bytes == 2 and plain.longest_bytes is None
    assert Embed(texts=("a",), dimensions=2).traits().features == {"dimensions"}
    assert Generate(prompt="é", seed=1).traits().input_bytes == 2


def test_a_lone_surrogate_does_not_break_the_traits() -> None:
    assert Chat.ask("\ud800").traits().input_bytes > 0 and Generate(prompt="\ud800").traits().input_bytes > 0


def test_a_pydantic_model_comes_back_parsed_unless_tools_are_called() -> None:
    chat = Chat.ask("a", response_format=Point)
    assert chat.response_schema == Point.model_json_schema()
    accepted = chat.accept(ChatResponse.of('{"x": 1}'))
    assert isinstance(accepted, ChatResponse) and accepted.parsed == Point(x=1)
    calls = ChatResponse(parts=(ToolCall("c", "f"),), finish="tool_calls")
    assert chat.accept(calls) is calls
    for text in ("", "nope", '{"x": "y"}'):
        with pytest.raises(ValueError):
            chat.accept(ChatResponse.of(text))


def test_a_schema_alone_is_left_to_the_service() -> None:
    reply = ChatResponse.of("nope")
    assert Chat.ask("a", response_format={"type": "object"}).accept(reply) is reply


@dataclass(frozen=True, kw_only=True)
class RhymeResponse(Response):
    words: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Rhyme(Request[RhymeResponse]):
    word: str = field(repr=False)
    others: tuple[str, ...] = field(default=(), repr=False)
    sound: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, kw_only=True)
class SlantRhyme(Rhyme):
    task = "rhyme.slant"


def test_a_task_is_named_by_its_class_and_knows_its_response() -> None:
    assert (Rhyme.task, Rhyme.response) == ("rhyme", RhymeResponse)
    assert (SlantRhyme.task, SlantRhyme.response) == ("rhyme.slant", RhymeResponse)
    assert (Chat.task, Generate.task, Embed.task) == ("chat", "generate", "embed")
    assert Rhyme(word="é", others=("ab",), sound=b"xyz").traits().input_bytes == 7
    assert RhymeResponse(words=()).deltas() == ()


def test_the_deltas_of_a_response_add_up_to_it() -> None:
    reply = ChatResponse(parts=(Text("a"), ToolCall("c", "f", "{}")))
    assert assemble(reply.deltas()) == reply.parts
    assert assemble(GenerateResponse(text="a").deltas()) == (Text("a"),)
    assert GenerateResponse(text="").deltas() == () and ChatResponse.of("").parts == ()


@given(st.text(max_size=5), st.text(max_size=5))
def test_no_repr_shows_content(before: str, after: str) -> None:
    secret = before + CANARY + after
    tool = Tool(name="f", description=secret, parameters={"title": secret})
    call = ToolCall("c", "f", secret)
    message = Message.user(secret, Image(url=secret))
    things: list[Any] = [
        message, Message.system(secret), Message.assistant(call), Message.tool(call, secret), tool,
        Chat(messages=(message,), tools=(tool,), stop=(secret,), response_format={"title": secret}),
        Chat.ask(secret).with_meta(Meta(tenant=secret)), Generate(prompt=secret, stop=(secret,)), Embed(texts=(secret,)),
        ChatResponse(parts=(Text(secret), Reasoning(secret, secret), call), parsed=secret), GenerateResponse(text=secret),
        EmbedResponse(vectors=((0.4711,),)), Rhyme(word=secret, others=(secret,)), RhymeResponse(words=(secret,)),
    ]  # fmt: skip
    for thing in things:
        assert not any(CANARY in shown or "0.4711" in shown for shown in (repr(thing), str(thing), repr([thing])))
