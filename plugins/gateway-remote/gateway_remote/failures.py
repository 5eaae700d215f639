"""What went wrong, from an HTTP status, headers and body: one ServiceError each. No I/O.

Classified on the status and on structured codes, never on words. The provider's message may quote the prompt
or the key: it is not read at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
from gateway_remote.jsonbytes import JSONError, loads
from gateway_remote.waits import checked, wait_s

CONTEXT = frozenset({"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"})
FILTER = frozenset(
    {
        "content_filter", "content_policy_violation", "responsibleaipolicyviolation", "invalid_prompt", "bio_policy",
        "misalignment_policy_violation", "image_content_policy_violation", "moderation_blocked",
    }
)  # fmt: skip
"""Of OpenAI's Responses, `invalid_prompt` is a prompt that "was flagged as potentially violating our usage policy"."""
QUOTA = frozenset(
    {
        "insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_credits", "billing_error",
        "contract_spend_limit_reached", "enforced_spend_limit_reached", "billing_disabled",
    }
)  # fmt: skip
DENIED = frozenset(
    {
        "api_key_invalid", "failed_precondition", "organization_on_hold", "cmek_key_disabled", "cmek_key_network_blocked",
        "claude_code_key_creator_not_member",
    }
)  # fmt: skip
"""Causes of a 400 that lie in the account: Google's for a wrong key, and for a project that may not use the API where it is, or
without billing; Anthropic's for an organisation or a key that is disabled (`anthropic.types`, `error_code`)."""
MISSING = frozenset({"model_not_found", "not_found_error"})
STATUS_OF = {
    "rate_limit_exceeded": 429, "rate_limit_error": 429, "resource_exhausted": 429, "overloaded_error": 529,
    "overloaded": 529, "server_is_overloaded": 503, "slow_down": 503, "service_unavailable": 503, "unavailable": 503,
    "invalid_request_error": 400, "invalid_argument": 400, "authentication_error": 401, "invalid_api_key": 401,
    "unauthenticated": 401, "permission_denied": 403,
    "permission_error": 403, "timeout_error": 408, "timeout": 408, "server_error": 500, "internal_error": 500,
    "api_error": 500, "internal_server_error": 500, "request_too_large": 413, "conflict_error": 409,
    "data_residency_mismatch": 403, "vector_store_timeout": 504, "not_found": 404, "failed_precondition": 400,
    "out_of_range": 400, "aborted": 409, "unimplemented": 501, "deadline_exceeded": 504,
    **dict.fromkeys(
        (
            "invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url", "invalid_image_mode",
            "image_too_large", "image_too_small", "image_parse_error", "image_file_too_large", "image_file_not_found",
            "empty_image_file", "unsupported_image_media_type", "failed_to_download_image",
        ),
        400,
    ),
}  # fmt: skip
"""The status that an error without one, in mid-stream, would have had."""
UNTAKEN = frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter"})
NOT_TAKEN = "; an option that this model never takes belongs into `refuses` of its row"
"""What `UNTAKEN` says, and what to do about it."""
FIELD = re.compile(r"[a-z_]+(\.([a-z_]+|[0-9]{1,3})|\[[0-9]{1,3}\])*")
"""The name of a field as it may be repeated; a key would have more digits."""
NEVER_CURED = frozenset({501, 505})
"""Of the provider's own failures those that asking again cannot mend: it does not know the call, or this HTTP."""
CURED_BY_TIME = frozenset({409, 425})
"""Of the others those that it may: a conflict with another request, as when a lock is held, and "too early"."""


def failure(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    model: str,
    now_s: float = 0.0,
    hint: str = "",
) -> ServiceError:
    """The error of a reply whose status is not 200. `now_s`, since the epoch, is for a Retry-After date.

    `hint` is what a 404 adds to its message.
    """
    try:
        payload = loads(body)
    except JSONError:
        payload = None
    error = _failure(status, headers, payload, model, now_s, f"HTTP {status}")
    if status == 404:
        error.message += hint
    return error


