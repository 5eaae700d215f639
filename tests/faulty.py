"""Services and other parts that are wrong on purpose, each in one way, under their contracts. `test_contract.py` runs this file
in a process of its own and asserts that each is caught; pytest by itself does not collect it.
"""

import asyncio
import threading
import time
from dataclasses import replace

import pytest

from gateway import (
    Chat,
    ChatResponse,
    Delta,
    Embed,
    Footprint,
    GenerateResponse,
    Lease,
    ModelCard,
    ModelService,
    Refusal,
    Rewrite,
    Score,
    Transform,
    UnsupportedTask,
    Usage,
    Veto,
)
from gateway.errors import ServiceError
from gateway.routing import Policy
from gateway.testing import Echo, MemoryStore
from gateway.testing.contract import (
    KeyProviderContract,
    ModelServiceContract,
    PolicyContract,
    StateStoreContract,
    TransformContract,
    WeightStoreContract,
)

kept = set()  # leaked tasks need a reference, or the collector ends them


class Faulty(ModelService):
    """Right in all that a subclass does not spoil."""

    features = frozenset()
    tasks = frozenset({Chat})

    def __init__(self):
        self.card = ModelCard(name="faulty", tasks=self.tasks, features=self.features)
        self.right = Echo("faulty", tasks=self.tasks)

    async def run(self, request, /):
        return await self.right.run(request)


class CountsTheGone(Faulty):
    asked = 0

    def footprint(self):
        return Footprint(device="cpu", waiting=self.asked)

    async def run(self, request, /):
        self.asked += 1
        return await super().run(request)


class Disagrees(Faulty):
    async def stream(self, request, /):
        response = replace(await self.right.run(request), parts=ChatResponse.of("Something else.").parts)
        yield Delta("Something else.")
        yield response


class DeltasDiffer(Faulty):
    async def stream(self, request, /):
        response = await self.run(request)
        yield Delta("Something else.")
        yield response


class TwoResponses(Faulty):
    async def stream(self, request, /):
        response = await self.run(request)
        yield response
        yield response


class NoResponse(Faulty):
    async def stream(self, request, /):
        for delta in (await self.run(request)).deltas():
            yield delta


class GapInParts(Faulty):
    async def stream(self, request, /):
        response = await self.run(request)
        yield Delta(response.text, 1)
        yield response


class WrongType(Faulty):
    async def run(self, request, /):
        return GenerateResponse(text=(await self.right.run(request)).text)


class BadUsage(Faulty):
    async def run(self, request, /):
        return replace(await self.right.run(request), usage=Usage(input_tokens=1, cached_tokens=2))


class BlocksTheLoop(Faulty):
    async def run(self, request, /):
        time.sleep(0.06)  # noqa: ASYNC251 - the fault
        return await self.right.run(request)


class StandsStill(Faulty):
    async def run(self, request, /):
        threading.Event().wait()


class IgnoresCancellation(Faulty):
    async def run(self, request, /):
        for _ in range(3):
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                await asyncio.shield(asyncio.sleep(2.0))
        return await self.right.run(request)


class SwallowsCancellation(Faulty):
    async def run(self, request, /):
        try:
            return await self.right.run(request)
        except asyncio.CancelledError:
            return ChatResponse.of("Too late.")


class BreaksWhenCancelled(Faulty):
    broken = False

    async def run(self, request, /):
        if self.broken:
            return ChatResponse.of("I was interrupted.")
        try:
            return await self.right.run(request)
        except asyncio.CancelledError:
            self.broken = True
            raise


class LiesAboutTools(Faulty):
    features = frozenset({"tools"})

    async def run(self, request, /):
        return await self.right.run(replace(request, tools=(), tool_choice="auto") if isinstance(request, Chat) else request)


class LiesAboutJson(Faulty):
    features = frozenset({"json_schema"})

    async def run(self, request, /):
        return await self.right.run(replace(request, response_format=None) if isinstance(request, Chat) else request)


class LiesAboutTasks(Faulty):
    tasks = frozenset({Chat, Embed})

    async def run(self, request, /):
        if isinstance(request, Embed):
            raise UnsupportedTask.of(self.card, request)
        return await self.right.run(request)


class LiesAboutItsName(Faulty):
    name = "another"


class IgnoresMaxTokens(Faulty):
    async def run(self, request, /):
        response = await self.right.run(replace(request, max_tokens=None) if isinstance(request, Chat) else request)
        return replace(response, parts=ChatResponse.of(response.text * 5).parts)


class LeaksATask(Faulty):
    async def run(self, request, /):
        kept.add(asyncio.ensure_future(asyncio.sleep(3600)))
        return await self.right.run(request)


class LeaksWhenClosedEarly(Faulty):
    async def stream(self, request, /):
        response = await self.run(request)
        reader = asyncio.ensure_future(asyncio.sleep(3600))
        kept.add(reader)
        for delta in response.deltas():
            yield delta
        reader.cancel()
        yield response


class RaisesABareException(Faulty):
    async def run(self, request, /):
        raise KeyError("choices")


class BreaksMidStream(Faulty):
    async def stream(self, request, /):
        yield Delta("Hel")
        raise ConnectionResetError("gone")


class AnswersAnything(Faulty):
    async def run(self, request, /):
        return await self.right.run(request) if isinstance(request, Chat) else ChatResponse.of("Whatever.")


