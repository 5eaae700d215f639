"""The scrubber in a gateway: what models see, what callers get back, and what stays on this machine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import pytest
from gateway_scrub.conversations import Conversations
from gateway_scrub.options import read_options
from gateway_scrub.spans import Span
from gateway_scrub.transform import Scrub
from hypothesis import given, settings
from hypothesis import strategies as st
from scrub_case import Echo, gateway, scrub

from gateway import (
    AllModelsFailed,
    Chat,
    ChatResponse,
    Citation,
    ConfigError,
    Embed,
    EmbedResponse,
    Extract,
    ExtractResponse,
    File,
    Image,
    Message,
    Meta,
    ModelCard,
    ModelService,
    Need,
    NoEligibleModel,
    Reasoning,
    Request,
    Resources,
    Response,
    Text,
    Tool,
    ToolCall,
    Unreachable,
)
from gateway import Span as Found
from gateway.testing.contract import TransformContract
from gateway.testing.fakes import Recorder

MAIL = "ada@example.org"
PHONE = "13800138000"
KEY = "sk-abcdef123456"


class TestScrub(TransformContract):
    @pytest.fixture
    def transform(self) -> Scrub:
        return scrub()


def turns(*texts: str) -> Chat:
    return Chat(messages=tuple(Message.user(text) if at % 2 == 0 else Message.assistant(text) for at, text in enumerate(texts)))


def test_a_hosted_model_sees_placeholders_and_the_caller_gets_the_values_back() -> None:
    model = Echo()
    with gateway(model) as gw:
        reply = gw.chat(f"Write to {MAIL} or call {PHONE}.")
    assert reply.text == f"Write to {MAIL} or call {PHONE}."
    assert MAIL not in model.saw
    assert PHONE not in model.saw
    assert "<EMAIL_1:" in model.saw
    assert reply.trace is not None
    assert reply.trace.notes == ("scrub: 1 EMAIL, 1 PHONE",)


def test_a_local_model_sees_all_as_it_is() -> None:
    model = Echo(place="process")
    with gateway(model) as gw:
        assert gw.chat(f"{MAIL} {KEY}").text == f"{MAIL} {KEY}"
    assert MAIL in model.saw
    assert KEY in model.saw


def test_a_secret_is_not_sent_to_a_hosted_model() -> None:
    hosted, local = Echo(quality=1.0), Echo("local", "process", quality=0.1)
    with gateway(hosted) as gw:
        with pytest.raises(NoEligibleModel, match="scrub: hosted; the request holds what may not go there: secret") as caught:
            gw.chat(f"my key is {KEY}")
    assert KEY not in str(caught.value)
    with gateway(hosted, local) as gw:
        assert gw.chat(f"my key is {KEY}").model == "local"
    assert not hosted.asked


@pytest.mark.parametrize(
    ("action", "sent", "back"),
    [
        ("keep", f"<{MAIL}>", f"<{MAIL}>"),
        ("mask", "<***>", "<***>"),
        ("drop", "<>", "<>"),
    ],
)
def test_each_type_has_an_action_of_its_own(action: str, sent: str, back: str) -> None:
    model = Echo()
    with gateway(model, remote={"EMAIL": action}) as gw:
        assert gw.chat(f"<{MAIL}> {PHONE}").text == f"{back} {PHONE}"
    [asked] = model.asked
    assert isinstance(asked, Chat)
    assert asked.messages[0].text.startswith(f"{sent} <PHONE_1:")


def test_actions_are_found_by_type_then_pattern_then_group_and_by_place() -> None:
    remote = {"US_*": "mask", "secret": "placeholder"}
    options = read_options({"remote": remote, "private": {"US_SSN": "drop", "personal": "keep"}})

    def action(kind: str, place: str, *, secret: bool = False) -> str:
        return options.action(kind, secret=secret, place=place)

    assert action("US_SSN", "hosted") == "mask"
    assert action("US_SSN", "private") == "drop"
    assert action("EMAIL", "hosted") == "placeholder"
    assert action("EMAIL", "private") == "keep"
    assert action("API_KEY", "hosted", secret=True) == "placeholder"
    assert action("API_KEY", "process", secret=True) == "keep"
    with pytest.raises(ConfigError, match="remote"):
        read_options({"remote": {"EMAIL": "hide"}})


def test_every_place_of_a_request_is_covered() -> None:
    tool = Tool(
        name="send",
        description=f"Sends mail, never to {MAIL}.",
        parameters={
            "type": "object",
            "properties": {"to": {"type": "string", "description": f"as {MAIL}", "enum": [MAIL]}},
        },
    )
    call = ToolCall("1", "send", f'{{"to": "{MAIL}", "numbers": [{PHONE}], "n\\u0061me": "x"}}')
    request = Chat(
        messages=(
            Message.system(f"You serve {MAIL}."),
            Message.user(f"Hello, {MAIL}", Image(url="https://example.org/a.png"), File(data=b"%PDF", name=f"{MAIL}.pdf")),
            Message.assistant(Reasoning(f"They are {MAIL}", signature="signed"), call),
            Message.tool(call, f'{{"ssn": "123456789", "mail": "{MAIL}"}}'),
            Message.user(f"And {PHONE}?"),
        ),
        tools=(tool,),
        stop=(MAIL,),
    )
    model = Echo()
    with gateway(model) as gw:
        gw.run(request)
    for value in (MAIL, PHONE, "123456789", "signed"):
        assert value not in model.saw, value
    [asked] = model.asked
    assert isinstance(asked, Chat)
    sent = asked.messages[2].parts[1]
    assert isinstance(sent, ToolCall)
    assert sent.parsed()["numbers"][0].startswith("<PHONE_1:")
    assert asked.messages[3].parts[0].text.startswith('{"ssn": "<US_SSN_1:')  # type: ignore[union-attr]
    assert asked.stop[0] in asked.messages[0].text  # one value, one placeholder


def test_what_cannot_be_replaced_keeps_the_request_here() -> None:
    tool = Tool(name=f"call-{PHONE}", description="")
    with gateway(Echo()) as gw, pytest.raises(NoEligibleModel, match="scrub"):
        gw.run(Chat(messages=(Message.user("Hi"),), tools=(tool,)))
    with gateway(Echo(), fixed="keep") as gw:
        assert gw.run(Chat(messages=(Message.user("Hi"),), tools=(tool,))).text == "Hi"


def test_media_stay_here_when_they_are_blocked() -> None:
    request = Chat(messages=(Message.user("What is it?", Image(data=b"png")),))
    with gateway(Echo()) as gw:
        assert gw.run(request).text == "What is it?"
    with gateway(Echo(), media="block") as gw, pytest.raises(NoEligibleModel, match="media"):
        gw.run(request)


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 100])
def test_a_stream_is_restored_as_the_whole_is(cut: int) -> None:
    model = Echo(cut=cut)
    with gateway(model) as gw, gw.stream(Chat.ask(f"Mail {MAIL}, call {PHONE}")) as stream:
        text = "".join(delta.text for delta in stream)
        assert text == stream.response.text == f"Mail {MAIL}, call {PHONE}"


def test_tool_arguments_are_restored_but_for_the_tools_that_must_not_have_them() -> None:
    class Caller(Echo):
        async def run(self, request: Request[Any], /) -> Response:
            self.asked.append(request)
            assert isinstance(request, Chat)
            token = request.messages[-1].text
            calls = [ToolCall(str(n), name, f'{{"q": "{token}"}}') for n, name in enumerate(("send", "web_search"))]
            return ChatResponse(parts=(Text("I call."), *calls))

    for how in ("run", "stream"):
        with gateway(Caller(), keep_from_tools=["web_*"]) as gw:
            request = Chat(messages=(Message.user('a"b' + MAIL),), tools=(Tool(name="send"), Tool(name="web_search")))
            if how == "run":
                reply = gw.run(request)
            else:
                with gw.stream(request) as stream:
                    list(stream)
                    reply = stream.response
            send, search = reply.tool_calls
            assert MAIL in send.arguments
            assert MAIL not in search.arguments
            assert "<EMAIL_1:" in search.arguments


def test_a_conversation_keeps_its_placeholders_and_no_other_knows_them() -> None:
    model, transform = Echo(), scrub()
    with gateway(model, transform=transform) as gw:
        for _ in range(2):
            gw.run(turns(f"I am {MAIL}"), meta=Meta(tenant="a", conversation="1"))
        gw.run(turns(f"I am {MAIL}"), meta=Meta(tenant="b", conversation="1"))
        sent = [request.messages[0].text for request in model.asked if isinstance(request, Chat)]
        assert sent[0] == sent[1] != sent[2]
        # What one conversation was told means nothing in another.
        stolen = sent[0].removeprefix("I am ")
        assert gw.run(turns(f"Who is {stolen}?"), meta=Meta(tenant="b", conversation="1")).text == f"Who is {stolen}?"
        assert gw.run(turns(f"Who is {stolen}?"), meta=Meta(tenant="a", conversation="1")).text == f"Who is {stolen}?"


def test_reasoning_goes_back_to_its_model_as_it_was_signed() -> None:
    thought = Reasoning("they write to <EMAIL_1:aaaaaaaa>", signature="signed")
    model = Echo(parts=(thought, Text("Yes.")))
    with gateway(model) as gw:
        reply = gw.chat(f"I am {MAIL}")
        assert reply.parts[0] == thought
        gw.run(Chat(messages=(Message.user("Hi"), Message.assistant(*reply.parts), Message.user("Go on"))))
    asked = model.asked[-1]
    assert isinstance(asked, Chat)
    back = asked.messages[1].parts[0]
    assert isinstance(back, Reasoning)
    assert (back.text, back.signature) != ("", "signed") or back == thought


def test_citations_lead_into_the_restored_text() -> None:
    class Cites(Echo):
        async def run(self, request: Request[Any], /) -> Response:
            self.asked.append(request)
            assert isinstance(request, Chat)
            token = request.messages[-1].text
            cited = Citation(url="https://x.org", quote=token, start=0, end=len(token))
            return ChatResponse(parts=(Text(f"{token} is right."), cited))

    with gateway(Cites()) as gw:
        text, cited = gw.chat(MAIL).parts
    assert isinstance(cited, Citation)
    assert (cited.quote, cited.start, cited.end) == (MAIL, 0, len(MAIL))
    assert isinstance(text, Text)
    assert text.text == f"{MAIL} is right."


class Tagger(ModelService):
    """Finds the word "river", and whatever stands in angle brackets."""

    card = ModelCard(name="tagger", tasks=frozenset({Extract, Embed}), place="hosted")

    def __init__(self) -> None:
        self.asked: list[Request[Any]] = []

    async def run(self, request: Request[Any], /) -> Response:
        self.asked.append(request)
        if isinstance(request, Embed):
            return EmbedResponse(vectors=tuple((float(len(text)), 1.0) for text in request.texts))
        assert isinstance(request, Extract)
        text, spans = request.inputs, []
        for word in ("river", text[text.find("<") : text.find(">") + 1]):
            if word and (at := text.find(word)) >= 0:
                spans.append(Found(entity_group="X", score=1.0, word=word, start=at, end=at + len(word)))
        return ExtractResponse(spans=tuple(sorted(spans, key=lambda span: span.start)))


def test_spans_of_characters_lead_into_the_callers_text() -> None:
    text = f"To {MAIL} by the river"
    with gateway(Tagger()) as gw:
        found = gw.run(Extract(inputs=text)).spans
    assert [(span.word, text[span.start : span.end]) for span in found] == [(MAIL, MAIL), ("river", "river")]


def test_a_text_has_the_same_vector_in_every_conversation() -> None:
    model = Tagger()
    with gateway(model) as gw:
        vectors = [gw.run(Embed(texts=(f"I am {MAIL}",)), meta=Meta(conversation=name)).vectors for name in ("1", "2")]
    assert vectors[0] == vectors[1]
    assert [request.texts for request in model.asked if isinstance(request, Embed)] == [("I am <EMAIL>",)] * 2


class Broken:
    """A detector that fails, at once or at its second text."""

    name = "broken"

    def __init__(self, fail: bool = True) -> None:
        self.fail = fail

    async def find(self, texts: Sequence[str], resources: Resources, meta: Meta) -> list[list[Span]]:
        await asyncio.sleep(0)
        if self.fail:
            raise RuntimeError(f"cannot look at {texts[0]!r}")
        return [[] for _ in texts][1:]


@pytest.mark.parametrize("fail", [True, False])
def test_a_detector_that_fails_keeps_the_request_on_this_machine(fail: bool) -> None:
    hosted, local = Echo(quality=1.0), Echo("local", "process", quality=0.1)
    with gateway(hosted, local, transform=scrub([Broken(fail)])) as gw:
        assert gw.chat("nothing to hide").model == "local"
    with gateway(hosted, transform=scrub([Broken(fail)])) as gw, pytest.raises(NoEligibleModel) as caught:
        gw.chat("nothing to hide")
    assert "nothing to hide" not in str(caught.value)
    assert not hosted.asked


def test_a_fallback_from_a_local_model_to_a_hosted_one_is_covered_or_refused() -> None:
    class Down(Echo):
        async def run(self, request: Request[Any], /) -> Response:
            raise Unreachable("down", model=self.card.name)

    local, hosted = Down("local", "process", quality=1.0), Echo(quality=0.1)
    with gateway(local, hosted) as gw:
        assert gw.chat(f"I am {MAIL}").model == "hosted"
        assert MAIL not in hosted.saw
        hosted.asked.clear()
        with pytest.raises((AllModelsFailed, NoEligibleModel, Unreachable)):
            gw.chat(f"my key is {KEY}")
    assert not hosted.asked


def test_a_model_inside_the_gateway_that_a_policy_lets_in_is_refused_by_the_transform_itself() -> None:
    """Defence in depth: without the policy a blocked request still does not go out."""
    from gateway import Gateway, GatewayConfig

    hosted = Echo()
    with Gateway([hosted], transforms=[scrub()], config=GatewayConfig(plugins=[])) as gw:
        with pytest.raises(Exception, match="scrub") as caught:
            gw.chat(f"my key is {KEY}")
    assert KEY not in str(caught.value)
    assert not hosted.asked


def test_what_another_transform_wrote_after_the_inspection_is_not_sent() -> None:
    from gateway import Findings, Gateway, GatewayConfig, Rewrite, Transform

    class Adds(Transform):
        name = "adds"

        def begin(self, request: Any, findings: Findings | None, card: ModelCard) -> Rewrite:
            return Rewrite(Chat.ask(request.messages[-1].text + f" cc {MAIL}"))

    hosted = Echo()
    config = GatewayConfig(plugins=[], transforms=["adds", "scrub"])
    with Gateway([hosted], transforms=[Adds(), scrub()], config=config) as gw, pytest.raises(Exception, match="scrub"):
        gw.chat("Hi")
    assert not hosted.asked


def test_nothing_shows_a_value() -> None:
    from gateway_scrub.transform import ScrubPolicy

    from gateway import Gateway, GatewayConfig

    recorder, conversations = Recorder(), Conversations()
    transform = scrub(conversations=conversations)
    with Gateway(
        [Echo()], policies=[ScrubPolicy()], transforms=[transform], observers=[recorder], config=GatewayConfig(plugins=[])
    ) as gw:
        reply = gw.run(turns(f"I am {MAIL}, {PHONE}"), meta=Meta(conversation="1"))
        why = str(gw.explain(turns(f"I am {MAIL}")))
    told = [repr(transform), repr(conversations), repr(conversations.get("", "1")), why, str(reply.trace), repr(reply.trace)]
    told += [repr(event) for event in recorder.events]
    assert not any(MAIL in text or PHONE in text for text in told)
    assert [event.notes for event in recorder.events if event.kind != "start"] == [("scrub: 1 EMAIL, 1 PHONE",)] * 2
    assert not any(MAIL in repr(value) for value in vars(transform).values())


def test_the_allow_list_and_rules_of_ones_own() -> None:
    from gateway_scrub.build import scrub_of

    rules = [{"name": "acme.id", "type": "ACME_ID", "anchors": ["ACME-"], "pattern": "ACME-[0-9]{4}", "score": 0.9}]
    made = scrub_of(read_options({"rules": rules, "allow": ["help@acme.example"], "name_rules": False}))
    model = Echo()
    with gateway(model, transform=made) as gw:
        text = "ACME-1234 to help@acme.example, not ada@example.org"
        assert gw.chat(text).text == text
    assert "ACME-1234" not in model.saw
    assert "help@acme.example" in model.saw
    assert "ada@example.org" not in model.saw
    with pytest.raises(ConfigError, match=r"plugin\.scrub\.rules\.0"):
        scrub_of(read_options({"rules": [{"name": "x", "type": "lower", "anchors": ["x"], "pattern": "x"}]}))


CUTS = st.integers(1, 9)
TEXTS = st.text(alphabet=st.sampled_from('ab <>_:1@.é你\n"\\'), max_size=40)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(TEXTS, st.sampled_from([MAIL, PHONE, "<EMAIL_1:", "<EMAIL_1:aaaaaaaa>"])), max_size=8), st.integers(1, 9)
)
def test_an_echo_of_any_text_comes_back_as_it_was(pieces: list[str], cut: int) -> None:
    text = " ".join(pieces)
    if not text.strip():
        return
    model = Echo(cut=cut)
    with gateway(model) as gw:
        assert gw.chat(text).text == text
        with gw.stream(Chat.ask(text)) as stream:
            assert "".join(delta.text for delta in stream) == text
    assert MAIL not in model.saw


def test_a_need_for_a_local_model_is_not_touched() -> None:
    local = Echo("local", "process")
    with gateway(local) as gw:
        assert gw.chat(MAIL, Need(place="local")).text == MAIL


class Everything:
    """A detector that finds an organisation in every text, and counts what it is asked."""

    name = "everything"

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def find(self, texts: Sequence[str], resources: Resources, meta: Meta) -> list[list[Span]]:
        self.asked += texts
        return [[Span(0, len(text), "ORGANIZATION", 0.9, "all", 1)] for text in texts]


def test_models_are_not_asked_about_the_names_of_tools_and_once_about_each_text() -> None:
    detector = Everything()
    tool = Tool(name="post_to_Slack", description="Posts.", parameters={"type": "object", "properties": {"Slack": {}}})
    model = Echo()
    with gateway(model, transform=scrub([detector])) as gw:
        for _ in range(2):
            gw.run(Chat(messages=(Message.user("Hi"), Message.assistant("Hi"), Message.user("Hi")), tools=(tool,)))
    assert sorted(detector.asked) == ["Hi", "Posts."]
    assert '"name": "post_to_Slack"' in model.saw


OWN = {"name": "a", "type": "A", "anchors": ["ACME-"], "score": 0.9}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"rules": [{"name": "a", "type": "A", "anchors": ["ACME-"], "pattern": "ACME-[0-9]{6}{Z}", "score": 0.9}]},
            "{Z} is none",
        ),
        (
            {
                "rules": [
                    {"name": "a", "type": "A", "anchors": ["ACME-"], "pattern": "acme-1", "score": 0.9, "cases": ["«ACME-1»"]}
                ]
            },
            "own case",
        ),
        ({"rules": [OWN | {"pattern": "ACME-[0-9]{6}{Z}"}]}, "{Z} is none"),
        ({"rules": [OWN | {"pattern": "acme-1", "cases": ["«ACME-1»"]}]}, "own case"),
        ({"rules": [OWN | {"pattern": "ACME-1", "score": 0.2}]}, "can never count"),
        ({"remote": {"PERSN": "mask"}}, "did you mean PERSON"),
        ({"remote": {"XX_*": "mask"}}, "no type that is found"),
    ],
)
def test_a_typo_stops_the_start(options: dict[str, Any], told: str) -> None:
    from gateway_scrub.build import scrub_of

    with pytest.raises(ConfigError, match=re.escape(told)):
        scrub_of(read_options(options))
    scrub_of(read_options({"remote": {"US_*": "mask", "PERSON": "keep", "secret": "keep"}}))


@given(st.integers(1, len(MAIL) - 1), st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_value_that_lies_across_two_parts_of_a_message_is_covered(at: int, more: bool) -> None:
    texts = (f"Write to {MAIL[:at]}", MAIL[at:] + (f" or {MAIL}" if more else ""))
    model = Echo()
    with gateway(model) as gw:
        gw.run(Chat(messages=(Message.user(*(Text(text) for text in texts)),)))
    [asked] = model.asked
    assert isinstance(asked, Chat)
    sent = [part.text for part in asked.messages[0].parts if isinstance(part, Text)]
    assert MAIL not in "".join(sent)
    assert sent[0].startswith("Write to <EMAIL_1:")
    assert sent[1].startswith("<EMAIL_")
