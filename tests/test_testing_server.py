"""The loopback server: every fault and every shape, over real sockets."""

import asyncio
import base64
import http.client
import json
import math
import re
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.testing.script import tokens
from gateway.testing.server import Fault, LoopbackServer, Reply

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer() as running:
        yield running


def address(server: LoopbackServer) -> tuple[str, int]:
    found = urlsplit(server.url)
    return str(found.hostname), int(found.port or 0)


def connect(server: LoopbackServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(*address(server), timeout=10)


def ask(server: LoopbackServer, path: str = "/chat/completions", **body: Any) -> tuple[int, Any]:
    """The status and the body: parsed JSON, or the text of anything else."""
    with closing(connect(server)) as client:
        client.request("POST", "/v1" + path, json.dumps({"model": "m"} | body), {"authorization": "Bearer k"})
        response = client.getresponse()
        raw = response.read()
    is_json = response.headers.get_content_type() == "application/json" and raw
    return response.status, json.loads(raw) if is_json else raw.decode()


def chat(server: LoopbackServer, text: str = "Hi there", **body: Any) -> tuple[int, Any]:
    return ask(server, **({"messages": [{"role": "user", "content": text}]} | body))


def choice(server: LoopbackServer, text: str = "Hi there", **body: Any) -> Any:
    return chat(server, text, **body)[1]["choices"][0]


def lines(sse: str) -> list[Any]:
    data = [line.removeprefix("data: ") for line in sse.split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in data]


def deltas(sse: str) -> list[Any]:
    return [each["choices"][0]["delta"] for each in lines(sse) if each != "[DONE]" and each["choices"]]


def raw(server: LoopbackServer, sent: bytes) -> bytes:
    """All that the server sends until it ends the connection."""
    with closing(connect(server)) as client:
        client.connect()
        client.sock.sendall(sent)
        return b"".join(iter(lambda: client.sock.recv(65536), b""))


def http_request(close: bool = True, **body: Any) -> bytes:
    text = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi there"}]} | body).encode()
    ends = b"connection: close\r\n" if close else b""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n"
    return head % (ends, len(text)) + text


def test_it_echoes_the_last_user_message_and_counts_its_tokens(server: LoopbackServer) -> None:
    status, reply = chat(server, "Hi there")
    assert status == 200
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": "You said: Hi there"}
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}


def test_the_same_request_gets_the_same_answer() -> None:
    replies = []
    for _ in range(2):
        with LoopbackServer() as server:
            replies.append(chat(server, "again"))
    assert replies[0] == replies[1]


def test_images_and_audio_are_mentioned_in_the_echo(server: LoopbackServer) -> None:
    parts = [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {}}, {"type": "input_audio"}]
    reply = choice(server, messages=[{"role": "user", "content": parts}])
    assert reply["message"]["content"] == "You said: See [image] [audio]"


def test_a_function_of_the_callers_makes_the_answer() -> None:
    with LoopbackServer(answer=lambda body: body["model"].upper()) as server:
        assert choice(server)["message"]["content"] == "M"


def test_an_answer_function_that_raises_is_a_500_that_says_so() -> None:
    with LoopbackServer(answer=lambda body: str(body["nothing"])) as server:
        status, reply = chat(server)
    assert (status, "KeyError" in reply["error"]["message"]) == (500, True)


@pytest.mark.parametrize("limit", [{"max_tokens": 3}, {"max_completion_tokens": 3}])
def test_max_tokens_cuts_the_text_and_says_length(server: LoopbackServer, limit: Any) -> None:
    _, reply = chat(server, **limit)
    assert reply["choices"][0]["message"]["content"] == "You said:"
    assert (reply["choices"][0]["finish_reason"], reply["usage"]["completion_tokens"]) == ("length", 3)


@pytest.mark.parametrize("stop", [" there", ["nowhere", "there", " there"]])
def test_the_text_ends_before_the_first_stop(server: LoopbackServer, stop: Any) -> None:
    reply = choice(server, stop=stop)
    assert (reply["message"]["content"], reply["finish_reason"]) == ("You said: Hi", "stop")


def test_a_stream_starts_with_the_role_and_ends_with_finish_usage_and_done(server: LoopbackServer) -> None:
    _, sse = chat(server, stream=True, stream_options={"include_usage": True})
    *chunks, last, usage, done = lines(sse)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(each["content"] for each in deltas(sse)[:-1]) == "You said: Hi there"
    assert {each["usage"] for each in [*chunks, last]} == {None}
    assert last["choices"][0]["finish_reason"] == "stop"
    assert (usage["choices"], usage["usage"]["total_tokens"], done) == ([], 9, "[DONE]")