class ChangesTheRequest(Faulty):
    async def run(self, request, /):
        for tool in getattr(request, "tools", ()):
            tool.parameters["additionalProperties"] = False
        return await self.right.run(request)


class NeverEnds(Faulty):
    async def stream(self, request, /):
        await asyncio.sleep(0)
        while True:
            yield Delta("more ")


class Hangs(Faulty):
    async def stream(self, request, /):
        yield Delta("Hel")
        await asyncio.Event().wait()


class QuotesThePrompt(Faulty):
    async def run(self, request, /):
        if isinstance(request, Chat):
            return await self.right.run(request)
        raise UnsupportedTask(f"cannot do {request.text!r}")


class MixesCallers(Faulty):
    async def run(self, request, /):
        self.last = request
        await asyncio.sleep(0)
        return await self.right.run(self.last)


class CannotCloseTwice(Faulty):
    closed = False

    async def aclose(self):
        if self.closed:
            raise ServiceError("closed already")
        self.closed = True


def contract_of(fault):
    class TestFault(ModelServiceContract):
        patience_s = 0.4
        max_block_s = 0.03 if fault is BlocksTheLoop else 0.25

        @pytest.fixture
        def service(self):
            return fault()

    TestFault.__name__ = TestFault.__qualname__ = f"Test{fault.__name__}"
    return TestFault


for fault in Faulty.__subclasses__():
    globals()[f"Test{fault.__name__}"] = contract_of(fault)


class Moody(Policy):
    """Takes an unknown fact for a number."""

    name = "moody"

    def admit(self, shape, card):
        return None if card.context > 1 else Veto("context", str(card.context), "more")


class Rash(Policy):
    """Judges differently each time, and changes what it sees."""

    name = "rash"
    count = 0

    def score(self, ask, card, live):
        live.in_flight += 1
        self.count += 1
        return Score(float(self.count))


class Lazy(Policy):
    """Judges later."""

    name = "lazy"

    async def admit_live(self, ask, card, live):
        return None


class Boundless(Policy):
    """Scores with infinity."""

    name = "boundless"

    def score(self, ask, card, live):
        return Score(float("inf"))


def policy_contract_of(fault):
    class TestFault(PolicyContract):
        @pytest.fixture
        def policy(self):
            return fault()

    return TestFault


TestMoody, TestRash, TestLazy, TestBoundless = map(policy_contract_of, (Moody, Rash, Lazy, Boundless))


class Sloppy(Transform):
    """Restores only within one delta, shares its count, tells the prompt in its note, and changes the class going out."""

    name = "sloppy"

    def begin(self, request, findings, card):
        if not isinstance(request, Chat):
            return Rewrite(Chat.ask("instead"))
        rewrite = SloppyRewrite(replace(request, messages=request.messages[-1:], seed=id(object()) % 1000 + len(kept)))
        kept.add(rewrite)
        rewrite.note = f"sloppy: {request.messages[-1].text}"
        return rewrite


class SloppyRewrite(Rewrite):
    def incoming(self, response):
        return replace(response, parts=ChatResponse.of(response.text.replace("said", "SAID")).parts)

    def feed(self, delta):
        yield replace(delta, data=delta.data.replace("said", "SAID"))


class TestSloppy(TransformContract):
    @pytest.fixture
    def transform(self):
        return Sloppy()


class Hasty(MemoryStore):
    """A store whose models are there before commit, and that overwrites."""

    def create(self, uri, keys):
        self._models.pop(uri, None)
        writer = super().create(uri, keys)
        writer.commit()
        self._models[uri]._data["scale"] = b"\0" * 8
        writer.commit = lambda: None
        return writer


class TestHasty(WeightStoreContract):
    @pytest.fixture
    def store(self):
        return Hasty()

    @pytest.fixture
    def uri(self):
        return "memory:one"


class Naked:
    """A provider that does not encrypt."""

    scheme = "naked"

    def wrap(self, uri, key, context):
        return uri.encode() + b"|" + key

    def unwrap(self, uri, wrapped, context):
        mine, _, key = wrapped.partition(b"|")
        if mine != uri.encode():
            raise ValueError("not mine")
        return key


class TestNaked(KeyProviderContract):
    @pytest.fixture
    def provider(self):
        return Naked()

    @pytest.fixture
    def uri(self):
        return "naked:one"

    @pytest.fixture
    def other_uri(self):
        return "naked:two"


class Generous:
    """A store that looks, waits, and only then takes; and that settles as often as asked."""

    def __init__(self, clock):
        self.clock = clock
        self.used = {}
        self.count = 0

    def slot(self, limit):
        return limit.key, limit.unit, limit.window_s, self.clock.now() // limit.window_s

    async def reserve(self, amounts, limits):
        for limit in limits:
            used = self.used.get(self.slot(limit), 0)
            if used + amounts.get(limit.unit, 0) > limit.max:
                return Refusal(limit, used, limit.window_s)
        await asyncio.sleep(0)
        self.count += 1
        self.take(limits, amounts, {})
        return Lease(self.count, amounts, tuple(limits), self.clock.now() + 900)

    async def settle(self, lease, actual):
        self.take(lease.limits, actual, lease.amounts)

    def take(self, limits, more, less):
        for limit in limits:
            slot = self.slot(limit)
            self.used[slot] = self.used.get(slot, 0) + more.get(limit.unit, 0) - less.get(limit.unit, 0)


class TestGenerous(StateStoreContract):
    @pytest.fixture
    def state(self, clock):
        return Generous(clock)
