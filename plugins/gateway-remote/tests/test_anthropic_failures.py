"""The Messages API failing: by status, in mid-stream, in the place of a reply. The `anthropic` package hears the same."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic_case import ASKED, KEY, KEY_REF, MODEL, asked, sdk

from gateway import (
    BadReply,
    Chat,
    Denied,
    ModelMissing,
    OutOfQuota,
    Overloaded,
    RateLimited,
    Rejected,
    ServiceError,
)
from gateway.testing import Fault, LoopbackServer

HI: Any = [{"role": "user", "content": "Hi"}]
BLOB = "secret"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_REF, KEY)


STATUSES: list[tuple[int, type[ServiceError], type[anthropic.APIStatusError]]] = [
    (400, Rejected, anthropic.BadRequestError),
    (401, Denied, anthropic.AuthenticationError),
    (402, OutOfQuota, anthropic.APIStatusError),
    (403, Denied, anthropic.PermissionDeniedError),
    (404, ModelMissing, anthropic.NotFoundError),
    (429, RateLimited, anthropic.RateLimitError),
    (500, ServiceError, anthropic.InternalServerError),
    (529, Overloaded, anthropic.InternalServerError),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "kind", "theirs"), STATUSES)
def test_a_refusal_is_told_by_its_status(
    server: LoopbackServer, status: int, kind: type[ServiceError], theirs: type[anthropic.APIStatusError], stream: bool
) -> None:
    server.always(Fault(status=status, retry_after=3))
    with pytest.raises(ServiceError) as caught:
        asked(server, ASKED, stream=stream)
    assert type(caught.value) is kind and caught.value.status == status
    assert caught.value.retry_after_s == (3.0 if kind in (RateLimited, Overloaded, ServiceError) else None)
    with sdk(server) as client, pytest.raises(theirs) as refused:
        client.messages.create(model=MODEL, max_tokens=9, messages=HI)
    assert refused.value.type is not None and refused.value.type in str(caught.value)


def test_a_failure_in_mid_stream_is_an_error_to_both(server: LoopbackServer) -> None:
    server.always(Fault(error_after=5))
    with pytest.raises(ServiceError) as caught:
        asked(server, Chat.ask("Hi there, everybody"), stream=True)
    assert type(caught.value) is ServiceError and caught.value.in_stream and caught.value.retryable and caught.value.partial
    with (
        sdk(server) as client,
        pytest.raises(anthropic.APIStatusError) as failed,
        client.messages.stream(model=MODEL, max_tokens=9, messages=HI) as stream,
    ):
        stream.until_done()
    assert failed.value.type == "api_error"


def test_an_error_in_the_place_of_a_reply_is_that_error(server: LoopbackServer) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": BLOB}}
    server.always(Fault(status=200, body=error))
    for stream in (False, True):
        with pytest.raises(Overloaded) as caught:
            asked(server, ASKED, stream=stream)
        assert BLOB not in str(caught.value)


@pytest.mark.parametrize("fault", [Fault(cut_after=5), Fault(truncated=True), Fault(empty=True), Fault(malformed_after=5)])
def test_a_stream_that_is_cut_is_never_a_short_success(server: LoopbackServer, fault: Fault) -> None:
    server.always(fault)
    with pytest.raises(ServiceError) as caught:
        asked(server, Chat.ask("Hi there, everybody"), stream=True)
    assert caught.value.in_stream and caught.value.retryable


def test_a_stream_without_its_last_event_is_whole(server: LoopbackServer) -> None:
    server.always(Fault(no_done=True))
    assert asked(server, ASKED, stream=True).text == "You said: 12345678"


def test_the_first_words_come_after_the_preamble(server: LoopbackServer) -> None:
    from gateway.testing.server import dialect_of

    dialect = dialect_of("/v1/messages")
    for more, partial in ((0, ""), (1, "You")):
        server.script(Fault(cut_after=dialect.preamble + more))
        with pytest.raises(BadReply) as caught:
            asked(server, ASKED, stream=True)
        assert caught.value.partial == partial
