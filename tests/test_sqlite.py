"""SQLiteState: MemoryState's counts, kept in a file, shared by processes that may be killed, forked or out of luck."""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import GatewayError, Lease, Limit, Refusal
from gateway import sqlite as subject
from gateway.sqlite import SQLiteState
from gateway.state import LEASE_TTL_S, MemoryState, StateStore, Unit
from gateway.testing import FakeClock
from gateway.testing.contract import StateStoreContract

T = TypeVar("T")

EVER_S = 1e10
CALLS = Limit("all", "requests", 1000, EVER_S)
ALL = Limit("all", "requests", 3, 60.0)


class TestSQLiteState(StateStoreContract):
    @pytest.fixture
    def state(self, clock: FakeClock, tmp_path: Path) -> SQLiteState:
        return SQLiteState(tmp_path / "state.db", clock)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def one(limit: Limit = ALL, amount: float = 1) -> tuple[dict[Unit, float], list[Limit]]:
    return {limit.unit: amount}, [limit]


async def used(state: StateStore, limit: Limit) -> float:
    refusal = await state.reserve({limit.unit: math.nan}, [limit])
    assert isinstance(refusal, Refusal)
    return refusal.used


async def taken(state: StateStore, limit: Limit = ALL, amount: float = 1) -> Lease:
    lease = await state.reserve(*one(limit, amount))
    assert isinstance(lease, Lease)
    return lease


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def test_counts_and_leases_outlive_the_process_that_made_them(path: Path) -> None:
    clock = FakeClock()

    async def check() -> None:
        first = SQLiteState(path, clock)
        await first.settle(await taken(first), {"requests": 1})
        held = await taken(first)
        await first.aclose()
        second = SQLiteState(path, clock)
        assert await used(second, ALL) == 2
        await second.settle(held, {"requests": 2})
        await first.settle(held, {"requests": 0})  # from the other one: a second settlement all the same
        assert await used(second, ALL) == await used(first, ALL) == 3
        await first.aclose()
        await second.aclose()

    run(check())


def test_nothing_is_opened_before_first_use(path: Path) -> None:
    before = threading.active_count()
    SQLiteState(path, FakeClock())
    assert not path.exists() and threading.active_count() == before


def test_only_the_owner_may_read_the_file_and_nothing_else_is_left_beside_it(path: Path) -> None:
    async def check() -> None:
        state = SQLiteState(path, FakeClock())
        await taken(state)
        assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
            "state.db": 0o600,
            "state.db-wal": 0o600,
            "state.db-shm": 0o600,
        }
        await state.aclose()

    run(check())
    assert [file.name for file in path.parent.iterdir()] == ["state.db"]


LIMITS = (
    Limit("a", "requests", 5, 60.0),
    Limit("a", "requests", 9, 60.0),
    Limit("b", "usd", 0.7, 3600.0),
    Limit("x" * 1000, "tokens", 100, 86_400.0),
    Limit("\ud800\n", "tokens", math.inf, 86_400.0),
)
AMOUNT = st.one_of(st.integers(0, 7), st.sampled_from([0.1, 0.3, math.nan, math.inf, 60.0]))
AMOUNTS = st.dictionaries(st.sampled_from(["requests", "tokens", "usd"]), AMOUNT)
STEP = st.one_of(
    st.tuples(st.just("reserve"), AMOUNTS, st.lists(st.sampled_from(LIMITS), max_size=4)),
    st.tuples(st.just("settle"), AMOUNTS | st.just({"requests": -1.0}), st.integers(0, 20)),
    st.tuples(st.just("advance"), st.sampled_from([0.5, 7.0, 59.0, 60.0, 600.0, 901.0, 3600.0, 86_400.0]), st.none()),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=40), st.integers(1, 2))
