"""Many answers at once: each is what generate writes, whoever comes, goes or fails; room is freed, beginnings are shared."""

from __future__ import annotations

import asyncio
import gc
import importlib
import random
from pathlib import Path
from typing import Any

import pytest
from decoder_case import WORDS, left_early, mixed, passes_seen, slots_of
from gateway_local import LocalModel, starter
from gateway_local.passes import Apart, Together
from gateway_local.slots import Slots, shared
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import Chat, ContextTooLong, Delta, Generate, GenerateResponse, Meta, Overloaded, ServiceCrashed

FAMILIES = (
    "GPT2", "Llama", "Qwen2", "Qwen3", "Mistral", "Gemma", "Gemma2", "Gemma3", "GptOss", "Bloom", "Phimoe", "Llama4", "Mamba2",
    "Phi3", "starter",
)  # fmt: skip
APART = {"Bloom", "Phimoe", "Llama4", "Mamba2", "Phi3"}
"""Families whose attention, or its window, or what stands for it, is their own: these are read one after the other."""


class Reference:
    """What transformers' own generate makes of the same weights."""

    def __init__(self, path: Path) -> None:
        import transformers

        library: Any = transformers
        self._tokenizer = library.PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
        self._model = library.AutoModelForCausalLM.from_pretrained(path, dtype="float32")

    def text(self, prompt: str, count: int) -> str:
        import torch

        ids = self._tokenizer(prompt, return_tensors="pt").input_ids
        out = self._model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
        new = out[0, ids.shape[1] :].tolist()
        return str(self._tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False))


async def streamed(model: LocalModel, request: Generate) -> GenerateResponse:
    pieces = []
    async for item in model.stream(request):
        if isinstance(item, Delta):
            pieces.append(item.text)
        else:
            assert isinstance(item, GenerateResponse) and item.text == "".join(pieces)
            return item
    raise AssertionError


@pytest.mark.parametrize("name", FAMILIES)
def test_every_answer_is_what_generate_writes(name: str, family: Any, started: Any) -> None:
    path = starter.PATH if name == "starter" else family(name)
    requests = mixed(16)
    reference = Reference(path)
    expected = [reference.text(request.prompt, request.max_tokens or 0) for request in requests]

    async def ask() -> None:
        async with started(path) as model:
            passes = model._copies.there[0].answers._decoder._passes
            assert isinstance(passes, Apart if name in APART else Together)
            assert (await model.run(requests[0])).text == expected[0]
            whole = await asyncio.gather(*(model.run(request) for request in requests))
            assert [reply.text for reply in whole] == expected
            noise = [left_early(model, request, at % 4) for at, request in enumerate(mixed(12, seed=1))]
            calls = [streamed(model, request) for request in requests]
            replies = await asyncio.gather(*(call for pair in zip(calls, noise, strict=False) for call in pair), *calls[12:])
            texts = [reply.text for reply in replies if reply is not None]
            assert texts == expected

    asyncio.run(ask())


def test_cancelling_half_of_two_hundred_streams_harms_no_other_and_frees_all_room(family: Any, started: Any) -> None:
    import threading

    path = family("Llama")
    requests = mixed(100, seed=2)

    async def ask() -> None:
        async with started(path, max_queue=200) as model:
            alone = [(await model.run(request)).text for request in requests[:20]]
            threads = threading.active_count()
            chance = random.Random(3)
            gone = [left_early(model, request, chance.randint(0, 5)) for request in mixed(100, seed=4)]
            calls = [streamed(model, request) for request in requests]
            replies = await asyncio.gather(*(call for pair in zip(calls, gone, strict=True) for call in pair))
            texts = [reply.text for reply in replies if reply is not None]
            assert texts[:20] == alone and len(texts) == 100
            await model.run(Generate(prompt="the cat", max_tokens=1))
            assert not any(slot.taken for slot in slots_of(model)) and not model._copies.there[0].answers._decoder._rows
            assert threading.active_count() == threads

    asyncio.run(ask())


