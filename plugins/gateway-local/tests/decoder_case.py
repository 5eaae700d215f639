"""Requests to a decoder, callers who leave, and a look inside."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from gateway_local import LocalModel
from gateway_local.slots import Slots

from gateway import Generate

WORDS = ("the", "cat", "sat", "on", "mat", "and", "dog", "ran", "to", "river", "a", "sea", "is", "wide")


def mixed(count: int, seed: int = 0) -> list[Generate]:
    """Requests of mixed length."""
    chance = random.Random(seed)
    return [
        Generate(
            prompt=" ".join(chance.choices(WORDS, k=chance.randint(1, 25))), max_tokens=chance.randint(1, 24), temperature=0.0
        )
        for _ in range(count)
    ]


async def left_early(model: LocalModel, request: Generate, after: int) -> None:
    """A caller who closes a stream after so many deltas, or cancels a call at once."""
    if after:
        async with aclosing(model.stream(request)) as items:
            async for _ in items:
                after -= 1
                if after <= 0:
                    return
        return
    call = asyncio.create_task(model.run(request))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])


def slots_of(model: LocalModel) -> Slots:
    answers: Any = model._copies.there[0].answers
    slots = answers._decoder._passes.slots
    assert isinstance(slots, Slots)
    return slots


@contextmanager
def passes_seen(model: LocalModel) -> Iterator[list[list[int]]]:
    """For each pass of the block, how many tokens of each text it reads."""
    answers: Any = model._copies.there[0].answers
    passes = answers._decoder._passes
    forward, seen = passes.forward, list[list[int]]()

    def watched(texts: Any) -> Any:
        seen.append([len(text.todo) for text in texts])
        return forward(texts)

    passes.forward = watched
    try:
        yield seen
    finally:
        passes.forward = forward
