"""The fault table: how providers fail, and what a caller must see then. `SCENARIOS` is data; fault_play.py plays it."""

from __future__ import annotations

from typing import Any

from fault_play import FEATURES, QUESTION, Provider, Scenario
from fault_wires import Own

from gateway import Chat, Message, Meta
from gateway.testing import Fault, Reply

PATIENT = {"limits": {"first_token_s": 15.0, "between_s": 15.0, "reply_s": 15.0}}
"""The row's own limits are out of the way."""


def pair(name: str, provider: Provider, error: str, *, asked: int = 1, **facts: Any) -> tuple[Scenario, Scenario]:
    """Two rows: with this provider alone, which is asked so often, and with a fallback, which answers at once.

    A provider that has `steps` but no `then` answers the last time that it is asked alone.
    """
    cured = bool(provider.steps) and provider.then is None
    least_s, quick = facts.pop("least_s", 0.0), {"retry": {"attempts": 2}, **facts.pop("config", {})}
    alone = Scenario(
        name=f"{name}; alone",
        providers=(provider,),
        answer="one" if cured else "",
        error="" if cured else error,
        attempts={"one": asked},
        errors=(*(error,) * (asked - cured), *("",) * cured),
        least_s=least_s,
        config=quick,
        **facts,
    )
    beside = Scenario(
        name=f"{name}; a fallback",
        providers=(provider, Provider()),
        answer="two",
        attempts={"one": 1, "two": 1},
        errors=(error, ""),
        config=quick,
        **facts,
    )
    return alone, beside


def works(name: str, fault: Fault, **facts: Any) -> Scenario:
    """A row whose oddity must not be noticed, and nobody else asked. What comes in bytes takes the time that it takes."""
    given = Provider(then=fault, facts=PATIENT if fault.split_bytes else {})
    return Scenario(name=name, providers=(given, Provider()), answer="one", attempts={"one": 1}, errors=("",), **facts)


def breaks(name: str, fault: Fault | Own, error: str) -> tuple[Scenario, ...]:
    """Three rows of a stream that breaks after its first words: no other model is asked, unless the caller lets it restart."""
    once, broken = Provider(steps=(fault,)), Provider(then=fault)
    stream, again = ("stream",), Meta(restart=True)
    return (
        Scenario(name=f"{name}; a fallback", providers=(broken, Provider()), ways=stream, error=error, partial=True,
                 attempts={"one": 1}, errors=(error,)),
        Scenario(name=f"{name}; a fallback, restart", providers=(broken, Provider()), ways=stream, meta=again, answer="two",
                 restarts=("two",), attempts={"one": 1, "two": 1}, errors=(error, "")),
        *([] if error != "Unreachable" else [
            Scenario(name=f"{name} once; alone, restart", providers=(once,), ways=stream, meta=again, answer="one",
                     restarts=("one",), attempts={"one": 2}, errors=(error, ""))]),
    )  # fmt: skip


LONG = Own(kind="context")
KEY = Own(kind="key")
PREFILLED = Chat(messages=(Message.user(QUESTION), Message.assistant("I am")), max_tokens=60)
CAN_PREFILL = {"features": [*FEATURES, "prefill"]}
SLOW = Provider(then=Fault(delay_s=15.0), facts=PATIENT)
WARM = Provider(facts=PATIENT)
LATER = Provider(then=Fault(delay_s=0.8), facts=PATIENT)
BROKEN = Provider(then=Fault(status=503), facts=PATIENT)
LATE_FAILURE = Provider(then=Fault(delay_s=0.6, status=503), facts=PATIENT)
HEDGED: dict[str, Any] = {"warm": ("one", "two"), "config": {"hedge": {"share": 1.0}, "retry": {"attempts": 2}}}
DOWN_UP = (Fault(status=500), Reply()) * 12

