"""What a card claims, put to the test: tools, json_schema, stop, seed, max_tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from gateway.errors import ServiceError
from gateway.tasks import Chat, ChatResponse, Tool
from gateway.testing.contract_rules import Broken
from gateway.testing.contract_subject import Subject, same

WHY = "the gateway sends requests that need a feature to the models that claim it"
SHORT_CHARACTERS = 64
WEATHER = Tool(
    name="get_weather",
    description="The weather in a city.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


async def check_feature(subject: Subject, feature: str, *, deterministic: bool) -> None:
    """Broken when a feature on the card does not work, through run and through stream."""
    for ask in (subject.answer, subject.streamed):
        match feature:
            case "tools":
                request = Chat.ask("How is the weather in Paris?", tools=(WEATHER,), tool_choice="required", max_tokens=256)
                check_tools(await ask(request))
            case "json_schema":
                check_schema(await ask(Chat.ask("Name a city as JSON.", response_format=SCHEMA, max_tokens=256)))
            case "stop" if deterministic:
                request = Chat.ask("List five rivers.", max_tokens=24, temperature=0.0)
                whole = await ask(request)
                words = whole.text.split() if isinstance(whole, ChatResponse) else []
                if len(words) > 1:
                    check_stop(await ask(replace(request, stop=(words[1],))), words[1])
            case "seed":
                request = Chat.ask("Say anything.", max_tokens=16, seed=7, temperature=1.0)
                if deterministic and not same(await ask(request), await ask(request), ids=False):
                    raise Broken("the card claims seed, and one seed gave two answers", "the same answer", WHY)


def check_tools(response: Any) -> None:
    """Broken unless the response calls the tool with the arguments that it needs."""
    expected = "a call of get_weather with JSON arguments, city among them, and finish tool_calls"
    calls = response.tool_calls
    names = [call.name for call in calls]
    if not calls or set(names) != {WEATHER.name}:
        raise Broken(f"the card claims tools, and tool_choice='required' gave calls of {names}", expected, WHY)
    for call in calls:
        try:
            given = call.parsed()
        except ValueError as error:
            raise Broken("the card claims tools, and a call's arguments are not a JSON object", expected, WHY) from error
        if not isinstance(given.get("city"), str) or not call.id:
            raise Broken("the card claims tools, and a call lacks its id or the required argument", expected, WHY)
    if response.finish != "tool_calls":
        raise Broken(f"a response with tool calls has the finish {response.finish!r}", expected, WHY)


def check_schema(response: Any) -> None:
    """Broken unless the response is JSON with what the schema requires."""
    expected = "JSON with the required keys city (a string) and people (an integer), and no others"
    try:
        value = json.loads(response.text)
    except ValueError as error:
        raise Broken("the card claims json_schema, and the answer is not JSON", expected, WHY) from error
    if not isinstance(value, dict) or set(value) != {"city", "people"}:
        raise Broken("the card claims json_schema, and the answer has other keys than the schema", expected, WHY)
    if not isinstance(value["city"], str) or not isinstance(value["people"], int):
        raise Broken("the card claims json_schema, and the answer's values have other types", expected, WHY)


def check_stop(response: Any, stop: str) -> None:
    """Broken when the answer runs through a stop string."""
    if stop in response.text:
        raise Broken("the card claims stop, and the answer holds the stop string", "an answer cut before it", WHY)


async def check_max_tokens(subject: Subject) -> None:
    """Broken when a limit of one token is overrun; a model that refuses so low a limit is right."""
    if Chat not in subject.card.tasks:
        return
    request = Chat.ask("Count from one to two hundred in words.", max_tokens=1, temperature=0.0)
    for stream in (False, True):
        outcome = await subject.outcome(request, stream=stream)
        if isinstance(outcome, ServiceError):
            continue
        why = "max_tokens is what the caller pays for at most, and what latency and cost are predicted from"
        if not isinstance(outcome, ChatResponse):
            raise Broken(f"max_tokens=1 raised {type(outcome).__name__}", "a short answer, or a ServiceError", why)
        long = len(outcome.text) > SHORT_CHARACTERS
        if long or outcome.finish not in ("length", "stop"):
            seen = f"max_tokens=1 gave {len(outcome.text)} characters and the finish {outcome.finish!r}"
            raise Broken(seen, "one token and the finish 'length'", why)
        if not outcome.usage.estimated and outcome.usage.output_tokens > max(1, outcome.usage.reasoning_tokens + 1):
            seen = f"max_tokens=1 reported {outcome.usage.output_tokens} output tokens"
            raise Broken(seen, "at most 1", why)
