"""Statuses, headers and codes as errors; never a word of the provider's."""

import json
import pickle
from typing import Any

import pytest
from gateway_remote.failures import failure, payload_failure, retry_after_s
from hypothesis import given
from hypothesis import strategies as st

from gateway import (
    AttemptTimeout,
    ContentFiltered,
    ContextTooLong,
    Denied,
    ModelMissing,
    OutOfQuota,
    Overloaded,
    RateLimited,
    Rejected,
    ServiceError,
)

PROMPT = "the secret prompt, quoted"
RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "30.5s"}


def fail(status: int, headers: dict[str, str] | None = None, /, **error: Any) -> ServiceError:
    body = json.dumps({"error": {"message": PROMPT, **error}}).encode()
    return failure(status, headers or {}, body, model="m")


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"code": "context_length_exceeded"}, ContextTooLong),
        (400, {"param": "input_tokens"}, ContextTooLong),
        (413, {}, ContextTooLong),
        (400, {"code": "content_filter"}, ContentFiltered),
        (400, {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}, ContentFiltered),
        (400, {"code": "invalid_value"}, Rejected),
        (400, {"type": "invalid_request_error", "details": {"error_code": "organization_on_hold"}}, Denied),
        (422, {}, Rejected),
        (401, {"code": "invalid_api_key"}, Denied),
        (403, {}, Denied),
        (402, {}, OutOfQuota),
        (404, {"code": "model_not_found"}, ModelMissing),
        (410, {}, ModelMissing),
        (408, {}, AttemptTimeout),
        (409, {}, ServiceError),
        (425, {}, ServiceError),
        (501, {}, ServiceError),
        (429, {"status": "RESOURCE_EXHAUSTED"}, RateLimited),
        (429, {"code": "rate_limit_exceeded"}, RateLimited),
        (429, {"code": "insufficient_quota"}, OutOfQuota),
        (429, {"type": "insufficient_quota", "code": None}, OutOfQuota),
        (503, {}, Overloaded),
        (529, {"type": "overloaded_error"}, Overloaded),
        (500, {"type": "server_error"}, ServiceError),
        (502, {}, ServiceError),
        (405, {}, ServiceError),
        (307, {}, ServiceError),
    ],
)
def test_each_status_and_code_is_one_kind_of_error(status: int, error: dict[str, Any], kind: type[ServiceError]) -> None:
    caught = fail(status, **error)
    assert type(caught) is kind and caught.status == status and caught.model == "m"
    assert PROMPT not in str(caught) + repr(caught)
    again = pickle.loads(pickle.dumps(caught))
    assert type(again) is kind and again.status == status


def test_a_request_that_is_called_invalid_names_the_field() -> None:
    for field in ("messages.0.content", "messages[0].content", "tools[0].function.name"):
        assert str(fail(400, param=field)).endswith(f"calls the request invalid: {field}")
    for param in ("sk-4711abc", PROMPT, "messages[0].hunter2-a", {"a": 1}):
        assert str(fail(400, param=param)).endswith("calls the request invalid")
    untaken = fail(400, code="unsupported_parameter", param="max_tokens")
    assert "invalid: max_tokens; an option that this model never takes belongs into `refuses`" in str(untaken)
    assert untaken.fallbackable and not fail(400, code="invalid_value", param="max_tokens").fallbackable


def test_only_what_asking_again_may_cure_is_retryable() -> None:
    retryable = {status for status in range(300, 600) if fail(status).retryable}
    assert retryable == {409, 425, 429, *range(500, 600)} - {501, 505}
    assert {status for status in range(300, 600) if not fail(status).fallbackable} == {400, 422}


def test_the_server_may_say_itself_whether_to_ask_again() -> None:
    assert fail(429, {"x-should-retry": "false"}).retryable is False
    assert fail(400, {"x-should-retry": "true"}).retryable is True
    assert fail(500, {"x-should-retry": "maybe"}).retryable is True
    told = payload_failure({"error": {"type": "server_error"}}, model="m", headers={"x-should-retry": "False"})
    assert told.retryable is False


