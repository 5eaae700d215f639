"""The scrubber against who means ill: odd requests, odd replies, two at once, and what would show a value on the way."""

from __future__ import annotations

import asyncio
import json
import re
import time
import traceback
from collections import UserDict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from typing import Any, Literal, NamedTuple

import pytest
from gateway_scrub.conversation import Conversation
from gateway_scrub.escapes import decoded
from gateway_scrub.spans import Span
from gateway_scrub.transform import ScrubPolicy
from gateway_scrub.walk import Piece, walk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from scrub_case import Echo, gateway, scrub

from gateway import (
    AsyncGateway,
    Chat,
    ChatResponse,
    Citation,
    Delta,
    Extract,
    ExtractResponse,
    File,
    Findings,
    Gateway,
    GatewayConfig,
    GatewayError,
    Image,
    Message,
    Meta,
    ModelCard,
    ModelService,
    Need,
    NoEligibleModel,
    Request,
    Response,
    Restart,
    Rewrite,
    Text,
    Tool,
    ToolCall,
    Transform,
)
from gateway import Span as Found
from gateway.config import HedgeConfig
from gateway.parts import assemble

MAIL = "ada@example.org"
PHONE = "13800138000"


@dataclass(frozen=True, kw_only=True)
class OddResponse(Response):
    """Nothing."""


@dataclass(frozen=True, kw_only=True)
class Odd(Request[OddResponse]):
    """A task of somebody else's."""

    anything: Any = field(default=None, repr=False)
    language: str = ""
    model: str = ""
    meta_data: str = field(default="", init=False, repr=False)
    usage: Any = None
    seed: Any = None


class OddModel(ModelService):
    """Keeps what it was asked."""

    card = ModelCard(name="odd", tasks=frozenset({Odd}), place="hosted")

    def __init__(self) -> None:
        self.asked: list[Odd] = []

    async def run(self, request: Request[Any], /) -> Response:
        assert isinstance(request, Odd)
        self.asked.append(request)
        return OddResponse()


class Row(NamedTuple):
    name: str
    mail: str


@dataclass(frozen=True)
class Inner:
    text: str = field(compare=False)


@dataclass(frozen=True)
class Own:
    number: int
    made: str = field(default="", init=False)


class Person(BaseModel):
    mail: str
    more: dict[str, str] = {}


class Slotted:
    """Not known how to look into."""

    __slots__ = ("mail",)

    def __init__(self) -> None:
        self.mail = MAIL


class Kind(Enum):
    ADA = MAIL


def inside(value: Any, seen: int = 0) -> str:
    """All that a value holds, as text, whatever `==` and `repr` say of it."""
    if seen > 8:
        return ""
    match value:
        case str() | int() | float():
            return str(value)
        case bytes() | bytearray():
            return bytes(value).decode(errors="replace")
        case Mapping():
            return " ".join(inside(part, seen + 1) for pair in value.items() for part in pair)
        case list() | tuple() | set() | frozenset() | deque():
            return " ".join(inside(part, seen + 1) for part in value)
        case Enum():
            return inside(value.value, seen + 1)
        case _:
            names = [*getattr(value, "__dict__", {}), *getattr(type(value), "__slots__", ())]
            return " ".join(inside(getattr(value, name), seen + 1) for name in names)


REPLACED = {
    "a named tuple": Row("x", MAIL),
    "a field that does not count in ==": Inner(MAIL),
    "the same in a list": [Inner(MAIL)],
    "the same in a mapping": {"a": {"b": Inner(MAIL)}},
    "a pydantic model": Person(mail=MAIL, more={"b": MAIL}),
    "another mapping": UserDict({"a": MAIL}),
}
KEPT = {
    "a dataclass in a set": frozenset({Inner(MAIL)}),
    "a number": {"x": int(PHONE)},
    "a number with a fraction of nothing": [float(PHONE)],
    "a number as a key": {int(PHONE): "x"},
    "a tuple as a key": {("x", MAIL): "x"},
    "a number in a dataclass": Own(int(PHONE)),
    "bytes": MAIL.encode(),
    "bytes that may change": [bytearray(MAIL.encode())],
    "an enum": Kind.ADA,
    "an object of no known kind": Slotted(),
    "a deque": deque([MAIL]),
    "an iterator": iter([MAIL]),
}


