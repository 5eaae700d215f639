"""Gateway: the same verbs without async, from threads, notebooks, forks; on Ctrl-C; nothing is left behind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway import (
    Chat,
    ChatResponse,
    Closed,
    Delta,
    Gateway,
    Meta,
    ModelCard,
    ModelService,
    Need,
    NoEligibleModel,
    Request,
    Response,
)
from gateway.testing import Echo, Scripted, Step

ASK = Chat.ask("Name three rivers.")


def loop_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "gateway loop"]


def test_every_verb_works_and_closing_ends_the_thread() -> None:
    with Gateway([Echo("echo")]) as gw:
        reply = gw.chat("hello")
        assert reply.model == "echo"
        assert gw.run(Chat.ask("hello")) == reply
        with gw.stream(Chat.ask("hello")) as stream:
            assert "".join(delta.text for delta in stream) == reply.text
            assert stream.response == reply
        with gw.stream(Chat.ask("hello")) as stream:
            assert stream.result() == reply
        assert gw.explain(ASK).chosen == "echo"
        assert [status.name for status in gw.models()] == ["echo"]
        assert len(loop_threads()) == 1
    assert loop_threads() == []
    gw.close()
    with pytest.raises(Closed):
        gw.chat("hello")


def test_errors_come_through_as_they_are() -> None:
    with Gateway([Echo("echo")]) as gw:
        with pytest.raises(NoEligibleModel):
            gw.run(ASK, Need(place="hosted"))
        with pytest.raises(NoEligibleModel), gw.stream(ASK, Need(place="hosted")) as stream:
            list(stream)


def test_many_threads_may_use_one_gateway() -> None:
    with Gateway([Echo("echo")]) as gw, ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda n: gw.chat(f"number {n}").text, range(200)))
        assert all(f"number {n}" in text for n, text in enumerate(replies))


def test_it_works_where_a_loop_is_running_already_as_in_a_notebook() -> None:
    async def cell() -> str:
        with Gateway([Echo("echo")]) as gw:
            return gw.chat("hello").text

    assert "hello" in asyncio.run(cell())


def test_context_variables_pass_through() -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")

    class Says(ModelService):
        card = ModelCard(name="says", tasks=frozenset({Chat}))

        async def run(self, request: Request[Any], /) -> Response:
            return ChatResponse.of(who.get())

    with Gateway([Says()]) as gw:
        gw.chat("start")
        who.set("alice")
        assert gw.chat("hello").text == "alice"
        with gw.stream(ASK) as stream:
            assert stream.result().text == "alice"


def test_closing_a_stream_early_frees_the_service() -> None:
    endless = threading.Event()

    class Endless(ModelService):
        card = ModelCard(name="endless", tasks=frozenset({Chat}))

        async def run(self, request: Request[Any], /) -> Response:
            raise AssertionError

        async def stream(self, request: Request[Any], /) -> Any:
            try:
                while True:
                    yield Delta("on and on ")
                    await asyncio.sleep(0)
            finally:
                endless.set()

    with Gateway([Endless()]) as gw:
        with gw.stream(ASK) as stream:
            assert next(iter(stream)).text == "on and on "
        assert endless.is_set()
        assert gw.models()[0].in_flight == 0
        with pytest.raises(RuntimeError, match="has not ended"):
            _ = stream.response


def test_a_slow_reader_holds_the_stream_back() -> None:
    made = 0

    class Fast(ModelService):
        card = ModelCard(name="fast", tasks=frozenset({Chat}))

        async def run(self, request: Request[Any], /) -> Response:
            raise AssertionError

        async def stream(self, request: Request[Any], /) -> Any:
            nonlocal made
            for _ in range(10_000):
                made += 1
                yield Delta("x")
            yield ChatResponse.of("x" * 10_000)

    with Gateway([Fast()]) as gw, gw.stream(ASK) as stream:
        deltas = iter(stream)
        next(deltas)
        gw.models()  # the loop has come round, so the stream has run as far ahead as it may
        assert made <= 200
        assert 1 + sum(1 for _ in deltas) == 10_000


def test_a_deadline_works_from_sync_code() -> None:
    from gateway import DeadlineExceeded

    with Gateway([Scripted("slow", Step(wait=asyncio.Event()))]) as gw, pytest.raises(DeadlineExceeded):
        gw.run(ASK, meta=Meta(deadline_s=0.05))


def test_a_service_that_calls_its_own_gateway_is_told_so_and_does_not_hang() -> None:
    class Loops(ModelService):
        card = ModelCard(name="loops", tasks=frozenset({Chat}))

        async def run(self, request: Request[Any], /) -> Response:
            answer: Response = gw.run(request)
            return answer

    with Gateway([Loops()]) as gw, pytest.raises(Closed, match=r"resources\.run"):
        gw.chat("hello")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_after_a_fork_the_child_has_a_loop_of_its_own_and_the_parent_goes_on() -> None:
    with Gateway([Echo("echo")]) as gw:
        before = gw.chat("hello").text
        child = os.fork()
        if child == 0:
            try:
                right = gw.chat("hello").text == before
                gw.close()
            finally:
                os._exit(0 if right else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert gw.chat("hello").text == before


def test_an_abandoned_gateway_ends_its_thread_when_collected() -> None:
    gw = Gateway([Echo("echo")])
    gw.chat("hello")
    assert len(loop_threads()) == 1
    del gw
    gc.collect()
    assert loop_threads() == []


CTRL_C = """
import asyncio, sys
from gateway import Chat, ChatResponse, Delta, Gateway, ModelCard, ModelService

