"""Texts beside each other in a decoder: none is mixed up with another, held up by one, or fails with one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from decoder_case import WORDS, left_early, mixed, passes_seen, slots_of

from gateway import Closed, Generate, ServiceCrashed, WeightsError


@pytest.mark.parametrize("name", ["RecurrentGemma", "MiniMax", "Bamba"])
def test_a_model_that_would_mix_texts_up_is_refused_when_it_is_loaded(name: str, family: Any, started: Any) -> None:
    async def ask() -> None:
        with pytest.raises(WeightsError, match=f"architecture '{name}ForCausalLM'"):
            async with started(family(name)):
                pass

    asyncio.run(ask())


@pytest.mark.parametrize("name", ["Llama", "Bloom"])
def test_when_the_first_leaves_the_others_go_on_where_they_are(name: str, family: Any, started: Any) -> None:
    requests = [Generate(prompt=f"the {word}", max_tokens=40, temperature=0.0) for word in WORDS[:5]]

    async def ask() -> None:
        async with started(family(name), prefix_sharing="off") as model:
            expected = [(await model.run(request)).text for request in requests]
            with passes_seen(model) as seen:
                first = asyncio.create_task(left_early(model, Generate(prompt="a sea", max_tokens=90, temperature=0.0), 4))
                await asyncio.sleep(0)
                replies = await asyncio.gather(*(model.run(request) for request in requests))
                await first
            assert [reply.text for reply in replies] == expected
            assert sum(count > 1 for each in seen for count in each) <= 6  # none was read twice

    asyncio.run(ask())


def test_who_needs_much_room_is_not_passed_by_those_who_need_little(family: Any, started: Any) -> None:
    big = Generate(prompt="sea " * 100, max_tokens=300, temperature=0.0)
    small, longer = (Generate(prompt="the cat", max_tokens=count, temperature=0.0) for count in (20, 33))

    async def ask() -> None:
        async with started(family("Llama"), cache_bytes=512 * 256) as model:
            assert slots_of(model).tokens == 512  # all of it for the one, or for two of the others
            answered = []

            async def one(request: Generate) -> None:
                await model.run(request)
                answered.append(request)

            calls = [asyncio.create_task(one(request)) for request in [small, longer, big, *[small, longer] * 6]]
            await asyncio.gather(*calls)
            assert answered.index(big) == 2

    asyncio.run(ask())


def test_a_text_that_cannot_be_decoded_fails_alone(llama: Path, started: Any) -> None:
    async def ask() -> None:
        async with started(llama) as model:
            requests = mixed(6, seed=9)
            alone = [(await model.run(request)).text for request in requests]
            answers = model._copies.there[0].answers
            bad = answers._loaded.tokenizer("wide wide wide")["input_ids"]
            text = answers._text

            def panicking(ids: Any) -> str:
                if list(ids[: len(bad)]) == bad and len(ids) > len(bad):
                    raise BaseException("a panic")
                return str(text(ids))

            answers._text = panicking
            calls = [model.run(each) for each in [requests[0], Generate(prompt="wide wide wide", max_tokens=5), *requests[1:]]]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(results.pop(1), ServiceCrashed)
            assert [getattr(result, "text", None) for result in results] == alone

    asyncio.run(ask())


def test_numbers_that_are_none_amid_a_prompt_fail_it_at_once(llama: Path, started: Any) -> None:
    """Or they would stay in the room of one whose caller leaves meanwhile, and spoil the answer of who has it next."""
    import torch

    async def ask() -> None:
        async with started(llama) as model:
            answers: Any = model._copies.there[0].answers
            answers._decoder._prompt_tokens = 16
            embedding = answers._loaded.model.get_input_embeddings().weight
            with torch.inference_mode():
                embedding[answers._loaded.tokenizer("Q")["input_ids"][0]] = torch.nan
            with passes_seen(model) as seen, pytest.raises(ServiceCrashed, match="finite"):
                await model.run(Generate(prompt="Q" + " sea" * 60, max_tokens=2))
            assert len(seen) == 1 and not any(slot.taken or slot.ids for slot in slots_of(model))

    asyncio.run(ask())


def test_a_huge_prompt_does_not_hold_up_a_short_one_nor_many_short_ones_the_huge_one(llama: Path, started: Any) -> None:
    huge = Generate(prompt="sea " * 110, max_tokens=1, temperature=0.0)
    short = [Generate(prompt=f"{word} cat sat", max_tokens=1, temperature=0.0) for word in WORDS]

    async def ask() -> None:
        async with started(llama, prefix_sharing="off") as model:
            model._copies.there[0].answers._decoder._prompt_tokens = 16
            done: dict[str, int] = {}

            async def one(request: Generate) -> None:
                await model.run(request)
                done[request.prompt] = len(seen)

            with passes_seen(model) as seen:
                await asyncio.gather(*(one(request) for request in [huge, *short]))
            assert done[short[0].prompt] <= 4 < 8 < done[huge.prompt]
            assert max(map(sum, seen)) <= 16 + len(short)

    asyncio.run(ask())


def test_closing_says_the_same_to_all_who_are_being_answered(llama: Path, started: Any) -> None:
    async def ask() -> None:
        async with started(llama) as model:
            streams = [model.stream(Generate(prompt=f"the {word}", max_tokens=200, temperature=0.0)) for word in WORDS[:4]]
            for stream in streams:
                await anext(stream)
            await model.aclose()
            for stream in streams:
                with pytest.raises(Closed):
                    async for _ in stream:
                        pass

    asyncio.run(ask())
