"""Parts and deltas: however a reply is cut, it adds up again; and nothing shows content."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import (
    Audio,
    Delta,
    Image,
    InvalidRequest,
    Part,
    Reasoning,
    Restart,
    Text,
    ToolCall,
    ToolResult,
    assemble,
    deltas_of,
)

CANARY = "canary-4711"

texts = st.text(max_size=30)
whole = st.one_of(
    st.builds(ToolResult, id=texts, text=texts, error=st.booleans()),
    st.builds(Image, data=st.binary(max_size=20), media_type=st.just("image/webp")),
    st.builds(Audio, url=texts),
)
parts = st.one_of(
    st.builds(Text, st.text(min_size=1, max_size=30)),
    st.builds(Reasoning, texts, texts),
    st.builds(ToolCall, texts, texts, texts),
    whole,
)


@given(st.lists(parts, max_size=6))
def test_deltas_add_up_to_the_parts_they_were_made_of(reply: list[Part]) -> None:
    assert assemble(deltas_of(reply)) == tuple(reply)


@given(st.lists(parts, max_size=4), st.data())
def test_however_parts_are_cut_into_deltas_they_add_up_again(reply: list[Part], data: st.DataObject) -> None:
    streams: list[list[Delta]] = []
    for delta in deltas_of(reply):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(delta.data)), max_size=4)))
        ends = [0, *cuts, len(delta.data)]
        pieces = [delta.data[a:b] for a, b in pairwise(ends)]
        signed = data.draw(st.integers(0, len(pieces) - 1))  # a signature may come at the start or the end
        stream = [Delta(pieces[0], delta.part, delta.kind, delta.id, delta.name, whole=delta.whole)]
        stream += [Delta(piece, delta.part, delta.kind) for piece in pieces[1:]]
        if delta.signature:
            last = stream[signed]
            stream[signed] = Delta(last.data, last.part, last.kind, last.id, last.name, delta.signature, last.whole)
        streams.append(stream)
    # Parts may come interleaved, each in its own order.
    mixed: list[Delta] = []
    while any(streams):
        mixed.append(data.draw(st.sampled_from([stream for stream in streams if stream])).pop(0))
    assert assemble(mixed) == tuple(reply)


def test_empty_text_is_left_out() -> None:
    assert assemble([Delta("", 0), Delta("a", 1)]) == (Text("a"),)
    assert assemble([]) == ()


def test_a_tool_calls_id_and_name_may_come_after_its_first_fragment() -> None:
    assert assemble([Delta('{"a"', 0, "tool_call"), Delta(":1}", 0, "tool_call", "c1", "f")]) == (
        ToolCall("c1", "f", '{"a":1}'),
    )


def test_only_answer_text_is_text() -> None:
    assert Delta("a").text == "a"
    assert Delta("a", kind="reasoning").text == "" and Delta("a", kind="tool_call").text == ""


@pytest.mark.parametrize("kind", [Image, Audio])
def test_media_needs_exactly_one_of_data_and_url(kind: type[Image] | type[Audio]) -> None:
    for given_ in ({}, {"data": b"x", "url": "http://x"}):
        with pytest.raises(InvalidRequest, match="exactly one of data and url") as caught:
            kind(**given_)  # type: ignore[arg-type]
        assert caught.value.field.endswith(".data")
    assert kind(data=b"").data == b""


@pytest.mark.parametrize("arguments", ["[1]", "1", "{", "nope", "[" * 100_000], ids=lambda text: text[:5])
def test_arguments_that_are_no_json_object_are_a_value_error(arguments: str) -> None:
    with pytest.raises(ValueError):
        ToolCall("c", "f", arguments).parsed()


def test_arguments_are_read_as_json_and_none_are_an_empty_object() -> None:
    assert ToolCall("c", "f", '{"a": [1]}').parsed() == {"a": [1]}
    assert ToolCall("c", "f", "").parsed() == {}


def test_no_part_and_no_delta_shows_content() -> None:
    things = [
        Text(CANARY), Reasoning(CANARY, CANARY), ToolCall("id", "name", CANARY), ToolResult("id", CANARY), Image(url=CANARY),
        Image(data=CANARY.encode()), Audio(url=CANARY), Audio(data=CANARY.encode()),
        Delta(CANARY, 0, "text", CANARY, CANARY, CANARY, Text(CANARY)), Restart("m"),
    ]  # fmt: skip
    assert not any(CANARY in shown for thing in things for shown in (repr(thing), str(thing), repr([thing])))


def test_parts_cannot_be_changed() -> None:
    for thing in (
        Text("a"),
        Reasoning("a"),
        ToolCall("a", "b"),
        ToolResult("a", "b"),
        Image(data=b"a"),
        Delta("a"),
        Restart("m"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, fields(thing)[0].name, "b")
