"""SQLiteState: counts against limits in one SQLite file, shared by the processes of one host and kept when they end."""

from __future__ import annotations

import asyncio
import json
import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.state import LAPSED_KEPT, LEASE_TTL_S, Count, Lease, Limit, Refusal, Unit

if TYPE_CHECKING:
    from sqlite3 import Connection

BUSY_S = 5.0
"""So long a transaction waits for those of other processes."""
BATCH = 256
"""At most so many reservations and settlements that wait go into one transaction: 100 callers get 3.5 times as much done."""
LONGEST_NAME = 100
APPLICATION, VERSION = 0x67617465, 1
"""What a file of ours has as application_id and as user_version."""
SCHEMA = f"""
PRAGMA journal_mode = WAL;
BEGIN;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
CREATE TABLE counts (
    key TEXT, unit TEXT, window_s REAL, ends_at REAL, used REAL NOT NULL, PRIMARY KEY (ends_at, key, unit, window_s)
) WITHOUT ROWID;
CREATE TABLE leases (id INTEGER PRIMARY KEY, expires_at REAL NOT NULL, held TEXT);
CREATE INDEX leases_held ON leases (expires_at) WHERE held IS NOT NULL;
COMMIT;
"""
ADVICE = {
    "SQLITE_BUSY": "another program holds it: end that program, or give the gateway a file of its own",
    "SQLITE_CANTOPEN": "it cannot be opened: this user must be allowed to write the file and its directory",
    "SQLITE_CORRUPT": "it is damaged: move it and its log (-wal) away, and counting starts anew",
    "SQLITE_FULL": "the disk is full: make room",
    "SQLITE_NOTADB": "it is no SQLite file: name another path in [state], or move it away",
    "SQLITE_READONLY": "it cannot be written: this user must be allowed to write the file and its directory",
}


class SQLiteState:
    """Counts against limits in one SQLite file (WAL), shared by the processes of one host, kept when they end.

    A process that is killed loses nothing that it had settled; its open leases lapse after `lease_ttl_s` seconds. A power
    cut may take back the last transactions, those since SQLite last copied its log into the file (some hundred calls, for
    synchronous=NORMAL); the file stays sound. It must be on a local disk that has hard links. It holds the names of limits,
    such as ``tenant:acme``, and only its owner may read it. Where it cannot be used, a GatewayError says what to do.
    """

    def __init__(self, path: str | Path, clock: Clock, *, lease_ttl_s: float = LEASE_TTL_S) -> None:
        self._path = Path(os.path.abspath(os.path.expanduser(path)))
        self._clock = clock
        self._lease_ttl_s = lease_ttl_s
        self._lock = threading.Lock()
        self._desk: _Desk | None = None
        self._mind_forks()

    async def reserve(self, amounts: Mapping[Unit, float], limits: Sequence[Limit]) -> Lease | Refusal:
        """Take `amounts` from every limit, or from none and say which refused. A caller who is cancelled holds nothing."""
        wanted, each, ttl_s = dict(amounts), tuple(limits), self._lease_ttl_s
        answer = asyncio.get_running_loop().create_future()
        asked = _Asked(lambda book: book.reserve(wanted, each, ttl_s), answer)
        self._ask(asked)
        try:
            return await answer  # type: ignore[no-any-return]
        except BaseException:
            if (back := asked.give_up()) is not None:
                self._ask(back)
            raise

    async def settle(self, lease: Lease, actual: Mapping[Unit, float]) -> None:
        """Replace what was reserved by what was used, once, from any process. It is done even if the caller is cancelled."""
        used = dict(actual)
        self._ask(_Asked(lambda book: book.settle(lease, used), answer := asyncio.get_running_loop().create_future()))
        await answer

    async def aclose(self) -> None:
        """Finish what waits, close the file and end the thread. A later use opens it again."""
        with self._lock:
            desk, self._desk = self._desk, None
        if desk is not None:
            with suppress(RuntimeError):  # the interpreter is going down, and has ended the thread
                await asyncio.shield(asyncio.wrap_future(desk.thread.submit(desk.close)))
            desk.thread.shutdown()

    def _ask(self, asked: _Asked) -> None:
        with self._lock:
            if self._desk is None:
                self._desk = _Desk(self._path, self._clock)
                weakref.finalize(self, self._desk.leave)
            self._desk.ask(asked)

    def _mind_forks(self) -> None:
        """Close the file before each fork, and open it anew after: https://www.sqlite.org/howtocorrupt.html, section 2.6."""
        me = weakref.ref(self)
        paused: list[SQLiteState] = []

        def before() -> None:
            if (state := me()) is not None:
                state._lock.acquire()
                paused.append(state)
                if state._desk is not None:
                    state._desk.turn.acquire()
                    state._desk.close_connection()

        def after(*, in_child: bool) -> None:
            while paused:
                state = paused.pop()
                if state._desk is not None:
                    state._desk.turn.release()
                if in_child:
                    state._desk = None  # its thread is the parent's, and so is what waits there
                state._lock.release()

        if hasattr(os, "register_at_fork"):
            parent, child = partial(after, in_child=False), partial(after, in_child=True)
            os.register_at_fork(before=before, after_in_parent=parent, after_in_child=child)