def test_a_stream_without_include_usage_has_no_usage(server: LoopbackServer) -> None:
    assert not any("usage" in each for each in lines(chat(server, stream=True)[1]))


def test_reasoning_comes_before_the_text_and_is_counted(server: LoopbackServer) -> None:
    _, reply = chat(server, reasoning_effort="low")
    thought = reply["choices"][0]["message"]["reasoning_content"]
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] == len(tokens(thought))
    _, *pieces, _ = deltas(chat(server, stream=True, reasoning_effort="low")[1])
    kinds = ["".join(piece) for piece in pieces]
    assert kinds == ["reasoning_content"] * len(tokens(thought)) + ["content"] * 6


def test_a_tool_is_called_when_the_user_names_it(server: LoopbackServer) -> None:
    reply = choice(server, "the weather?", tools=[WEATHER, CLOCK])
    call = {"name": "weather", "arguments": '{"city": "Oslo"}'}
    assert reply["message"]["tool_calls"] == [{"id": "call_1", "type": "function", "function": call}]
    assert (reply["message"]["content"], reply["finish_reason"]) == (None, "tool_calls")


@pytest.mark.parametrize(
    ("text", "options", "called"),
    [
        ("hello", {}, []),
        ("weather", {"tool_choice": "none"}, []),
        ("hello", {"tool_choice": "required"}, ["weather"]),
        ("weather", {"tool_choice": {"type": "function", "function": {"name": "clock"}}}, ["clock"]),
        ("weather and clock", {}, ["weather", "clock"]),
        ("weather and clock", {"parallel_tool_calls": False}, ["weather"]),
    ],
)
def test_tool_choice_decides(server: LoopbackServer, text: str, options: Any, called: list[str]) -> None:
    message = choice(server, text, tools=[WEATHER, CLOCK], **options)["message"]
    assert [each["function"]["name"] for each in message.get("tool_calls", [])] == called


def test_a_streamed_call_gives_id_and_name_first_and_then_fragments(server: LoopbackServer) -> None:
    _, sse = chat(server, "weather and clock", tools=[WEATHER, CLOCK], stream=True)
    pieces = [each["tool_calls"][0] for each in deltas(sse) if "tool_calls" in each]
    named = [each for each in pieces if "id" in each]
    assert [(each["index"], each["id"], each["function"]["name"]) for each in named] == [
        (0, "call_1", "weather"), (1, "call_2", "clock"),
    ]  # fmt: skip
    for at, wanted in enumerate(['{"city": "Oslo"}', "{}"]):
        assert "".join(each["function"]["arguments"] for each in pieces if each["index"] == at) == wanted


def test_a_tools_result_is_quoted_and_a_later_call_has_a_new_id(server: LoopbackServer) -> None:
    asked = {"role": "user", "content": "weather"}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1"}]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    reply = choice(server, messages=[asked, call, result], tools=[WEATHER])
    assert reply["message"]["content"] == "The tool said: sunny"
    again = choice(server, messages=[asked, call, result, asked], tools=[WEATHER])
    assert again["message"]["tool_calls"][0]["id"] == "call_2"