@pytest.mark.parametrize("name", REPLACED)
def test_what_a_task_of_ones_own_holds_is_covered(name: str) -> None:
    model = OddModel()
    with gateway(model) as gw:
        gw.run(Odd(anything=REPLACED[name]))
    assert "<EMAIL_1:" in inside(model.asked)
    assert MAIL not in inside(model.asked)


@pytest.mark.parametrize("name", KEPT)
def test_what_cannot_be_replaced_or_looked_into_stays_here(name: str) -> None:
    model = OddModel()
    with gateway(model) as gw, pytest.raises(NoEligibleModel) as caught:
        gw.run(Odd(anything=KEPT[name]))
    assert not model.asked
    assert MAIL not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("request_", [Odd(language=f"as {MAIL}"), Odd(model=MAIL), Odd(usage=MAIL), Odd(seed=MAIL)])
def test_a_fields_name_does_not_make_it_harmless(request_: Odd) -> None:
    model = OddModel()
    with gateway(model) as gw:
        try:
            gw.run(request_)
        except NoEligibleModel:
            assert not model.asked
    assert MAIL not in inside(model.asked)


def test_a_field_that_is_not_given_is_looked_into() -> None:
    request = Odd()
    object.__setattr__(request, "meta_data", MAIL)
    model = OddModel()
    with gateway(model) as gw, pytest.raises(NoEligibleModel):
        gw.run(request)


def test_words_numbers_and_days_that_say_nothing_go_out() -> None:
    model = OddModel()
    with gateway(model) as gw:
        gw.run(
            Odd(anything=[date(2020, 1, 2), 2**31 - 1, 1e20, float("inf"), None, True, b"\xff"], language="pt-BR", seed=2**62)
        )
    assert len(model.asked) == 1


class Answered(BaseModel):
    """Of whom it is."""

    who: Literal["ada@example.org", "nobody"] = Field(description=f"not {PHONE}")


def test_the_schema_of_a_pydantic_model_is_covered_and_the_answer_is_one() -> None:
    seen: list[Any] = []

    class Says(Echo):
        async def run(self, request: Request[Any], /) -> Response:
            assert isinstance(request, Chat)
            seen.append(request.response_schema)
            return Chat.response.of(f'{{"who": "{seen[-1]["properties"]["who"]["enum"][0]}"}}')

    model = Says()
    model.card = ModelCard(name="says", tasks=frozenset({Chat}), place="hosted", features=frozenset({"json_schema"}))
    with gateway(model) as gw:
        reply = gw.run(Chat.ask("Who?", response_format=Answered))
    assert MAIL not in inside(seen)
    assert PHONE not in inside(seen)
    assert reply.parsed == Answered(who="ada@example.org")


class Writes(Transform):
    """Comes before the scrubber, and writes something after that has looked."""

    name = "writes"

    def __init__(self, change: Any) -> None:
        self._change = change

    def begin(self, request: Any, findings: Findings | None, card: ModelCard) -> Rewrite:
        return Rewrite(self._change(request))


@pytest.mark.parametrize(
    "change",
    [
        lambda request: Chat(messages=request.messages, tools=(Tool(name=f"call-{PHONE}"),)),
        lambda request: Chat(messages=(Message.assistant(ToolCall("1", "x", f'{{"{MAIL}": 1}}')), *request.messages)),
        lambda request: Chat(messages=(Message.user("", Image(data=b"png")), *request.messages)),
        lambda request: Chat(messages=request.messages, response_format={MAIL: 1}),
    ],
)
def test_what_another_transform_adds_where_nothing_is_replaced_is_not_sent_either(change: Any) -> None:
    hosted = Echo()
    config = GatewayConfig(plugins=[], transforms=["writes", "scrub"])
    with Gateway([hosted], transforms=[Writes(change), scrub(media="block")], config=config) as gw:
        with pytest.raises(GatewayError, match="scrub"):
            gw.chat("Hi")
    assert not hosted.asked


