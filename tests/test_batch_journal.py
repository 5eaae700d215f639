"""A batch's journal: what was answered outlives kill -9, torn and damaged lines, full disks, and two at once."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway import (
    AsyncGateway,
    Chat,
    ChatResponse,
    ConfigError,
    Embed,
    GatewayError,
    Generate,
    InvalidRequest,
    Meta,
    Need,
    NoEligibleModel,
    Rejected,
    Request,
    Response,
    Tool,
    Usage,
)
from gateway.batch_journal import BatchJournal, as_line, wire_of
from gateway.card import ANYTHING
from gateway.testing import Echo, Fault, LoopbackServer, Scripted

sys.path.insert(0, str(Path(__file__).parent))
from batch_case import Counting, Gate, Picky, asks, lines, texts

ROOT = Path(__file__).parent.parent


def test_what_a_journal_answers_is_not_asked_again_and_what_failed_is(tmp_path: Path) -> None:
    journal = tmp_path / "answers.jsonl"
    wanted = [Chat.ask("one"), Chat.ask("bad"), Generate(prompt="two"), Embed(texts=("a", "b"), dimensions=4)]

    async def main(service: Picky) -> list[Any]:
        async with AsyncGateway([service]) as gw:
            return await gw.map(wanted, Need(place="process"), meta=Meta(tenant="acme"), journal=str(journal))

    first, second, third = Picky(), Picky(), Counting()
    results = asyncio.run(main(first))
    assert len(first.asked) == 4
    again = asyncio.run(main(second))
    assert [type(request) for request in second.asked] == [Chat]  # the bad one alone
    assert again[0] == results[0] and again[2:] == results[2:] and isinstance(again[1], Rejected)
    assert asyncio.run(main(third))[1].text == "bad" and len(third.asked) == 1  # type: ignore[arg-type]
    assert asyncio.run(main(third))[1].text == "bad" and len(third.asked) == 1  # type: ignore[arg-type]  # the later line counts
    kept = lines(journal)
    assert [set(line) for line in kept].count({"key", "nth", "error"}) == 2 and len(kept) == 6
    assert all(re.fullmatch("[0-9a-f]{64}", line["key"]) and line["nth"] == 0 for line in kept)


def test_the_trace_is_kept_without_its_decision_and_no_request_is_in_the_file(tmp_path: Path) -> None:
    journal = tmp_path / "j"

    async def main() -> list[Any]:
        service = Scripted("only", "the answer")
        async with AsyncGateway([service]) as gw:
            # An error too may carry a decision.
            return await gw.map([Chat.ask("the question"), Embed(texts=("x",))], journal=journal)

    answered, refused = asyncio.run(main())
    assert answered.trace.decision is not None and refused.decision is not None  # those in hand keep theirs
    assert b"question" not in journal.read_bytes() and b"the answer" in journal.read_bytes()
    assert all("candidates" not in line for line in journal.read_text().splitlines())
    [kept, _] = asyncio.run(main_again(journal, [Chat.ask("the question"), Embed(texts=("x",))]))
    assert kept == answered and kept.trace == replace(answered.trace, decision=None)
    assert kept.trace.attempts == answered.trace.attempts and kept.trace.decision is None
    assert NoEligibleModel.__name__ in journal.read_text()


async def main_again(journal: Path, requests: list[Any]) -> list[Any]:
    async with AsyncGateway([Scripted("only")]) as gw:  # asked for anything it would fail
        return await gw.map(requests, journal=journal)


def test_meta_is_no_part_of_the_key_and_the_need_is(tmp_path: Path) -> None:
    async def main() -> int:
        echo = Counting()
        async with AsyncGateway([echo]) as gw:
            for need, meta in (
                (None, None),
                (Need(), Meta(tenant="other")),
                (Need(place="local"), None),
                (Need(place=("local",)), Meta(deadline_s=9.0)),
            ):
                await gw.map([Chat.ask("x")], need, meta=meta, journal=tmp_path / "j")
        return len(echo.asked)

    assert asyncio.run(main()) == 2


def test_equal_requests_are_each_asked_and_each_has_its_own_answer(tmp_path: Path) -> None:
    async def main(count: int, *steps: str) -> list[str]:
        async with AsyncGateway([Scripted("dice", *steps)]) as gw:
            return texts(await gw.map([Chat.ask("roll")] * count, journal=tmp_path / "j", max_concurrency=1))

    assert asyncio.run(main(3, "1", "2", "3")) == ["1", "2", "3"]
    assert asyncio.run(main(5, "4", "5")) == ["1", "2", "3", "4", "5"]
    assert [line["nth"] for line in lines(tmp_path / "j")] == [0, 1, 2, 3, 4]


class City(BaseModel):
    name: str
    people: int


class Town(BaseModel):
    name: str


def test_a_pydantic_answer_is_parsed_again_and_another_model_is_another_request(tmp_path: Path) -> None:
    async def main(kind: Any, *steps: str) -> Any:
        async with AsyncGateway([Scripted("says", *steps, features={"json_schema"})]) as gw:
            [reply] = await gw.map([Chat.ask("Where?", response_format=kind)], journal=tmp_path / "j")
            return reply.parsed  # type: ignore[union-attr]

    assert asyncio.run(main(City, '{"name": "Bern", "people": 134000}')) == City(name="Bern", people=134_000)
    assert asyncio.run(main(City)) == City(name="Bern", people=134_000)
    assert asyncio.run(main(Town, '{"name": "Thun"}')) == Town(name="Thun")


def test_an_answer_that_does_not_fit_any_more_is_asked_for_again(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Strict(Embed):
        task = "embed"
        fussy: Any = field(default=False, repr=False, compare=False)

        def accept(self, response: Response) -> Response:
            if Strict.refuses:  # type: ignore[attr-defined]
                raise ValueError("no")
            return super().accept(response)

    Strict.refuses = False  # type: ignore[attr-defined]

    async def main() -> int:
        class Vectors(Counting):
            async def run(self, request: Request[Any], /) -> Response:
                self.asked.append(request)
                Strict.refuses = False  # type: ignore[attr-defined]
                return Echo()._answer(Embed(texts=("a",)))

        service = Vectors(tasks=frozenset({Strict}))
        async with AsyncGateway([service]) as gw:
            await gw.map([Strict(texts=("a",))], journal=tmp_path / "j")
            await gw.map([Strict(texts=("a",))], journal=tmp_path / "j")
            Strict.refuses = True  # type: ignore[attr-defined]
            await gw.map([Strict(texts=("a",))], journal=tmp_path / "j")
        return len(service.asked)

    assert asyncio.run(main()) == 2


def test_of_several_lines_on_one_request_the_last_counts(tmp_path: Path) -> None:
    ask = Chat.ask("x")
    echoed: list[Any] = [Rejected("no"), ChatResponse.of("old"), ChatResponse.of("new"), Rejected("no")]
    for count, answer in enumerate((None, "old", "new", None), 1):
        writer, reader = BatchJournal(tmp_path / f"{count}", ANYTHING), BatchJournal(tmp_path / f"{count}", ANYTHING)
        writer.open()
        key = writer.key(ask)
        for result in echoed[:count]:
            writer.write(key, result, "chat")
        writer.close()
        reader.open()
        reader.read()
        found = reader.answer(key, ask)
        reader.close()
        assert (found.text if isinstance(found, ChatResponse) else found) == answer


@dataclass(frozen=True, kw_only=True)
class Handle(Request[ChatResponse]):
    """A request with what no JSON can hold."""

    thing: Any = field(repr=False)


def test_a_request_without_a_wire_form_is_refused_in_its_place_by_a_journal_alone(tmp_path: Path) -> None:
    async def main(journal: Path | None) -> list[Any]:
        async with AsyncGateway([Scripted("any", otherwise="fine", tasks={Chat, Handle})]) as gw:
            return await gw.map([Handle(thing=object()), Chat.ask("x")], journal=journal)

    refused, answered = asyncio.run(main(tmp_path / "j"))
    assert isinstance(refused, InvalidRequest) and refused.field == "request" and "Handle" in refused.message
    assert answered.text == "fine" and len(lines(tmp_path / "j")) == 1
    assert texts(asyncio.run(main(None))) == ["fine", "fine"]


def test_the_file_is_its_owners_alone_whatever_the_mask_says(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        asyncio.run(one(tmp_path / "j"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "j").stat().st_mode) == 0o600


async def one(journal: Path | str, text: str = "x") -> list[Any]:
    async with AsyncGateway([Echo()]) as gw:
        return await gw.map([Chat.ask(text)], journal=journal)


def test_a_second_batch_on_one_journal_is_refused_at_once_in_this_process_or_another(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    code = (
        "import sys; from gateway import Chat, Gateway; from gateway.testing import Echo\n"
        "with Gateway([Echo()]) as gw: gw.map([Chat.ask('x')], journal=sys.argv[1])"
    )

    async def main() -> None:
        gate = Gate(full=1000)
        async with AsyncGateway([gate]) as gw:
            batch = asyncio.create_task(gw.map(asks(2), journal=journal))
            while gate.now < 2:
                await asyncio.sleep(0)
            with pytest.raises(ConfigError, match="in use by another batch"):
                await gw.map(asks(3), journal=journal)
            assert len(gate.asked) == 2
            other = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", code, str(journal)], capture_output=True, text=True, cwd=ROOT, timeout=60
            )
            assert other.returncode == 1 and "in use by another batch" in other.stderr
            gate.open.set()
            assert len(await batch) == 2

    asyncio.run(main())
    assert len(lines(journal)) == 2
    assert len(asyncio.run(one(journal))) == 1  # and then it is free


def test_a_last_line_torn_anywhere_is_cut_off_and_asked_again(tmp_path: Path) -> None:
    journal, echo = tmp_path / "j", Counting()

    async def asked(gw: AsyncGateway) -> list[Any]:
        echo.asked.clear()
        results = await gw.map([Chat.ask(f"ü {n}") for n in range(3)], journal=journal, max_concurrency=1)
        assert texts(results) == [f"ü {n}" for n in range(3)]
        return echo.asked

    async def main() -> None:
        async with AsyncGateway([echo]) as gw:
            assert len(await asked(gw)) == 3
            whole = journal.read_bytes()
            begin = whole.rindex(b"\n", 0, -1) + 1
            assert "ü".encode() in whole
            for end in range(begin, len(whole)):
                journal.write_bytes(whole[:end])
                assert [request.messages[0].text for request in await asked(gw)] == ["ü 2"]
                kept = lines(journal)
                assert [line["key"] for line in kept] == [json.loads(line)["key"] for line in whole.splitlines()], end
            journal.write_bytes(b"")
            assert len(await asked(gw)) == 3

    asyncio.run(main())


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"key":"a","nth":0}', b'{"key":"a","nth":"0","error":{}}',
     b'{"key":1,"nth":0,"error":{}}', b'{"key":"a","nth":0,"response":[]}', b"[" * 100_000],
)  # fmt: skip
def test_any_other_damaged_line_is_named_and_nothing_is_asked_or_changed(tmp_path: Path, damage: bytes) -> None:
    journal, echo = tmp_path / "j", Counting()

    async def main() -> None:
        async with AsyncGateway([echo]) as gw:
            await gw.map(asks(3), journal=journal, max_concurrency=1)
            first, _, third = journal.read_bytes().splitlines()
            for torn in (b"", third[:20]):
                journal.write_bytes(b"\n".join((first, damage, third, torn)))
                before = journal.read_bytes()
                with pytest.raises(ConfigError, match=re.escape(f"{str(journal)!r}, line 2 is damaged")):
                    await gw.map(asks(4), journal=journal)
                assert len(echo.asked) == 3 and journal.read_bytes() == before

    asyncio.run(main())


def test_an_answer_that_cannot_be_read_back_is_a_damaged_line(tmp_path: Path) -> None:
    journal = tmp_path / "j"

    async def main() -> None:
        async with AsyncGateway([Echo()]) as gw:
            await gw.map(asks(3), journal=journal, max_concurrency=1)
            whole = journal.read_text()
            for wrong in (
                whole.replace("number 1", 'number 1","x":"', 1),
                whole.replace('"response":"chat"', '"response":"?"'),
            ):
                journal.write_text(wrong)
                with pytest.raises(ConfigError, match=r"line [12] is damaged"):
                    await gw.map(asks(3), journal=journal)
            kept = lines_of(whole)
            kept[2]["response"] = {"response": "generate", "text": "another task's"}
            journal.write_text("".join(json.dumps(line) + "\n" for line in kept))
            with pytest.raises(ConfigError, match="line 3 is damaged"):
                await gw.map(asks(3), journal=journal)

    asyncio.run(main())


def test_a_journal_that_is_changed_under_way_never_gives_another_requests_answer(tmp_path: Path) -> None:
    journal, other = tmp_path / "j", tmp_path / "other"
    asyncio.run(one(journal, "first"))
    asyncio.run(one(journal, "after"))
    first, after = journal.read_bytes().splitlines(keepends=True)

    async def main(change: Any) -> list[Any]:
        def requests() -> Any:
            yield Chat.ask("first")
            change()
            yield Chat.ask("after")

        echo = Counting()
        async with AsyncGateway([echo]) as gw:
            results = await gw.map(requests(), journal=journal)
        assert not echo.asked
        return results

    def replaced() -> None:
        other.write_bytes(after + first)
        other.rename(journal)

    assert texts(asyncio.run(main(replaced))) == ["first", "after"]  # the file that was opened is read on
    assert journal.read_bytes() == after + first
    for content in (first + first, first, first + b'"no object"\n', first + b"[" * 100_000 + b"\n"):
        journal.write_bytes(first + after)
        with pytest.raises(ConfigError, match="changed by others while it is in use"):
            asyncio.run(main(lambda content=content: journal.write_bytes(content)))


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("content", [b"my only copy", b"two lines\nof mine", b'{"mine": 1}\n', b'"key"'])
def test_a_file_that_is_no_journal_is_never_changed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(ConfigError, match="line 1 is damaged"):
        asyncio.run(one(tmp_path / "mine.txt"))
    assert (tmp_path / "mine.txt").read_bytes() == content


def test_a_journal_that_cannot_be_had_or_written_is_a_config_error_that_names_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, why in (
        (tmp_path, "Is a directory"),
        (tmp_path / "no" / "j", "No such file"),
        (tmp_path / "pipe", "no regular file"),
    ):
        with pytest.raises(ConfigError, match=why) as error:
            asyncio.run(one(path))
        assert str(path) in error.value.message


FULL = """
import resource, signal, sys
from gateway import Chat, ConfigError, Gateway
from gateway.testing import Echo
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # as a full disk: a write is cut short, the next one fails
with Gateway([Echo()]) as gw:
    try:
        gw.map([Chat.ask(f"number {n}") for n in range(50)], journal=sys.argv[1])
    except ConfigError as error:
        print(error)
