"""Answers: what a loaded decoder does with each task: prompts of requests, responses of what was written. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import torch

from gateway import (
    Chat,
    ChatResponse,
    ContextTooLong,
    Generate,
    GenerateResponse,
    Logprob,
    ModelCard,
    Options,
    Request,
    Response,
    ServiceCrashed,
    UnsupportedOption,
    UnsupportedTask,
)
from gateway_local import speed
from gateway_local.decoder import Decoder, Row
from gateway_local.facts import Facts
from gateway_local.load import Loaded
from gateway_local.options import ModelOptions
from gateway_local.owner import Call, Owner
from gateway_local.passes import Together, passes_of
from gateway_local.picking import Picked, Picker, sampling_of
from gateway_local.render import Opening, offered, opening, refuse_options, template_messages, template_options
from gateway_local.reply import ReplyParser
from gateway_local.shape import Shape, Shapes
from gateway_local.slots import Slots
from gateway_local.syntax import markers
from gateway_local.tokens import hidden_ids, tokenized
from gateway_local.writer import Writer

DEFAULT_MAX_TOKENS = 512
NOTHING = Opening()
PROBED_TOKENS = 4096
LONG_CONTEXT = 1 << 15
CACHE_SHARE = 0.3
"""Of the memory that is free once the weights are there, so much may be keys and values."""
PASS_S = 0.1
LEAST_PROMPT_TOKENS, MOST_PROMPT_TOKENS, GPU_PROMPT_TOKENS = 32, 512, 2048


class Answers:
    """One loaded model, and what it makes of each request. `room`: no more bytes for keys and values, in all copies of it."""

    def __init__(
        self, card: ModelCard, facts: Facts, loaded: Loaded, owner: Owner, options: ModelOptions, *, room: int | None = None
    ) -> None:
        self.card = card
        self._loaded = loaded
        self._shapes: Shapes | None = None
        self._template = loaded.tokenizer.chat_template or ""
        self._hidden = hidden_ids(loaded.tokenizer, markers(self._template))
        self._slots = Slots(PROBED_TOKENS, sharing=options.prefix_sharing)
        with torch.inference_mode():
            passes = passes_of(loaded.model, self._slots)
        if isinstance(passes, Together):
            self._slots.resize(self._cache_tokens(options, room))
        tokens = prompt_tokens(facts, str(card.dtype), gpu=loaded.model.device.type != "cpu")
        self._decoder = Decoder(owner, passes, most=options.max_batch, prompt_tokens=tokens)

    @property
    def cache_bytes(self) -> int:
        """What keys and values take now."""
        return self._slots.held * self._slots.bytes_per_token

    def work(self, request: Request[Any], options: Options) -> tuple[Callable[[Call], Response], Row]:
        """What the owner's thread is to do for a request, beside others; refuses what this model cannot do."""
        tenant = request.meta.tenant
        if isinstance(request, Chat):
            refuse_options(request, options, self._template)
            row = Row(partial(self._begin_chat, request), partial(self._end_chat, request, options), tenant=tenant)
        elif isinstance(request, Generate):
            row = Row(partial(self._begin_generate, request), self._end_generate, tenant=tenant)
        else:
            raise UnsupportedTask.of(self.card, request)
        return self._decoder.serve, row

    def _begin_generate(self, request: Generate) -> Writer:
        return self._writer(self._tokens(request.prompt), request)

    def _end_generate(self, writer: Writer) -> GenerateResponse:
        return GenerateResponse(text=writer.text, finish=writer.finish, usage=writer.usage, model=self.card.name)

    def _begin_chat(self, request: Chat) -> Writer:
        """The next turn, written as the model's chat template has it."""
        tokenizer, template = self._loaded.tokenizer, self._template
        messages = template_messages(request, self.card.name, template)
        try:
            prompt = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **template_options(request, template)
            )
        except (jinja2.TemplateError, TypeError) as error:
            kind = type(error)
            if kind is not jinja2.TemplateError:  # raise_exception's own; the others are faults of the template
                message = f"the chat template of model {self.card.name!r} fails with {kind.__name__}"
                raise ServiceCrashed(message, model=self.card.name, cause=kind.__name__) from error
            message = f"the chat template of model {self.card.name!r} refuses this order of roles"
            raise UnsupportedOption(message, model=self.card.name, option="messages") from error
        begun = opening(request, prompt, template)
        parallel = request.parallel_tool_calls is not False
        parser = ReplyParser.of(template, prompt=prompt, tools=offered(request), parallel=parallel)
        # The template has written the special tokens already.
        return self._writer(self._tokens(prompt + begun.text, special=False), request, parser, begun)

    def _end_chat(self, request: Chat, options: Options, writer: Writer) -> ChatResponse:
        logprobs = tuple(map(self._logprob, writer.written)) if request.logprobs is not None else ()
        assert writer.parser is not None
        response = ChatResponse(
            parts=writer.parser.parts,
            finish=writer.parser.finish(writer.finish),
            usage=writer.usage,
            logprobs=logprobs,
            model=self.card.name,
        )
        return options.noted(response)

    def _tokens(self, text: str, *, special: bool = True) -> list[int]:
        made = tokenized(self._loaded.tokenizer, text, model=self.card.name, add_special_tokens=special)
        ids: list[int] = made["input_ids"]
        return ids

    def _writer(
        self, prompt: list[int], request: Generate | Chat, parser: ReplyParser | None = None, begun: Opening = NOTHING
    ) -> Writer:
        """What writes the text after a prompt."""
        model, eos_ids = self._loaded.model, self._loaded.eos_ids
        prompt = prompt or sorted(eos_ids)[:1]
        room = self._room(len(prompt))
        usual = model.generation_config.max_new_tokens or DEFAULT_MAX_TOKENS
        wanted = usual if request.max_tokens is None else request.max_tokens
        chat = request if isinstance(request, Chat) else None
        picker = Picker(
            model.generation_config,
            sampling_of(request, model.generation_config),
            prompt,
            model.device,
            logprobs=chat.logprobs if chat else None,
            shape=None if begun.schema is None or chat is None else self._shape(begun.schema, chat),
        )
        return Writer(
            prompt,
            picker,
            self._text if parser is None else self._marked_text,
            limit=wanted if room is None else min(wanted, room),
            stop=request.stop,
            eos_ids=eos_ids,
            parser=parser,
            begun=begun.text,
        )

    def _cache_tokens(self, options: ModelOptions, room: int | None) -> int:
        """For how many tokens keys and values may be kept: as many as can be wanted, in a share of the memory that is free."""
        wanted = options.max_batch * (self.card.context or LONG_CONTEXT)
        share = free_bytes(self._loaded.model.device) * CACHE_SHARE if options.cache_bytes is None else options.cache_bytes
        share = share if room is None else min(share, room)
        return min(2 * wanted, int(share / options.replicas) // max(1, self._slots.bytes_per_token))

    def _shape(self, schema: Mapping[str, Any], request: Chat) -> Shape:
        if self._shapes is None:
            width = self._loaded.model.get_output_embeddings().weight.shape[0]
            self._shapes = Shapes(self._loaded.tokenizer, width, self._loaded.eos_ids, model=self.card.name)
        return self._shapes.of(schema, option="tool_choice" if request.response_schema is None else "response_format")

    def _logprob(self, token: Picked) -> Logprob:
        top = tuple((self._text([id]), logprob) for id, logprob in token.top)
        return Logprob(self._text([token.id]), token.logprob, top)

    def _room(self, tokens: int) -> int | None:
        """How many tokens may follow a prompt; None without a limit."""
        name, context = self.card.name, self.card.context
        limits = [limit for limit in (context, self._decoder.longest) if limit is not None]
        if not limits:
            return None
        fits = min(limits)
        if tokens >= fits:
            memory = "" if fits == context else f", of which there is memory for {fits} (cache_bytes)"
            message = (
                f"the prompt takes {tokens} tokens of model {name!r}, whose context is {context}{memory}: "
                f"at most {fits - 1} fit, so that one can be answered"
            )
            raise ContextTooLong(message, model=name, tokens=tokens, context=fits)
        return fits - tokens

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self._loaded.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _marked_text(self, ids: Sequence[int]) -> str:
        """With the special tokens in it that a reply is read by."""
        shown = [id for id in ids if id not in self._hidden]
        text: str = self._loaded.tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text


def pick_device(asked: str) -> str:
    """The torch device: for "auto" the GPU where there is one."""
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


def prompt_tokens(facts: Facts, dtype: str, *, gpu: bool) -> int:
    """How many tokens of prompts to read in a pass: what takes about as long as others may be kept waiting for."""
    if gpu:
        return GPU_PROMPT_TOKENS
    rate = speed.prompt_tokens_per_s(facts, dtype, speed.recall() or speed.CPU)
    return int(min(max(PASS_S * rate, LEAST_PROMPT_TOKENS), MOST_PROMPT_TOKENS))


def free_bytes(device: torch.device) -> int:
    """The memory that is free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        rows = dict(row.split(":") for row in Path("/proc/meminfo").read_text().splitlines())
        free = int(rows["MemAvailable"].split()[0]) * 1024  # not MemFree, of which the cache of files leaves little
    except (OSError, ValueError, KeyError):  # no Linux
        return 4 << 30
    try:
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return free