def test_seeds_shapes_and_penalties_hold_beside_others(llama: Path, started: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    requests = [
        Chat.ask("the cat", max_tokens=20, temperature=1.3, seed=5),
        Chat.ask("the dog", max_tokens=20, temperature=1.3, seed=6, top_k=9),
        Chat.ask("the sea", max_tokens=20, temperature=0.0, frequency_penalty=1.5),
        Chat.ask("a river", max_tokens=20, temperature=1.0, seed=1, response_format=schema),
        Chat.ask("the mat", max_tokens=20, temperature=0.0, logprobs=2),
        Chat.ask("the mat", max_tokens=20, temperature=0.0, stop=("e",)),
    ]

    async def ask() -> None:
        async with started(llama) as model:
            alone = [await model.run(request) for request in requests]
            together = await asyncio.gather(*(model.run(request) for request in requests))
            for one, other in zip(alone, together, strict=True):
                assert (one.text, one.finish, one.usage) == (other.text, other.finish, other.usage)
                assert [token.token for token in one.logprobs] == [token.token for token in other.logprobs]

    asyncio.run(ask())


def test_more_than_fit_wait_their_turn_and_a_full_queue_refuses(llama: Path, started: Any) -> None:
    async def ask() -> None:
        async with started(llama, max_batch=3, max_queue=4, cache_bytes=0) as model:
            requests = mixed(7, seed=5)
            calls = [asyncio.create_task(model.run(request)) for request in requests]
            await asyncio.sleep(0)
            results = await asyncio.gather(*calls, *(model.run(request) for request in requests), return_exceptions=True)
            refused = [result for result in results if isinstance(result, Overloaded)]
            answered = [result for result in results if isinstance(result, GenerateResponse)]
            assert refused and len(answered) >= 6 and len(refused) + len(answered) == len(results)
            assert slots_of(model).held <= 256

    asyncio.run(ask())


def test_a_prompt_that_the_cache_cannot_hold_says_how_much_fits(family: Any, started: Any) -> None:
    async def ask() -> None:
        async with started(family("Llama"), cache_bytes=0) as model:
            with pytest.raises(ContextTooLong, match=r"memory for 256 \(cache_bytes\).*at most 255 fit"):
                await model.run(Generate(prompt="sea " * 300))
            assert (await model.run(Generate(prompt="the cat", max_tokens=3000, temperature=0.0))).usage.output_tokens <= 254

    asyncio.run(ask())


def test_what_fails_in_a_pass_fails_alone_and_the_model_survives(llama: Path, started: Any) -> None:
    """A text that the model cannot read, as when memory runs out over it, beside others that it can."""

    async def ask(error: Exception, expected: type[Exception]) -> None:
        async with started(llama) as model:
            passes: Any = model._copies.there[0].answers._decoder._passes
            forward, bad = passes.forward, model._copies.there[0].answers._loaded.tokenizer("wide wide wide")["input_ids"]

            def failing(texts: Any) -> Any:
                if any(list(text.ids[: len(bad)]) == bad for text in texts):
                    raise error
                return forward(texts)

            requests = mixed(9, seed=6)
            alone = [(await model.run(request)).text for request in requests]
            passes.forward = failing
            calls = [model.run(request) for request in [*requests, Generate(prompt="wide wide wide", max_tokens=5)]]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [getattr(result, "text", None) for result in results[:-1]] == alone
            assert isinstance(results[-1], expected)
            passes.forward = forward
            assert (await model.run(requests[0])).text == alone[0]
            assert not any(slot.taken for slot in slots_of(model))

    asyncio.run(ask(RuntimeError("DefaultCPUAllocator: can't allocate memory"), Overloaded))
    asyncio.run(ask(ValueError("the prompt itself"), ServiceCrashed))


def test_numbers_that_are_none_fail_alone_and_leave_nothing_behind(llama: Path, started: Any) -> None:
    import torch

    async def ask() -> None:
        async with started(llama) as model:
            requests = mixed(5, seed=7)
            alone = [(await model.run(request)).text for request in requests]
            embedding = model._copies.there[0].answers._loaded.model.get_input_embeddings().weight
            letter = next(letter for letter in "QXZWVKJ" if not any(letter in text for text in alone))
            with torch.inference_mode():
                embedding[model._copies.there[0].answers._loaded.tokenizer(letter)["input_ids"][0]] = torch.nan
            calls = [model.run(request) for request in [Generate(prompt=f"the {letter} cat", max_tokens=5), *requests]]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(results[0], ServiceCrashed) and "finite" in str(results[0])
            for _ in range(2):  # also in the room that it had
                assert [getattr(result, "text", None) for result in results[1:]] == alone
                results = [None, *await asyncio.gather(*(model.run(request) for request in requests))]

    asyncio.run(ask())


def test_a_beginning_is_read_once_and_only_for_its_own_tenant(llama: Path, started: Any) -> None:
    async def read(model: LocalModel, prompt: str, tenant: str) -> int:
        """How many tokens of the prompt the model had to read."""
        with passes_seen(model) as seen:
            await model.run(Generate(prompt=prompt, max_tokens=1, temperature=0.0, meta=Meta(tenant=tenant)))
        return sum(map(sum, seen))

    async def ask(sharing: str) -> list[bool]:
        async with started(llama, prefix_sharing=sharing) as model:
            system = "the cat sat on the mat and the dog ran to the river " * 5
            cold = await read(model, system + "a", "one")
            warm = [await read(model, system + ending, tenant) for ending, tenant in (("b", "one"), ("c", "two"), ("d", "two"))]
            return [count < cold / 4 for count in warm]

    assert asyncio.run(ask("tenant")) == [True, False, True]
    assert asyncio.run(ask("all")) == [True, True, True]
    assert asyncio.run(ask("off")) == [False, False, False]


def test_texts_that_begin_alike_and_come_together_are_read_once(family: Any, started: Any) -> None:
    path = family("Gemma3")
    system = "the dog ran to the river and the sea is wide " * 4
    requests = [Generate(prompt=f"{system}{word}", max_tokens=9, temperature=0.0) for word in WORDS]
    reference = Reference(path)

    async def ask() -> None:
        async with started(path) as model:
            with passes_seen(model) as seen:
                replies = await asyncio.gather(*(model.run(request) for request in requests))
            assert [reply.text for reply in replies] == [reference.text(request.prompt, 9) for request in requests]
            assert sum(count for each in seen for count in each if count > 1) < 2 * replies[0].usage.input_tokens

    asyncio.run(ask())


def test_a_long_prompt_is_read_in_pieces_between_which_others_are_answered(llama: Path, started: Any) -> None:
    async def ask() -> None:
        async with started(llama) as model:
            decoder = model._copies.there[0].answers._decoder
            long = Generate(prompt="sea " * 200, max_tokens=3, temperature=0.0)
            expected = (await model.run(long)).text
            for slot in slots_of(model):
                slot.ids = []
            decoder._prompt_tokens = 16
            with passes_seen(model) as seen:
                short = Generate(prompt="the", max_tokens=30, temperature=0.0)
                one, two = await asyncio.gather(model.run(short), model.run(long))
            assert two.text == expected and one.usage.output_tokens > 2
            assert max(map(sum, seen)) <= 17
            assert sum(len(each) == 2 for each in seen) > 4

    asyncio.run(ask())


def test_answers_that_were_given_are_let_go(llama: Path, started: Any) -> None:
    from gateway_local.decoder import Row

    async def ask() -> None:
        async with started(llama) as model:
            await asyncio.gather(*(model.run(request) for request in mixed(20, seed=8)))
            gc.collect()
            assert len([each for each in gc.get_objects() if type(each) is Row]) <= 1

    asyncio.run(ask())


@pytest.mark.soak
def test_ten_thousand_requests_leave_memory_as_it_was(llama: Path, started: Any) -> None:
    def resident() -> int:
        gc.collect()
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    async def ask() -> None:
        async with started(llama, max_queue=1000) as model:
            sizes = []
            for turn in range(11):
                for batch in range(10):
                    requests = mixed(100, seed=turn * 100 + batch)
                    gone = [left_early(model, request, at % 3) for at, request in enumerate(requests[:20])]
                    await asyncio.gather(*(model.run(request) for request in requests[20:]), *gone)
                sizes.append(resident())
            assert sizes[-1] - sizes[1] < 5_000, sizes

    asyncio.run(ask())


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux tells what is free")
def test_memory_that_caches_files_counts_as_free() -> None:
    import torch

    answer: Any = importlib.import_module("gateway_local.answer")  # with torch: not when tests are collected
    rows = dict(row.split(":") for row in Path("/proc/meminfo").read_text().splitlines())
    total, cached = (int(rows[name].split()[0]) * 1024 for name in ("MemTotal", "Cached"))
    assert 0 < answer.free_bytes(torch.device("cpu")) <= total
    if not Path("/sys/fs/cgroup/memory.max").exists():
        assert answer.free_bytes(torch.device("cpu")) > cached / 4


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_shared_is_the_common_beginning(start: list[int], one: list[int], other: list[int]) -> None:
    found = shared(start + one, start + other)
    assert (start + one)[:found] == (start + other)[:found] and found >= len(start)
    longer = (start + one)[: found + 1], (start + other)[: found + 1]
    assert len(longer[0]) == found or len(longer[1]) == found or longer[0] != longer[1]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_slots_never_overlap_and_never_exceed_their_memory(data: st.DataObject) -> None:
    import torch

    slots = Slots(data.draw(st.integers(0, 9000)), sharing=data.draw(st.sampled_from(["tenant", "all", "off"])))
    slots.layers[0] = torch.zeros(1, 1, 0, 2), torch.zeros(1, 1, 0, 2)
    taken: list[Any] = []
    for _ in range(data.draw(st.integers(1, 25))):
        if taken and data.draw(st.booleans()):
            slots.leave(taken.pop(data.draw(st.integers(0, len(taken) - 1))))
            continue
        prompt = [data.draw(st.integers(0, 1))] * data.draw(st.integers(1, 60))
        tokens = min(len(prompt) + data.draw(st.integers(0, 3000)), slots.tokens)
        slot = slots.take(tokens, prompt, data.draw(st.sampled_from(["", "a"])))
        if slot is None:
            assert taken  # alone, what may be asked for has room
            continue
        assert all(slot is not other for other in taken) and slot.chunk.capacity >= tokens
        assert slot.ids == prompt[: len(slot.ids)] and len(slot.ids) < len(prompt)
        assert bool((slot.chunk.layers[0][0][slot.place, 0, : len(slot.ids), 0] == sum(prompt[:1]) + 1).all())
        start = len(slot.ids)
        for kept in slot.chunk.layers[0]:
            kept[slot.place, :, start : len(prompt)] = sum(prompt[:1]) + 1
        slot.ids = list(prompt)
        taken.append(slot)
        assert slots.held <= slots.tokens
