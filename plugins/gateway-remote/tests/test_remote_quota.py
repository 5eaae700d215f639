"""What providers say is left of a rate limit, in each of their dialects."""

import pytest
from gateway_remote.quota import quota_of
from hypothesis import given
from hypothesis import strategies as st

from gateway import Quota

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def read(**headers: object) -> Quota | None:
    return quota_of([(name.replace("_", "-").encode(), str(value).encode()) for name, value in headers.items()], NOW)


def openai(**facts: object) -> Quota | None:
    return read(**{f"x_ratelimit_{name}": value for name, value in facts.items()})


def anthropic(**facts: object) -> Quota | None:
    return read(**{f"Anthropic_RateLimit_{name}": value for name, value in facts.items()})


def test_the_names_of_openai_are_read_with_durations() -> None:
    told = openai(
        limit_requests=60, limit_tokens=150000, remaining_requests=59, remaining_tokens=149984,
        reset_requests="120ms", reset_tokens="6m0s",
    )  # fmt: skip
    assert told == Quota(requests=59, requests_reset_s=0.12, tokens=149984, tokens_reset_s=360.0)
    assert openai(remaining_requests=1, reset_requests="1h2m3.5s") == Quota(requests=1, requests_reset_s=3723.5)


@pytest.mark.parametrize(
    ("facts", "quota"),
    [
        ({"remaining_requests": 14370, "reset_requests": "2m59.56s"}, Quota(requests=14370, requests_reset_s=179.56)),  # Groq
        ({"remaining_tokens": 0, "reset_tokens": 55}, Quota(tokens=0, tokens_reset_s=55.0)),  # Azure
        ({"remaining_requests_day": 9, "reset_requests_day": "3600.5"}, Quota(requests=9, requests_reset_s=3600.5)),  # Cerebras
        ({"remaining_req_minute": 3, "remaining_tokens_minute": 70}, Quota(requests=3, tokens=70)),  # Mistral
        ({"remaining_tokens_prompt": 8, "remaining_tokens_generated": 5}, Quota(tokens=5)),  # Fireworks
        ({"remaining": 4, "reset": NOW * 1000 + 2500}, Quota(requests=4, requests_reset_s=2.5)),  # OpenRouter
        ({"remaining": 4, "reset": int(NOW) + 7}, Quota(requests=4, requests_reset_s=7.0)),
        ({"remaining_minute": 4}, Quota(requests=4)),  # Kong
        ({"remaining_images": 4, "limit_images": 5}, None),
    ],
)
def test_what_is_akin_to_them_is_read_too(facts: dict[str, object], quota: Quota | None) -> None:
    assert openai(**facts) == quota


def test_together_s_tokens_are_tokens() -> None:
    assert read(x_tokenlimit_remaining="12.5", x_tokenlimit_reset=1) == Quota(tokens=12, tokens_reset_s=1.0)


def test_the_names_of_anthropic_are_read_with_dates() -> None:
    told = anthropic(
        requests_limit=1000, requests_remaining=999, requests_reset="2026-01-01T00:00:30Z",
        tokens_limit=96000, tokens_remaining=50000, tokens_reset="2026-01-01T02:00:10.5+02:00",
    )  # fmt: skip
    assert told == Quota(requests=999, requests_reset_s=30.0, tokens=50000, tokens_reset_s=10.5)
    assert anthropic(requests_remaining=3, requests_reset="2025-12-31T23:59:59Z") == Quota(requests=3, requests_reset_s=0.0)
    assert anthropic(unified_reset=int(NOW), unified_remaining=3) is None


def test_of_several_limits_the_one_nearest_to_its_end_counts() -> None:
    limits = {"tokens_limit": 96000, "input_tokens_limit": 80000, "output_tokens_limit": 16000}
    inputs = {"tokens_remaining": 17000, "input_tokens_remaining": 1000, "input_tokens_reset": "2026-01-01T00:00:09Z"}
    assert anthropic(output_tokens_remaining=16000, **inputs, **limits) == Quota(tokens=1000, tokens_reset_s=9.0)
    assert anthropic(output_tokens_remaining=0, **inputs, **limits) == Quota(tokens=0)
    assert anthropic(tokens_remaining=7, output_tokens_remaining=5) == Quota(tokens=5)