def test_whatever_is_done_the_answers_are_those_of_memory(steps: list[Any], stores: int) -> None:
    async def check(folder: str) -> None:
        clock = FakeClock(1_728_000_000.0)
        memory = MemoryState(clock)
        files = [SQLiteState(Path(folder, "state.db"), clock) for _ in range(stores)]  # as two processes would, in turns
        leases: list[tuple[Lease, Lease]] = []
        for at, (kind, what, how) in enumerate(steps):
            state = files[at % stores]
            if kind == "advance":
                clock.advance(what)
            elif kind == "reserve":
                here, there = await state.reserve(what, how), await memory.reserve(what, how)
                assert type(here) is type(there)
                if isinstance(here, Lease) and isinstance(there, Lease):
                    assert (here.amounts, here.limits, here.expires_at) == (there.amounts, there.limits, there.expires_at)
                    leases.append((here, there))
                elif isinstance(here, Refusal) and isinstance(there, Refusal):
                    assert (here.limit, here.frees_in_s) == (there.limit, there.frees_in_s)
            elif leases:
                mine, other = leases[how % len(leases)]
                await state.settle(mine, what)
                await memory.settle(other, what)
            for limit in LIMITS:
                assert await used(state, limit) == pytest.approx(await used(memory, limit), abs=1e-9)
        for state in files:
            await state.aclose()

    with tempfile.TemporaryDirectory() as folder:
        run(check(folder))


def test_a_thousand_dimes_add_up(path: Path) -> None:
    spend = Limit("all", "usd", 1e6, EVER_S)

    async def check() -> None:
        clock = FakeClock()
        state, memory = SQLiteState(path, clock), MemoryState(clock)
        for store in (state, memory):
            leases = await asyncio.gather(*(taken(store, spend, 0.1) for _ in range(1000)))
            assert await used(store, spend) == pytest.approx(100, abs=1e-9)
            await asyncio.gather(*(store.settle(lease, {"usd": 0.1}) for lease in leases[:500]))
            await asyncio.gather(*(store.settle(lease, {}) for lease in leases[500:]))
        assert await used(state, spend) == pytest.approx(50, abs=1e-9)
        assert await used(state, spend) == pytest.approx(await used(memory, spend), abs=1e-9)
        again = await asyncio.gather(*(taken(state, spend, 0.3) for _ in range(100)))
        await asyncio.gather(*(state.settle(lease, {}) for lease in again))
        assert 50 <= await used(state, spend) + 1e-9 <= 50 + 2e-9
        await state.aclose()

    run(check())


def test_the_file_stays_small_whatever_names_arrive(path: Path) -> None:
    async def check() -> None:
        clock = FakeClock()
        state = SQLiteState(path, clock)
        for hour in range(30):
            names = [f"tenant:{hour}:{i}" + "x" * 10_000 for i in range(100)]
            await asyncio.gather(*(taken(state, Limit(name, "requests", 3, 60.0)) for name in names))
            clock.advance(3600)
        await taken(state)
        await state.aclose()

    run(check())
    assert rows(path, "SELECT count(*) FROM counts") == [(1,)]
    assert rows(path, "SELECT count(*) FROM leases WHERE held IS NOT NULL") == [(1,)]
    assert rows(path, "SELECT count(*) FROM leases") == [(1025,)]
    assert path.stat().st_size < 300_000


def test_what_is_looked_up_is_looked_up_by_an_index(path: Path) -> None:
    async def check() -> None:
        state = SQLiteState(path, FakeClock())
        await taken(state)
        await state.aclose()

    run(check())
    for query in (
        "SELECT used FROM counts WHERE key = 1 AND unit = 1 AND window_s = 1 AND ends_at = 1",
        "DELETE FROM counts WHERE ends_at <= 1",
        "SELECT held FROM leases WHERE id = 1",
        "SELECT held FROM leases WHERE held IS NOT NULL AND expires_at <= 1 ORDER BY expires_at",
    ):
        assert "SEARCH" in (plan := str(rows(path, f"EXPLAIN QUERY PLAN {query}"))) and "SCAN" not in plan


class Held(FakeClock):
    """A clock that stands in the way: the thread that asks for the time waits here, in the middle of its transaction."""

    def __init__(self) -> None:
        super().__init__()
        self.there, self.go = threading.Event(), threading.Event()

    def now(self) -> float:
        self.there.set()
        assert self.go.wait(30)
        return super().now()


