"""Many requests at once: order, limits, failures in their place, progress, and all of it without async."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import (
    AsyncGateway,
    Chat,
    ChatResponse,
    Closed,
    Embed,
    Gateway,
    Generate,
    InvalidRequest,
    ModelCard,
    ModelService,
    Rejected,
    Request,
    Response,
)
from gateway.batch_journal import BatchJournal
from gateway.card import ANYTHING
from gateway.testing import Echo, FakeClock

sys.path.insert(0, str(Path(__file__).parent))
from batch_case import Counting, Gate, Picky, asks, lines, texts
from warm import Warm

ROOT = Path(__file__).parent.parent


# Order, laziness, limits.


def test_the_results_come_in_the_order_of_the_requests_whichever_is_done_first() -> None:
    class Backwards(ModelService):
        card = ModelCard(name="backwards", tasks=frozenset({Chat}))

        async def run(self, request: Request[Any], /) -> Response:
            assert isinstance(request, Chat)
            mine = int(request.messages[0].text)
            if mine < 4:
                await doors[mine + 1].wait()
            done.append(mine)
            doors[mine].set()
            return ChatResponse.of(f"{mine}!")

    done: list[int] = []
    doors = [asyncio.Event() for _ in range(5)]

    async def main() -> None:
        async with AsyncGateway([Backwards()]) as gw:
            results = await gw.map([Chat.ask(str(n)) for n in range(5)])
        assert texts(results) == ["0!", "1!", "2!", "3!", "4!"]

    asyncio.run(main())
    assert done == [4, 3, 2, 1, 0]


def test_several_tasks_go_in_one_batch_and_none_at_all_gives_nothing() -> None:
    async def main() -> None:
        async with AsyncGateway([Echo()]) as gw:
            chat, made, vectors = await gw.map([Chat.ask("hi"), Generate(prompt="once"), Embed(texts=("a", "b"))])
            assert [type(one).__name__ for one in (chat, made, vectors)] == [
                "ChatResponse",
                "GenerateResponse",
                "EmbedResponse",
            ]
            assert await gw.map([]) == []

    asyncio.run(main())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_requests_are_read_only_as_they_can_begin_and_never_more_run_than_may(asynchronous: bool) -> None:
    read = 0

    def made() -> Iterator[Chat]:
        nonlocal read
        for request in asks(20):
            read += 1
            assert read <= gate.done + 3
            yield request

    async def amade() -> AsyncIterator[Chat]:
        for request in made():
            await asyncio.sleep(0)
            yield request

    async def main() -> None:
        async with AsyncGateway([gate]) as gw:
            batch = asyncio.create_task(gw.map(amade() if asynchronous else made(), max_concurrency=3))
            while gate.now < 3:
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)
            assert (read, gate.now, len(gate.asked)) == (3, 3, 3)
            gate.open.set()
            assert texts(await batch) == [f"NUMBER {n}" for n in range(20)]

    gate = Gate(full=1000)
    asyncio.run(main())
    assert (read, gate.most) == (20, 3)


def test_the_starts_are_spaced_and_journalled_answers_take_no_turn(tmp_path: Path) -> None:
    class Patient(FakeClock):
        async def sleep(self, seconds: float) -> None:
            for _ in range(50):  # whatever has begun reaches its model before time passes
                await asyncio.sleep(0)
            await super().sleep(seconds)

    clock = Patient()
    starts: list[float] = []

    class Timed(Echo):
        async def run(self, request: Request[Any], /) -> Response:
            starts.append(clock.monotonic())
            return await super().run(request)

    async def main() -> None:
        async with AsyncGateway([Timed()], clock=clock) as gw:
            await gw.map(asks(5), max_rps=2.0, journal=tmp_path / "j")
            assert starts == [0.0, 0.5, 1.0, 1.5, 2.0]
            await gw.map(asks(6), max_rps=2.0, journal=tmp_path / "j")
            assert starts[5:] == [2.0]
            clock.advance(60)
            await gw.map([Chat.ask("x"), Chat.ask("y")], max_rps=0.1)  # time that was not used is not made up for
            assert starts[6:] == [62.0, 72.0]

    asyncio.run(main())


def test_ten_thousand_requests_of_a_generator_leave_only_their_results() -> None:
    alive = most = 0

    class Weighed(str):
        __slots__ = ()

        def __new__(cls, text: str) -> Weighed:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return super().__new__(cls, text)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    class Short(ModelService):
        card = ModelCard(name="short", tasks=frozenset({Generate}))

        async def run(self, request: Request[Any], /) -> Response:
            await asyncio.sleep(0)
            raise Rejected("no")  # whose traceback would hold the request

    async def main() -> None:
        async with AsyncGateway([Short()]) as gw:
            results = await gw.map((Generate(prompt=Weighed(f"{n} " * 100)) for n in range(10_000)), max_concurrency=8)
            assert len(results) == 10_000 and all(isinstance(result, Rejected) for result in results)

    asyncio.run(main())
    assert most < 200  # a few generations of garbage, not ten thousand


# Failures.


def test_a_failure_stands_in_the_place_of_its_request_and_the_rest_is_answered() -> None:
    async def main() -> None:
        wrong: list[Any] = [
            Chat.ask("good"),
            "no request",
            Chat.ask("bad"),
            InvalidRequest("made elsewhere"),
            Embed(texts=("x",)),
        ]
        async with AsyncGateway([Picky("picky", tasks=frozenset({Chat}))]) as gw:
            results = await gw.map(wrong)
        names = ["ChatResponse", "InvalidRequest", "Rejected", "InvalidRequest", "NoEligibleModel"]
        assert [type(result).__name__ for result in results] == names
        assert results[3] is wrong[3] and "no request" not in str(results[1])
        assert isinstance(results[2], Rejected) and results[2].__traceback__ is None and results[2].attempts[0].model == "picky"

    asyncio.run(main())


class Odd(BaseException):
    pass


@pytest.mark.parametrize("defect", [ValueError("mine"), InvalidRequest("mine"), Odd()])
def test_what_the_iterable_raises_ends_the_batch_and_all_lets_go(defect: BaseException) -> None:
    def breaks() -> Iterator[Chat]:
        yield from asks(3)
        raise defect

    async def main() -> None:
        gate = Gate(full=1000)
        async with AsyncGateway([gate]) as gw:
            with pytest.raises(type(defect)) as raised:
                await gw.map(breaks())
            assert raised.value is defect
            assert (gate.now, (await gw.models())[0].in_flight) == (0, 0)

    asyncio.run(main())


def test_a_defect_in_the_progress_callable_ends_the_batch_as_itself() -> None:
    def broken(label: str, done: int, total: int | None) -> None:
        if done:
            raise ZeroDivisionError

    async def main() -> None:
        async with AsyncGateway([Echo()]) as gw:
            with pytest.raises(ZeroDivisionError):
                await gw.map(asks(5), progress=broken)

    asyncio.run(main())


def test_closing_the_gateway_ends_the_batch_with_closed() -> None:
    async def main() -> None:
        gate = Gate(full=1000)
        gw = AsyncGateway([gate])
        batch = asyncio.create_task(gw.map(asks(100), max_concurrency=4))
        while gate.now < 4:
            await asyncio.sleep(0)
        closing = asyncio.create_task(gw.aclose())
        gate.open.set()
        with pytest.raises(Closed):
            await batch
        await closing
        with pytest.raises(Closed):
            await gw.map(asks(1))

    asyncio.run(main())


def test_cancelling_cancels_all_and_waits_until_they_have_let_go(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate(full=1000)
        async with AsyncGateway([gate]) as gw:
            batch = asyncio.create_task(gw.map(asks(100), max_concurrency=5, journal=tmp_path / "j"))
            while gate.now < 5:
                await asyncio.sleep(0)
            batch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await batch
            assert (gate.now, gate.let_go) == (0, 5)
            gate.open.set()
            assert len(await gw.map(asks(7), journal=tmp_path / "j")) == 7  # it was let go of

    asyncio.run(main())


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_concurrency": 0}, "max_concurrency"),
    ({"max_concurrency": True}, "max_concurrency"),
    ({"max_concurrency": None}, "max_concurrency"),
    ({"max_concurrency": 1.5}, "max_concurrency"),
    ({"max_rps": 0}, "max_rps"),
    ({"max_rps": -1.0}, "max_rps"),
    ({"max_rps": float("nan")}, "max_rps"),
    ({"max_rps": "1"}, "max_rps"),
    ({"journal": 3}, "journal"),
    ({"journal": ""}, "journal"),
    ({"progress": "yes"}, "progress"),
    ({"progress": None}, "progress"),
    ({"each": "print"}, "each"),
    ({"need": "fast"}, "need"),
    ({"meta": {}}, "meta"),
    ({"requests": None}, "requests"),
    ({"requests": "Hello"}, "requests"),
    ({"requests": Chat.ask("Hello")}, "requests"),
]


@pytest.mark.parametrize(("wrong", "name"), WRONG)
def test_a_wrong_argument_is_named_before_anything_is_asked(wrong: dict[str, Any], name: str) -> None:
    arguments: dict[str, Any] = {"requests": asks(1), **wrong}

    async def main() -> None:
        echo = Counting()
        async with AsyncGateway([echo]) as gw:
            with pytest.raises(InvalidRequest) as error:
                await gw.map(**arguments)
            assert error.value.field == name and not echo.asked

    asyncio.run(main())
    with Gateway([Echo()]) as gw, pytest.raises(InvalidRequest) as error:
        gw.map(**arguments)
    assert error.value.field == name


# Progress.


def test_progress_is_told_of_each_and_of_the_total_once_it_is_known() -> None:
    def told(requests: Any) -> list[tuple[str, int, int | None]]:
        async def main() -> None:
            async with AsyncGateway([Picky()]) as gw:
                await gw.map(requests, max_concurrency=1, progress=lambda *facts: seen.append(facts))

        seen: list[tuple[str, int, int | None]] = []
        asyncio.run(main())
        return seen

    assert told([Chat.ask("bad"), Chat.ask("x")]) == [("requests", n, 2) for n in range(3)]
    *begin, end = told(iter_of(asks(2)))
    assert begin[0] == ("requests", 0, None) and end == ("requests", 2, 2)
    assert told([]) == [("requests", 0, 0)]


def iter_of(requests: list[Chat]) -> Iterator[Chat]:
    yield from requests


def test_without_a_terminal_and_without_rich_there_is_no_bar(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from gateway import Chat, Gateway; from gateway.testing import Echo\n"
        "with Gateway([Echo()]) as gw: gw.map([Chat.ask('x')])\n"
        "assert 'rich' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Without async.


def test_the_requests_of_code_that_is_not_async_are_read_in_its_own_thread_and_may_ask_too() -> None:
    threads: set[int] = set()

    def made() -> Iterator[Chat]:
        for n in range(10):
            threads.add(threading.get_ident())
            yield Chat.ask(gw.chat(f"{n}").text + "!")

    with Gateway([Echo()]) as gw:
        assert texts(gw.map(made(), max_concurrency=3)) == [f"{n}!" for n in range(10)]
        assert threads == {threading.get_ident()}
        seen: list[Any] = []
        assert texts(gw.map(asks(3), progress=lambda *facts: seen.append(facts))) == ["number 0", "number 1", "number 2"]
        assert seen[0] == ("requests", 0, 3) and seen[-1] == ("requests", 3, 3)
        assert gw.map(iter([]), progress=False) == []


def test_what_an_iterable_raises_is_raised_where_it_is_read_and_the_journal_is_free(tmp_path: Path) -> None:
    def breaks() -> Iterator[Chat]:
        yield from asks(2)
        raise StopAsyncIteration("mine")

    with Gateway([Echo()]) as gw:
        with pytest.raises(StopAsyncIteration, match="mine"):
            gw.map(breaks(), journal=tmp_path / "j")
        assert len(gw.map(asks(3), journal=tmp_path / "j")) == 3
        with pytest.raises(ZeroDivisionError):
            gw.map(asks(3), progress=lambda *_: 1 / 0)  # type: ignore[arg-type]
    with pytest.raises(Closed):
        gw.map(asks(1))


INTERRUPTED = """
import asyncio, sys
from gateway import Chat, ChatResponse, Gateway, ModelCard, ModelService

