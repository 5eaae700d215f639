"""Statuses, headers and codes as errors; never a word of the provider's."""

import json
import pickle
from typing import Any

import pytest
from gateway_remote.failures import failure, retry_after_s
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


def fail(status: int, headers: dict[str, str] | None = None, **error: Any) -> ServiceError:
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
        (422, {}, Rejected),
        (401, {"code": "invalid_api_key"}, Denied),
        (403, {}, Denied),
        (402, {}, OutOfQuota),
        (404, {"code": "model_not_found"}, ModelMissing),
        (410, {}, ModelMissing),
        (408, {}, AttemptTimeout),
        (409, {}, RateLimited),
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


def test_only_what_asking_again_may_cure_is_retryable() -> None:
    retryable = {status for status in range(300, 600) if fail(status).retryable}
    assert retryable == {409, 425, 429, *range(500, 600)}
    assert {status for status in range(300, 600) if not fail(status).fallbackable} == {400, 422}


def test_the_server_may_say_itself_whether_to_ask_again() -> None:
    assert fail(429, {"x-should-retry": "false"}).retryable is False
    assert fail(400, {"x-should-retry": "true"}).retryable is True


def test_a_code_is_shown_only_when_it_is_a_short_identifier() -> None:
    assert "(invalid_value)" in str(fail(400, code="invalid_value"))
    for code in (PROMPT, "x" * 65, {"a": PROMPT}, ["b"], True, 3.5):
        assert "(" not in str(fail(400, code=code))


def test_how_far_the_context_was_passed_is_told_when_known() -> None:
    caught = fail(400, type="exceed_context_size_error", n_prompt_tokens=9000, n_ctx=8192)
    assert isinstance(caught, ContextTooLong) and (caught.tokens, caught.context) == (9000, 8192)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:40 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_read_in_every_form(headers: dict[str, str], wait_s: float | None) -> None:
    assert retry_after_s(headers, 60.0) == wait_s
    assert failure(503, headers, b"", model="m", now_s=60.0).retry_after_s == wait_s


@given(st.integers(300, 599), st.binary() | st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["error", "code", "type", "message", "innererror", "param"]), inner)
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_body_upsets_it(status: int, body: bytes) -> None:
    assert isinstance(failure(status, {}, body, model="m"), ServiceError)