@pytest.mark.parametrize("when", ["while it is taken", "after it was taken", "before it is taken"])
def test_a_caller_who_is_cancelled_holds_nothing(path: Path, when: str) -> None:
    async def check() -> None:
        clock = Held()
        state = SQLiteState(path, clock)
        first = asyncio.create_task(state.reserve(*one()))
        await asyncio.to_thread(clock.there.wait)
        task = first
        if when == "before it is taken":
            task = asyncio.create_task(state.reserve(*one()))
            await asyncio.sleep(0)
        if when == "after it was taken":
            clock.go.set()
            desk = state._desk
            assert desk is not None
            desk.thread.submit(int).result()  # the loop is held up meanwhile: the lease is there, and nobody has been told
        task.cancel()
        clock.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.gather(first, return_exceptions=True)
        assert await used(state, ALL) == (1 if task is not first else 0)
        await state.aclose()
        assert len(rows(path, "SELECT id FROM leases")) == (1 if task is not first else 0)

    run(check())


def test_a_reservation_is_given_back_even_when_its_loop_is_gone(path: Path) -> None:
    clock = Held()
    state = SQLiteState(path, clock)

    async def leave() -> None:
        asyncio.create_task(state.reserve(*one()))  # noqa: RUF006
        await asyncio.to_thread(clock.there.wait)

    async def look() -> None:
        assert await used(state, ALL) == 0
        await state.aclose()

    run(leave())  # ends, and cancels the reservation, while the thread is at it
    clock.go.set()
    run(look())


def test_a_settlement_is_done_even_when_its_caller_is_cancelled(path: Path) -> None:
    async def check() -> None:
        clock = Held()
        clock.go.set()
        state = SQLiteState(path, clock)
        lease = await taken(state)
        clock.go.clear()
        clock.there.clear()
        busy = asyncio.create_task(state.reserve(*one()))
        await asyncio.to_thread(clock.there.wait)
        task = asyncio.create_task(state.settle(lease, {"requests": 2}))
        await asyncio.sleep(0)
        task.cancel()
        clock.go.set()
        await asyncio.gather(busy, task, return_exceptions=True)
        assert await used(state, ALL) == 3
        await state.aclose()

    run(check())


def test_an_argument_that_makes_no_sense_fails_its_own_call_alone(path: Path) -> None:
    async def check() -> None:
        state = SQLiteState(path, FakeClock())
        senseless: Any = ({"requests": "many"}, [ALL])
        calls = [state.reserve(*one()), state.reserve(*senseless), state.reserve(*one(Limit("k", "usd", 1, 0.0), 1))]
        good, bad, worse = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(good, Lease) and isinstance(bad, ValueError) and isinstance(worse, ZeroDivisionError)
        assert await used(state, ALL) == 1
        await state.aclose()

    run(check())


def test_closing_twice_is_closing_once_and_ends_the_thread(path: Path) -> None:
    async def check() -> None:
        state = SQLiteState(path, FakeClock())
        await state.aclose()
        waiting = [asyncio.create_task(state.reserve(*one())) for _ in range(3)]
        await asyncio.sleep(0)
        await state.aclose()
        await state.aclose()
        assert all(isinstance(outcome, Lease) for outcome in await asyncio.gather(*waiting))
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("sqlite-state")]
        assert await used(state, ALL) == 3  # a late settlement finds the file open again
        await state.aclose()

    run(check())


def fault(path: Path) -> str:
    """What a reservation raises; a settlement must raise the same."""

    async def check() -> str:
        state = SQLiteState(path, FakeClock())
        with pytest.raises(GatewayError) as caught:
            await state.reserve(*one())
        with pytest.raises(GatewayError) as again:
            await state.settle(Lease(1, {}, (), 0.0), {})
        assert type(caught.value) is GatewayError and str(again.value) == str(caught.value)
        await state.aclose()
        return str(caught.value)

    message = run(check())
    assert repr(str(path)) in message
    return message