SCENARIOS: tuple[Scenario, ...] = (
    *pair("429, Retry-After 1 s", Provider(steps=(Fault(status=429, retry_after=1),)), "RateLimited", asked=2, least_s=1.0),
    *pair("429, retry-after-ms 700", Provider(steps=(Fault(status=429, headers={"retry-after-ms": "700"}),)), "RateLimited",
          asked=2, least_s=0.7),
    *pair("429, Retry-After a date in 2 s", Provider(steps=(Fault(status=429, retry_after="+2"),)), "RateLimited",
          asked=2, least_s=0.8),
    *pair("429, Retry-After 60 s", Provider(then=Fault(status=429, retry_after=60)), "RateLimited"),
    *pair("429, Retry-After a date in an hour", Provider(then=Fault(status=429, retry_after="+3600")), "RateLimited"),
    *pair("429 once, without Retry-After", Provider(steps=(Fault(status=429),)), "RateLimited", asked=2),
    *pair("429 for ever, without Retry-After", Provider(then=Fault(status=429)), "RateLimited", asked=2),
    *pair("500 once", Provider(steps=(Fault(status=500),)), "ServiceError", asked=2),
    *pair("503 for ever", Provider(then=Fault(status=503)), "Overloaded", asked=2),
    Scenario(name="503 for ever, three attempts; alone", providers=(BROKEN,), ways=("run",), error="Overloaded",
             attempts={"one": 3}, errors=("Overloaded",) * 3),
    Scenario(name="429, Retry-After 3 s, a deadline of 1 s; alone",
             providers=(Provider(then=Fault(status=429, retry_after=3)),), meta=Meta(deadline_s=1.0),
             error="RateLimited", attempts={"one": 1}, errors=("RateLimited",)),
    *pair("reset before the headers, once", Provider(steps=(Fault(reset=True),)), "Unreachable", asked=2),
    *pair("closed before the headers, for ever", Provider(then=Fault(close=True)), "Unreachable", asked=2),
    *pair("connection refused", Provider(down="refused"), "Unreachable", asked=2),
    *pair("no such host", Provider(down="dns"), "Unreachable", asked=2),
    Scenario(name="a certificate that nobody trusts; alone", providers=(Provider(down="untrusted"),), error="Unreachable",
             attempts={"one": 1}, errors=("Unreachable",)),
    Scenario(name="a certificate that nobody trusts; a fallback", providers=(Provider(down="untrusted"), Provider()),
             answer="two", attempts={"one": 1, "two": 1}, errors=("Unreachable", "")),
    *pair("overloaded, in the format's own words, once", Provider(steps=(Own(kind="overloaded"),)), "Overloaded", asked=2),
    *pair("rate limit, in the format's own words, once", Provider(steps=(Own(kind="rate"),)), "RateLimited", asked=2),
    *pair("no quota, in the format's own words", Provider(then=Own(kind="quota")), "OutOfQuota"),
    *breaks("overloaded in mid-stream, in the format's own words", Own(kind="overloaded", after=5), "Overloaded"),
    *breaks("rate limit in mid-stream, in the format's own words", Own(kind="rate", after=5), "RateLimited"),
    *pair("silence", Provider(then=Fault(delay_s=15)), "AttemptTimeout"),
    *pair("silence after the headers", Provider(then=Fault(stall_after=0)), "AttemptTimeout"),
    works("slow first token, within the limit", Fault(first_chunk_delay_s=0.15)),
    *pair("slow first token, beyond the limit", Provider(then=Fault(first_chunk_delay_s=15)), "AttemptTimeout"),
    Scenario(name="silence, a deadline of 0.8 s; alone", providers=(SLOW,), meta=Meta(deadline_s=0.8), error="DeadlineExceeded",
             attempts={"one": 1}, errors=("DeadlineExceeded",)),
    Scenario(name="silence, a deadline of 0.8 s; a fallback", providers=(SLOW, Provider()), meta=Meta(deadline_s=0.8),
             answer="two", attempts={"one": 1, "two": 1}, errors=("AttemptTimeout", "")),
    Scenario(name="stream stalled, a deadline of 0.8 s", providers=(Provider(then=Fault(stall_after=5), facts=PATIENT),),
             ways=("stream",), meta=Meta(deadline_s=0.8), error="DeadlineExceeded", partial=True, attempts={"one": 1},
             errors=("DeadlineExceeded",)),
    Scenario(name="silence, asked again; a fallback", providers=(Provider(then=Fault(delay_s=15)), Provider()), times=2,
             answer="two", attempts={"two": 1}, errors=("",)),
    Scenario(name="429, Retry-After 60 s, asked again; a fallback", times=2, answer="two", attempts={"two": 1}, errors=("",),
             providers=(Provider(then=Fault(status=429, retry_after=60)), Provider())),
    *pair("reply cut off half-way", Provider(then=Fault(truncated=True)), "Unreachable", asked=2, ways=("run",)),
    *pair("stream cut before its first word", Provider(then=Fault(cut_after=1)), "BadReply", asked=2,
          ways=("stream",)),
    *pair("stream reset before its first word", Provider(steps=(Fault(reset_after=1),)), "Unreachable", asked=2,
          ways=("stream",)),
    *breaks("stream cut, as if it were complete", Fault(cut_after=5), "BadReply"),
    Scenario(name="stream dropped, then another; restart", ways=("stream",), meta=Meta(restart=True), answer="three",
             providers=(Provider(then=Fault(drop_after=5)), Provider(then=Fault(cut_after=8)), Provider()),
             restarts=("two", "three"), attempts={"one": 1, "two": 1, "three": 1}, errors=("Unreachable", "BadReply", "")),
    Scenario(name="stream dropped, then one is refused; restart", ways=("stream",),
             meta=Meta(restart=True), answer="three",
             providers=(Provider(then=Fault(drop_after=5)), Provider(then=Fault(status=503)), Provider()),
             restarts=("three",), attempts={"one": 1, "two": 1, "three": 1}, errors=("Unreachable", "Overloaded", "")),
    Scenario(name="stream dropped for ever; alone, restart", ways=("stream",), meta=Meta(restart=True), error="Unreachable",
             providers=(Provider(then=Fault(drop_after=5)),), partial=True, restarts=("one",), attempts={"one": 2},
             errors=("Unreachable",) * 2, config={"retry": {"attempts": 2}}),
    Scenario(name="every stream dropped; restart", ways=("stream",), meta=Meta(restart=True),
             error="AllModelsFailed",
             providers=(Provider(then=Fault(drop_after=5)), Provider(then=Fault(drop_after=6))), partial=True,
             restarts=("two",), attempts={"one": 1, "two": 1}, errors=("Unreachable",) * 2, config={"retry": {"attempts": 1}}),
    *breaks("stream dropped", Fault(drop_after=5), "Unreachable"),
    *breaks("stream stalled", Fault(stall_after=5), "AttemptTimeout"),
    *breaks("malformed chunk after the first words", Fault(malformed_after=5), "BadReply"),
    *breaks("error payload after the first words", Fault(error_after=5), "ServiceError"),
    *pair("malformed from the start", Provider(then=Fault(malformed_after=0)), "BadReply", asked=2),
    *pair("error payload instead of a reply", Provider(then=Fault(error_after=0)), "ServiceError", asked=2),
    works("[DONE] is missing", Fault(no_done=True), ways=("stream",)),
    *pair("HTML page, status 502", Provider(then=Fault(status=502, html=True)), "ServiceError", asked=2),
    *pair("HTML page, status 200", Provider(then=Fault(status=200, html=True)), "BadReply", asked=2),
    *pair("empty body", Provider(then=Fault(empty=True)), "BadReply", asked=2),
    works("sent byte by byte, through characters and lines", Fault(split_bytes=1)),
    works("sent in threes, with keepalives", Fault(split_bytes=3, keepalives=2)),
    Scenario(name="context too long; alone", providers=(Provider(then=LONG),), error="ContextTooLong", attempts={"one": 1},
             errors=("ContextTooLong",)),
    Scenario(name="context too long; one as small, one larger", answer="three", attempts={"one": 1, "three": 1},
             providers=(Provider(then=LONG, facts={"context": 1000}), Provider(facts={"context": 1000}),
                        Provider(facts={"context": 4000})), errors=("ContextTooLong", "")),
    Scenario(name="context too long; none is larger", error="ContextTooLong", attempts={"one": 1}, errors=("ContextTooLong",),
             providers=(Provider(then=LONG, facts={"context": 1000}), Provider(facts={"context": 900}))),
    Scenario(name="content filter; a fallback", providers=(Provider(then=Own(kind="filter")), Provider()),
             error="ContentFiltered", attempts={"one": 1}, errors=("ContentFiltered",)),
    Scenario(name="400; a fallback", providers=(Provider(then=Fault(status=400)), Provider()), error="Rejected",
             attempts={"one": 1}, errors=("Rejected",)),
    *pair("404: no such model", Provider(then=Fault(status=404)), "ModelMissing"),
    *pair("402: no credit", Provider(then=Fault(status=402)), "OutOfQuota"),
    Scenario(name="401; alone", providers=(Provider(then=KEY),), error="Denied", attempts={"one": 1}, errors=("Denied",)),
    Scenario(name="401; one of the same key, one of another", answer="three", attempts={"one": 1, "three": 1},
             providers=(Provider(then=KEY, facts={"api_key": "a"}), Provider(facts={"api_key": "a"}),
                        Provider(facts={"api_key": "b"})), errors=("Denied", "")),
    Scenario(name="401, asked again; one of the same key, one of another", answer="three", attempts={"three": 1}, times=2,
             providers=(Provider(then=KEY, facts={"api_key": "a"}), Provider(facts={"api_key": "a"}),
                        Provider(facts={"api_key": "b"})), errors=("",)),
    Scenario(name="401; one of the same key", error="Denied", attempts={"one": 1}, errors=("Denied",),
             providers=(Provider(then=KEY, facts={"api_key": "a"}), Provider(facts={"api_key": "a"}))),
    Scenario(name="flapping; alone, the third request", providers=(Provider(steps=DOWN_UP),), answer="one", times=3,
             attempts={"one": 2}, errors=("ServiceError", ""), config={"retry": {"attempts": 2}}),
    Scenario(name="prefill; a fallback that rejects it", ask=PREFILLED, error="Overloaded", attempts={"one": 2},
             providers=(Provider(then=Fault(status=503), facts=CAN_PREFILL), Provider()), errors=("Overloaded",) * 2,
             config={"retry": {"attempts": 2}}),
    Scenario(name="prefill; one that rejects it, one that takes it", ask=PREFILLED, answer="three",
             attempts={"one": 1, "three": 1}, providers=(Provider(then=Fault(status=503), facts=CAN_PREFILL), Provider(),
             Provider(facts=CAN_PREFILL)), errors=("Overloaded", "")),
    Scenario(name="all down: refused, 503, silent", error="AllModelsFailed", attempts={"one": 2, "two": 2, "three": 1},
             providers=(Provider(down="refused"), Provider(then=Fault(status=503)), Provider(then=Fault(delay_s=15))),
             errors=("Unreachable", "Overloaded", "AttemptTimeout", "Unreachable", "Overloaded"),
             config={"retry": {"attempts": 2}}),
    Scenario(name="hedging: slow to begin", providers=(SLOW, WARM), answer="two", attempts={"one": 1, "two": 1},
             errors=("Hedged", ""), **HEDGED),
    Scenario(name="hedging: the second is slower still", providers=(LATER, SLOW), answer="one", attempts={"one": 1, "two": 1},
             errors=("Hedged", ""), **HEDGED),
    Scenario(name="hedging: the second fails", providers=(LATER, BROKEN), answer="one", attempts={"one": 1, "two": 1},
             errors=("Overloaded", ""), **HEDGED),
    Scenario(name="hedging: the first fails late", providers=(LATE_FAILURE, LATER), answer="two",
             attempts={"one": 1, "two": 1}, errors=("Overloaded", ""), **HEDGED),
    Scenario(name="hedging: both fail", providers=(LATE_FAILURE, BROKEN, Provider()), answer="three",
             attempts={"one": 1, "two": 1, "three": 1}, errors=("Overloaded", "Overloaded", ""), **HEDGED),
)  # fmt: skip