def test_an_object_that_refuses_other_texts_does_not_tell_them() -> None:
    @dataclass(frozen=True)
    class Picky:
        text: str
        other: str = "x"

        def __post_init__(self) -> None:
            if "<" in self.text:
                raise ValueError(f"not {self.text} {self.other}")

    model = OddModel()
    with gateway(model) as gw, pytest.raises(GatewayError) as caught:
        gw.run(Odd(anything=Picky(MAIL, "secret word")))
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret word" not in f"{error.args} {error.__context__!r} {error.__cause__!r}"
        error = error.__cause__ or error.__context__


def test_a_piece_shows_no_key() -> None:
    pieces: list[Piece] = []

    def visit(piece: Piece) -> str:
        pieces.append(piece)
        return piece.text

    walk({MAIL: {"a": "b", "c": [PHONE]}}, visit)
    assert MAIL not in repr(pieces)
    assert PHONE not in repr(pieces)


class Script(Echo):
    """Streams what `make` makes of what it was told, and answers with the sum of it."""

    def __init__(self, make: Callable[[str], Sequence[Delta]], **card: Any) -> None:
        super().__init__()
        self.card = ModelCard(
            name="hosted", tasks=frozenset({Chat}), place="hosted", features=frozenset({"tools", "json_schema"}), **card
        )
        self._make = make

    async def run(self, request: Request[Any], /) -> Response:
        assert isinstance(request, Chat)
        self.asked.append(request)
        return ChatResponse(parts=assemble(self._make(request.messages[0].text)))

    async def stream(self, request: Request[Any], /) -> AsyncIterator[Delta | Restart | Response]:
        whole = await self.run(request)
        assert isinstance(request, Chat)
        for delta in self._make(request.messages[0].text):
            yield delta
        yield whole


def both(make: Callable[[str], Sequence[Delta]], text: str = MAIL, *, schema: bool = False, **options: Any) -> tuple[Any, str]:
    """The parts of the reply, which are the same streamed, and what a reader of the stream saw."""
    tools = () if schema else (Tool(name="send"), Tool(name="web_search"))
    request = Chat.ask(text, tools=tools, response_format={"type": "object"} if schema else None)
    with gateway(Script(make), **options) as gw:
        whole = gw.run(request, meta=Meta(conversation="1"))
        with gw.stream(request, meta=Meta(conversation="1")) as stream:
            deltas = [delta for delta in stream if isinstance(delta, Delta)]
        assert stream.response.parts == whole.parts == assemble(deltas)
        return whole.parts, "".join(delta.text for delta in deltas)


def test_citations_of_a_stream_lead_into_the_restored_text() -> None:
    def cited(token: str) -> list[Delta]:
        one = Citation(quote=token, start=4, end=4 + len(token))
        return [Delta(f"See {token[:5]}"), Delta(f"{token[5:]}."), Delta(part=1, kind="whole", whole=one), Delta("Yes", 2)]

    (text, citation, _), _ = both(cited)
    assert text.text[citation.start : citation.end] == citation.quote == MAIL


@pytest.mark.parametrize("kept", [["web_*"], []])
@pytest.mark.parametrize("name", ["send", "web_search"])
def test_a_call_whose_tool_is_told_late_is_restored_as_that_tool_may_have_it(name: str, kept: list[str]) -> None:
    def late(token: str) -> list[Delta]:
        call = "tool_call"
        return [
            Delta("", 0, call, "1"),
            Delta('{"q": "' + token, 0, call),
            Delta('"', 0, call, name=name),
            Delta("}", 0, call),
        ]

    [call], _ = both(late, keep_from_tools=kept)
    assert (MAIL in call.arguments) is (name == "send" or not kept)


def test_a_call_whose_tool_is_never_told_is_the_same_streamed() -> None:
    [call], _ = both(lambda token: [Delta(f'{{"q": "{token}"}}', 0, "tool_call", "1")], keep_from_tools=["web_*"])
    assert MAIL in call.arguments


def test_what_is_held_back_of_a_calls_arguments_is_not_shown_as_text() -> None:
    _, shown = both(lambda token: [Delta("I call."), Delta(f'{{"q": "{token[:-3]}', 1, "tool_call", "1", "send")])
    assert shown == "I call."