def payload_failure(
    payload: Mapping[str, Any],
    *,
    model: str,
    headers: Mapping[str, str] | None = None,
    now_s: float = 0.0,
) -> ServiceError:
    """The error of a payload that holds ``error`` though the status was 200, as in mid-stream."""
    facts = _facts(payload)
    given = next((int(code) for code in facts["codes"] if re.fullmatch("[45][0-9][0-9]", code)), None)
    known = 400 if (CONTEXT | FILTER | QUOTA | MISSING) & set(facts["codes"]) else 500
    status = given or next((STATUS_OF[code] for code in facts["codes"] if code in STATUS_OF), known)
    error = _failure(status, headers or {}, payload, model, now_s, "an error instead of a reply")
    error.status = given
    return error


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date (RFC 9110, 10.2.3).

    A date that has passed is 0; a negative number, or a wait of more than a year, is as if it were not there.
    """
    given = wait_s(f"{headers.get('retry-after-ms', '').strip()}ms", now_s)
    return given if given is not None else wait_s(headers.get("retry-after", ""), now_s)


def _failure(status: int, headers: Mapping[str, str], payload: Any, model: str, now_s: float, what: str) -> ServiceError:
    facts = _facts(payload)
    codes = facts["codes"]
    shown = next((f" ({code})" for code in codes if sayable(code)), "")
    kind, advice = _kind(status, codes, facts["param"])
    message = f"model {model!r}: {what}{shown}: {advice}"
    known: dict[str, Any] = {"model": model, "status": status}
    if kind in (RateLimited, Overloaded, AttemptTimeout, ServiceError):
        given = retry_after_s(headers, now_s)
        known["retry_after_s"] = facts["wait_s"] if given is None else given
    if kind is ServiceError:
        known["retryable"] = (status >= 500 and status not in NEVER_CURED) or status in CURED_BY_TIME
    if (wish := headers.get("x-should-retry", "").lower()) in ("true", "false"):
        known["retryable"] = wish == "true"
    if kind is ContextTooLong:
        return ContextTooLong(message, tokens=facts["tokens"], context=facts["context"], **known)
    if kind is Rejected and set(codes) & UNTAKEN:
        known["fallbackable"] = True  # another model may take it
    return kind(message, **known)


def _kind(status: int, codes: list[str], param: str) -> tuple[type[ServiceError], str]:
    found = set(codes)
    if (status < 500 and (found & CONTEXT or param == "input_tokens")) or status == 413:
        return ContextTooLong, "the input is too long for it: shorten it, or use a model with more context"
    if status < 500 and found & FILTER:
        return ContentFiltered, "the provider's filter refuses this content"
    if status == 402 or found & QUOTA:
        return OutOfQuota, "no credit or quota is left: pay, or use another key"
    if status in (404, 410) or (status < 500 and found & MISSING):
        return ModelMissing, "not there: check model and base_url in the configuration"
    if status in (401, 403) or (status == 400 and found & DENIED):
        return Denied, "the key is missing, wrong, or may not use this model: check api_key"
    if status in (400, 422):
        where = f": {param}" if param else ""
        return Rejected, f"the provider calls the request invalid{where}{NOT_TAKEN if found & UNTAKEN else ''}"
    if status == 408 or "deadline_exceeded" in found:
        return AttemptTimeout, "the provider gave up waiting"
    if status == 429:
        return RateLimited, "too many requests: wait, or use another model"
    if status in (503, 529):
        return Overloaded, "overloaded: try later, or use another model"
    if status < 400:
        return ServiceError, "a redirect is not followed: set base_url to where the API is"
    if status in CURED_BY_TIME:
        return ServiceError, "not now: the provider asks to try again"
    if status < 500 or status in NEVER_CURED:
        return ServiceError, "the endpoint does not take this call: check base_url"
    return ServiceError, "the provider failed"


def _facts(payload: Any) -> dict[str, Any]:
    """The structured facts of an error's body, in any of the shapes that servers use."""
    if isinstance(payload, list) and payload:
        payload = payload[0]
    outer = payload if isinstance(payload, Mapping) else {}
    error = outer.get("error")
    inner = error if isinstance(error, Mapping) else outer
    deeper, details = inner.get("innererror"), inner.get("details")
    values = [
        details.get("error_code") if isinstance(details, Mapping) else None,  # Anthropic's name for the cause of its `type`
        inner.get("code"),
        deeper.get("code") if isinstance(deeper, Mapping) else None,
        inner.get("type"),
        inner.get("status"),
        *_reasons(details),
    ]
    return {
        "codes": [code for value in values if (code := _identifier(value))],
        "param": param if isinstance(param := inner.get("param"), str) and FIELD.fullmatch(param) else "",
        "tokens": _count(inner.get("n_prompt_tokens")),
        "context": _count(inner.get("n_ctx")),
        "wait_s": _told_wait_s(inner),
    }


def _reasons(details: Any) -> list[Any]:
    """The reason in each google.rpc.ErrorInfo."""
    found = [each for each in details if isinstance(each, Mapping)] if isinstance(details, list) else []
    return [each.get("reason") for each in found if str(each.get("@type")).endswith("google.rpc.ErrorInfo")]


def _told_wait_s(error: Mapping[str, Any]) -> float | None:
    """How long to wait as the body says it, in a field of its own: ``retry_after``, or a google.rpc.RetryInfo.

    ``estimated_time`` is how long Hugging Face's servers think that a model needs to load.
    """
    for name, unit in (("retry_after_ms", 1e-3), ("retry_after", 1.0), ("retry_after_seconds", 1.0), ("estimated_time", 1.0)):
        value = error.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return checked(value * unit) if value <= 1e12 else None
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, Mapping) else None
        if isinstance(delay, str) and str(detail.get("@type")).endswith("google.rpc.RetryInfo"):
            return wait_s(delay, 0.0)
    return None


def _identifier(value: Any) -> str:
    """A short code; "" for anything that could be prose."""
    text = str(value).lower() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    return text if re.fullmatch(r"[a-z0-9_.-]{1,64}", text) else ""


def sayable(code: str) -> bool:
    """True for a code that a message may repeat: one of words alone, or one that is known. A key has digits in it."""
    return code in STATUS_OF or (re.fullmatch(r"[A-Za-z]+([_.-][A-Za-z]+)*", code) is not None and len(code) <= 64)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