"""


def test_a_full_disk_ends_the_batch_and_leaves_whole_lines(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    done = subprocess.run([sys.executable, "-c", FULL, str(journal)], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"journal {str(journal)!r}: File too large\n"), done.stderr
    assert 0 < journal.stat().st_size <= 3000 and journal.read_bytes().endswith(b"\n")
    kept, echo = len(lines(journal)), Counting()

    async def main() -> None:
        async with AsyncGateway([echo]) as gw:
            assert len(await gw.map(asks(50), journal=journal)) == 50

    asyncio.run(main())
    assert len(echo.asked) == 50 - kept


def test_half_a_character_in_a_reply_does_not_spoil_the_journal(tmp_path: Path) -> None:
    async def main(*steps: str) -> str:
        async with AsyncGateway([Scripted("half", *steps)]) as gw:
            return texts(await gw.map([Chat.ask("\udc00 asked")], journal=tmp_path / "j"))[0]

    assert asyncio.run(main("cut \ud83d off\u2028\x00\n")) == "cut \ud83d off\u2028\x00\n"
    assert asyncio.run(main()) == "cut ? off\u2028\x00\n"


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner))


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=1), schema=st.dictionaries(st.text(), JSON), features=st.frozensets(st.text(), max_size=4))
def test_a_key_depends_on_the_request_and_need_alone(text: str, schema: dict[str, Any], features: frozenset[str]) -> None:
    def key(request: Request[Any], need: Need = ANYTHING) -> str:
        return BatchJournal(Path("unused"), need).key(request)

    def turned(value: Any) -> Any:
        return {name: turned(value[name]) for name in reversed(value)} if isinstance(value, dict) else value

    tool = Tool(name="t", parameters=schema)
    chat = Chat.ask(text, tools=(tool,), response_format=schema)
    again = Chat.ask(text, tools=(Tool(name="t", parameters=turned(schema)),), response_format=turned(schema))
    assert key(chat) == key(again.with_meta(Meta(tenant="x")))
    assert key(chat, Need(features=features)) == key(chat, Need(features=frozenset(sorted(features, reverse=True))))
    assert (
        len({key(chat), key(Chat.ask(text + "!", tools=(tool,))), key(chat, Need(context=1)), key(Generate(prompt=text))}) == 4
    )
    journal = BatchJournal(Path("unused"), ANYTHING)
    assert [journal.key(chat).rpartition("/")[2] for _ in range(3)] == ["0", "1", "2"]


SETS = """
from dataclasses import dataclass
from pathlib import Path
from gateway import ChatResponse, Need, Request
from gateway.batch_journal import BatchJournal, as_line, wire_of

