"""A loopback server that speaks the HTTP APIs of model providers, says what a test scripts and fails as servers do.

    with LoopbackServer() as server:                       # or `async with`, on the running loop
        server.script(Fault(status=429, retry_after=1), Reply(text="Hello"))
        ...                                                # a client of yours asks server.url
        server.block_until(lambda s: s.connections == 0)   # no sleeps: wait for what you want to see

Without a script it answers by itself: see gateway.testing.script.
`python -m gateway.testing --port 8000` runs one.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, Self, cast

from gateway.testing.anthropic import Anthropic
from gateway.testing.dialect import Asked, Dialect, OpenAI, Spoken, as_json, refused
from gateway.testing.faults import Fault, Outgoing, broken_up, failure, head
from gateway.testing.gemini import Gemini
from gateway.testing.http11 import EXPECTS, MAX_HEAD_BYTES, Request, read_request
from gateway.testing.media import Media
from gateway.testing.responses import Responses
from gateway.testing.script import Answer, Refusal, Reply, echo
from gateway.testing.tasks import Tasks

__all__ = ["Fault", "LoopbackServer", "Reply", "Request"]

log = logging.getLogger(__name__)

BACKLOG = 2048  # a thousand clients may connect at once


def _anything(request: Request) -> bool:
    """True, for every request."""
    return True


def _fits(path: str, model: str, when: "When") -> "When":
    def fits(request: Request) -> bool:
        named = model in ("", dialect_of(request.path).model(request))
        return request.path.endswith(path) and named and when(request)

    return fits


Step = Reply | Fault
When = Callable[[Request], bool]
Condition = Callable[["LoopbackServer"], bool]


class LoopbackServer:
    """A server on 127.0.0.1, alive in `with` (its own thread and loop) or `async with` (the running loop).

    `answer` makes the text from a chat's body; `key` is the one that it asks for; `models` are those it
    lists, though it serves any name; `fault` meets every request that no rule covers; `keep` requests are
    remembered. With `tls` it speaks https; `host` is the name that its URL gives it. Everything can be read from any
    thread. A client that half-closes its side is taken to have left.
    """

    def __init__(
        self,
        *,
        answer: Answer = echo,
        key: str | None = None,
        models: Sequence[str] = ("loopback",),
        fault: Fault | None = None,
        port: int = 0,
        keep: int = 10_000,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.fault = fault
        self.in_flight = 0  # requests received whose reply has not been sent whole
        self.disconnects = 0  # clients that left before their reply was sent whole
        self._answer, self._key, self._models, self._port = answer, key, tuple(models), port
        self._tls, self._host = tls, host
        self._requests: deque[Request] = deque(maxlen=keep)
        self._script: list[tuple[Step, When]] = []
        self._standing: list[tuple[Step, When]] = []
        self._waiting: list[tuple[Condition, Future[None]]] = []
        self._open: set[_Connection] = set()
        self._served = 0
        self._listener: asyncio.Server | None = None
        self._thread: threading.Thread | None = None
        self._quit: Callable[[], object] = bool  # ends the thread's loop

    @property
    def url(self) -> str:
        """The base URL that a client is given, such as "http://127.0.0.1:40123/v1"."""
        return f"{self.origin}/v1"

    @property
    def origin(self) -> str:
        """The URL without a path, such as "http://127.0.0.1:40123"."""
        if self._listener is None:
            raise RuntimeError("the server has a URL only inside `with` or `async with`")
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{self._host}:{self._listener.sockets[0].getsockname()[1]}"

    @property
    def requests(self) -> list[Request]:
        """The requests so far, oldest first."""
        return list(self._requests)

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    def script(self, *steps: Step, path: str = "", model: str = "", when: When = _anything) -> None:
        """Answer the next requests by these steps in order; each, good or bad, uses the first that fits.

        `path` (the end of the URL's path), `model` and `when` narrow which requests the steps fit.
        """
        self._script += [(step, _fits(path, model, when)) for step in steps]

    def always(self, step: Step, *, path: str = "", model: str = "", when: When = _anything) -> None:
        """Answer every request that fits by this step until `clear`; scripts come first, then the newest."""
        self._standing.insert(0, (step, _fits(path, model, when)))

    def clear(self) -> None:
        """Forget the recorded requests, the count of disconnects, scripts, rules and the fault."""
        for each in (self._requests, self._script, self._standing):
            each.clear()
        self.fault, self.disconnects = None, 0

    async def wait_for(self, condition: Condition, *, timeout_s: float = 5.0) -> None:
        """Return once the condition holds, on any event loop; else a TimeoutError that gives the counts."""
        with self._watched(condition, timeout_s) as held:
            await asyncio.wait_for(asyncio.wrap_future(held), timeout_s)

    def block_until(self, condition: Condition, *, timeout_s: float = 5.0) -> None:
        """`wait_for` for code without an event loop; never call it on the loop that runs the server."""
        with self._watched(condition, timeout_s) as held:
            held.result(timeout_s)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self._port, backlog=BACKLOG, start_serving=False, ssl=self._tls
        )
        await self._listener.start_serving()
        return self

    async def __aexit__(self, *_: object) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        for connection in list(self._open):
            connection.end(abort=True)
        while self._open or self.in_flight:  # noqa: ASYNC110 - a turn or two of the loop: nothing here waits for a peer
            await asyncio.sleep(0)
        self._tell()

    def __enter__(self) -> Self:
        started: Future[None] = Future()
        life = self._live(started)
        self._thread = threading.Thread(target=asyncio.run, args=(life,), name="loopback-server", daemon=True)
        self._thread.start()
        refused = started.exception()  # waits until it listens
        if refused is not None:
            self._thread.join()
            raise refused
        return self

    def __exit__(self, *_: object) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._quit()
            thread.join()

    async def _live(self, started: Future[None]) -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        self._quit = lambda: loop.call_soon_threadsafe(over.set)
        try:
            async with self:
                started.set_result(None)
                await over.wait()
        except Exception as broken:
            if started.done():
                raise
            started.set_exception(broken)  # such as a port that is taken

    @contextlib.contextmanager
    def _watched(self, condition: Condition, timeout_s: float) -> Iterator[Future[None]]:
        watch: tuple[Condition, Future[None]] = (condition, Future())
        self._waiting.append(watch)  # before the first look, so that no change falls between the two
        try:
            self._look(*watch)
            yield watch[1]
        except TimeoutError:
            seen = ("in_flight", "connections", "disconnects")
            facts = ", ".join(f"{name}={getattr(self, name)}" for name in seen)
            raise TimeoutError(f"waited {timeout_s} s; {facts}, {len(self._requests)} requests") from None
        finally:
            self._waiting.remove(watch)

    def _look(self, condition: Condition, held: "Future[None]") -> None:
        # InvalidStateError: another thread has settled it, or nobody waits any more.
        with contextlib.suppress(InvalidStateError):
            try:
                if condition(self):
                    held.set_result(None)
            except InvalidStateError:
                raise
            except Exception as broken:
                held.set_exception(broken)

    def _tell(self) -> None:
        for watch in list(self._waiting):
            self._look(*watch)

    def _step(self, request: Request) -> Step | None:
        for rule in list(self._script):
            if rule[1](request):
                self._script.remove(rule)
                return rule[0]
        return next((step for step, fits in self._standing if fits(request)), self.fault)

    def _reply(self, request: Request, step: Step | None) -> Outgoing:
        self._served += 1
        name, dialect = {"x-request-id": f"req_{self._served}"}, dialect_of(request.path)
        if isinstance(step, Fault) and step.status is not None:
            return failure(step, name, dialect)
        reply = step.reply if isinstance(step, Fault) else step
        try:
            spoken = self._spoken(request, reply, dialect)
        except Refusal as refusal:
            return Outgoing(refusal.status, name, [as_json(refused(refusal, dialect))], False)
        except Exception as broken:
            message = f"The loopback server broke: {broken!r}"
            return Outgoing(500, name, [as_json(dialect.error(500, message))], False)
        headers = name | dict((reply and reply.headers) or {})
        return Outgoing(200, headers, spoken.payloads, spoken.streams, spoken.kind)

    def _spoken(self, request: Request, reply: Reply | None, dialect: Dialect) -> Spoken:
        if self._key is not None and dialect.key(request) != self._key:
            raise Refusal(401, "Incorrect API key provided.", code="invalid_api_key")
        if not dialect.takes(request.path):
            raise Refusal(404, f"Unknown request URL: {request.method} {request.path}.", code="unknown_url")
        if request.method != dialect.method(request.path):
            raise Refusal(405, f"Not allowed: {request.method} {request.path}.", code="method_not_allowed")
        return dialect.speak(Asked(request=request, number=self._served, reply=reply, answer=self._answer, models=self._models))


OPENAI = OpenAI()
DIALECTS: tuple[Dialect, ...] = (OPENAI, Responses(), Anthropic(), Gemini(), Media(), Tasks())


def dialect_of(path: str) -> Dialect:
    """The dialect that a path belongs to; OpenAI's where none does."""
    return next((dialect for dialect in DIALECTS if dialect.takes(path)), OPENAI)


class _Connection(asyncio.Protocol):
    """One client's connection: a request is read, answered in a task, and then the next one is read."""

    transport: asyncio.Transport

    def __init__(self, server: LoopbackServer) -> None:
        self.server = server
        self.unread = bytearray()
        self.task: asyncio.Task[None] | None = None
        self.room = asyncio.Event()  # set while the client reads fast enough
        self.room.set()
        self.ended = False  # by us, not by the client
        self.keep_alive = True
        self.told_to_go_on = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.server._open.add(self)
        if self.server._listener is None:  # accepted while the server was closing
            self.end(abort=True)
        self.server._tell()

    def data_received(self, data: bytes) -> None:
        self.unread += data
        if self.task is None:
            self.next_request()

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.task is not None:
            self.server.disconnects += not self.ended
            self.task.cancel()  # whatever it waits for, a stall or a delay, ends here
        # A turn later: asyncio closes the socket after this, and who sees no connection must find none.
        asyncio.get_running_loop().call_soon(self.gone)

    def gone(self) -> None:
        self.server._open.discard(self)
        self.server._tell()

    def end(self, *, abort: bool = False, reset: bool = False) -> None:
        self.ended = True
        if reset:  # with a linger time of 0, closing a socket sends RST
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if abort or reset:
            self.transport.abort()
        else:
            self.transport.close()

    def next_request(self) -> None:
        try:
            found = read_request(self.unread)
        except Refusal as refusal:  # what follows on this connection cannot be told apart any more
            self.keep_alive = False
            self.unread.clear()
            self.begin(self.send(Outgoing(refusal.status, {}, [as_json(refusal.body)], False), Fault(), OPENAI))
            return
        if found is None:
            if not self.told_to_go_on and EXPECTS.search(self.unread, 0, MAX_HEAD_BYTES):
                self.told_to_go_on = True
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        request, used = found
        self.told_to_go_on = False
        del self.unread[:used]
        self.keep_alive = request.headers.get("connection", "").lower() != "close"
        self.server._requests.append(request)
        self.begin(self.serve(request))

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        self.task = asyncio.get_running_loop().create_task(work)
        self.task.add_done_callback(self.over)
        self.server.in_flight += 1
        self.server._tell()

    def over(self, task: "asyncio.Task[None]") -> None:
        self.task = None
        self.server.in_flight -= 1
        if not task.cancelled() and task.exception() is not None:
            log.error("the loopback server broke", exc_info=task.exception())
            self.end(abort=True)
        elif not self.keep_alive:
            self.end()
        elif not self.transport.is_closing():
            self.next_request()
        self.server._tell()

    async def serve(self, request: Request) -> None:
        step = self.server._step(request)
        fault = step if isinstance(step, Fault) else Fault()
        self.keep_alive = self.keep_alive and not fault.hang_up
        await asyncio.sleep(fault.delay_s)
        if fault.reset or fault.close:
            self.end(reset=fault.reset)
        else:
            await self.send(self.server._reply(request, step), fault, dialect_of(request.path))

    async def send(self, answer: Outgoing, fault: Fault, dialect: Dialect) -> None:
        pieces, length, ending = broken_up(answer, fault, dialect)
        ahead = head(answer, fault, length)
        if fault.first_chunk_delay_s or not pieces:
            self.transport.write(ahead)
            ahead = b""
            await asyncio.sleep(fault.first_chunk_delay_s)
        for at, piece in enumerate(pieces):
            if at:  # even 0 lets a client on the same loop read this piece by itself
                await asyncio.sleep(fault.chunk_delay_s)
            self.transport.write(ahead + (b"%x\r\n%b\r\n" % (len(piece), piece) if answer.streams else piece))
            ahead = b""
            await self.room.wait()
        if ending == "stall":
            await asyncio.Event().wait()
        elif ending in ("drop", "reset"):
            self.end(reset=ending == "reset")
        elif answer.streams:
            self.transport.write(b"0\r\n\r\n")
