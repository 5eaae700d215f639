"""Scrubber: what goes in comes back, of every type; and what may not is refused without being told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from gateway_scrub import Blocked, Scrubber
from gateway_scrub.conversation import Conversation
from gateway_scrub.rules import Rule
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import Chat, ConfigError, Image, Message, Reasoning, Text, ToolCall, ToolResult

PHONE = {"name": "test.phone", "type": "T_PHONE", "first": [11], "pattern": "{D}1[3-9][0-9]{9}{E}", "score": 0.8}
ACCOUNT = Rule(
    name="test.account", type="T_ACCOUNT", first=(8,), pattern="{D}[0-9]{8}{E}", score=0.1, context=("account",), boost=0.6
)
KEY = {"name": "test.key", "type": "T_KEY", "anchors": ["tk-"], "pattern": "tk-[a-z0-9]{8,}", "score": 0.9, "secret": True}
RULES: list[Any] = [PHONE, ACCOUNT, KEY]
LOOK = Scrubber(rules=RULES)

PIECES = st.sampled_from([
    "jane@example.com", "13812345678", "192.168.1.10", "tk-abcdefgh12", "<EMAIL_1:k3jf9x2a>",
    "***", " ", "\n", "é", "：", "<", "\\", '"', "account: ", "12345678", "\u200b", "a",
])  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=8).map("".join)
NUMBERS = (
    st.sampled_from([13812345678, 13812345678.0, 12345678, -5, 0.5, 10**20, 1e300]) | st.integers() | st.floats(allow_nan=False)
)
JSON = st.recursive(
    TEXTS | NUMBERS | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.just("account"), inner, max_size=3),
    max_leaves=8,
)


def scrubber(**options: Any) -> Scrubber:
    return Scrubber(rules=RULES, **options)


def same(one: Any, other: Any) -> bool:
    return bool(one == other) and repr(one) == repr(other)  # 1 is not True, and 1.0 not 1


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_a_text_comes_back_as_it_was(texts: list[str]) -> None:
    one = LOOK.fresh()
    for text in [*texts, *(one.scrub(text) for text in texts)]:  # what was scrubbed once may be a user's text, too
        assert one.restore(one.scrub(text)) == text


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_a_json_value_comes_back_as_it_was_numbers_and_keys_too(value: Any) -> None:
    one = LOOK.fresh()
    assert same(one.restore(one.scrub([value])), [value])


@settings(max_examples=100, deadline=None)
@given(JSON, TEXTS)
def test_a_message_comes_back_as_it_was(value: Any, text: str) -> None:
    one = LOOK.fresh()
    arguments = json.dumps({"value": _plain_keys(value)})
    message = Message(role="assistant", parts=(Text(text), ToolCall("1", "send", arguments), ToolResult("1", text)))
    back = one.restore(one.scrub(message))
    assert (back.parts[0], back.parts[2]) == (message.parts[0], message.parts[2])
    assert json.loads(back.parts[1].arguments) == json.loads(arguments)
    row = {
        "role": "assistant",
        "tool_calls": [{"id": "1", "function": {"name": "send", "arguments": arguments}}],
        "content": text,
    }
    again = one.restore(one.scrub(row))
    assert json.loads(again["tool_calls"][0]["function"].pop("arguments")) == json.loads(arguments)
    assert again["content"] == text


def _plain_keys(value: Any) -> Any:
    """The keys of a tool's arguments are the tool's: a find in one is refused (see below)."""
    if isinstance(value, dict):
        return {f"k{at}": _plain_keys(item) for at, item in enumerate(value.values())}
    return [_plain_keys(item) for item in value] if isinstance(value, list) else value


def test_a_value_has_one_placeholder_in_the_whole_conversation_and_another_in_the_next() -> None:
    one = scrubber()
    first = one.scrub("Write to jane@example.com.")
    assert one.scrub({"to": "jane@example.com"})["to"] in first
    assert one.fresh().scrub("Write to jane@example.com.") != first
    shared = scrubber(conversation=one.conversation)
    assert shared.scrub("Write to jane@example.com.") == first and shared.restore(first) == "Write to jane@example.com."
    assert scrubber(conversation=Conversation(b"k" * 32)).scrub("a@b.co") == scrubber(
        conversation=Conversation(b"k" * 32)
    ).scrub("a@b.co")


def test_a_key_speaks_for_its_value_and_a_number_stays_one() -> None:
    one = scrubber()
    value = {"account": 12345678, "count": 12345678, "accounts": ["x"], "account no": [12345678, "12345678", 12345678.0]}
    made = one.scrub(value)
    assert made["count"] == 12345678 and made["accounts"] == ["x"]
    assert made["account"].startswith("<T_ACCOUNT_NUM_1:") and made["account no"][1].startswith("<T_ACCOUNT_1:")
    assert same(one.restore(made), value)
    assert one.restore(f"It is {made['account']}.") == "It is 12345678."
    assert one.restore([f"It is {made['account']}."]) == ["It is 12345678."]


def test_what_did_not_change_is_the_same_object_and_kinds_of_dicts_stay() -> None:
    one = scrubber()
    assert one.scrub([10**5000]) == [10**5000]  # which Python would not even write
    plain = {"a": [1, None, ("x", 2.5)], "b": {"c": True}}
    assert one.scrub(plain) is plain
    made = one.scrub(OrderedDict(z="a@b.co", a=1))
    assert type(made) is OrderedDict and list(made) == ["z", "a"]
    assert one.scrub(("a@b.co",))[0].startswith("<EMAIL_") and one.scrub({"a@b.co"}) == {one.scrub("a@b.co")}


def test_actions_by_type_pattern_and_group() -> None:
    one = scrubber(actions={"T_PHONE": "mask", "EM*": "drop", "secret": "keep", "IP": "keep"})
    text = "13812345678 jane@example.com tk-abcdefgh12 192.168.1.10"
    assert one.scrub(text) == "***  tk-abcdefgh12 192.168.1.10"
    assert one.counts == {"EMAIL": {"drop": 1}, "T_PHONE": {"mask": 1}}
    assert repr(one) == "<Scrubber 1 EMAIL, 1 T_PHONE>"
    assert one.scrub({"n": 13812345678}) == {"n": "***"}
    assert scrubber(actions={"*": "drop"}).scrub([13812345678]) == [None]
    assert scrubber(actions={"*": "mask"}).scrub({"a@b.co": 1, "c@d.co": 2}) == {"***": 1, "*** 2": 2}
    with pytest.raises(ConfigError, match=r"actions\['EMAIL'\] must be one of keep, .*, not 'hide'"):
        scrubber(actions={"EMAIL": "hide"})


def test_surrogates_come_back_even_where_another_text_of_the_value_holds_one() -> None:
    one = scrubber(actions={"*": "surrogate"})
    value = [{"mail": "jane@example.com"}, "or jane@example.com", 13812345678]
    made = one.scrub(value)
    assert "jane@example" not in json.dumps(made) and "@" in made[0]["mail"]
    assert same(one.restore(made), value)


def test_a_surrogate_is_nothing_that_stands_in_another_text_of_the_value() -> None:
    def with_phones() -> Scrubber:
        rule = PHONE | {"type": "PHONE"}
        return Scrubber(rules=[rule], actions={"*": "surrogate"}, conversation=Conversation(b"k" * 32))

    invented = with_phones().scrub("13812345678")
    assert invented != "13812345678"
    value = [f"call {invented}", "13812345678"]
    one = with_phones()
    assert one.restore(one.scrub(value)) == value


def test_what_is_blocked_is_told_by_type_and_place_and_never_by_value() -> None:
    one = scrubber(actions={"secret": "block"})
    value = {"a": ["fine", "first\nthen tk-abcdefgh12"], "tk-abcdefgh34": {"x": "tk-abcdefgh56"}}
    with pytest.raises(Blocked) as caught:
        one.scrub(value)
    assert caught.value.types == ("T_KEY",) * 3
    assert caught.value.places == ("a.1, line 2", "line 1", "***.x")
    assert "abcdefgh" not in f"{caught.value} {caught.value!r}"
    assert one.counts == {}
    with pytest.raises(Blocked, match=r"T_KEY at line 3$"):
        one.scrub("a\nb\ntk-abcdefgh12")
    with pytest.raises(Blocked, match=r"and 90 more$"):
        one.scrub(["tk-abcdefgh12"] * 100)


def test_what_cannot_be_replaced_where_it_stands_is_refused_unless_it_may_stay() -> None:
    call = ToolCall("1", "send", '{"jane@example.com": 1}')
    message = Message(role="assistant", parts=(call,))
    with pytest.raises(Blocked, match=r"EMAIL at parts\.0\.arguments, where it cannot be replaced") as caught:
        scrubber().scrub(message)
    assert "jane" not in str(caught.value)
    from gateway_scrub.options import ScrubOptions

    assert Scrubber(ScrubOptions(fixed="keep")).scrub(message) == message
    with pytest.raises(Blocked, match="media at messages"):
        Scrubber(ScrubOptions(media="block")).scrub(Chat(messages=(Message(role="user", parts=(Image(data=b"x"),)),)))


def test_chats_and_messages_of_the_gateway_keep_their_types() -> None:
    one = scrubber()
    chat = Chat(messages=(Message.system("Mail jane@example.com"), Message.user("13812345678")), temperature=0.5)
    made = one.scrub(chat)
    assert isinstance(made, Chat) and made.temperature == 0.5 and "jane" not in made.messages[0].parts[0].text
    assert one.restore(made) == chat
    thought = one.scrub(Reasoning("jane@example.com", signature="s"))
    assert thought.signature == "" and "jane" not in thought.text  # a signature is of the text as it was


def test_numbers_in_a_tools_arguments_become_strings_and_numbers_again() -> None:
    one = scrubber()
    raw = '{"n":13812345678, "f": 0.13812345678, "e": 13812345678e2, "s": "13812345678"}'
    row = one.scrub({"name": "send", "arguments": raw})
    made = json.loads(row["arguments"])
    assert made["n"].startswith("<T_PHONE_NUM_1:") and made["s"].startswith("<T_PHONE_1:") and made["f"] == 0.13812345678
    assert one.restore(row)["arguments"] == raw
    call = ToolCall("1", "send", raw)
    assert one.restore(one.scrub(call)) == call


def test_the_bytes_of_media_are_left_alone_and_what_only_looks_so_is_not() -> None:
    one = scrubber()
    url = "data:image/png;base64,AAAA13812345678+/=="
    value = [{"type": "image_url", "image_url": {"url": url}}, {"data": "QUJD" * 40}]
    assert one.scrub(value) == value
    assert "jane" not in one.scrub("data:text/plain,jane@example.com") + one.scrub({"data": "jane@example.com"})["data"]


def test_types_threshold_and_allow() -> None:
    text = "jane@example.com help@example.com 192.168.1.10"
    assert [span.type for span in scrubber(types=["IP"]).find(text)] == ["IP"]
    assert scrubber(allow=["help@example.com"]).scrub(text).count("help@example.com") == 1
    assert scrubber(threshold=0.9).scrub("192.168.1.10") == "192.168.1.10"
    with pytest.raises(ConfigError, match="threshold"):
        scrubber(threshold=2)
    spans = scrubber().find("12345678", label="account")
    assert [(span.start, span.end, span.type) for span in spans] == [(0, 8, "T_ACCOUNT")]


def test_a_stream_is_restored_as_it_comes() -> None:
    one = scrubber()
    made = one.scrub("Ask jane@example.com or 13812345678.")
    restorer = one.restorer()
    assert "".join([*map(restorer.feed, made), restorer.flush()]) == "Ask jane@example.com or 13812345678."
    restorer = one.restorer(json=True)
    assert json.loads("".join([*map(restorer.feed, json.dumps({"a": made})), restorer.flush()])) == {
        "a": "Ask jane@example.com or 13812345678."
    }


def test_what_it_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match="not bytes"):
        scrubber().scrub(b"jane@example.com")


def test_columns_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    one = scrubber()
    frame = pandas.DataFrame(
        {
            "mail": ["jane@example.com", None, "x"],
            "phone": [13812345678, 13812345679, 1],
            "account": [12345678.0, float("nan"), 2.5],
            "size": [1, 2, 3],
            "when": pandas.to_datetime(["2026-01-01"] * 3),
            "kind": pandas.Categorical(["a@b.co", "z", "a@b.co"]),
            "deep": [{"to": "a@b.co"}, [13812345678], None],
        },
        index=["jane@example.com", "b", "c"],
    )
    kept = frame.copy(deep=True)
    made = one.scrub(frame)
    assert isinstance(made, pandas.DataFrame) and frame.equals(kept)
    told = made.to_csv()
    for value in ("jane@", "a@b.co", "1381234", "12345678"):
        assert value not in told
    assert (made["size"].dtype, made["when"].dtype, made["kind"].dtype.name) == (
        frame["size"].dtype,
        frame["when"].dtype,
        "category",
    )
    pandas.testing.assert_frame_equal(one.restore(made), frame)
    series = pandas.Series(["jane@example.com"] * 3, name="mail")
    pandas.testing.assert_series_equal(one.restore(one.scrub(series)), series)
    assert one.scrub(pandas.Series([12345678], name="account"))[0] == one.scrub({"account": 12345678})["account"]
    many = pandas.MultiIndex.from_tuples([("a@b.co", 1), ("c", 2)], names=["mail", "n"])
    both = pandas.DataFrame([[1, 2], [3, 4]], index=many, columns=["x", "x"])
    pandas.testing.assert_frame_equal(one.restore(one.scrub(both)), both)
    masked = scrubber(actions={"*": "mask"}).scrub(frame)
    assert masked["kind"].tolist() == ["***", "z", "***"] and masked["phone"].tolist() == ["***", "***", 1]


def test_the_readme_runs_as_it_stands() -> None:
    pytest.importorskip("pandas")
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    alone = readme.partition("## Alone")[2].partition("\n## ")[0]
    [code] = re.findall(r"```python\n(.*?)```", alone, re.DOTALL)
    names: dict[str, Any] = {}
    checked = 0
    for statement in code.split("\n\n"):
        exec(statement, names)
        for expression, told in re.findall(r"^([a-z_]+(?:[.[].*)?) +# (.*)$", statement, re.MULTILINE):
            made = re.sub(r":[0-9a-z]{8}>", ":3fa9c2xk>", repr(eval(expression, names)))
            assert made == told
            checked += 1
    assert checked == 11


def test_pandas_is_never_imported() -> None:
    code = "import sys; from gateway_scrub import Scrubber; Scrubber().scrub(['a@b.co']); assert 'pandas' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