class _Asked:
    """A reservation or a settlement that waits. A caller may give up at any moment, the thread may answer at any moment."""

    def __init__(self, step: _Step, answer: asyncio.Future[Any] | None = None) -> None:
        self.step = step
        self.answer = answer
        self.given_up = False
        self.outcome: _Outcome | Exception = None
        self._lock = threading.Lock()

    def give_up(self) -> _Asked | None:
        """What gives the lease back, if it has been taken. When it is taken later, `answered` says so."""
        with self._lock:
            self.given_up = True
            return self._giving_back()

    def answered(self, outcome: _Outcome | Exception) -> _Asked | None:
        """Note the outcome. What gives the lease back, when the caller has given up."""
        with self._lock:
            self.outcome = outcome
            return self._giving_back() if self.given_up else None

    def _giving_back(self) -> _Asked | None:
        lease = self.outcome
        return _Asked(lambda book: book.settle(lease, {})) if isinstance(lease, Lease) else None


class _Desk:
    """The one thread that uses the file, its connection, and what waits for it."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.thread = ThreadPoolExecutor(1, "sqlite-state")
        self.turn = threading.Lock()
        self._path = path
        self._clock = clock
        self._waiting: deque[_Asked] = deque()
        self._db: Connection | None = None
        self._file: os.stat_result | None = None
        self._left = False

    def ask(self, asked: _Asked) -> None:
        """Have it done in one of the next transactions."""
        self._waiting.append(asked)
        if len(self._waiting) == 1:  # else the run that will take those before it takes this one, too
            self.thread.submit(self._run)

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        with self.turn:
            self.close_connection()

    def close_connection(self) -> None:
        """The same, for who holds `turn`. An open transaction is undone."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def leave(self) -> None:
        """Close now or, when the thread is busy, as soon as it is done. It waits for no lock: a garbage collector calls it."""
        self._left = True
        if self.turn.acquire(blocking=False):
            self.close_connection()
            self.turn.release()

    def _run(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            batch = [asked for asked in taken if not asked.given_up]
            try:
                with self.turn:
                    outcomes = self._transact([asked.step for asked in batch]) if batch else []
            except Exception as error:
                outcomes = [error] * len(batch)
            loops: dict[asyncio.AbstractEventLoop, list[_Asked]] = {}
            for asked, outcome in zip(batch, outcomes, strict=True):
                if (back := asked.answered(outcome)) is not None:
                    self._waiting.appendleft(back)  # before whoever may need it
                if asked.answer is not None:
                    loops.setdefault(asked.answer.get_loop(), []).append(asked)
            for loop, told in loops.items():
                with suppress(RuntimeError):  # the loop is closed, and nobody waits there
                    loop.call_soon_threadsafe(_tell, told)
        if self._left:
            self.close()

    def _transact(self, steps: Sequence[_Step]) -> list[_Outcome | Exception]:
        """All steps in one transaction. A step that raises has changed nothing; a fault of the file fails them all."""
        import sqlite3

        try:
            db = self._open()
            db.execute("BEGIN IMMEDIATE")
            book = _Book(db, self._clock.now())
            book.lapse()
            outcomes: list[_Outcome | Exception] = []
            for step in steps:
                try:
                    outcomes.append(step(book))
                except sqlite3.Error:
                    raise
                except Exception as error:  # its own arguments make no sense
                    outcomes.append(error)
            book.write()
            db.execute("COMMIT")
            return outcomes
        except BaseException as error:
            with suppress(sqlite3.Error):  # this takes the transaction back; the next one finds the file mended, moved or free
                self.close_connection()
            if isinstance(error, OSError | sqlite3.Error):
                raise self._fault(_advice(error)) from error
            raise

    def _fault(self, what: str) -> GatewayError:
        return GatewayError(f"the state file {str(self._path)!r} cannot be used; {what}")

    def _open(self) -> Connection:
        """The connection, opened anew when the file at the path is not the one that it was opened on."""
        import sqlite3

        if self._db is not None and self._file is not None:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self._path), self._file):
                    return self._db
            self.close_connection()
        log = f"{self._path}-wal"
        stale = os.path.lexists(log)  # asked first: the log of a file that another process makes now is not stale
        if not os.path.lexists(self._path):
            if stale:  # SQLite would take what is in it for the new file's
                raise self._fault(f"it is gone, but its log is there: remove {log!r}, and counting starts anew")
            _make(self._path)
        uri = f"{self._path.as_uri()}?mode=rw"
        self._db = db = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        self._file = os.stat(self._path)
        if not self._file.st_size:
            raise self._fault("it is empty: remove it, and it is made anew")
        ours, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if ours != APPLICATION:
            raise self._fault("it is another program's database: name another path in [state]")
        if version != VERSION:
            way_out = "use the gateway that made it, or move it away, and counting starts anew"
            raise self._fault(f"its schema has version {version}, and this gateway writes {VERSION}: {way_out}")
        db.executescript("PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 4194304")
        return db


