"""The scrubber against who means ill: odd requests, odd replies, two at once, and what would show a value on the way."""

from __future__ import annotations

import traceback
from collections import UserDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from typing import Any, Literal, NamedTuple

import pytest
from gateway_scrub.walk import Piece, walk
from pydantic import BaseModel, Field
from scrub_case import Echo, gateway, scrub

from gateway import (
    Chat,
    Findings,
    Gateway,
    GatewayConfig,
    GatewayError,
    Image,
    Message,
    ModelCard,
    ModelService,
    NoEligibleModel,
    Request,
    Response,
    Rewrite,
    Tool,
    ToolCall,
    Transform,
)

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
