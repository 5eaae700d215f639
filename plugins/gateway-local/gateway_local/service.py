"""LocalModel: one Transformer in this process, as a gateway service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from gateway import (
    Answer,
    Chat,
    Classify,
    Closed,
    Delta,
    Embed,
    Extract,
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
from gateway_local.facts import Facts
from gateway_local.imports import import_code
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

    Its weights may come from any uri that a weight store reads. One thread owns the loaded model, and at most `max_queue`
    requests wait: a model that writes serves them in order, an encoder the texts of all of them in batches.
    """

    def __init__(self, options: ModelOptions) -> None:
        self.name = options.name
        self._options = options
        self._facts: Facts | None = None
        self._owner = Owner(options.name, max_queue=options.max_queue)
        self._answers: Answers | Encodes | Rewrites | None = None

    async def describe(self, resources: Resources) -> ModelCard:
        """The card, from the headers and small files alone. WeightsError when this is no model to be served here."""
        self._facts = await asyncio.to_thread(self._read_facts, resources)
        return self._card_of(self._facts)

    async def start(self, resources: Resources) -> None:
        """Load the weights on the model's own thread. WeightsError when they are damaged or not of the architecture."""
        self._owner.start()
        self._answers = await self._owner.run(lambda call: self._load(resources, call))

    async def run(self, request: Request[Any], /) -> Response:
        """The whole answer. Overloaded, ContextTooLong or an Unsupported error say what is in the way."""
        work, job = self._work(request)
        response: Response = await self._owner.run(work, job)
        return response

    async def stream(self, request: Request[Any], /) -> AsyncIterator[Delta | Response]:
        """Text as it is made, then the whole answer. Closing the stream early stops the model within one token."""
        work, job = self._work(request)
        async with aclosing(self._owner.stream(work, job)) as items:
            async for item in items:
                yield item.value if isinstance(item, Done) else item

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
        """Stop what runs, end the thread, let go of the model. A load that is under way is not waited for."""
        if self._answers is None:  # importing torch takes seconds and cannot be interrupted; the thread is a daemon
            self._owner.abandon()
        else:
            await asyncio.to_thread(self._owner.close)
        self._answers = None

    def _work(self, request: Request[Any]) -> tuple[Callable[[Call], Response], Any]:
        """What the owner's thread is to do for a request, and its texts where they may be encoded beside others'.

        Refuses what this model cannot do before it waits in line.
        """
        answers = self._answers
        if answers is None:
            raise Closed(f"model {self.name!r} is not running: it has not been started, or has been closed")
        if not isinstance(request, tuple(answers.card.tasks)):
            raise UnsupportedTask.of(answers.card, request)
        return answers.work(request, Options(request, self.name))

    def _read_facts(self, resources: Resources) -> Facts:
        weights = resources.weights(self._options.weights)
        try:
            return known.read_facts(resources, self._options.weights, weights)
        finally:
            weights.close()

    def _check(self, resources: Resources, call: Call) -> str:
        facts = self._facts or self._read_facts(resources)
        self._import("check", resources, facts, call)
        from gateway_local.load import check

        weights = resources.weights(self._options.weights)
        try:
            check(weights, facts)
            size = f"{known.rounded(facts.params, known.COUNTS)} parameters, {known.rounded(weights.bytes, known.BYTES)}"
            kv = known.kv_bytes_per_token(facts, self._dtype(facts, gpu=known.gpu_expected(self._options.device)))
            cache = "" if kv is None else f", {known.rounded(kv, known.BYTES)} of cache a token"
            return f"weights readable: {size}{cache}, {facts.stored}"
        finally:
            weights.close()

    def _load(self, resources: Resources, call: Call) -> Answers | Encodes | Rewrites:
        facts = self._facts or self._read_facts(resources)
        self._import("start", resources, facts, call)
        from gateway_local.answer import Answers, pick_device
        from gateway_local.encodes import Encodes
        from gateway_local.load import load
        from gateway_local.rewrite import Rewrites

        device = pick_device(self._options.device)
        dtype = self._dtype(facts, gpu=not device.startswith("cpu"))
        label = f"load {self.name}"
        weights = resources.weights(self._options.weights)
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
            return Encodes(card, facts, loaded, self._owner)
        self._owner.beside = self._options.max_batch - 1
        return Answers(card, facts, loaded, self._owner, self._options)

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
            concurrency=1 if facts.encoder or facts.rewrite else options.max_batch,
            last_resort=options.last_resort,
        )