class _Book:
    """The counts and leases in one transaction. A count is read once and written once, whatever is done with it."""

    def __init__(self, db: Connection, now: float) -> None:
        self._db = db
        self._now = now
        self._used: dict[Count, float] = {}
        self._changed: set[Count] = set()

    def lapse(self) -> None:
        """Free what lapsed leases hold, and forget past windows and all but the latest lapsed leases."""
        self._db.execute("DELETE FROM counts WHERE ends_at <= ?", (self._now,))
        question = "SELECT held FROM leases WHERE held IS NOT NULL AND expires_at <= ? ORDER BY expires_at"
        if lapsed := self._db.execute(question, (self._now,)).fetchall():
            for (held,) in lapsed:
                self._free(held)
            self._db.execute("UPDATE leases SET held = NULL WHERE held IS NOT NULL AND expires_at <= ?", (self._now,))
            kept = "SELECT id FROM leases WHERE held IS NULL ORDER BY expires_at DESC LIMIT ?"
            self._db.execute(f"DELETE FROM leases WHERE held IS NULL AND id NOT IN ({kept})", (LAPSED_KEPT,))  # noqa: S608

    def reserve(self, amounts: Mapping[Unit, float], limits: tuple[Limit, ...], ttl_s: float) -> Lease | Refusal:
        """As `StateStore.reserve`."""
        held: dict[Count, float] = {}
        for limit in limits:
            amount, count = float(amounts.get(limit.unit, 0.0)), _count(limit, self._now)
            used = self._read(count)
            if not used + amount <= limit.max:  # so worded that NaN is refused
                return Refusal(limit, used, math.inf if not amount <= limit.max else count.ends_at - self._now)
            held[count] = amount
        # By chance, and not counted: a file that is made anew must not take a settlement of before for one of its own.
        lease = Lease(int.from_bytes(os.urandom(8), "big") >> 1, amounts, limits, self._now + ttl_s)
        row = lease.id, lease.expires_at, json.dumps([*held.items()])
        self._db.execute("INSERT INTO leases VALUES (?, ?, ?)", row)
        for count, amount in held.items():
            self._add(count, amount)
        return lease

    def settle(self, lease: Lease, actual: Mapping[Unit, float]) -> None:
        """As `StateStore.settle`."""
        counts = {_count(limit, self._now) for limit in lease.limits}
        # What a service says it used is not to be trusted blindly: NaN would erase a count.
        used = {unit: float(n if 0.0 <= n < math.inf else lease.amounts.get(unit, 0.0)) for unit, n in actual.items()}
        row = self._db.execute("SELECT held FROM leases WHERE id = ?", (lease.id,)).fetchone()
        if row is None:  # settled before, or forgotten
            return
        self._db.execute("DELETE FROM leases WHERE id = ?", (lease.id,))
        if row[0] is not None:  # a lapsed one holds nothing any more, but what was used is counted all the same
            self._free(row[0])
        for count in counts:
            self._add(count, used.get(count.unit, 0.0))

    def write(self) -> None:
        """Write the counts that have changed."""
        rows = [(*count, self._used[count]) for count in self._changed]
        self._db.executemany("INSERT OR REPLACE INTO counts VALUES (?, ?, ?, ?, ?)", rows)

    def _free(self, held: str) -> None:
        import sqlite3

        try:
            freed = [(Count(*fields), -amount) for fields, amount in json.loads(held)]
        except (TypeError, ValueError) as error:
            raise sqlite3.DatabaseError("a lease is damaged") from error
        for count, amount in freed:
            if count.ends_at > self._now:
                self._add(count, amount)

    def _add(self, count: Count, amount: float) -> None:
        self._used[count] = max(0.0, self._read(count) + amount)
        self._changed.add(count)

    def _read(self, count: Count) -> float:
        if count not in self._used:
            question = "SELECT used FROM counts WHERE key = ? AND unit = ? AND window_s = ? AND ends_at = ?"
            (self._used[count],) = self._db.execute(question, count).fetchone() or (0.0,)
        return self._used[count]