@dataclass(frozen=True, kw_only=True)
class Tagged(Request[ChatResponse]):
    tags: frozenset[str]

names = frozenset("abcdefghij")
print(BatchJournal(Path("unused"), Need(features=names, languages=names)).key(Tagged(tags=names)))
"""


def test_a_key_is_the_same_in_every_process() -> None:
    def key(seed: str) -> str:
        env = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(
            [sys.executable, "-c", SETS], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60, env=env
        ).stdout

    assert key("1") == key("2") == key("3")


def test_the_index_of_a_long_journal_stays_small(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    usage = Usage(input_tokens=1)
    writer = BatchJournal(journal, ANYTHING)
    writer.open()
    for request in (Generate(prompt=str(n)) for n in range(3000)):
        writer.write(writer.key(request), ChatResponse.of("long " * 500, usage=usage), "chat")
    writer.close()
    assert journal.stat().st_size > 7_000_000
    reader = BatchJournal(journal, ANYTHING)
    reader.open()
    tracemalloc.start()
    reader.read()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reader.close()
    assert held < 3000 * 400  # bytes a line: the place of the answer, not the answer


CHILD = """
import sys
from gateway import Chat, Gateway
config = {"plugins": ["remote"], "plugin": {"remote": {"models": [
    {"name": "hosted", "base_url": sys.argv[1], "model": "loopback", "tasks": ["chat"]}]}}}