def test_a_small_limit_that_is_untouched_does_not_hide_a_larger_one() -> None:
    full = {"tokens_remaining": 96000, "input_tokens_remaining": 80000, "output_tokens_remaining": 16000}
    limits = {name.replace("remaining", "limit"): count for name, count in full.items()}
    assert anthropic(**full, **limits) == Quota(tokens=96000)


def test_of_two_limits_that_are_used_up_the_longer_wait_counts() -> None:
    told = openai(remaining_requests_day=0, reset_requests_day=900, remaining_requests_minute=0, reset_requests_minute=9)
    assert told == Quota(requests=0, requests_reset_s=900.0)


@pytest.mark.parametrize(
    ("headers", "quota"),
    [
        (
            {"RateLimit_Limit": 300, "RateLimit_Remaining": 280, "RateLimit_Reset": 53},
            Quota(requests=280, requests_reset_s=53.0),
        ),
        ({"RateLimit": "limit=100, remaining=50, reset=50"}, Quota(requests=50, requests_reset_s=50.0)),
        ({"RateLimit": '"default";r=50;t=30'}, Quota(requests=50, requests_reset_s=30.0)),
        ({"RateLimit": '"day";r=50;t=30000, "minute"; r=5; t=3'}, Quota(requests=5, requests_reset_s=3.0)),
        ({"RateLimit": '"tokens";r=900;t=3,"requests";r=5'}, Quota(requests=5, tokens=900, tokens_reset_s=3.0)),
        ({"RateLimit_Policy": '"default";q=100;w=10'}, None),
        ({"RateLimit": '"default"'}, None),
    ],
)
def test_each_form_of_the_ietf_s_draft_is_read(headers: dict[str, object], quota: Quota | None) -> None:
    assert read(**headers) == quota


@pytest.mark.parametrize(
    "wrong", ["", "-1", "many", "nan", "inf", "1e400", "1_000", "٣", "9" * 400, "1 2", "0x10", b"\xff\x00"]
)
def test_what_cannot_be_read_is_as_if_it_were_not_there(wrong: str | bytes) -> None:
    value = wrong if isinstance(wrong, bytes) else wrong.encode()
    headers = [(b"x-ratelimit-remaining-requests", b"5"), (b"x-ratelimit-reset-requests", value)]
    assert quota_of([*headers, (b"x-ratelimit-remaining-tokens", value)], NOW) == Quota(requests=5)


def test_without_such_headers_there_is_no_quota() -> None:
    assert quota_of([], NOW) is None
    assert read(content_type="application/json", content_length=5, x_request_id="limit-5") is None
    assert read(x_envoy_ratelimited="true", anthropic_ratelimit_unified_status="allowed") is None


NAMES = st.sampled_from(
    [
        "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "x-ratelimit-limit-requests", "ratelimit",
        "X-RateLimit-Remaining-Tokens", "x-ratelimit-reset-tokens", "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-requests-reset", "ratelimit-remaining", "ratelimit-reset", "x-ratelimit-limit-limit-limit",
    ]
)  # fmt: skip
PIECES = st.sampled_from(
    ["1", "9" * 20, "0", ".", "-", "s", "ms", "h", "m0s", "2026-01-01T00:00:00Z", "Thu Jan  1 00:01:40 1970", ";r=", ";t=", ",",
     "remaining="]
)  # fmt: skip
VALUES = st.lists(PIECES, max_size=4).map(lambda pieces: "".join(pieces).encode()) | st.binary(max_size=40)


@given(st.lists(st.tuples(NAMES.map(str.encode) | st.binary(max_size=30), VALUES), max_size=8), st.floats(0, 1e11))
def test_no_headers_upset_it_and_what_it_tells_is_sound(headers: list[tuple[bytes, bytes]], now_s: float) -> None:
    quota = quota_of(headers, now_s)
    if quota is not None:
        assert quota != Quota()
        for count in (quota.requests, quota.tokens):
            assert count is None or 0 <= count < 10**15
        for reset_s in (quota.requests_reset_s, quota.tokens_reset_s):
            assert reset_s is None or 0 <= reset_s <= 366 * 86400
