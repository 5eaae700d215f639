"""Decoding: greedy is generate's, seeds repeat, stop strings end a text, pieces are whole characters."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from gateway import (
    Chat,
    ContextTooLong,
    Delta,
    Embed,
    Generate,
    Image,
    Message,
    Reasoning,
    Rejected,
    Resources,
    Tool,
    ToolCall,
    UnsupportedOption,
    UnsupportedTask,
)

PROMPT = "the cat sat on"


def reference(path: Path) -> tuple[Any, Any]:
    """transformers' own model and tokenizer of the same files."""
    import transformers

    library: Any = transformers
    tokenizer = library.PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
    return library.AutoModelForCausalLM.from_pretrained(path), tokenizer


def generated(path: Path, prompt: str, count: int, **options: Any) -> str:
    """What transformers' own generate makes of the same weights."""
    import torch

    model, tokenizer = reference(path)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, **options)
    new = out[0, ids.shape[1] :].tolist()
    return str(tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
def test_greedy_is_what_generate_writes(kind: str, started: Any, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)

    async def ask() -> str:
        async with started(path) as model:
            reply = await model.run(Generate(prompt=PROMPT, max_tokens=40, temperature=0.0))
            assert reply.usage.output_tokens <= 40
            return str(reply.text)

    assert asyncio.run(ask()) == generated(path, PROMPT, 40)


def test_a_repetition_penalty_of_the_model_holds_as_in_generate(llama: Path, started: Any, tmp_path: Path) -> None:
    path = shutil.copytree(llama, tmp_path / "model")
    config = json.loads((path / "generation_config.json").read_text())
    (path / "generation_config.json").write_text(json.dumps({**config, "repetition_penalty": 1.7}))

    async def ask() -> str:
        async with started(path) as model:
            return str((await model.run(Generate(prompt=PROMPT, max_tokens=40))).text)

    text = asyncio.run(ask())
    assert text == generated(path, PROMPT, 40)
    assert text != generated(llama, PROMPT, 40)


def test_logprobs_are_the_model_s_own_whatever_picks_the_token(llama: Path, started: Any) -> None:
    import torch

    model, tokenizer = reference(llama)

    async def ask(**options: Any) -> Any:
        async with started(llama) as service:
            return await service.run(Chat.ask(PROMPT, max_tokens=12, logprobs=3, **options))

    prompt = tokenizer(f"user: {PROMPT}\nassistant:", add_special_tokens=False).input_ids
    for options in ({}, {"temperature": 1.5, "seed": 3, "top_k": 5}, {"frequency_penalty": 2.0, "presence_penalty": 2.0}):
        reply = asyncio.run(ask(**options))
        ids, seen = list(prompt), []
        for each in reply.logprobs:
            with torch.inference_mode():
                likely = model(torch.tensor([ids])).logits[0, -1].float().log_softmax(dim=-1)
            values, places = likely.topk(3)
            assert [token for token, _ in each.top] == [tokenizer.decode([at]) for at in places.tolist()]
            assert all(abs(ours - theirs) < 1e-4 for (_, ours), theirs in zip(each.top, values.tolist(), strict=True))
            chosen = min(range(len(likely)), key=lambda at: abs(float(likely[at]) - each.logprob))
            assert abs(float(likely[chosen]) - each.logprob) < 1e-4 and tokenizer.decode([chosen]) == each.token
            ids.append(chosen)
            seen.append(chosen)
        assert len(reply.logprobs) in (reply.usage.output_tokens, reply.usage.output_tokens - 1)
        assert tokenizer.decode(seen, skip_special_tokens=True) == reply.text
    assert asyncio.run(ask()).logprobs[0].logprob == max(logprob for _, logprob in asyncio.run(ask()).logprobs[0].top)


def test_penalties_are_taken_off_for_what_was_written(llama: Path, started: Any) -> None:
    import torch

    model, tokenizer = reference(llama)

    async def ask(**options: Any) -> str:
        async with started(llama) as service:
            return str((await service.run(Chat.ask(PROMPT, max_tokens=16, temperature=0.0, **options))).text)

    for presence, frequency in ((2.0, 0.0), (0.0, 2.0), (1.0, -0.5)):
        ids = list(tokenizer(f"user: {PROMPT}\nassistant:", add_special_tokens=False).input_ids)
        start = len(ids)
        for _ in range(16):
            with torch.inference_mode():
                logits = model(torch.tensor([ids])).logits[0, -1].float().tolist()
            for token in set(ids[start:]):
                logits[token] -= presence + frequency * ids[start:].count(token)
            ids.append(max(range(len(logits)), key=logits.__getitem__))
            if ids[-1] == 1:
                break
        text = asyncio.run(ask(presence_penalty=presence, frequency_penalty=frequency))
        assert text == tokenizer.decode(ids[start:], skip_special_tokens=True)
    assert asyncio.run(ask(presence_penalty=2.0)) != asyncio.run(ask())


class Place(BaseModel):
    city: Literal["Bern", "Zürich"]
    people: int = Field(ge=0, le=99)
    rivers: list[bool] = Field(min_length=2, max_length=2)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_an_answer_has_the_shape_that_was_asked_for(llama: Path, started: Any, temperature: float) -> None:
    async def ask() -> None:
        async with started(llama) as service:
            for seed in range(5):
                request = Chat.ask(PROMPT, response_format=Place, temperature=temperature, seed=seed, max_tokens=200)
                reply = await service.run(request)
                assert reply.finish == "stop" and request.accept(reply).parsed == Place.model_validate_json(reply.text)
                pieces = [item.text async for item in service.stream(request) if isinstance(item, Delta)]
                assert "".join(pieces) == reply.text
            cut = await service.run(Chat.ask(PROMPT, response_format=Place, max_tokens=3))
            assert cut.finish == "length" and cut.usage.output_tokens == 3
            free = await service.run(Chat.ask(PROMPT, max_tokens=5))
            assert free.text  # one request's shape is that request's

    asyncio.run(ask())


class Story(BaseModel):
    title: str
    pages: list[dict[str, str]]
    end: int


@pytest.mark.parametrize("seed", range(4))
def test_what_is_open_is_closed_before_the_tokens_run_out(llama: Path, started: Any, seed: int) -> None:
    """A model that knows nothing ends no text by itself."""

    async def ask() -> None:
        async with started(llama) as service:
            for most in (60, 90, 150):
                request = Chat.ask(PROMPT, response_format=Story, temperature=1.0, seed=seed, max_tokens=most)
                reply = await service.run(request)
                assert Story.model_validate_json(reply.text) and reply.usage.output_tokens <= most
                assert reply.finish == "length" or reply.usage.output_tokens < most

    asyncio.run(ask())


def test_an_object_gets_no_properties_that_nobody_named_unless_several_schemas_speak_of_it() -> None:
    from gateway_local.shape import sparing

    inner, values = {"type": "object", "properties": {}}, {"enum": [{"properties": 1}]}
    closed = {"additionalProperties": False}
    named = {"type": "object", "properties": {"a": inner, "properties": values}}
    assert sparing(named) == {**named, "properties": {"a": {**inner, **closed}, "properties": values}, **closed}
    for kept in (
        {"properties": {}, "additionalProperties": {"type": "string"}},
        {"allOf": [{"properties": {"a": True}}, {"properties": {"b": True}}]},
        {"properties": {}, "anyOf": [{"required": ["a"]}]},
    ):
        assert sparing(kept) == kept


def test_top_k_of_one_is_the_likeliest(llama: Path, started: Any) -> None:
    async def ask(**options: Any) -> str:
        async with started(llama) as service:
            return str((await service.run(Chat.ask(PROMPT, max_tokens=20, **options))).text)

    assert asyncio.run(ask(top_k=1, temperature=2.0)) == asyncio.run(ask(temperature=0.0))
    assert len({asyncio.run(ask(top_k=40, temperature=2.0)) for _ in range(4)}) > 1


def test_one_seed_gives_one_text_and_no_seed_gives_chance(llama: Path, started: Any) -> None:
    async def ask() -> None:
        async with started(llama) as model:

            async def text(seed: int | None) -> str:
                reply = await model.run(Generate(prompt=PROMPT, max_tokens=24, temperature=1.5, seed=seed))
                return str(reply.text)

            assert await text(7) == await text(7)
            assert await text(-3) == await text(-3)
            assert len({await text(seed) for seed in range(4)}) > 1
            assert len({await text(None) for _ in range(4)}) > 1

    asyncio.run(ask())


def test_a_low_top_p_leaves_only_the_likeliest(llama: Path, started: Any) -> None:
    async def ask() -> None:
        async with started(llama) as model:
            greedy = await model.run(Generate(prompt=PROMPT, max_tokens=16, temperature=0.0))
            narrow = await model.run(Generate(prompt=PROMPT, max_tokens=16, temperature=1.0, top_p=1e-6, seed=1))
            assert narrow.text == greedy.text

    asyncio.run(ask())


def test_the_generation_config_samples_where_the_request_says_nothing(llama: Path, started: Any, tmp_path: Path) -> None:
    path = shutil.copytree(llama, tmp_path / "model")
    config = {"do_sample": True, "temperature": 1.5, "top_k": 40, "eos_token_id": 1}
    (path / "generation_config.json").write_text(json.dumps(config))

    async def ask() -> None:
        async with started(path) as model:
            texts = {(await model.run(Generate(prompt=PROMPT, max_tokens=16, seed=seed))).text for seed in range(4)}
            assert len(texts) > 1

    asyncio.run(ask())


def test_a_stop_string_ends_the_text_and_is_not_shown(llama: Path, started: Any, drain: Any) -> None:
    async def ask() -> None:
        async with started(llama) as model:
            whole = (await model.run(Generate(prompt=PROMPT, max_tokens=40, temperature=0.0))).text
            assert len(whole) > 12
            for start in range(1, 9):
                stop = whole[start : start + 4]
                request = Generate(prompt=PROMPT, max_tokens=40, temperature=0.0, stop=(stop,))
                pieces, reply = await drain(model, request)
                assert reply.text == "".join(pieces) == whole[: whole.index(stop)]
                assert reply.finish == "stop"

    asyncio.run(ask())


def test_deltas_are_whole_characters_and_add_up(llama: Path, started: Any, drain: Any) -> None:
    async def ask() -> None:
        async with started(llama) as model:
            seen = 0
            for seed in range(12):
                request = Generate(prompt="river ünter 日本", max_tokens=48, temperature=1.8, seed=seed)
                pieces, reply = await drain(model, request)
                assert "".join(pieces) == reply.text == (await model.run(request)).text
                assert all(pieces)
                seen += len(pieces)
            assert seen > 12

    asyncio.run(ask())


def test_the_limit_of_tokens_is_kept(llama: Path, started: Any) -> None:
    async def ask() -> None:
        async with started(llama) as model:
            reply = await model.run(Generate(prompt=PROMPT, max_tokens=1, temperature=0.0))
            assert (reply.usage.output_tokens, reply.finish) == (1, "length")
            long = await model.run(Generate(prompt=PROMPT, temperature=0.0, max_tokens=10_000))
            assert long.usage.input_tokens + long.usage.output_tokens <= 256

    asyncio.run(ask())


def test_the_end_token_ends_a_text(llama: Path, started: Any, tmp_path: Path) -> None:
    async def first_id(path: Path) -> int:
        async with started(path) as model:
            reply = await model.run(Generate(prompt=PROMPT, max_tokens=1, temperature=0.0))
            return int(model._copies.there[0].answers._loaded.tokenizer(reply.text)["input_ids"][0])

    path = shutil.copytree(llama, tmp_path / "model")
    end = asyncio.run(first_id(path))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, end]}))

    async def ask() -> None:
        async with started(path) as model:
            reply = await model.run(Generate(prompt=PROMPT, max_tokens=9, temperature=0.0))
            assert (reply.text, reply.finish, reply.usage.output_tokens) == ("", "stop", 1)

    asyncio.run(ask())