@pytest.mark.parametrize("text", [MAIL, 'ada"x@example.org', 'C:\\new\n"1"'])
def test_an_answer_by_a_schema_stays_json(text: str) -> None:
    from gateway_scrub.conversations import Conversations
    from gateway_scrub.detect import Detectors
    from gateway_scrub.options import read_options
    from gateway_scrub.transform import Scrub

    look = Detectors([lambda said: [Span(0, len(said), "PERSON", 0.9, "all")] if said == text else []])

    for made in (json.dumps, lambda value: json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e")):
        one = Scrub(read_options({}), lambda: (look, frozenset()), Conversations())
        (part,), _ = both(lambda token: [Delta(c) for c in made({"who": token})], text, schema=True, transform=one)  # noqa: B023
        assert json.loads(part.text) == {"who": text}


@pytest.mark.parametrize(
    "written",
    [
        '{"to": "ada\\u0040example.org"}',
        '{"to": "ada\\\\u0040example.org',
        "\\u0061\\u0064\\u0061@example.org",
        "https://example.org/?to=ada%40example.org&x=%e4",
        "ada&#64;example.org",
        "tel 1380%301380&#x30;0",
    ],
)
def test_what_is_written_with_escapes_is_covered_and_comes_back_as_it_was(written: str) -> None:
    call = ToolCall("1", "send", written)
    request = Chat(messages=(Message.user("Hi"), Message.assistant(call), Message.tool(call, written), Message.user(written)))
    model = Echo()
    with gateway(model) as gw:
        assert gw.run(request).text == written
    for asked in model.asked:
        assert isinstance(asked, Chat)
        for message in asked.messages[1:]:
            assert "_1:" in inside(message)
            assert "ada" not in inside(message)
            assert "1380" not in inside(message)


def test_a_url_with_a_value_in_it_stays_here_however_it_is_written() -> None:
    request = Chat(messages=(Message.user("x", Image(url="https://example.org/?to=ada%40example.org")),))
    with gateway(Echo()) as gw, pytest.raises(NoEligibleModel):
        gw.run(request)


@given(st.text(alphabet=st.sampled_from("ab\\u0041%&#;x46d8c"), max_size=40))
def test_every_place_of_a_decoded_text_has_one_in_the_text(text: str) -> None:
    escapes = decoded(text)
    if escapes is None:
        return
    assert escapes.back([Span(0, len(escapes.text), "A", 1.0, "")])[0].end <= len(text)
    at = 0
    for place in range(len(escapes.text)):
        [span] = escapes.back([Span(place, place + 1, "A", 1.0, "")])
        assert 0 <= at <= span.end <= len(text)
        assert span.start < span.end
        at = span.start


def test_looking_for_escapes_takes_the_time_that_the_text_does() -> None:
    for text in ("\\" * 1_000_000, "%4" * 500_000, "&#" * 500_000, "\\u004" * 200_000, "\\u0041" * 170_000):
        began = time.perf_counter()
        decoded(text)
        assert time.perf_counter() - began < 3


def test_a_file_that_is_text_is_covered() -> None:
    files = [File(data=f"mail {MAIL}".encode(), media_type=kind) for kind in ("text/csv; charset=utf-8", "application/json")]
    model = Echo()
    with gateway(model, media="block") as gw:
        gw.run(Chat(messages=(Message.user("x", *files),)))
        with pytest.raises(NoEligibleModel):
            gw.run(Chat(messages=(Message.user("x", File(data=b"\xff", media_type="text/plain")),)))
    assert inside(model.asked).count("mail <EMAIL_1:") == 2
    assert MAIL not in inside(model.asked)


LONG = {
    "addresses": Chat.ask(" ".join(f"u{at}@example.org" for at in range(9_000))),
    "a JSON result": Chat(
        messages=(
            Message.user("x"),
            Message.tool("1", json.dumps([{"mail": f"u{at}@example.org", "n": 10**6 + at} for at in range(9_000)])),
        )
    ),
    "what looks like placeholders": Chat.ask("<EMAIL_1:aaaaaaaa> " * 50_000),
}


@pytest.mark.soak  # it is timed: on a busy machine it says nothing
@pytest.mark.parametrize("name", LONG)
def test_a_long_request_does_not_hold_up_the_others(name: str) -> None:
    async def longest_wait() -> float:
        worst, done = 0.0, False

        async def beat() -> None:
            nonlocal worst
            last = time.perf_counter()
            while not done:
                await asyncio.sleep(0.005)
                now = time.perf_counter()
                worst, last = max(worst, now - last), now

        model = Echo(parts=(Text("ok"),))
        config = GatewayConfig(plugins=[])
        async with AsyncGateway([model], policies=[ScrubPolicy()], transforms=[scrub()], config=config) as gw:
            await gw.run(Chat.ask("warm"))
            beating = asyncio.create_task(beat())
            reply = await gw.run(LONG[name])
            done = True
            await beating
            assert reply.text == "ok"
            assert "u1@example.org" not in inside(model.asked)
        return worst

    assert asyncio.run(longest_wait()) < 0.25


def test_what_was_covered_beforehand_is_of_that_request_alone() -> None:
    """A transform that comes before changes a long request, which was covered when it was looked at."""
    text = f"{MAIL} " * 2_000
    hosted = Echo()
    config = GatewayConfig(plugins=[], transforms=["writes", "scrub"])
    change = Writes(lambda request: Chat(messages=(*request.messages, Message.user(PHONE))))
    with Gateway([hosted], transforms=[change, scrub()], config=config) as gw, pytest.raises(GatewayError, match="scrub"):
        gw.chat(text)
    assert not hosted.asked
    with gateway(hosted) as gw:
        reply = gw.chat(text)
    assert reply.text == text
    assert reply.trace is not None
    assert reply.trace.notes == ("scrub: 2000 EMAIL",)


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ('{"to": "\\ud800 ada@example.org"}', '{"to": "\\ud800 <EMAIL_1:'),
        ('{"phone": 1.3800138e10}', '{"phone": "<PHONE_1:'),
        ('{"x": 1e400, "y": 1E5, "to": "ada@example.org", "to": "bob@example.org"}', '{"x": 1e400, "y": 1E5, "to": "<EMAIL_1:'),
        ('[1, "ada@example.org"', '[1, "<EMAIL_1:'),
    ],
)
def test_arguments_that_are_odd_are_covered_and_can_be_sent(arguments: str, sent: str) -> None:
    call = ToolCall("1", "send", arguments)
    model = Echo(parts=(call,))
    with gateway(model) as gw:
        gw.run(Chat(messages=(Message.user("x"), Message.assistant(call), Message.user("y"))))
    [asked] = model.asked
    assert isinstance(asked, Chat)
    [part] = asked.messages[1].parts
    assert isinstance(part, ToolCall)
    assert part.arguments.startswith(sent)
    assert "@example.org" not in part.arguments
    part.arguments.encode()