class Slow(ModelService):
    card = ModelCard(name="slow", tasks=frozenset({Chat}))

    async def run(self, request, /):
        try:
            print("began", flush=True)
            await asyncio.Event().wait()
        finally:
            print("freed", flush=True)

    async def stream(self, request, /):
        try:
            print("began", flush=True)
            yield Delta("x")
            await asyncio.Event().wait()
        finally:
            print("freed", flush=True)

with Gateway([Slow()]) as gw:
    try:
        if sys.argv[1] == "run":
            gw.chat("hello")
        else:
            with gw.stream(Chat.ask("hello")) as stream:
                for delta in stream:
                    pass
    except KeyboardInterrupt:
        print("interrupted", gw.models()[0].in_flight, flush=True)
"""


@pytest.mark.parametrize("verb", ["run", "stream"])
def test_ctrl_c_frees_what_was_held_and_is_raised_again(verb: str) -> None:
    with subprocess.Popen([sys.executable, "-c", CTRL_C, verb], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
        assert rest == "freed\ninterrupted 0\n"
        assert process.returncode == 0


CTRL_C_OFTEN = """
import asyncio, random, signal, sys
from gateway import Chat, Delta, Gateway, ModelCard, ModelService

class Slow(ModelService):
    card = ModelCard(name="slow", tasks=frozenset({Chat}))

    async def run(self, request, /):
        await asyncio.Event().wait()

    async def stream(self, request, /):
        while True:
            yield Delta("x")
            await asyncio.sleep(0)

signal.signal(signal.SIGALRM, signal.default_int_handler)
with Gateway([Slow()]) as gw:
    gw.models()  # the loop runs: an interrupt while its thread starts is another matter
    for at in range(int(sys.argv[2])):
        try:
            try:
                # Again after a while: Python drops an interrupt that comes in the midst of a weak reference's callback.
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0003, 0.003), 0.5)
                if sys.argv[1] == "run":
                    gw.chat("hello")
                else:
                    with gw.stream(Chat.ask("hello")) as stream:
                        for delta in stream:
                            pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            pass