def test_json_schema_and_json_object_answer_in_json(server: LoopbackServer) -> None:
    schema = {"$defs": {"n": {"type": "integer", "minimum": 7}}, "properties": {"n": {"$ref": "#/$defs/n"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(choice(server, response_format=form)["message"]["content"]) == {"n": 7}
    plain = choice(server, response_format={"type": "json_object"})["message"]["content"]
    assert json.loads(plain) == {"answer": "You said: Hi there"}


def test_completions_take_a_prompt_streamed_or_not(server: LoopbackServer) -> None:
    _, reply = ask(server, "/completions", prompt="Hi")
    assert (reply["object"], reply["choices"][0]["text"]) == ("text_completion", "You said: Hi")
    _, sse = ask(server, "/completions", prompt="Hi", stream=True)
    assert "".join(each["choices"][0]["text"] for each in lines(sse)[:-1]) == "You said: Hi"


def test_embeddings_are_unit_vectors_nearer_when_words_are_shared(server: LoopbackServer) -> None:
    texts = ["the cat sat", "a cat sat down", "stock market crash"]
    _, reply = ask(server, "/embeddings", input=texts)
    one, near, far = (each["embedding"] for each in reply["data"])
    assert [each["index"] for each in reply["data"]] == [0, 1, 2]
    assert math.isclose(math.hypot(*one), 1.0)
    assert sum(map(float.__mul__, one, near)) > sum(map(float.__mul__, one, far))
    assert reply["usage"] == {"prompt_tokens": 10, "total_tokens": 10}


def test_embeddings_come_in_base64_and_any_size(server: LoopbackServer) -> None:
    _, plain = ask(server, "/embeddings", input="cat", dimensions=5)
    _, coded = ask(server, "/embeddings", input="cat", dimensions=5, encoding_format="base64")
    unpacked = struct.unpack("<5f", base64.b64decode(coded["data"][0]["embedding"]))
    assert unpacked == pytest.approx(plain["data"][0]["embedding"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user"}], "n": 2}, "n"),
        ({"messages": [{"role": "user"}], "model": 3}, "model"),
        ({"messages": [{"role": "user"}], "max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "user"}], "stop": [1]}, "stop"),
        ({"messages": [{"role": "user"}], "tool_choice": "required"}, "tool_choice"),
        ({"messages": [{"role": "user"}], "response_format": {"type": "json_schema"}}, "response_format"),
    ],
)
def test_a_bad_chat_is_a_400_that_names_the_parameter(server: LoopbackServer, body: Any, param: str) -> None:
    status, reply = ask(server, **body)
    assert (status, reply["error"]["param"], reply["error"]["type"]) == (400, param, "invalid_request_error")


@pytest.mark.parametrize("given", [[], "", ["a", ""]])
def test_an_empty_input_is_a_400(server: LoopbackServer, given: Any) -> None:
    status, reply = ask(server, "/embeddings", input=given)
    assert (status, reply["error"]["param"]) == (400, "input")


def test_bad_json_is_a_400_that_names_the_place(server: LoopbackServer) -> None:
    reply = raw(server, http_request().replace(b'"messages": [', b'"messages": {', 1))
    assert b" 400 " in reply and b"line 1, column" in reply


def test_unknown_paths_wrong_methods_and_wrong_keys_are_refused() -> None:
    with LoopbackServer(key="k") as server:
        assert chat(server)[0] == 200
        assert ask(server, "/nowhere")[0] == 404
        assert ask(server, "/models")[0] == 405
        reply = raw(server, b"GET /v1/models HTTP/1.1\r\nauthorization: Bearer no\r\nconnection: close\r\n\r\n")
    assert b" 401 " in reply and b"invalid_api_key" in reply


def test_the_models_are_listed() -> None:
    with LoopbackServer(models=["one", "two"]) as server, closing(connect(server)) as client:
        client.request("GET", "/v1/models")
        assert [each["id"] for each in json.load(client.getresponse())["data"]] == ["one", "two"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nx: " + b"y" * 65536, 431),
        (b"POST /v1/x HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", 413),
        (b"POST /v1/x HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST /v1/x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_what_is_no_http_or_too_large_is_refused(server: LoopbackServer, sent: bytes, status: int) -> None:
    assert raw(server, sent).startswith(b"HTTP/1.1 %d " % status)


def test_steps_are_used_up_in_order_and_then_the_default_is_back(server: LoopbackServer) -> None:
    server.script(Fault(status=503), Reply(text="one"))
    assert chat(server)[0] == 503
    assert [choice(server, "x")["message"]["content"] for _ in range(2)] == ["one", "You said: x"]


def test_a_step_can_be_for_one_path_one_model_or_a_predicate(server: LoopbackServer) -> None:
    server.script(Fault(status=500), path="/embeddings")
    server.script(Fault(status=501), model="big")
    server.script(Fault(status=502), when=lambda request: request.json.get("user") == "eve")
    assert [chat(server)[0], chat(server, user="eve")[0], chat(server, model="big")[0]] == [200, 502, 501]
    assert [ask(server, "/embeddings", input="x")[0] for _ in range(2)] == [500, 200]


def test_a_standing_rule_and_the_fault_hold_until_cleared(server: LoopbackServer) -> None:
    server.fault = Fault(status=500)
    server.always(Fault(status=503), model="big")
    server.script(Reply(text="first"))
    assert [chat(server)[0], chat(server)[0], chat(server, model="big")[0]] == [200, 500, 503]
    server.clear()
    assert (chat(server)[0], len(server.requests)) == (200, 1)


def test_a_reply_can_give_calls_usage_reasoning_finish_and_headers(server: LoopbackServer) -> None:
    usage = {"prompt_tokens": 1}
    server.script(Reply(text="T", reasoning="R", tool_calls=[("f", "{oops")], usage=usage, finish_reason="content_filter"))
    _, reply = chat(server)
    [made] = reply["choices"]
    assert (made["message"]["content"], made["message"]["reasoning_content"]) == ("T", "R")
    assert made["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{oops"}
    assert (reply["usage"], made["finish_reason"]) == (usage, "content_filter")
    server.script(Reply(headers={"X-Mine": "yes"}))
    assert b"x-mine: yes\r\n" in raw(server, http_request())


def test_a_reply_can_give_raw_deltas_and_whole_chunks(server: LoopbackServer) -> None:
    server.script(Reply(chunks=[{"content": "a"}, {"choices": []}, "not json"]))
    data = re.findall("data: (.*)", chat(server, stream=True)[1])
    assert json.loads(data[0])["choices"][0]["delta"] == {"content": "a"}
    assert (json.loads(data[1]), data[2], data[-1]) == ({"choices": []}, "not json", "[DONE]")


def test_a_status_comes_with_retry_after_headers_and_openais_error(server: LoopbackServer) -> None:
    server.always(Fault(status=429, retry_after=2, headers={"x-should-retry": "true"}))
    reply = raw(server, http_request())
    assert b" 429 Too Many" in reply and b"retry-after: 2\r\n" in reply and b"x-should-retry: true\r\n" in reply
    assert chat(server)[1]["error"]["type"] == "rate_limit_error"


def test_a_status_can_have_any_body_or_an_html_page(server: LoopbackServer) -> None:
    server.script(Fault(status=400, body={"a": 1}), Fault(status=500, body="oh"), Fault(status=502, html=True))
    assert [chat(server), chat(server)] == [(400, {"a": 1}), (500, "oh")]
    status, page = chat(server)
    assert (status, page.startswith("<html>"), "502 Bad Gateway" in page) == (502, True, True)


def test_a_reset_before_the_headers_is_a_reset_and_a_close_is_an_end(server: LoopbackServer) -> None:
    server.script(Fault(reset=True), Fault(close=True))
    with pytest.raises(ConnectionResetError):
        raw(server, http_request())
    assert raw(server, http_request()) == b""
    assert server.disconnects == 0  # it was the server that left


def test_a_connection_can_be_hung_up_after_a_whole_reply_that_did_not_say_so(server: LoopbackServer) -> None:
    server.script(Fault(hang_up=True))
    with closing(connect(server)) as client:
        client.request("POST", "/v1/embeddings", json.dumps({"model": "m", "input": "a"}))
        reply = client.getresponse()
        assert reply.status == 200 and not reply.will_close and json.loads(reply.read())["data"]
        server.block_until(lambda s: s.connections == 0)
        assert client.sock.recv(1) == b"" and server.disconnects == 0


@pytest.mark.parametrize("fault", [Fault(delay_s=60), Fault(first_chunk_delay_s=60), Fault(chunk_delay_s=60)])
def test_a_delay_ends_when_the_client_leaves(server: LoopbackServer, fault: Fault) -> None:
    server.script(fault)
    with closing(connect(server)) as client:
        client.connect()
        client.sock.sendall(http_request(stream=True))
        server.block_until(lambda s: s.in_flight == 1)
        if not fault.delay_s:
            assert client.sock.recv(15) == b"HTTP/1.1 200 OK"
    server.block_until(lambda s: (s.disconnects, s.in_flight, s.connections) == (1, 0, 0))


def test_delays_pass_and_compose_with_a_status(server: LoopbackServer) -> None:
    server.script(Fault(delay_s=0.01, status=503), Fault(first_chunk_delay_s=0.01, chunk_delay_s=0.001))
    assert chat(server)[0] == 503
    assert lines(chat(server, stream=True)[1])[-1] == "[DONE]"


def test_a_stream_that_is_cut_ends_well_formed_without_finish_or_done(server: LoopbackServer) -> None:
    server.script(Fault(cut_after=2))
    _, second = lines(chat(server, stream=True)[1])
    assert second["choices"][0]["delta"] == {"content": "You"}
    server.script(Fault(cut_after=2, reply=Reply(text="Mine")))
    assert lines(chat(server, stream=True)[1])[1]["choices"][0]["delta"] == {"content": "Mine"}


@pytest.mark.parametrize("fault", [Fault(drop_after=2), Fault(truncated=True), Fault(reset_after=2)])
def test_a_dropped_stream_breaks_off_in_the_middle(server: LoopbackServer, fault: Fault) -> None:
    server.script(fault)
    with pytest.raises(ConnectionResetError if fault.reset_after else http.client.IncompleteRead):
        chat(server, stream=True)


def test_a_truncated_body_is_shorter_than_its_content_length(server: LoopbackServer) -> None:
    server.script(Fault(truncated=True))
    with pytest.raises(http.client.IncompleteRead):
        chat(server)


def test_a_stall_is_silent_until_the_client_leaves(server: LoopbackServer) -> None:
    server.script(Fault(stall_after=1))
    with closing(connect(server)) as client:
        client.request("POST", "/v1/chat/completions", http_request(stream=True).partition(b"\r\n\r\n")[2])
        response = client.getresponse()
        assert b"assistant" in response.readline()
        client.sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            response.read()
        assert (server.in_flight, server.disconnects) == (1, 0)
        response.close()
    server.block_until(lambda s: (s.in_flight, s.disconnects, s.connections) == (0, 1, 0))


def test_a_malformed_payload_comes_where_it_was_asked_for_and_the_stream_goes_on(
    server: LoopbackServer,
) -> None:
    server.script(Fault(malformed_after=1))
    data = re.findall("data: (.*)", chat(server, stream=True)[1])
    with pytest.raises(json.JSONDecodeError):
        json.loads(data[1])
    assert (len(data), data[-1]) == (10, "[DONE]")


def test_an_error_in_mid_stream_is_the_last_payload(server: LoopbackServer) -> None:
    server.script(Fault(error_after=2))
    *_, before, failed, done = lines(chat(server, stream=True)[1])
    assert ("choices" in before, failed["error"]["type"], done) == (True, "server_error", "[DONE]")


def test_no_done_ends_after_the_finish_reason(server: LoopbackServer) -> None:
    server.script(Fault(no_done=True))
    assert lines(chat(server, stream=True)[1])[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_an_empty_body_is_empty(server: LoopbackServer, stream: bool) -> None:
    server.script(Fault(empty=True))
    assert chat(server, stream=stream) == (200, "")


def test_split_bytes_cuts_through_characters_and_the_text_is_whole(server: LoopbackServer) -> None:
    server.script(Fault(split_bytes=1))
    reply = raw(server, http_request(stream=True, messages=[{"role": "user", "content": "naïve 😀"}]))
    sizes = re.findall(rb"\r\n([0-9a-f]+)\r\n", reply)
    assert len(sizes) > 500 and set(sizes) == {b"1", b"0"}
    server.script(Fault(split_bytes=3))
    sse = chat(server, "naïve 😀", stream=True)[1]
    assert "".join(each.get("content", "") for each in deltas(sse)) == "You said: naïve 😀"


def test_keepalives_are_comment_lines_before_every_payload(server: LoopbackServer) -> None:
    server.script(Fault(keepalives=2))
    sse = chat(server, stream=True)[1]
    assert sse.count(": keepalive\n\n") == 2 * len(lines(sse))


def test_faults_of_a_stream_also_break_a_whole_body(server: LoopbackServer) -> None:
    server.script(Fault(malformed_after=0), Fault(error_after=0), Fault(split_bytes=2), Fault(drop_after=0))
    with pytest.raises(json.JSONDecodeError):
        chat(server)
    assert "error" in chat(server)[1]
    assert choice(server)["finish_reason"] == "stop"
    with pytest.raises(http.client.IncompleteRead):
        chat(server)


@pytest.mark.parametrize("wrong", [{"split_bytes": 0}, {"cut_after": -1}, {"delay_s": -0.5}])
def test_a_fault_out_of_range_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least"):
        Fault(**wrong)


def test_a_connection_is_kept_alive_and_requests_are_recorded_in_order(server: LoopbackServer) -> None:
    with closing(connect(server)) as client:
        for path in ("/v1/models?limit=1", "/v1/nowhere"):
            client.request("GET", path, headers={"X-Name": path[-1]})
            client.getresponse().read()
        assert server.connections == 1
    first, second = server.requests
    assert (first.path, first.query, second.headers["x-name"], second.json) == (
        "/v1/models",
        "limit=1",
        "e",
        None,
    )
    server.block_until(lambda s: s.connections == 0)
    assert server.disconnects == 0  # it left between two requests


def test_a_chunked_body_with_an_extension_and_a_trailer_is_read(server: LoopbackServer) -> None:
    head, _, body = http_request().partition(b"\r\n\r\n")
    head = re.sub(rb"content-length: \d+", b"transfer-encoding: chunked", head)
    parts = (b"5;x=1\r\n%b\r\n%x\r\n%b\r\n" % (body[:5], len(body) - 5, body[5:])) + b"0\r\nt: 1\r\n\r\n"
    assert b"You said: Hi there" in raw(server, head + b"\r\n\r\n" + parts)


def test_a_client_that_expects_100_continue_is_told_to_go_on(server: LoopbackServer) -> None:
    head, _, body = http_request().partition(b"\r\n\r\n")
    with closing(connect(server)) as client:
        client.connect()
        client.sock.sendall(head + b"\r\nexpect: 100-continue\r\n\r\n")
        assert client.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sock.sendall(body)
        assert client.sock.recv(15) == b"HTTP/1.1 200 OK"


def test_two_hundred_clients_at_once_are_held_counted_and_answered(server: LoopbackServer) -> None:
    async def one() -> bytes:
        reader, writer = await asyncio.open_connection(*address(server))
        try:
            writer.write(http_request(stream=True))
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    async def scene() -> list[bytes]:
        server.fault = Fault(stall_after=0)
        held = [asyncio.create_task(one()) for _ in range(200)]
        await server.wait_for(lambda s: s.in_flight == 200, timeout_s=30)
        for each in held:
            each.cancel()
        await server.wait_for(lambda s: (s.disconnects, s.connections) == (200, 0), timeout_s=30)
        server.fault = None
        return await asyncio.gather(*(one() for _ in range(200)))

    assert all(reply.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") for reply in asyncio.run(scene()))


def test_it_lives_on_the_running_loop_and_cancelling_a_client_is_seen() -> None:
    async def scene() -> None:
        async with LoopbackServer(fault=Fault(stall_after=0)) as server:
            _, writer = await asyncio.open_connection(*address(server))
            writer.write(http_request())
            await server.wait_for(lambda s: s.in_flight == 1)
            writer.close()
            await server.wait_for(lambda s: s.disconnects == 1 and s.connections == 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scene())


@pytest.mark.parametrize("fault", [Fault(delay_s=60), Fault(stall_after=1)])
def test_closing_ends_every_wait_and_leaves_no_thread(fault: Fault) -> None:
    before = threading.enumerate()
    with LoopbackServer(fault=fault) as server, closing(connect(server)) as client:
        client.connect()
        client.sock.sendall(http_request())
        server.block_until(lambda s: s.in_flight == 1)
        server.__exit__()
        assert (server.in_flight, server.connections, server.disconnects) == (0, 0, 0)
    assert threading.enumerate() == before


def test_a_wait_in_vain_says_what_the_server_sees(server: LoopbackServer) -> None:
    with pytest.raises(TimeoutError, match="in_flight=0, connections=0, disconnects=0, 0 requests"):
        server.block_until(lambda s: s.in_flight == 1, timeout_s=0.01)
    with pytest.raises(TimeoutError, match="in_flight=0"):
        asyncio.run(server.wait_for(lambda s: s.in_flight == 1, timeout_s=0.01))


def test_a_condition_that_raises_raises_where_it_is_awaited(server: LoopbackServer) -> None:
    with pytest.raises(ZeroDivisionError):
        server.block_until(lambda s: bool(1 / s.in_flight))


def test_there_is_no_url_outside_with_and_a_taken_port_is_an_error(server: LoopbackServer) -> None:
    with pytest.raises(RuntimeError, match="with"):
        _ = LoopbackServer().url
    with pytest.raises(OSError, match="address"), LoopbackServer(port=address(server)[1]):
        pass


def test_the_module_runs_a_server_and_stops_silently_on_ctrl_c() -> None:
    command = [sys.executable, "-m", "gateway.testing", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1\n", child.stdout.readline())
        child.send_signal(signal.SIGINT)
        assert (child.stderr.read(), child.wait(10)) == ("", 0)