class Half(ModelService):
    card = ModelCard(name="half", tasks=frozenset({Chat}))
    async def run(self, request, /):
        if int(request.messages[0].text) < 3:
            return ChatResponse.of("done")
        try:
            await asyncio.Event().wait()
        finally:
            print("let go", flush=True)

def told(label, done, total):
    if done == 3:
        print("now", flush=True)

with Gateway([Half()]) as gw:
    try:
        gw.map((Chat.ask(str(n)) for n in range(99)), journal=sys.argv[1], max_concurrency=5, progress=told)
    except KeyboardInterrupt:
        print("interrupted", gw.models()[0].in_flight, flush=True)
"""


def test_ctrl_c_cancels_all_and_leaves_a_good_journal(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(journal)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "now\n"
        child.send_signal(signal.SIGINT)
        *let_go, last = child.stdout.read().splitlines()
        assert child.wait(60) == 0
    assert last == "interrupted 0" and let_go == ["let go"] * len(let_go) and len(let_go) <= 5
    assert len(lines(journal)) == 3
    reader = BatchJournal(journal, ANYTHING)
    reader.open()
    reader.read()
    reader.close()
    assert reader.held == 3


def test_the_readmes_snippet_runs_and_goes_on(tmp_path: Path, with_torch: Warm) -> None:
    section = (ROOT / "README.md").read_text().partition("## Many requests at once")[2].partition("\n## ")[0]
    [code] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    config = "[plugin.local]\nstarter = true\n"
    (tmp_path / "gateway.toml").write_text(config)
    (tmp_path / "questions.txt").write_text("Who goes there?\nWhat news?\n")
    (tmp_path / "snippet.py").write_text(code)
    for _ in range(2):
        done = with_torch.run(["snippet.py"], tmp_path, os.environ)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert done.stdout.strip()
    assert len(lines(tmp_path / "answers.jsonl")) == 2
