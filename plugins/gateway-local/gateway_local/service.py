"""LocalModel: one Transformer in this process, as a gateway service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway import (
    Answer,
    Chat,
    Classify,
    Delta,
    Embed,
    Extract,
    Footprint,
    Generate,
    ModelCard,
    ModelService,
    Options,
    Request,
    Rerank,
    Resources,
    Response,
    Summarize,
    Translate,
    Unsupported,
    UnsupportedTask,
)
from gateway_local import facts as known
from gateway_local import speed
from gateway_local.copies import Copies, Copy
from gateway_local.facts import Facts
from gateway_local.imports import import_code
from gateway_local.keeper import Keeper
from gateway_local.options import ModelOptions
from gateway_local.owner import Call, Done, Owner

if TYPE_CHECKING:
    from gateway_local.answer import Answers
    from gateway_local.encodes import Encodes
    from gateway_local.rewrite import Rewrites

TASKS: dict[str, type[Request[Any]]] = {
    task.task: task for task in (Generate, Chat, Embed, Classify, Rerank, Extract, Answer, Summarize, Translate)
}
GENERATING = frozenset({"streaming", "stop", "seed", "top_k", "penalties", "logprobs", "json_schema"})
REWRITING = frozenset({"streaming", "stop", "seed"})
ZERO_SHOT = frozenset({"zero_shot"})
ANY_LENGTH = frozenset({"any_length"})
"""What does not fit is read in windows."""


class LocalModel(ModelService):
    """A model that runs here: a decoder answers Generate, and Chat where it has a chat template; an encoder Embed, or what
    its head is for: Classify, Rerank, Extract or Answer; an encoder-decoder Generate, Summarize or Translate.

    Its weights may come from any uri that a weight store reads. One thread owns a loaded copy, and at most `max_queue`
    requests wait for each: a decoder answers `max_batch` of them at once, an encoder the texts of all in batches, an
    encoder-decoder one after the other. When it is idle, its `keeper` may let go of it: its next request loads it again.
    """

    def __init__(self, options: ModelOptions, keeper: Keeper | None = None) -> None:
        self.name = options.name
        self._options = options
        self._facts: Facts | None = None
        self._keeper = keeper or Keeper()
        self._copies = Copies(options, self._keeper)
        self._device = ""

    async def describe(self, resources: Resources) -> ModelCard:
        """The card, from the headers and small files alone. WeightsError when this is no model to be served here, ConfigError
        when there is never the memory for it."""
        self._facts = await asyncio.to_thread(self._read_facts, resources)
        return self._card_of(self._facts)

    async def start(self, resources: Resources) -> None:
        """Load the weights, each copy on its own thread. WeightsError when they are damaged or not of the architecture;
        Overloaded when others take the memory."""
        if self._facts is None:
            self._facts = await asyncio.to_thread(self._read_facts, resources)
        await self._copies.start(partial(self._load, resources, self._facts), lambda: resources.unloaded(self.name))

    async def run(self, request: Request[Any], /) -> Response:
        """The whole answer. Overloaded, ContextTooLong or an Unsupported error say what is in the way."""
        async with self._copy(request) as copy:
            work, job = copy.answers.work(request, Options(request, self.name))
            response: Response = await copy.owner.run(work, job)
            return response

    async def stream(self, request: Request[Any], /) -> AsyncIterator[Delta | Response]:
        """Text as it is made, then the whole answer. Closing the stream early stops the model within one token."""
        async with self._copy(request) as copy:
            work, job = copy.answers.work(request, Options(request, self.name))
            async with aclosing(copy.owner.stream(work, job)) as items:
                async for item in items:
                    yield item.value if isinstance(item, Done) else item

    def footprint(self) -> Footprint:
        """Where it is, what it takes there, and who is served or waits."""
        running, waiting = self._copies.queue
        held = self._copies.bytes if self._copies.there else 0
        return Footprint(device=self._device, bytes=held, running=running, waiting=waiting)

    async def check(self, resources: Resources) -> str:
        """A line about the weights, after everything that a start would refuse but the tensors' own bytes. WeightsError
        names the file or the tensor that is wrong."""
        # A thread of its own: the model's may be busy with a request for minutes.
        owner = Owner(self.name, max_queue=1)
        owner.start()
        try:
            found: str = await owner.run(lambda call: self._check(resources, call))
        finally:
            owner.abandon()
        return found

    async def aclose(self) -> None:
        """Stop what runs, end the threads, let go of the model. A load that is under way is not waited for."""
        await self._copies.aclose()

    @asynccontextmanager
    async def _copy(self, request: Request[Any]) -> AsyncIterator[Copy]:
        """A loaded copy to serve a request. Refuses what this model cannot do before it waits in line."""
        async with self._copies.one() as copy:
            if not isinstance(request, tuple(copy.answers.card.tasks)):
                raise UnsupportedTask.of(copy.answers.card, request)
            yield copy

    def _read_facts(self, resources: Resources) -> Facts:
        weights = resources.weights(self._options.weights, key=self._options.key)
        try:
            facts = known.read_facts(resources, self._options.weights, weights)
        finally:
            weights.close()
        gpu = known.gpu_expected(self._options.device)
        self._device = ("cuda" if gpu else "cpu") if self._options.device == "auto" else self._options.device
        self._copies.weight_bytes = known.bytes_of(facts, self._dtype(facts, gpu=gpu)) * self._apart(facts, gpu=gpu)
        self._keeper.room(self.name, self._copies.weight_bytes)
        return facts

    def _apart(self, facts: Facts, *, gpu: bool) -> int:
        """How many times the weights are in memory: once where all copies compute with the very pages of a file."""
        scheme, colon, _ = self._options.weights.partition(":")
        file = not colon or "/" in scheme or scheme in ("file", "hf")
        return 1 if file and not gpu and self._dtype(facts, gpu=gpu) == known.DTYPES[facts.stored] else self._options.replicas

    def _check(self, resources: Resources, call: Call) -> str:
        facts = self._facts or self._read_facts(resources)
        self._import("check", resources, facts, call)
        from gateway_local.load import check

        weights = resources.weights(self._options.weights, key=self._options.key)
        try:
            check(weights, facts)
            size = f"{known.rounded(facts.params, known.COUNTS)} parameters, {known.rounded(weights.bytes, known.BYTES)}"
            kv = known.kv_bytes_per_token(facts, self._dtype(facts, gpu=known.gpu_expected(self._options.device)))
            cache = "" if kv is None else f", {known.rounded(kv, known.BYTES)} of cache a token"
            return f"weights readable: {size}{cache}, {facts.stored}"
        finally:
            weights.close()

    def _load(self, resources: Resources, facts: Facts, owner: Owner, number: int, call: Call) -> Answers | Encodes | Rewrites:
        self._import("start", resources, facts, call)
        from gateway_local.answer import Answers, pick_device
        from gateway_local.encodes import Encodes
        from gateway_local.load import load
        from gateway_local.rewrite import Rewrites

        device = self._device = pick_device(self._options.device)
        dtype = self._dtype(facts, gpu=not device.startswith("cpu"))
        label = f"load {self.name}" + (f", {number} of {self._options.replicas}" if self._options.replicas > 1 else "")
        weights = resources.weights(self._options.weights, key=self._options.key)
        try:
            loaded = load(
                weights,
                facts,
                device=device,
                dtype=dtype,
                progress=lambda done, total: resources.progress(label, done, total),
                gone=lambda: call.gone,
            )
        finally:
            weights.close()
        card = self._card_of(facts)
        if facts.rewrite is not None:
            return Rewrites(card, facts.rewrite, loaded)
        if facts.encoder:
            return Encodes(card, facts, loaded, owner)
        owner.beside = self._options.max_batch - 1
        room = self._keeper.room(self.name, self._copies.weight_bytes)
        return Answers(card, facts, loaded, owner, self._options, room=room)

    def _import(self, what: str, resources: Resources, facts: Facts, call: Call) -> None:
        """The heavy imports, announced: how long they take is not known, and nothing else moves meanwhile. After the first
        on a machine, how fast it is, which takes a second: `speed` has it from then on."""
        label = f"{what} {self.name}"
        resources.progress(label, 0, None)
        try:
            import_code(facts.architecture, gone=lambda: call.gone)
            if not known.gpu_expected(self._options.device):
                from gateway_local import probe

                probe.ensure()
        finally:
            resources.progress(label, 1, 1)

    def _features(self, facts: Facts) -> frozenset[str]:
        head = facts.head
        if facts.rewrite is not None:
            return REWRITING
        if not facts.encoder:
            return GENERATING | facts.calls
        if head is not None and head.kind in ("extract", "answer"):
            return ANY_LENGTH
        by_nearness = facts.embed is not None and "classify" in (self._options.tasks or ())
        by_inference = head is not None and head.kind == "classify" and head.entailment is not None
        return ZERO_SHOT if by_nearness or by_inference else frozenset()

    def _dtype(self, facts: Facts, *, gpu: bool) -> str:
        return known.chosen_dtype(self._options.dtype, facts, gpu=gpu, native_bf16=known.native_bf16())

    def _card_of(self, facts: Facts) -> ModelCard:
        options = self._options
        gpu = known.gpu_expected(options.device)
        dtype = self._dtype(facts, gpu=gpu)
        weight_bytes = known.bytes_of(facts, dtype)
        machine = speed.GPU if gpu else speed.recall() or speed.CPU
        first_token_s, per_token_s = speed.prior(facts, dtype, machine)
        head = facts.head
        pair = facts.rewrite
        if pair is not None:
            can = list(pair.serves if options.tasks is None else pair.may)
        elif facts.embed:
            can = ["embed", *(["classify"] if options.tasks is not None else [])]
        else:
            can = [head.kind] if head else ["generate", "chat"] if facts.chat else ["generate"]
        serves = [task for task in can if options.tasks is None or task in options.tasks]
        if not serves:
            raise Unsupported(f"model {self.name!r} can do {', '.join(can)}, none of which its `tasks` allows", model=self.name)
        return ModelCard(
            name=self.name,
            tasks=frozenset(TASKS[task] for task in serves),
            place="process",
            provider="local",
            model=facts.architecture,
            params=facts.params,
            active_params=facts.sizes.active,
            bytes=weight_bytes,
            dtype=dtype,
            context=facts.context,
            dimensions=facts.embed.dimensions if facts.embed else None,
            features=self._features(facts),
            languages=None if options.languages is None else frozenset(options.languages),
            quality=options.quality,
            first_token_s=first_token_s,
            per_token_s=per_token_s,
            concurrency=options.replicas * (1 if facts.encoder or facts.rewrite else options.max_batch),
            last_resort=options.last_resort,
        )