print("each was a KeyboardInterrupt")
"""


@pytest.mark.parametrize("verb", ["run", "stream"])
def test_ctrl_c_at_any_moment_is_raised_as_itself(verb: str) -> None:
    command = [sys.executable, "-c", CTRL_C_OFTEN, verb, "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.returncode) == ("each was a KeyboardInterrupt\n", 0), done.stderr


def test_a_program_that_forgets_to_close_still_ends() -> None:
    code = (
        "from gateway import Gateway\nfrom gateway.testing import Echo\ngw = Gateway([Echo('e')])\nprint(gw.chat('hi').model)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr, done.returncode) == ("e\n", "", 0)


class Slowly(ModelService):
    """Streams fifty words, each when the loop comes round, and then waits for ever if told so."""

    def __init__(self, *, ends: bool = True) -> None:
        self.card = ModelCard(name="slowly", tasks=frozenset({Chat}))
        self.ends = ends

    async def run(self, request: Request[Any], /) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def stream(self, request: Request[Any], /) -> Any:
        for _ in range(50):
            yield Delta("word ")
            await asyncio.sleep(0)
        if not self.ends:
            await asyncio.Event().wait()
        yield ChatResponse.of("word " * 50)


def test_closing_from_another_thread_ends_what_is_under_way_with_closed_and_never_in_silence() -> None:
    gw = Gateway([Slowly(ends=False)])
    seen = threading.Semaphore(0)

    def read() -> None:
        with gw.stream(ASK) as stream:
            for _ in stream:
                seen.release()

    def run() -> None:
        seen.release()
        gw.run(ASK)

    with ThreadPoolExecutor(2) as pool:
        reading, running = pool.submit(read), pool.submit(run)
        for _ in range(51):
            assert seen.acquire(timeout=10)
        while gw.models()[0].in_flight < 2:
            pass
        gw.close()
        for job in (reading, running):
            with pytest.raises(Closed):
                job.result(timeout=10)


def test_a_reader_that_breaks_off_and_goes_on_loses_nothing() -> None:
    with Gateway([Slowly()]) as gw, gw.stream(ASK) as stream:
        first = [next(iter(stream)) for _ in range(3)]
        assert len(first) + len(list(stream)) == 50


def test_a_stream_keeps_its_gateway_open() -> None:
    def ask() -> Any:
        return Gateway([Slowly()]).stream(ASK)

    assert len(list(ask())) == 50
    gc.collect()
    assert loop_threads() == []


def test_a_service_that_exits_fails_alone_and_the_gateway_goes_on() -> None:
    class Exits(Echo):
        async def run(self, request: Request[Any], /) -> Response:
            sys.exit(3)

    with Gateway([Exits("exits", quality=1.0), Echo("echo")]) as gw:
        for _ in range(3):
            assert gw.chat("hello").model == "echo"


def test_a_stream_that_nobody_opens_begins_nothing() -> None:
    with Gateway([Slowly(ends=False)]) as gw:
        for _ in range(3):
            gw.stream(ASK)
        assert gw.models()[0].in_flight == 0


def test_a_gateway_that_was_never_used_closes_without_a_thread() -> None:
    Gateway([Echo("echo")]).close()
    assert loop_threads() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_stream_begun_before_a_fork_is_refused_in_the_child() -> None:
    with Gateway([Slowly(ends=False)]) as gw, gw.stream(ASK) as stream:
        next(iter(stream))
        child = os.fork()
        if child == 0:
            try:
                list(stream)
            except Closed:
                stream.close()
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0


CTRL_C_ELSEWHERE = """
import asyncio, signal, sys, threading
from gateway import Chat, ChatResponse, Delta, Gateway, ModelCard, ModelService

class Silent(ModelService):
    card = ModelCard(name="silent", tasks=frozenset({Chat}))

    async def run(self, request, /):
        await asyncio.Event().wait()

    async def stream(self, request, /):
        await asyncio.Event().wait()
        yield Delta("never")

def interrupt():
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

with Gateway([Silent()]) as gw:
    gw.models()
    threading.Timer(0.3, interrupt).start()
    try:
        if sys.argv[1] == "run":
            gw.chat("hello")
        elif sys.argv[1] == "stream":
            with gw.stream(Chat.ask("hello")) as stream:
                list(stream)
        else:
            gw.map([Chat.ask("hello")])
    except KeyboardInterrupt:
        print("KeyboardInterrupt")
"""


@pytest.mark.parametrize("verb", ["run", "stream", "map"])
def test_ctrl_c_that_does_not_wake_the_waiting_thread_is_raised_all_the_same(verb: str) -> None:
    """It comes to another thread here. One that comes just before a thread begins to wait does not wake it either."""
    done = subprocess.run([sys.executable, "-c", CTRL_C_ELSEWHERE, verb], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.returncode) == ("KeyboardInterrupt\n", 0), done.stderr
