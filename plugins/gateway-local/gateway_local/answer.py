"""Answers: what a loaded model does with each task. Everything here runs on the owner's thread; imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jinja2
import torch

from gateway import (
    Chat,
    ChatResponse,
    ContextTooLong,
    Delta,
    Finish,
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
    Usage,
)
from gateway_local.decode import Picked, decode, sampling_of
from gateway_local.facts import Facts
from gateway_local.load import Loaded
from gateway_local.owner import Call, given_up
from gateway_local.render import refuse_options, template_messages
from gateway_local.shape import Shape, Shapes
from gateway_local.text import Detokenizer, StopFilter
from gateway_local.tokens import tokenized

DEFAULT_MAX_TOKENS = 512


class Answers:
    """One loaded model. Each method answers one request, sends deltas through its call, and stops when the call is gone."""

    def __init__(self, card: ModelCard, facts: Facts, loaded: Loaded) -> None:
        self.card = card
        self._facts = facts
        self._loaded = loaded
        self._shapes: Shapes | None = None

    def work(self, request: Request[Any], options: Options) -> tuple[Callable[[Call], Response], None]:
        """What the owner's thread is to do for a request; refuses what this model cannot do."""
        if isinstance(request, Chat):
            refuse_options(request, options)
            return lambda call: options.noted(self.chat(request, call)), None
        if isinstance(request, Generate):
            return partial(self.generate, request), None
        raise UnsupportedTask.of(self.card, request)

    def generate(self, request: Generate, call: Call) -> GenerateResponse:
        """The continuation of a prompt."""
        text, finish, usage, _ = self._continue(self._tokens(request.prompt), request, call)
        return GenerateResponse(text=text, finish=finish, usage=usage, model=self.card.name)

    def chat(self, request: Chat, call: Call) -> ChatResponse:
        """The next turn, written as the model's chat template has it."""
        messages = template_messages(request, self.card.name)
        # Templates of models that think read enable_thinking; the others do not look at it.
        extra = {"enable_thinking": False} if request.reasoning == "none" else {}
        tokenizer = self._loaded.tokenizer
        try:
            prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **extra)
        except jinja2.TemplateError as error:
            kind = type(error)
            if kind is not jinja2.TemplateError:  # raise_exception's own; the others are faults of the template
                message = f"the chat template of model {self.card.name!r} fails with {kind.__name__}"
                raise ServiceCrashed(message, model=self.card.name, cause=kind.__name__) from error
            message = f"the chat template of model {self.card.name!r} refuses this order of roles"
            raise UnsupportedOption(message, model=self.card.name, option="messages") from error
        # The template has written the special tokens already.
        text, finish, usage, picked = self._continue(self._tokens(prompt, special=False), request, call)
        logprobs = tuple(map(self._logprob, picked)) if request.logprobs is not None else ()
        return ChatResponse.of(text, finish=finish, usage=usage, logprobs=logprobs, model=self.card.name)

    def _tokens(self, text: str, *, special: bool = True) -> list[int]:
        made = tokenized(self._loaded.tokenizer, text, model=self.card.name, add_special_tokens=special)
        ids: list[int] = made["input_ids"]
        return ids

    def _continue(
        self, prompt: Sequence[int], request: Generate | Chat, call: Call
    ) -> tuple[str, Finish, Usage, Sequence[Picked]]:
        """The text after a prompt, sent piece by piece, why it ended, what it took, and its tokens but for an end of text."""
        model, eos_ids = self._loaded.model, self._loaded.eos_ids
        prompt = list(prompt) or sorted(eos_ids)[:1]
        room = self._room(len(prompt))
        usual = model.generation_config.max_new_tokens or DEFAULT_MAX_TOKENS
        wanted = usual if request.max_tokens is None else request.max_tokens
        limit = wanted if room is None else min(wanted, room)
        sampling = sampling_of(request, model.generation_config)
        wished = request.logprobs if isinstance(request, Chat) else None
        shape = self._shape(request) if isinstance(request, Chat) else None
        written: list[Picked] = []
        detokenizer, stops = Detokenizer(self._text, prompt), StopFilter(request.stop)
        pieces: list[str] = []
        count = 0
        finish: Finish = "length"

        def show(piece: str) -> None:
            if piece:
                pieces.append(piece)
                call.send(Delta(piece))

        with torch.inference_mode():
            for token in decode(
                model, prompt, sampling, max_tokens=limit, gone=lambda: call.gone, logprobs=wished, shape=shape
            ):
                count += 1
                if token.id in eos_ids:
                    finish = "stop"
                    break
                written.append(token)
                show(stops.feed(detokenizer.feed(token.id)))
                if stops.stopped:
                    finish = "stop"
                    break
        if call.gone:
            raise given_up(self.card.name)
        if shape is not None and shape.whole:
            finish = "length" if shape.hurried else "stop"
        if not stops.stopped:
            show(stops.feed(detokenizer.flush()))
            finish = "stop" if stops.stopped else finish
            show(stops.flush())
        return "".join(pieces), finish, Usage(input_tokens=len(prompt), output_tokens=count), written

    def _shape(self, request: Chat) -> Shape | None:
        schema = request.response_schema
        if schema is None:
            return None
        if self._shapes is None:
            width = self._loaded.model.get_output_embeddings().weight.shape[0]
            self._shapes = Shapes(self._loaded.tokenizer, width, self._loaded.eos_ids, model=self.card.name)
        return self._shapes.of(schema)

    def _logprob(self, token: Picked) -> Logprob:
        top = tuple((self._text([id]), logprob) for id, logprob in token.top)
        return Logprob(self._text([token.id]), token.logprob, top)

    def _room(self, tokens: int) -> int | None:
        """How many tokens may follow a prompt; None without a limit."""
        context, name = self.card.context, self.card.name
        if context is None:
            return None
        if tokens >= context:
            message = (
                f"the prompt takes {tokens} tokens of model {name!r}, whose context is {context}: "
                f"at most {context - 1} fit, so that one can be answered"
            )
            raise ContextTooLong(message, model=name, tokens=tokens, context=context)
        return context - tokens

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self._loaded.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def pick_device(asked: str) -> str:
    """The torch device: for "auto" the GPU where there is one."""
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"