def test_a_code_is_shown_only_when_it_is_a_short_identifier() -> None:
    assert "(invalid_value)" in str(fail(400, code="invalid_value"))
    for code in (PROMPT, "x" * 65, "sk-4711abc", {"a": PROMPT}, ["b"], True, 3.5):
        assert "(" not in str(fail(400, code=code))


def test_how_far_the_context_was_passed_is_told_when_known() -> None:
    caught = fail(400, type="exceed_context_size_error", n_prompt_tokens=9000, n_ctx=8192)
    assert isinstance(caught, ContextTooLong) and (caught.tokens, caught.context) == (9000, 8192)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "1" * 30}, None),
        ({"retry-after-ms": "nan", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-1", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:40 GMT"}, 0.0),
        ({"retry-after": "Thursday, 01-Jan-70 00:01:40 GMT"}, 40.0),
        ({"retry-after": "Thu Jan  1 00:01:40 1970"}, 40.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_read_in_every_form(headers: dict[str, str], wait_s: float | None) -> None:
    assert retry_after_s(headers, 60.0) == wait_s
    for status in (408, 409, 429, 500, 502, 503, 504, 529):
        assert failure(status, headers, b"", model="m", now_s=60.0).retry_after_s == wait_s


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [
        ({"details": [{"@type": "type.googleapis.com/google.rpc.QuotaFailure"}, RETRY_INFO]}, 30.5),
        ({"details": [3, None, {"@type": "other", "retryDelay": "9s"}]}, None),
        ({"details": [RETRY_INFO | {"retryDelay": "soon"}]}, None),
        ({"details": "30s"}, None),
        ({"retry_after": 2}, 2.0),
        ({"retry_after_ms": 2500}, 2.5),
        ({"retry_after": -2}, None),
        ({"retry_after": 10**400}, None),
        ({"message": "Please try again in 20s."}, None),
    ],
)
def test_how_long_to_wait_is_read_from_a_field_of_the_body_and_never_from_prose(
    error: dict[str, Any], wait_s: float | None
) -> None:
    for status in (429, 503):
        assert fail(status, **error).retry_after_s == wait_s
        assert fail(status, {"retry-after": "7"}, **error).retry_after_s == 7.0  # the header is the nearer word
    listed = json.dumps([{"error": error}]).encode()  # as Google sends it
    assert failure(429, {}, listed, model="m").retry_after_s == wait_s


@pytest.mark.parametrize(
    ("payload", "kind", "retryable"),
    [
        ({"error": {"type": "overloaded_error"}}, Overloaded, True),
        ({"type": "error", "error": {"type": "overloaded_error"}}, Overloaded, True),
        ({"error": {"code": "server_is_overloaded"}}, Overloaded, True),
        ({"error": {"code": 503}}, Overloaded, True),
        ({"error": {"status": "RESOURCE_EXHAUSTED", "details": [RETRY_INFO]}}, RateLimited, True),
        ({"object": "error", "code": 500, "type": "InternalServerError"}, ServiceError, True),
        ({"error": "prose"}, ServiceError, True),
        ({"error": {"type": "invalid_request_error"}}, Rejected, False),
        ({"error": {"code": "invalid_api_key"}}, Denied, False),
        ({"error": {"code": 501}}, ServiceError, False),
    ],
)
def test_an_error_where_a_reply_should_be_is_the_kind_that_its_status_would_be(
    payload: dict[str, Any], kind: type[ServiceError], retryable: bool
) -> None:
    caught = payload_failure(payload, model="m")
    assert type(caught) is kind and caught.retryable is retryable
    assert caught.retry_after_s == (30.5 if kind is RateLimited else None)


@given(st.integers(300, 599), st.binary() | st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["error", "code", "type", "status", "message", "innererror", "param", "details", "retry_after",
                         "retryDelay", "@type"]), inner)
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_body_upsets_it(status: int, body: bytes) -> None:
    assert isinstance(failure(status, {}, body, model="m"), ServiceError)
