"""Over real sockets: what a hosted model's server receives holds none of the planted values, and callers get theirs back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from gateway_scrub.build import scrub_of
from gateway_scrub.options import read_options
from gateway_scrub.rules import builtin_rules
from gateway_scrub.scan import Scanner
from gateway_scrub.spans import Span
from scrub_case import Echo

from gateway import (
    Chat,
    Gateway,
    Message,
    Meta,
    Need,
    NoEligibleModel,
    Request,
    Resources,
    Response,
    Tool,
    ToolCall,
    Unreachable,
)
from gateway.testing import LoopbackServer, Reply

pytest.importorskip("gateway_remote")

ALL = {"secret": "placeholder", "personal": "placeholder"}


def planted() -> list[tuple[str, str, str]]:
    """Every case of every rule: type, text, and the value in it, if it is long enough not to stand elsewhere by chance."""
    out = []
    for rule in builtin_rules():
        for case in rule.cases:
            text = case.replace("«", "").replace("»", "")
            values = (piece.partition("»")[0] for piece in case.split("«")[1:])
            out += [(rule.type, text, value) for value in values if len(value) > 5]
    return out


PLANTED = planted()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    monkeypatch.setenv("HOSTED_KEY", "test-key")
    with LoopbackServer(key="test-key") as server:
        yield server


def config(server: LoopbackServer, **scrub: Any) -> dict[str, Any]:
    hosted = {"name": "hosted", "base_url": server.url, "model": "loopback", "api_key": "env:HOSTED_KEY", "quality": 0.9}
    return {"plugins": ["remote", "scrub"], "plugin": {"remote": {"models": [hosted]}, "scrub": scrub}}


def received(server: LoopbackServer) -> str:
    """All that the server was sent, as it came and with the escapes of JSON undone."""
    raw = "\n".join(request.body.decode() for request in server.requests)
    return raw + "\n" + "\n".join(json.dumps(request.json, ensure_ascii=False) for request in server.requests)


def leaks(server: LoopbackServer, values: Sequence[tuple[str, str, str]]) -> list[tuple[str, str]]:
    sent = received(server)
    return [(kind, value) for kind, _, value in values if value in sent]


def test_there_are_values_enough() -> None:
    assert len(PLANTED) >= 500
    assert len({kind for kind, _, _ in PLANTED}) >= 40


def test_five_turns_with_tools_streamed_and_whole_send_no_planted_value(server: LoopbackServer) -> None:
    """Every value stands in a message, a system prompt, a tool's description, the arguments of a call, or a result."""
    share = -(-len(PLANTED) // 5)
    with Gateway.from_config(config(server, remote=ALL)) as gw:
        messages: list[Message] = [Message.system(PLANTED[0][1])]
        for turn in range(5):
            part = PLANTED[turn * share : (turn + 1) * share]
            said, called, told, described = (part[at::4] for at in range(4))
            call = ToolCall(f"call_{turn}", "look_up", json.dumps([text for _, text, _ in called], ensure_ascii=turn % 2 == 0))
            call = ToolCall(call.id, call.name, f'{{"q": {call.arguments}}}')
            messages += [
                Message.user(said[0][1]),
                Message.assistant(call),
                Message.tool(call, json.dumps({"found": [text for _, text, _ in told]})),
                *(Message.user(text) for _, text, _ in said),
            ]
            tools = (Tool(name="look_up", description="\n".join(text for _, text, _ in described)),)
            request, meta = Chat(messages=tuple(messages), tools=tools), Meta(conversation="one")
            if turn % 2:
                with gw.stream(request, meta=meta) as stream:
                    text = "".join(delta.text for delta in stream)
                    assert stream.response.text == text
            else:
                text = gw.run(request, meta=meta).text
            assert text == f"You said: {said[-1][1]}"  # and it comes back whole
            messages.append(Message.assistant(text))
    assert len(server.requests) == 5
    assert leaks(server, PLANTED) == []


def test_tool_arguments_of_a_reply_come_back_whole_and_streamed(server: LoopbackServer) -> None:
    tool = Tool(name="send", parameters={"type": "object", "properties": {"to": {"type": "string"}}})
    request = Chat(messages=(Message.user('Write to ada@example.org, "now".'),), tools=(tool,))
    with Gateway.from_config(config(server)) as gw:
        gw.run(request, meta=Meta(conversation="c"))
        token = server.requests[0].json["messages"][0]["content"].split()[2].rstrip(",")
        assert token.startswith("<EMAIL_1:")
        for arguments in (json.dumps({"to": token}), json.dumps({"to": token}).replace("<", "\\u003c")):
            server.script(Reply(tool_calls=[("send", arguments)]), Reply(tool_calls=[("send", arguments)]))
            [whole] = gw.run(request, meta=Meta(conversation="c")).tool_calls
            with gw.stream(request, meta=Meta(conversation="c")) as stream:
                list(stream)
            [streamed] = stream.response.tool_calls
            assert whole.parsed() == streamed.parsed() == {"to": "ada@example.org"}
            assert whole.arguments == streamed.arguments
    assert "ada@example.org" not in received(server)


def test_a_fallback_from_a_local_model_sends_no_value(server: LoopbackServer) -> None:
    class Down(Echo):
        async def run(self, request: Request[Any], /) -> Response:
            raise Unreachable("down", model=self.card.name)

    values = PLANTED[:60]
    whole = config(server, remote=ALL)
    whole["plugin"]["remote"]["models"][0]["quality"] = 0.1
    from gateway import GatewayConfig
    from gateway.config import parse_config
    from gateway.plugins import load_plugins

    settings = parse_config(GatewayConfig, whole, "")
    with Gateway([Down("local", "process", quality=1.0)], config=settings, plugins=load_plugins(settings)) as gw:
        for _, text, _ in values:
            reply = gw.run(Chat.ask(text), meta=Meta(conversation="f"))
            assert (reply.model, reply.text) == ("hosted", f"You said: {text}")
    assert leaks(server, values) == []


class HalfWay:
    """A detector that dies at the third request."""

    name = "half-way"

    def __init__(self) -> None:
        self.looked = 0

    async def find(self, texts: Sequence[str], resources: Resources, meta: Meta) -> list[list[Span]]:
        self.looked += 1
        if self.looked > 2:
            raise MemoryError
        return [[] for _ in texts]


def test_a_detector_that_dies_half_way_lets_nothing_out(server: LoopbackServer) -> None:
    from gateway_scrub.conversations import Conversations
    from gateway_scrub.detect import Detectors
    from gateway_scrub.transform import Scrub, ScrubPolicy

    from gateway import GatewayConfig
    from gateway.config import parse_config
    from gateway.plugins import load_plugins

    dying = Detectors([Scanner().find], [HalfWay()])
    scrub = Scrub(read_options({}), lambda: (dying, frozenset()), Conversations())
    whole = config(server) | {"plugins": ["remote"]}
    del whole["plugin"]["scrub"]
    settings = parse_config(GatewayConfig, whole, "")
    local = Echo("local", "process", quality=0.1)
    with Gateway([local], config=settings, plugins=load_plugins(settings), transforms=[scrub], policies=[ScrubPolicy()]) as gw:
        assert gw.chat("one").model == "hosted"
        assert gw.chat("two").model == "hosted"
        assert gw.chat("ada@example.org").model == "local"
        with pytest.raises(NoEligibleModel):
            gw.chat("bob@example.org", Need(place="hosted"))
    assert len(server.requests) == 2
    assert "@example.org" not in received(server)


def test_by_default_a_secret_never_leaves(server: LoopbackServer) -> None:
    secrets = {rule.type for rule in builtin_rules() if rule.secret}
    values = [row for row in PLANTED if row[0] in secrets]
    assert values
    with Gateway.from_config(config(server)) as gw:
        for _, text, value in values:
            with pytest.raises(NoEligibleModel) as caught:
                gw.run(Chat.ask(text))
            assert value not in str(caught.value)
    assert not server.requests
    assert scrub_of(read_options({})).name == "scrub"


def test_fifty_names_do_not_leave_where_a_model_finds_them(server: LoopbackServer, ner: Path) -> None:
    """By a token classifier that the tests train, which gateway-local serves beside the hosted model."""
    pytest.importorskip("gateway_local")
    from ner_case import planted as named

    whole = config(server, names={"model": "ner", "timeout_s": 60.0})
    whole["plugins"] = ["local", "remote", "scrub"]
    whole["plugin"]["local"] = {"starter": False, "models": [{"name": "ner", "weights": str(ner)}]}
    names = named(50)
    with Gateway.from_config(whole) as gw:
        for text, _, _ in names:
            with gw.stream(Chat.ask(text), meta=Meta(conversation="n")) as stream:
                assert "".join(delta.text for delta in stream) == f"You said: {text}"
            assert stream.response.model == "hosted"
    sent = received(server)
    assert [name for _, name, _ in names if name in sent] == []
