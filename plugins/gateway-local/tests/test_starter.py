"""The model that comes with the package: it writes plays, at once and without a network."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from gateway_local import starter
from gateway_local.hooks import gateway_models

from gateway import Chat, ChatResponse, Generate, Resources

pytestmark = pytest.mark.skipif(
    not (starter.PATH / "model.safetensors").is_file(), reason="the starter model has not been trained: see starter/train.py"
)


def test_the_starter_model_writes_and_streams(lent: Resources, drain: Any) -> None:
    async def ask() -> None:
        (model,) = gateway_models(config={})
        try:
            card = await model.describe(lent)
            assert (card.name, card.tasks, card.context) == ("starter", frozenset({Generate, Chat}), 512)
            assert card.last_resort
            assert card.params is not None and 1_500_000 < card.params < 3_000_000
            await model.start(lent)
            pieces, reply = await drain(model, Chat.ask("What news from Rome, good neighbour?", seed=3))
            assert isinstance(reply, ChatResponse)
            assert "".join(pieces) == reply.text
            assert len(reply.text.split()) > 2 and len(pieces) > 2
            again = await model.run(Chat.ask("What news from Rome, good neighbour?", seed=3))
            assert isinstance(again, ChatResponse) and again.parts == reply.parts
            speech = await model.run(Generate(prompt="First Citizen:\nWhat", max_tokens=30, temperature=0.0))
            assert speech.deltas()
        finally:
            await model.aclose()

    asyncio.run(ask())