def test_a_prompt_beyond_the_context_says_how_much_fits(llama: Path, started: Any) -> None:
    async def ask() -> None:
        async with started(llama) as model:
            with pytest.raises(ContextTooLong, match="at most 255 fit") as caught:
                await model.run(Generate(prompt="sea " * 400))
            assert caught.value.context == 256
            assert caught.value.tokens is not None and caught.value.tokens > 256
            assert "sea sea" not in str(caught.value)
            assert (await model.run(Generate(prompt=PROMPT, max_tokens=2))).usage.output_tokens == 2

    asyncio.run(ask())


def test_a_lone_surrogate_is_rejected_and_harms_nobody(llama: Path, started: Any) -> None:
    async def ask() -> None:
        async with started(llama) as model:
            with pytest.raises(Rejected, match="surrogate"):
                await model.run(Generate(prompt="a\ud800b"))
            assert (await model.run(Generate(prompt=PROMPT, max_tokens=2))).usage.output_tokens == 2

    asyncio.run(ask())


def test_a_chat_is_written_as_the_template_has_it(llama: Path, started: Any, drain: Any) -> None:
    async def ask() -> None:
        async with started(llama) as model:
            chat = Chat.ask("the dog ran", system="be brief", max_tokens=12, temperature=0.0)
            written = "system: be brief\nuser: the dog ran\nassistant:"
            plain = await model.run(Generate(prompt=written, max_tokens=12, temperature=0.0))
            pieces, reply = await drain(model, chat)
            assert reply.text == plain.text == "".join(pieces)
            assert reply.usage == plain.usage

    asyncio.run(ask())


