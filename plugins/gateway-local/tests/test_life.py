"""The life of a model: loaded once for all who ask, kept within a budget of bytes, let go of when idle, in several copies."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway_local import LocalModel
from gateway_local.hooks import gateway_models
from gateway_local.keeper import Keeper
from gateway_local.options import ModelOptions
from gateway_local.owner import Call

from gateway import (
    AsyncGateway,
    Closed,
    ConfigError,
    Delta,
    Embed,
    FileStore,
    Generate,
    Keys,
    Need,
    Overloaded,
    Resources,
    Weights,
    WeightsError,
)
from gateway.testing import resources

MAPS = path if (path := Path("/proc/self/maps")).exists() else None
TEXT = Embed(texts=("the cat",))
STORY = Generate(prompt="the cat sat", max_tokens=20, temperature=0.0)


def row(name: str, path: Path, **options: Any) -> ModelOptions:
    return ModelOptions(name=name, weights=str(path), device="cpu", **options)


async def size(path: Path, lent: Resources) -> int:
    """What the weights of one copy take."""
    return (await LocalModel(row("sized", path)).describe(lent)).bytes or 0


@asynccontextmanager
async def section(lent: Resources, memory_bytes: int | None, *rows: ModelOptions) -> AsyncIterator[list[LocalModel]]:
    """The services of one section, described, and closed at the end."""
    keeper = Keeper(memory_bytes)
    models = [LocalModel(each, keeper) for each in rows]
    try:
        for model in models:
            await model.describe(lent)
        yield models
    finally:
        for model in models:
            await model.aclose()


def loaded(models: list[LocalModel]) -> str:
    return "".join(model.name for model in models if model.footprint().bytes)


class Counting(FileStore):
    """Counts how often each model is opened, and opens no more while it is shut."""

    def __init__(self) -> None:
        self.opened = 0
        self.began, self.may = threading.Event(), threading.Event()
        self.may.set()

    def open(self, uri: str, keys: Keys) -> Weights:
        self.opened += 1
        self.began.set()
        assert self.may.wait(60)
        return super().open(uri, keys)


def test_the_least_recently_used_goes_when_another_needs_the_memory(bert: Path, lent: Resources) -> None:
    async def whole() -> None:
        budget = 2 * await size(bert, lent) + 100
        async with section(lent, budget, *(row(name, bert) for name in "abc")) as models:
            a, b, c = models
            for model in (a, b):
                await model.start(lent)
            await a.run(TEXT)
            await c.start(lent)
            assert loaded(models) == "ac"
            await c.run(TEXT)
            await b.start(lent)
            assert loaded(models) == "bc"
            before = await c.run(TEXT)
            assert (await a.run(TEXT)).vectors == before.vectors  # a loads itself again, and b goes
            assert loaded(models) == "ac"

    asyncio.run(whole())


def test_a_pinned_model_stays_and_what_does_not_fit_beside_it_is_refused(bert: Path, lent: Resources) -> None:
    async def whole() -> None:
        one = await size(bert, lent)
        async with section(lent, 2 * one, row("a", bert, pinned=True), row("b", bert), row("c", bert)) as models:
            a, b, c = models
            for model in (a, b, c):
                await model.start(lent)
            assert loaded(models) == "ac"
        async with section(lent, 2 * one - 1, row("a", bert, pinned=True), row("b", bert)) as (a, b):
            await a.start(lent)
            with pytest.raises(Overloaded, match=r"model 'b' now: it takes .* busy or pinned are: a ") as caught:
                await b.start(lent)
            assert caught.value.retryable and caught.value.model == "b"
            assert loaded([a, b]) == "a"
            await a.run(TEXT)

    asyncio.run(whole())


def test_a_model_that_is_writing_is_never_unloaded(llama: Path, bert: Path, lent: Resources) -> None:
    async def whole() -> None:
        budget = await size(llama, lent) + 200_000
        async with section(lent, budget, row("a", llama), row("b", bert)) as models:
            a, b = models
            await a.start(lent)
            expected = (await a.run(STORY)).text
            a._copies.weight_bytes = budget  # as if it took all
            async with aclosing(a.stream(STORY)) as items:
                first = await anext(items)
                with pytest.raises(Overloaded, match="busy or pinned are: a "):
                    await b.start(lent)
                assert isinstance(first, Delta)
                text = first.text + "".join([item.text async for item in items if isinstance(item, Delta)])
            assert text == expected
            await b.start(lent)
            assert loaded(models) == "b"

    asyncio.run(whole())


def test_keys_and_values_count_and_idle_models_go_when_they_grow(llama: Path, bert: Path, lent: Resources) -> None:
    async def whole() -> None:
        weights, other = await size(llama, lent), await size(bert, lent)
        async with section(lent, weights + other + 1000, row("a", llama), row("b", bert)) as models:
            a, b = models
            await a.start(lent)
            await b.start(lent)
            assert loaded(models) == "ab"
            await a.run(STORY)
            held = a.footprint().bytes
            assert weights < held <= weights + other + 1000
            assert loaded(models) == "a"
            slots: Any = a._copies.there[0].answers
            assert held - weights == slots._slots.held * slots._slots.bytes_per_token

    asyncio.run(whole())


def test_a_model_beyond_the_whole_budget_is_refused_when_it_is_described(llama: Path, bert: Path, lent: Resources) -> None:
    async def whole() -> None:
        smaller = min(await size(bert, lent), await size(llama, lent))
        rows = [
            {"name": "big", "weights": str(llama), "device": "cpu", "dtype": "float32"},
            {"name": "small", "weights": str(bert), "device": "cpu"},
        ]
        budget = smaller - 1
        for name in ("big", "small"):
            model = next(m for m in gateway_models(config={"models": rows, "memory_bytes": budget}) if m.name == name)
            with pytest.raises(ConfigError, match=rf"memory_bytes: model '{name}' takes"):
                await model.describe(lent)
            with pytest.raises(ConfigError, match="allow more"):
                await model.check(lent)
            with pytest.raises(ConfigError, match="allow more"):
                await model.start(lent)

    asyncio.run(whole())


def test_one_load_serves_all_who_come_and_one_who_leaves_breaks_it_for_nobody(bert: Path) -> None:
    store = Counting()
    lent = resources(stores={"file": store})

    async def whole() -> None:
        async with section(lent, None, row("a", bert)) as (a,):
            await a.start(lent)
            expected = (await a.run(TEXT)).vectors
            a._copies.unload()
            assert a.footprint().bytes == 0
            store.opened = 0
            store.began.clear()
            store.may.clear()
            calls = [asyncio.create_task(a.run(TEXT)) for _ in range(5)]
            assert await asyncio.to_thread(store.began.wait, 60)
            calls[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await calls[0]
            store.may.set()
            for call in calls[1:]:
                assert (await call).vectors[0] == pytest.approx(expected[0], abs=1e-5)
            assert store.opened == 1

    asyncio.run(whole())


def test_a_reload_that_fails_tells_all_who_wait_and_is_tried_again(bert: Path, tmp_path: Path, lent: Resources) -> None:
    path = tmp_path / "model"
    shutil.copytree(bert, path)
    tokenizer = (path / "tokenizer.json").read_text()

    async def whole() -> None:
        async with section(lent, None, row("a", path)) as (a,):
            await a.start(lent)
            a._copies.unload()
            (path / "tokenizer.json").write_text("{}")
            errors = await asyncio.gather(*(a.run(TEXT) for _ in range(3)), return_exceptions=True)
            assert all(isinstance(error, WeightsError) for error in errors) and len(set(map(id, errors))) == 3
            (path / "tokenizer.json").write_text(tokenizer)
            await a.run(TEXT)

    asyncio.run(whole())


def test_closing_during_a_reload_ends_all_who_wait(bert: Path) -> None:
    store = Counting()
    lent = resources(stores={"file": store})

    async def whole() -> None:
        async with section(lent, None, row("a", bert)) as (a,):
            await a.start(lent)
            a._copies.unload()
            store.began.clear()
            store.may.clear()
            call = asyncio.create_task(a.run(TEXT))
            assert await asyncio.to_thread(store.began.wait, 60)
            await a.aclose()
            with pytest.raises(Closed):
                await call
            store.may.set()
            with pytest.raises(Closed):
                await a.run(TEXT)

    asyncio.run(whole())


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_what_is_unloaded_gives_its_memory_and_its_threads_back(kind: str, request: Any, lent: Resources) -> None:
    path: Path = request.getfixturevalue(kind)

    def mapped() -> bool:
        return MAPS is None or str(path) in MAPS.read_text()

    async def whole() -> None:
        async with section(lent, None, row("lives", path)) as (a,):
            await a.start(lent)
            await a.run(STORY if kind == "llama" else TEXT)
            answers: Any = a._copies.there[0].answers
            model = weakref.ref(answers._loaded.model if kind == "llama" else answers._encoder._model)
            del answers
            assert mapped()
            gc.collect()
            gc.disable()
            try:
                a._copies.unload()
                assert a._copies._freeing is not None
                await a._copies._freeing
                assert model() is None and (MAPS is None or not mapped())
            finally:
                gc.enable()
            assert "gateway-local lives" not in {thread.name for thread in threading.enumerate()}

    asyncio.run(whole())


def test_replicas_share_the_load_and_answer_alike(llama: Path, lent: Resources) -> None:
    async def whole() -> None:
        async with section(lent, None, row("a", llama, replicas=3, max_batch=2)) as (a,):
            card = await a.describe(lent)
            assert card.concurrency == 6
            assert a._copies.weight_bytes == card.bytes  # the pages of one file
            await a.start(lent)
            assert len({id(copy.answers) for copy in a._copies.there}) == 3
            streams = [a.stream(STORY) for _ in range(7)]
            for stream in streams:
                await anext(stream)
            assert sorted(copy.calls for copy in a._copies.there) == [2, 2, 3]
            mark = a.footprint()
            assert (mark.running, mark.waiting) == (6, 1)
            replies = [[item async for item in stream][-1] for stream in streams]
            assert len({reply.text for reply in replies}) == 1
            assert (a.footprint().running, a.footprint().waiting) == (0, 0)
            threads = {copy.owner._thread for copy in a._copies.there}
            assert len(threads) == 3 and all(thread.is_alive() for thread in threads)

    asyncio.run(whole())


def test_replicas_that_share_no_pages_are_counted_each(llama: Path, lent: Resources) -> None:
    async def whole() -> None:
        a = LocalModel(row("a", llama, replicas=3, dtype="bfloat16"))
        assert a._copies.weight_bytes == 0
        card = await a.describe(lent)
        assert a._copies.weight_bytes == 3 * (card.bytes or 0)

    asyncio.run(whole())


def test_an_idle_model_goes_after_its_time_and_a_busy_one_never(bert: Path, lent: Resources) -> None:
    async def whole() -> None:
        gone = asyncio.Event()
        lent.unloaded = lambda name: gone.set()
        async with section(lent, None, row("a", bert, idle_s=0)) as (a,):
            await a.start(lent)
            for _ in range(2):
                gone.clear()
                assert (await a.run(TEXT)).vectors
                await gone.wait()
                assert a.footprint().bytes == 0
            gate = threading.Event()

            def hold(call: Call) -> None:
                gate.wait()

            gone.clear()
            await a.start(lent)
            async with a._copies.one() as copy:
                held = asyncio.create_task(copy.owner.run(hold))
                other = asyncio.create_task(a.run(TEXT))
                await asyncio.sleep(0.01)
                assert not gone.is_set() and a._copies.there
                gate.set()
                await asyncio.gather(held, other)
                assert not gone.is_set() and a._copies.there
            await gone.wait()

    asyncio.run(whole())


def test_the_gateway_tells_how_each_model_stands(bert: Path) -> None:
    async def whole() -> None:
        one = await size(bert, resources())
        rows = [{"name": name, "weights": str(bert), "device": "cpu"} for name in "ab"]
        models = gateway_models(config={"models": rows, "memory_bytes": one, "starter": False})
        async with AsyncGateway(models) as gw:

            async def stand() -> dict[str, tuple[Any, ...]]:
                found = {}
                for status in await gw.models():
                    assert status.footprint is not None
                    mark = status.footprint
                    found[status.name] = (status.state, mark.device, mark.bytes, mark.running, mark.waiting)
                return found

            nothing = ("cold", "cpu", 0, 0, 0)
            assert await stand() == {"a": nothing, "b": nothing}
            await gw.run(TEXT, Need(model="a"))
            assert await stand() == {"a": ("ready", "cpu", one, 0, 0), "b": nothing}
            await gw.run(TEXT, Need(model="b"))
            assert await stand() == {"a": nothing, "b": ("ready", "cpu", one, 0, 0)}
            reply = await gw.run(TEXT, Need(model="a"))
            assert reply.trace is not None and reply.trace.model == "a" and len(reply.trace.attempts) == 1

    asyncio.run(whole())