def test_half_a_pair_of_surrogates_comes_back_so_that_it_can_be_read() -> None:
    text = "\ud800x"
    conversation = Conversation()
    arguments = json.dumps({"q": conversation.token("PERSON", text)})
    back = conversation.restore(arguments, json=True)
    back.encode()
    assert json.loads(back) == {"q": text}


class Held(Echo):
    """Does not begin while it is held."""

    held = False

    async def run(self, request: Request[Any], /) -> Response:
        response = await super().run(request)
        if self.held:
            await asyncio.Event().wait()
        return response


def test_two_attempts_at_once_share_a_conversation_and_tell_neither_a_value() -> None:
    async def main() -> None:
        models = Held("slow", provider="one", quality=0.9), Held("quick", provider="two", quality=0.1)
        config = GatewayConfig(plugins=[], hedge=HedgeConfig(share=1.0, percentile=0.5))
        meta = Meta(conversation="1")
        async with AsyncGateway(models, policies=[ScrubPolicy()], transforms=[scrub()], config=config) as gw:
            for model in models:
                await gw.run(Chat.ask(PHONE), Need(model=model.card.name), meta=meta)
            models[0].held = True
            for turn in range(3):
                text = f"{MAIL} {PHONE} u{turn}@example.org"
                async with gw.stream(Chat.ask(text), meta=meta) as stream:
                    assert "".join([delta.text async for delta in stream]) == text
                reply = stream.response
                assert (reply.text, reply.model) == (text, "quick")
        slow, quick = ([request.messages[0].text for request in model.asked if isinstance(request, Chat)] for model in models)
        assert len(slow) > 1
        assert slow == quick[: len(slow)]
        assert "@example.org" not in inside([slow, quick])

    asyncio.run(asyncio.wait_for(main(), 30))


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(0, 99),
    st.floats(0, 1),
    st.sampled_from(
        [MAIL, PHONE, int(PHONE), float(PHONE), f"{MAIL} {PHONE}", MAIL.encode(), Kind.ADA, Slotted(), date(2020, 1, 2)]
    ),
    st.sampled_from(
        [
            "",
            "x",
            "\ud800",
            "<EMAIL_1:",
            "\u202e",
            "ad\u200ba@example.org",
            "ada%40example.org",
            "1\u0301",
            "１３８００１３８０００",
        ]
    ),
)
KEYS = st.sampled_from(["a", "type", "pattern", "required", "name", "url", "meta", "signature", "data", MAIL, "1", "$ref"])


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.builds(Inner, inner),
        st.builds(lambda one: Odd(anything=one), inner),
        st.builds(lambda one, two: Row(one, two), inner, inner),
        st.builds(lambda one: UserDict({"k": one}), inner),
        st.builds(lambda one: File(data=json.dumps(one, default=str).encode(), media_type="application/json"), inner),
        st.builds(lambda one: Text(json.dumps(one, default=str)), inner),
        st.builds(lambda one: ToolCall("1", "f", json.dumps(one, default=str)), inner),
        st.builds(lambda one: ToolCall("1", "f", json.dumps(one, default=str)[:-1]), inner),
    )