_Outcome: TypeAlias = Lease | Refusal | None
_Step: TypeAlias = Callable[[_Book], _Outcome]


def _tell(told: Sequence[_Asked]) -> None:
    """Pass outcomes on, on the loop of their callers."""
    for asked in told:
        if asked.answer is not None and not asked.answer.done():
            if isinstance(asked.outcome, Exception):
                asked.answer.set_exception(asked.outcome)
            else:
                asked.answer.set_result(asked.outcome)


def _count(limit: Limit, now: float) -> Count:
    """What a limit is counted under. Names that are long, or that SQLite cannot hold, are told by a digest of one size."""
    key = limit.key
    if len(key) > LONGEST_NAME or not key.isprintable():
        key = "\n" + blake2b(key.encode(errors="surrogatepass"), digest_size=16).hexdigest()  # no printable name is like it
    return Count(key, limit.unit, limit.window_s, (now // limit.window_s + 1) * limit.window_s)


def _advice(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror}: its directory must be there, and this user allowed to write in it"
    # SQLITE_READONLY_DIRECTORY is a READONLY. What Python's own module finds wrong, such as text that is no UTF-8, has no name.
    name = "_".join(getattr(error, "sqlite_errorname", "SQLITE_CORRUPT").split("_")[:2])
    return ADVICE.get(name, f"{name}: mend the file or move it away")


def _make(path: Path) -> None:
    """Make the file whole beside its place and link it there: processes that start at once share the first one's."""
    import sqlite3

    beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        with closing(sqlite3.connect(beside)) as db:
            db.executescript(SCHEMA)
        with suppress(FileExistsError):
            os.link(beside, path)
    finally:
        beside.unlink()