@pytest.fixture
def made(path: Path) -> Path:
    """A file that has been used."""

    async def make() -> None:
        state = SQLiteState(path, FakeClock())
        await taken(state)
        await state.aclose()

    run(make())
    return path


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert "directory must be there" in fault(tmp_path / "none" / "state.db")


def test_a_directory_in_its_place_is_told(tmp_path: Path) -> None:
    assert "it cannot be opened" in fault(tmp_path)


def test_a_file_that_is_not_sqlite_is_left_alone(path: Path) -> None:
    path.write_bytes(b"dear diary, " * 1000)
    assert "it is no SQLite file" in fault(path)
    assert path.read_bytes() == b"dear diary, " * 1000


def test_an_empty_file_is_told(path: Path) -> None:
    path.touch()
    assert "it is empty: remove it" in fault(path)


def test_another_programs_database_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE counts (mine TEXT); PRAGMA user_version = 1")
    assert "another program's database" in fault(path)
    assert rows(path, "SELECT name FROM sqlite_schema") == [("counts",)]


def test_a_schema_of_another_version_is_left_alone(made: Path) -> None:
    with closing(sqlite3.connect(made)) as db:
        db.execute("PRAGMA user_version = 2")
    assert "version 2, and this gateway writes 1" in fault(made)


def test_a_damaged_file_is_told(made: Path) -> None:
    with made.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (made.stat().st_size - 4096))
    assert "it is damaged: move it" in fault(made)


@pytest.mark.parametrize("held", ["no json", "[[1]]", "3", "\udcff"])
def test_a_damaged_lease_is_told(made: Path, held: str) -> None:
    with closing(sqlite3.connect(made, isolation_level=None)) as db:
        raw = held.encode(errors="surrogateescape")
        db.execute("UPDATE leases SET expires_at = 0, held = CAST(? AS TEXT)", (raw,))
    assert "it is damaged: move it" in fault(made)