VALUES = (MAIL, PHONE, "ad\u200ba@example.org", "ada%40example.org", "１３８００１３８０００")


@settings(max_examples=150, deadline=None)
@given(st.recursive(LEAVES, nested, max_leaves=8))
def test_whatever_a_request_holds_no_value_goes_out(anything: Any) -> None:
    model = OddModel()
    with gateway(model) as gw:
        with suppress(NoEligibleModel):
            gw.run(Odd(anything=anything))
    told = inside(model.asked)
    decoded_too = told.encode("utf-8", "surrogatepass").decode("unicode_escape", "replace")
    assert not any(value in told or value in decoded_too for value in VALUES)


class Rivers(ModelService):
    """Finds each "river"."""

    card = ModelCard(name="rivers", tasks=frozenset({Extract}), place="hosted")

    async def run(self, request: Request[Any], /) -> Response:
        assert isinstance(request, Extract)
        starts = [found.start() for found in re.finditer("river", request.inputs)]
        return ExtractResponse(
            spans=tuple(Found(entity_group="X", score=1.0, word="river", start=at, end=at + 5) for at in starts)
        )


@pytest.mark.parametrize("action", ["placeholder", "mask", "drop", "keep"])
def test_spans_lead_into_the_text_whatever_stands_between_them(action: str) -> None:
    text = f"river <EMAIL_1:aaaaaaaa> river {MAIL} river {PHONE} river {PHONE}"
    with gateway(Rivers(), remote={"personal": "placeholder", "PHONE": action}) as gw:
        found = gw.run(Extract(inputs=text)).spans
    assert [(span.start, text[span.start : span.end]) for span in found] == [(at, "river") for at in starts_of(text)]


def starts_of(text: str) -> list[int]:
    return [found.start() for found in re.finditer("river", text)]


def test_many_spans_take_no_longer_than_they_are_many() -> None:
    text = " ".join(f"u{at}@example.org river" for at in range(2_000))
    began = time.perf_counter()
    with gateway(Rivers()) as gw:
        found = gw.run(Extract(inputs=text)).spans
    assert time.perf_counter() - began < 10  # it was a minute
    assert [span.start for span in found] == starts_of(text)