with Gateway.from_config(config) as gw:
    requests = (Chat.ask(f"number {n}") for n in range(40))
    results = gw.map(requests, journal=sys.argv[2], max_concurrency=4,
                     progress=lambda label, done, total: print(done, flush=True))
print([getattr(result, "text", "") for result in results])
"""


def number_in(request: Any) -> int:
    return int(request.json["messages"][-1]["content"].split()[-1])


def test_a_batch_that_was_killed_goes_on_and_asks_nothing_answered_twice(tmp_path: Path) -> None:
    pytest.importorskip("gateway_remote")
    journal = tmp_path / "j"
    env = {**os.environ, "PYTHONWARNINGS": "error::ResourceWarning"}
    with LoopbackServer() as server:
        command = [sys.executable, "-c", CHILD, server.url, str(journal)]
        answered = 0
        for stop in (5, 17, 29):  # each time it gets a little further, and then hangs
            server.always(Fault(stall_after=0), when=lambda request, stop=stop: number_in(request) >= stop)  # type: ignore[misc]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env) as child:
                assert child.stdout is not None
                for line in child.stdout:
                    if int(line) == stop:
                        break
                server.block_until(lambda server, stop=stop: server.in_flight == 4, timeout_s=30)  # type: ignore[misc]
                child.send_signal(signal.SIGKILL)
                assert child.wait(30) == -signal.SIGKILL
            server.block_until(lambda server: server.in_flight == 0, timeout_s=30)
            assert Counter(map(number_in, server.requests)) == Counter(range(answered, stop + 4))
            assert len(lines(journal)) == stop
            answered = stop
            server.clear()
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[-1] == str([f"You said: number {n}" for n in range(40)])
        assert Counter(map(number_in, server.requests)) == Counter(range(answered, 40))


def test_every_error_that_a_batch_gives_has_a_wire_form_without_a_decision() -> None:
    class Mine(GatewayError):
        def __init__(self) -> None:
            super().__init__("mine")

    @dataclass(eq=False, repr=False)
    class Holds(GatewayError):
        thing: Any = None

    assert wire_of(NoEligibleModel("no"), "chat") == {"error": "NoEligibleModel", "message": "no"}
    assert wire_of(Mine(), "chat") == {"error": "Mine", "message": "mine"}
    for odd in (Holds("holds", {1}), Holds("holds", b"x"), Holds("holds", ChatResponse)):
        assert json.loads(as_line(wire_of(odd, "chat")))["message"] == "holds"
