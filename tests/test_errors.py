"""The error tree: as drawn, picklable, and silent about content."""

from __future__ import annotations

import pickle
import re
import traceback
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from gateway import Attempt, Candidate, ChatResponse, Decision, Score, Veto, errors
from gateway.errors import GatewayError, RateLimited, ServiceError, UnsupportedTask
from gateway.testing import Echo

CANARY = "canary-4711"


def tree(root: type[GatewayError]) -> Iterator[type[GatewayError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


CLASSES = list(tree(GatewayError))

DECISION = Decision(
    "chat",
    None,
    (),
    (Candidate("m", "host", (Veto("size", "9e9", "8e9", "size"),), {"cost": Score(-0.1, 2.0, "USD")}, None),),
    ("n",),
)
FACTS: dict[str, Any] = {
    "plugin": "p", "distribution": "d", "version": "1", "ref": "env:X", "field": "messages", "known": ("a", "b"),
    "decision": DECISION, "limit": "all", "frees_in_s": 1.5, "deadline_s": 2.0, "model": "m", "status": 429,
    "attempts": (Attempt(model="m", seconds=0.5, first_token_s=0.1, cost_usd=0.01, error="Overloaded", message="busy"),),
    "partial": CANARY, "retry_after_s": 3.0, "retryable": False, "fallbackable": False, "in_stream": True, "spare_key": True,
    "option": "seed",
    "phase": "connect", "tokens": 9, "context": 8, "reply": ChatResponse.of(CANARY), "cause": "KeyError", "transform": "scrub",
}  # fmt: skip


def full(kind: type[GatewayError]) -> GatewayError:
    """An error of this class with every fact set to something that is not its default."""
    return kind(message="what, which, what to do", **{f.name: FACTS[f.name] for f in fields(kind) if f.name != "message"})


def facts(error: GatewayError) -> dict[str, Any]:
    return {f.name: getattr(error, f.name) for f in fields(error)}


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ((?:[│ ]   )*(?:[├└]── )?)([A-Z]\w+)", line):
            depth = len(found[1]) // 4
            del path[depth:]
            drawn[found[2]] = path[-1] if path else "Exception"
            path.append(found[2])
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_pickles_with_all_its_facts(kind: type[GatewayError]) -> None:
    error = full(kind)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert facts(back) == facts(error)
    assert str(back) == str(error)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_no_error_shows_content(kind: type[GatewayError]) -> None:
    error = full(kind)
    shown = [str(error), repr(error), f"{error}", *traceback.format_exception(error)]
    assert not any(CANARY in text for text in shown)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_docstring_and_can_be_made_from_a_message_alone(kind: type[GatewayError]) -> None:
    assert kind.__doc__ and not kind.__doc__.startswith(kind.__name__ + "(")
    assert str(kind("what")) == "what"
    assert isinstance(hash(kind("what")), int)


def test_the_class_says_what_can_cure_it_unless_the_instance_does() -> None:
    assert (RateLimited("x").retryable, RateLimited("x").fallbackable) == (True, True)
    assert errors.Rejected("x").fallbackable is False
    assert RateLimited("x", retryable=False).retryable is False
    assert errors.ContentFiltered("x", fallbackable=True).fallbackable is True


def test_only_these_errors_are_retryable_and_only_these_stop_the_fallback() -> None:
    services = [kind for kind in CLASSES if issubclass(kind, ServiceError)]
    assert {kind.__name__ for kind in services if kind.retryable_by_default} == {"Unreachable", "RateLimited", "Overloaded"}
    assert {kind.__name__ for kind in services if not kind.fallbackable_by_default} == {
        "ContentFiltered",
        "Rejected",
        "TransformFailed",
    }


def test_an_unsupported_task_names_model_and_task() -> None:
    from gateway import Chat

    error = UnsupportedTask.of(Echo("parrot").card, Chat.ask(CANARY))
    assert error.model == "parrot"
    assert "'parrot'" in str(error) and "'chat'" in str(error) and CANARY not in str(error)


def test_an_invalid_request_is_also_a_value_error() -> None:
    assert issubclass(errors.InvalidRequest, ValueError)


def test_notes_and_partial_survive_pickling() -> None:
    error = RateLimited("x", partial=CANARY)
    error.add_note("asked twice")
    back = pickle.loads(pickle.dumps(error))
    assert back.partial == CANARY and back.__notes__ == ["asked twice"]