def test_a_database_that_another_program_holds_is_told_and_works_once_it_is_free(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "BUSY_S", 0.05)
    with closing(sqlite3.connect(made, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        assert "another program holds it" in fault(made)

    async def check() -> None:
        state = SQLiteState(made, FakeClock())
        assert await used(state, ALL) == 1
        await state.aclose()

    run(check())


AS_ANOTHER_USER = """
import asyncio, os, pathlib, sys
from gateway import GatewayError, Limit
from gateway.sqlite import SQLiteState
from gateway.testing import FakeClock
import sqlite3
if os.geteuid() == 0:  # root may write whatever the mode says
    os.seteuid(65534)
try:
    asyncio.run(SQLiteState(sys.argv[1], FakeClock()).reserve({"requests": 1}, [Limit("all", "requests", 3, 60.0)]))
except GatewayError as error:
    print(error)
"""


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o777), (0o444, 0o555), (0o000, 0o777), (None, 0o555)])
def test_a_file_or_a_directory_that_may_not_be_written_is_told(file_mode: int | None, folder_mode: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.db")
        if file_mode is not None:
            subject._make(path)
            path.chmod(file_mode)
        Path(folder).chmod(folder_mode)
        done = subprocess.run(
            [sys.executable, "-c", AS_ANOTHER_USER, str(path)], capture_output=True, text=True, timeout=60, check=True
        )
        Path(folder).chmod(0o700)
    assert repr(str(path)) in done.stdout and "this user" in done.stdout


def test_a_file_that_is_removed_while_it_is_in_use_is_made_anew_for_all(path: Path) -> None:
    async def check() -> None:
        states = [SQLiteState(path, FakeClock()) for _ in range(2)]
        lease = await taken(states[0])
        await taken(states[1])
        os.unlink(path)
        with pytest.raises(GatewayError, match=r"remove '.*-wal', and counting starts anew"):
            await taken(states[0])  # a new file would take in the old one's log
        os.unlink(f"{path}-wal")
        os.unlink(f"{path}-shm")
        for count, state in enumerate(states, 1):
            await taken(state)
            assert await used(state, ALL) == count
        await states[0].settle(lease, {"requests": 3})  # of the file that is gone
        assert await used(states[1], ALL) == 2
        for state in states:
            await state.aclose()

    run(check())
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


SPENDER = """
import asyncio, os, pathlib, sys
from gateway import Lease, Limit
from gateway.sqlite import SQLiteState

class Shared:
    '''A clock that the test sets, for all processes at once.'''
    def now(self): return float(pathlib.Path(sys.argv[2]).read_text())
    def monotonic(self): return self.now()

def say(word): os.write(1, (word + "\\n").encode())

state = SQLiteState(sys.argv[1], Shared(), lease_ttl_s=2.0)
CALLS = {"requests": 1}, [Limit("all", "requests", 1000, 1e10)]

async def call():
    lease = await state.reserve(*CALLS)
    if isinstance(lease, Lease):
        say("taken")
        await state.settle(lease, {"requests": 1})
        say("passed")
        return True
    return False

async def spend(most):
    passed = 0
    while passed < most and any(outcomes := await asyncio.gather(*(call() for _ in range(min(5, most - passed))))):
        passed += sum(outcomes)

async def main():
    say("ready")
    for line in sys.stdin:
        word, number = line.split()
        if word == "spend":
            await spend(int(number))
            say("spent")
        if word == "hold":
            for _ in range(int(number)):
                assert isinstance(await state.reserve(*CALLS), Lease)
            say("held")

asyncio.run(main())
"""


class Spender:
    """A process that spends calls when told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.passed = self.taken = 0
        self.until("ready")

    def tell(self, word: str, number: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word} {number}\n")
        self.process.stdin.flush()

    def until(self, word: str, *, times: int = 1) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.passed += line == "passed\n"
            self.taken += line == "taken\n"
            times -= line == f"{word}\n"
            if times == 0:
                return

    def kill(self) -> None:
        self.process.kill()
        self.until("the end")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.until("the end")
        assert self.process.wait(30) == 0


Start: TypeAlias = Callable[[], Spender]


@pytest.fixture
def time(tmp_path: Path) -> Path:
    file = tmp_path / "time"
    file.write_text("1728000000.0")
    return file


@pytest.fixture
def start(path: Path, time: Path) -> Iterator[Start]:
    """Starts a process that spends; none outlives the test."""
    with ExitStack() as stack:

        def starts() -> Spender:
            command = [sys.executable, "-c", SPENDER, str(path), str(time)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            return Spender(process)

        yield starts


def later(time: Path, seconds: float) -> None:
    """Let time pass for all processes at once."""
    new = time.with_suffix(".new")
    new.write_text(str(float(time.read_text()) + seconds))
    new.replace(time)


def test_of_a_budget_of_1000_calls_two_processes_pass_1000_though_one_is_killed(path: Path, time: Path, start: Start) -> None:
    one, other = start(), start()
    one.tell("spend", 300)
    one.tell("hold", 50)
    other.tell("spend", 600)  # both at once
    one.until("held")
    one.kill()
    other.tell("spend", 10_000)
    other.until("spent", times=2)
    assert (one.passed, other.passed) == (300, 650)  # what the dead one holds is not to be had yet
    later(time, 1.9)
    other.tell("spend", 10_000)
    other.until("spent")
    assert other.passed == 650
    later(time, 0.2)  # its leases lapse
    other.tell("spend", 10_000)
    other.until("spent")
    other.close()
    assert one.passed + other.passed == 1000
    assert rows(path, "SELECT used FROM counts") == [(1000,)]


@pytest.mark.parametrize("after", [1, 40, 200])
def test_a_process_that_is_killed_anywhere_leaks_no_call(path: Path, time: Path, start: Start, after: int) -> None:
    one, other = start(), start()
    one.tell("spend", 10_000)
    other.tell("spend", 500)
    one.until("passed", times=after)
    one.kill()
    other.tell("spend", 10_000)
    other.until("spent", times=2)
    later(time, 2.1)
    other.tell("spend", 10_000)
    other.until("spent")
    other.close()
    # What it was at when it died was settled or not, and either way it is the file that knows.
    assert one.passed + other.passed <= 1000 <= one.taken + other.passed
    assert rows(path, "SELECT used FROM counts") == [(1000,)]
    assert rows(path, "SELECT count(*) FROM leases WHERE held IS NOT NULL") == [(0,)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_processes_that_start_at_once_share_one_file(path: Path, start: Start) -> None:
    spenders = [start() for _ in range(4)]
    for spender in spenders:
        spender.tell("spend", 20)
    for spender in spenders:
        spender.close()
    assert [spender.passed for spender in spenders] == [20] * 4
    assert rows(path, "SELECT used FROM counts") == [(80,)]


FORKS = """
import asyncio, os, sys, threading
from gateway import Lease, Limit
from gateway.sqlite import SQLiteState
from gateway.testing import FakeClock

class Slow(FakeClock):
    there, go = threading.Event(), threading.Event()
    def now(self):
        self.there.set()
        assert self.go.wait(30)
        return super().now()

clock = Slow()
clock.go.set()
state = SQLiteState(sys.argv[1], clock)

async def spend(count):
    return [await state.reserve({"requests": 1}, [Limit("all", "requests", 100, 1e10)]) for _ in range(count)]

def all_leases(outcomes): return all(isinstance(outcome, Lease) for outcome in outcomes)

assert all_leases(asyncio.run(spend(10)))
clock.go.clear(); clock.there.clear()
busy = threading.Thread(target=lambda: asyncio.run(spend(1)))
busy.start()
clock.there.wait()                                 # the file is in use, in the middle of a transaction:
threading.Timer(0.05, clock.go.set).start()
child = os.fork()                                  # which the fork waits for
try:
    if child == 0: clock.go.set()
    assert all_leases(asyncio.run(spend(20)))
    fds = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
    assert fds.count(sys.argv[1]) == 1, fds        # the child has a connection of its own, and none of the parent's
except BaseException:
    os._exit(1)
if child == 0:
    sys.exit(0)                                    # by the usual way: what is closed at exit is the child's own
assert os.waitpid(child, 0)[1] == 0
busy.join()
assert all_leases(asyncio.run(spend(30)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_takes_nothing_of_the_connection_along(path: Path) -> None:
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", FORKS, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(path, "SELECT used FROM counts") == [(81,)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


UNCLOSED = """
import asyncio, gc, sys
from gateway import Limit
from gateway.sqlite import SQLiteState
from gateway.testing import FakeClock
state = SQLiteState(sys.argv[1], FakeClock())
async def main():
    lease = await state.reserve({"requests": 1}, [Limit("all", "requests", 3, 60.0)])
    if sys.argv[2] == "settle":
        asyncio.create_task(state.settle(lease, {"requests": 2}))
        await asyncio.sleep(0)
asyncio.run(main())
if sys.argv[2] == "collect":
    del state
    gc.collect()
"""


@pytest.mark.parametrize(("how", "used"), [("exit", 1.0), ("collect", 1.0), ("settle", 2.0)])
def test_who_forgets_to_close_exits_all_the_same_and_loses_nothing(path: Path, how: str, used: float) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", UNCLOSED, str(path), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert [file.name for file in path.parent.iterdir()] == ["state.db"]  # closed, as the log has been taken in
    assert rows(path, "SELECT used FROM counts") == [(used,)]


def test_a_lease_lapses_after_the_time_that_was_set(path: Path) -> None:
    async def check() -> None:
        clock = FakeClock()
        state = SQLiteState(path, clock, lease_ttl_s=5.0)
        lease = await taken(state, CALLS)
        assert lease.expires_at == clock.now() + 5.0 < clock.now() + LEASE_TTL_S
        clock.advance(5.0)
        assert await used(state, CALLS) == 0
        await state.settle(lease, {"requests": 7})  # late: it holds nothing any more, but what was used counts
        await state.settle(lease, {"requests": 7})
        assert await used(state, CALLS) == 7
        await state.aclose()

    run(check())