def test_a_chat_needs_a_template(gpt2: Path, started: Any, lent: Resources) -> None:
    async def ask() -> None:
        async with started(gpt2) as model:
            card = await model.describe(lent)
            assert card.tasks == {Generate}
            with pytest.raises(UnsupportedTask):
                await model.run(Chat.ask("the dog"))
            with pytest.raises(UnsupportedTask):
                await model.run(Embed(texts=("dog",)))

    asyncio.run(ask())


def test_what_a_chat_cannot_carry_is_refused_by_name(llama: Path, started: Any) -> None:
    turns = [
        ("tools", Chat.ask("hi", tools=(Tool(name="look"),))),
        ("response_format", Chat.ask("hi", response_format={"not": {"type": "string"}})),
        ("response_format", Chat.ask("hi", response_format={"type": "nonsense"})),
        ("reasoning", Chat.ask("hi", reasoning="high")),
        ("images", Chat.ask("hi", Image(data=b"x"))),
        ("tools", Chat(messages=(Message.user("hi"), Message.assistant(ToolCall("1", "look"))))),
        ("tools", Chat(messages=(Message.user("hi"), Message.tool("1", "seen")))),
        ("messages", Chat(messages=(Message.user("hi"), Message(role="tool", parts=())))),
    ]

    async def ask() -> None:
        async with started(llama) as model:
            for name, chat in turns:
                with pytest.raises(UnsupportedOption) as caught:
                    await model.run(chat)
                assert caught.value.option == name
            thought = Message.assistant(Reasoning("hm"), "yes")
            kept = Chat(messages=(Message.user("hi"), thought, Message.user("and?")), max_tokens=2, reasoning="none")
            assert (await model.run(kept)).usage.output_tokens > 0

    asyncio.run(ask())
