"""Encoder-decoders: their texts are generate's, their tasks come from their files, and they stop when left."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from gateway_local import LocalModel
from gateway_local.options import ModelOptions
from pairs_case import ASKED, INPUT, generated, generation

from gateway import (
    ContextTooLong,
    Delta,
    Generate,
    InvalidRequest,
    ModelService,
    Resources,
    Summarize,
    Translate,
    UnsupportedOption,
    UnsupportedTask,
    WeightsError,
)
from gateway.testing.contract import ModelServiceContract


class TestTinyT5(ModelServiceContract):
    patience_s = 60.0

    @pytest.fixture
    def service(self, pair: Any) -> ModelService:
        path = pair("t5", task_specific_params=ASKED)
        return LocalModel(ModelOptions(name="tiny", weights=str(path), device="cpu"))

    @pytest.fixture
    def requests(self) -> Any:
        return [
            Generate(prompt=INPUT, max_tokens=12, seed=1),
            Summarize(inputs=INPUT),
            Translate(inputs=INPUT, src_lang="en", tgt_lang="de"),
        ]


KINDS = ("t5", "bart", "pegasus")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beams", [1, 3])
def test_texts_are_those_of_generate_streamed_and_whole(
    kind: str, beams: int, pair: Any, started: Any, drain: Any, tmp_path: Path
) -> None:
    path = generation(pair(kind), tmp_path / "model", num_beams=beams)
    request = Generate(prompt=INPUT, max_tokens=24)
    text, ids = generated(path, INPUT, max_new_tokens=24)

    async def ask() -> Any:
        async with started(path, tasks=["generate"]) as model:
            return await model.run(request), await drain(model, request)

    reply, (pieces, last) = asyncio.run(ask())
    assert reply.text == last.text == "".join(pieces) == text
    assert len(text) > 4 and (len(pieces) > 4 if beams == 1 else len(pieces) == 1)
    assert reply.usage.output_tokens == len(ids) and reply.usage.input_tokens > 3
    assert reply.finish == ("stop" if ids[-1] == 2 and len(ids) < 24 else "length")


def test_where_there_is_no_generation_config_the_old_config_says_how(pair: Any, started: Any, tmp_path: Path) -> None:
    path = Path(shutil.copytree(pair("bart"), tmp_path / "model"))
    (path / "generation_config.json").unlink()
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "num_beams": 4, "no_repeat_ngram_size": 2, "max_length": 20}))

    async def ask() -> str:
        async with started(path) as model:
            return str((await model.run(Generate(prompt=INPUT))).text)

    assert asyncio.run(ask()) == generated(path, INPUT)[0] != generated(pair("bart"), INPUT, max_length=20)[0]


def test_a_seed_gives_the_tokens_that_it_gives_in_torch(pair: Any, started: Any, tmp_path: Path) -> None:
    path = pair("bart")
    beams = generation(path, tmp_path / "beams", num_beams=2)

    async def ask(where: Path, seed: int) -> str:
        async with started(where) as model:
            reply = await model.run(Generate(prompt=INPUT, max_tokens=16, temperature=2.0, top_p=0.9, seed=seed))
            return str(reply.text)

    import torch

    for where in (path, beams):
        texts = {seed: asyncio.run(ask(where, seed)) for seed in (1, 2)}
        torch.manual_seed(99)  # another's chance is no business of this one
        before = torch.get_rng_state()
        assert asyncio.run(ask(where, 1)) == texts[1] != texts[2]
        assert torch.equal(torch.get_rng_state(), before)
        for seed, text in texts.items():
            drawn = {"do_sample": True, "temperature": 2.0, "top_p": 0.9, "top_k": 0, "max_new_tokens": 16}
            assert generated(where, INPUT, seed=seed, **drawn)[0] == text


def test_a_stop_string_ends_a_text_whatever_searches(pair: Any, started: Any, drain: Any, tmp_path: Path) -> None:
    for beams in (1, 3):
        path = generation(pair("t5"), tmp_path / str(beams), num_beams=beams)
        whole, ids = generated(path, INPUT, max_new_tokens=24)
        stop = whole[len(whole) // 2 :][:3]

        async def ask(where: Path = path, stop: str = stop) -> Any:
            async with started(where) as model:
                return await drain(model, Generate(prompt=INPUT, max_tokens=24, stop=(stop,)))

        pieces, reply = asyncio.run(ask())
        assert reply.text == "".join(pieces) == whole[: whole.index(stop)]
        assert reply.finish == "stop" and (reply.usage.output_tokens < len(ids) or beams > 1)


def test_tasks_come_from_the_config_and_a_row_may_choose(pair: Any, service: Any, lent: Resources) -> None:
    def tasks(path: Path, **options: Any) -> set[str]:
        return {task.task for task in asyncio.run(service(path, **options).describe(lent)).tasks}

    summaries = {"summarization": ASKED["summarization"]}
    assert tasks(pair("t5")) == {"generate"}
    assert tasks(pair("t5", task_specific_params=ASKED)) == {"generate", "summarize", "translate"}
    assert tasks(pair("t5"), tasks=["summarize"]) == {"summarize"}
    assert tasks(pair("bart")) == {"generate"}
    assert tasks(pair("bart", task_specific_params=summaries)) == {"summarize"}
    assert tasks(pair("bart", task_specific_params=summaries), tasks=["generate", "summarize"]) == {"generate", "summarize"}
    assert tasks(pair("pegasus")) == {"summarize"}
    assert tasks(pair("marian")) == {"translate"}
    card = asyncio.run(service(pair("t5")).describe(lent))
    assert card.context == 48 and card.features >= {"streaming", "seed", "stop"} and "json_schema" not in card.features


def test_a_summary_is_asked_as_the_config_says_and_as_the_request_does(pair: Any, started: Any, drain: Any) -> None:
    path = pair("t5", task_specific_params=ASKED)
    settings = {name: value for name, value in ASKED["summarization"].items() if name != "prefix"}

    async def ask(**options: Any) -> Any:
        async with started(path) as model:
            return await model.run(Summarize(inputs=INPUT, **options))

    plain = asyncio.run(ask())
    assert plain.summary_text == generated(path, f"summarize: {INPUT}", **settings)[0]
    shorter = asyncio.run(ask(generate_parameters={"max_new_tokens": 4, "num_beams": 1}))
    changed = {**settings, "num_beams": 1, "max_length": 5, "min_length": 5}
    text, ids = generated(path, f"summarize: {INPUT}", **changed)
    assert shorter.summary_text == text and shorter.usage.output_tokens == len(ids) == 4
    longer = asyncio.run(ask(generate_parameters={"min_length": 25, "max_length": 40}))
    assert longer.summary_text == generated(path, f"summarize: {INPUT}", **{**settings, "min_length": 25, "max_length": 40})[0]
    assert longer.usage.output_tokens >= 24
    tidy = asyncio.run(ask(clean_up_tokenization_spaces=True))
    assert tidy.summary_text.replace(" ", "") == plain.summary_text.replace(" ", "")


def test_what_cannot_be_honoured_is_refused_by_name(pair: Any, started: Any) -> None:
    path = pair("t5", task_specific_params=ASKED)

    async def ask(request: Any) -> str:
        async with started(path) as model:
            with pytest.raises((UnsupportedOption, InvalidRequest)) as refused:
                await model.run(request)
            error = refused.value
            return error.option if isinstance(error, UnsupportedOption) else error.field

    parameters = "generate_parameters"
    for request, name in (
        (Summarize(inputs=INPUT, truncation="only_second"), "truncation"),
        (
            Summarize(inputs=INPUT, generate_parameters={"prompt_lookup_num_tokens": 3}),
            f"{parameters}.prompt_lookup_num_tokens",
        ),
        (Summarize(inputs=INPUT, generate_parameters={"num_beams": "many"}), f"{parameters}.num_beams"),
        (Summarize(inputs=INPUT, generate_parameters={"num_beams": True}), f"{parameters}.num_beams"),
        (Summarize(inputs=INPUT, generate_parameters={"do_sample": 1}), f"{parameters}.do_sample"),
        (Summarize(inputs=INPUT, generate_parameters={"min_length": 9, "max_length": 5}), parameters),
        (Translate(inputs=INPUT), "tgt_lang"),
        (Translate(inputs=INPUT, src_lang="en"), "tgt_lang"),
        (Translate(inputs=INPUT, tgt_lang="xx"), "tgt_lang"),
        (Translate(inputs=INPUT, src_lang="de", tgt_lang="fr"), "src_lang"),
    ):
        assert asyncio.run(ask(request)) == name

    async def other() -> None:
        async with started(pair("marian")) as model:
            with pytest.raises(UnsupportedTask):
                await model.run(Summarize(inputs=INPUT))

    asyncio.run(other())


def test_a_text_that_is_too_long_is_refused_with_both_figures_or_cut(pair: Any, started: Any) -> None:
    path = pair("bart", task_specific_params={"summarization": {"max_length": 12}})
    long = "the cat sat on the mat and the dog ran to the river " * 8

    async def ask(**options: Any) -> Any:
        async with started(path) as model:
            return await model.run(Summarize(inputs=long, **options))

    with pytest.raises(ContextTooLong, match=r"takes \d\d\d? tokens .* at most 64") as refused:
        asyncio.run(ask())
    assert refused.value.context == 64 and (refused.value.tokens or 0) > 64
    reply = asyncio.run(ask(truncation="longest_first"))
    assert reply.usage.input_tokens == 64 and reply.summary_text


@pytest.mark.parametrize("kind", ["bart", "pegasus"])
def test_no_more_is_written_than_the_decoder_has_positions_for(kind: str, pair: Any, started: Any) -> None:
    path = pair(kind, task_specific_params={"summarization": {}})

    async def ask(**parameters: int) -> Any:
        async with started(path) as model:
            return await model.run(Summarize(inputs=INPUT, generate_parameters=parameters))

    assert asyncio.run(ask(max_new_tokens=500, min_new_tokens=60)).usage.output_tokens in range(60, 65)
    assert asyncio.run(ask(min_new_tokens=64)).usage.output_tokens == 64
    with pytest.raises(UnsupportedOption, match="cannot write 65 new tokens, at most 64"):
        asyncio.run(ask(min_new_tokens=65))


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_weights_that_are_tied_are_stored_once_and_missed_twice_if_at_all(
    kind: str, pair: Any, service: Any, started: Any, lent: Resources, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    path = pair(kind, tie_word_embeddings=True)
    request = Translate(inputs=INPUT) if kind == "marian" else Generate(prompt=INPUT, max_tokens=5)

    async def ask(where: Path) -> Any:
        async with started(where) as model:
            return await model.run(request)

    assert asyncio.run(ask(path)).usage.output_tokens > 0
    broken = Path(shutil.copytree(path, tmp_path / "model"))
    tensors = load_file(broken / "model.safetensors")
    del tensors[next(name for name in tensors if "decoder" in name and "norm" in name)]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="lack 1 tensors"):
        asyncio.run(service(broken).check(lent))


@pytest.mark.parametrize("beams", [1, 3])
def test_a_caller_who_leaves_stops_it_within_one_token(
    beams: int, pair: Any, started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = generation(pair("t5"), tmp_path / "model", num_beams=beams, eos_token_id=None)

    async def ask() -> tuple[int, Any]:
        async with started(path) as model:
            net, steps, gone, loop = model._copies.there[0].answers._model, 0, asyncio.Event(), asyncio.get_running_loop()
            forward = net.forward

            def counted(*args: Any, **kwargs: Any) -> Any:
                nonlocal steps
                steps += 1
                if steps == 3:  # the loop leaves meanwhile, and only then does this go on
                    asyncio.run_coroutine_threadsafe(leave(), loop).result()
                return forward(*args, **kwargs)

            async def leave() -> None:
                asked.cancel()
                await asyncio.wait([asked])
                gone.set()

            monkeypatch.setattr(net, "forward", counted)
            asked = asyncio.ensure_future(model.run(Generate(prompt=INPUT, max_tokens=4000)))
            await gone.wait()
            monkeypatch.setattr(net, "forward", forward)
            after = await model.run(Generate(prompt=INPUT, max_tokens=5))
            return steps, after

    steps, after = asyncio.run(ask())
    assert steps == 3 and after.usage.output_tokens == 5


def test_a_closed_stream_stops_it_too(pair: Any, started: Any, tmp_path: Path) -> None:
    path = generation(pair("t5"), tmp_path / "model", eos_token_id=None)

    async def ask() -> Any:
        async with started(path) as model:
            stream = model.stream(Generate(prompt=INPUT, max_tokens=100_000))
            assert isinstance(await anext(stream), Delta)
            await stream.aclose()
            return await model.run(Generate(prompt=INPUT, max_tokens=3))

    assert asyncio.run(ask()).usage.output_tokens == 3


def test_a_check_refuses_what_a_start_would(pair: Any, service: Any, started: Any, lent: Resources, tmp_path: Path) -> None:
    path = generation(pair("t5"), tmp_path / "model", decoder_start_token_id=None)

    async def check() -> None:
        with pytest.raises(WeightsError, match="decoder_start_token_id"):
            await service(path).check(lent)
        with pytest.raises(WeightsError, match="decoder_start_token_id"):
            async with started(path):
                pass
        assert "weights readable" in await service(pair("t5")).check(lent)

    asyncio.run(check())
    broken = Path(shutil.copytree(pair("t5"), tmp_path / "broken"))
    config = json.loads((broken / "config.json").read_text())
    for params in ("summarize", {"summarization": 3}, {"summarization": {"num_beams": "many"}}):
        (broken / "config.json").write_text(json.dumps({**config, "task_specific_params": params}))
        with pytest.raises(WeightsError, match="task_specific_params"):
            asyncio.run(service(broken).describe(lent))
