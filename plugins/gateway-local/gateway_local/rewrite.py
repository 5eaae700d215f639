"""Rewrites: one loaded encoder-decoder: a text goes in, another comes out. Runs on the owner's thread; imports torch.

The tokens are those of transformers' own `generate`, which is watched: it stops when nobody waits, and its tokens are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import torch
from tokenizers.processors import TemplateProcessing
from torch.overrides import TorchFunctionMode
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from gateway import (
    ContextTooLong,
    Delta,
    Finish,
    Generate,
    GenerateResponse,
    InvalidRequest,
    ModelCard,
    Options,
    Request,
    Response,
    Summarize,
    SummarizeResponse,
    Translate,
    TranslateResponse,
    UnsupportedOption,
    UnsupportedTask,
    Usage,
)
from gateway_local.languages import translator_of
from gateway_local.load import Loaded
from gateway_local.owner import Call, given_up
from gateway_local.seq2seq import CHANCE, FLAGS, NUMBERS, RewriteFacts, Way, check_settings, least_of, most_of
from gateway_local.text import StopFilter, Telling
from gateway_local.tokens import tokenized

DEFAULT_MAX_TOKENS = 512
PARAMETERS = "generate_parameters"
CONFIG: Any = GenerationConfig
NO_SETTINGS = (
    "transformers_version", "_from_model_config", "return_dict_in_generate", "num_return_sequences", "cache_implementation",
    "output_scores", "output_logits", "output_attentions", "output_hidden_states",
)  # fmt: skip
"""What a generation_config.json may hold that has nothing to do with the text, or asks for more than one."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One text to rewrite: how, and what of it is asked for beyond what the way says."""

    text: str = field(repr=False)
    way: Way
    settings: Mapping[str, Any]
    answer: Callable[[str, Finish, Usage], Response]
    cut: bool = False
    tidy: bool = False
    stop: tuple[str, ...] = ()
    seed: int | None = None


class Rewrites:
    """One loaded encoder-decoder. It answers one request at a time."""

    cache_bytes = 0
    """It keeps nothing from one request to the next."""

    def __init__(self, card: ModelCard, facts: RewriteFacts, loaded: Loaded) -> None:
        self.card = card
        self._facts, self._loaded, self._model = facts, loaded, loaded.model
        stated = self._model.generation_config.to_dict().items()
        self._usual = {name: value for name, value in stated if value is not None and name not in NO_SETTINGS}
        # What the model states is joined with what a request asks for here: `generate` would join it without judging.
        self._model.generation_config = CONFIG()
        self._positions: int | None = getattr(self._model.config, "max_position_embeddings", None)
        core = loaded.tokenizer.backend_tokenizer
        self._core, self._frame = core, core.post_processor
        special = {token.content for token in core.get_added_tokens_decoder().values()}
        begins = {self._usual.get(name) for name in ("forced_bos_token_id", "decoder_start_token_id")}
        numbers = {number for number in begins if isinstance(number, int)}
        eos = () if loaded.tokenizer.eos_token is None else (str(loaded.tokenizer.eos_token),)
        self._translator = translator_of(facts, core.get_vocab(), special=special, eos=eos, begins=numbers)
        self._codes = self._translator.codes

    def work(self, request: Request[Any], options: Options) -> tuple[Callable[[Call], Response], None]:
        """What the owner's thread is to do for a request; refuses what this model cannot do."""
        match request:
            case Generate():
                ask = self._generate(request)
            case Summarize():
                ask = self._rewrite(request, self._facts.summary, options, self._summary)
            case Translate():
                way = self._translator.way(
                    request.src_lang, request.tgt_lang, partial(self._refuse, "cannot take"), partial(self._refuse, "needs")
                )
                ask = self._rewrite(request, way, options, self._translation)
            case _:
                raise UnsupportedTask.of(self.card, request)
        return lambda call: options.noted(self._write(ask, call)), None

    def _refuse(self, what: str, option: str, why: str) -> NoReturn:
        raise UnsupportedOption(f"model {self.card.name!r} {what} {option}: {why}", model=self.card.name, option=option)

    def _generate(self, request: Generate) -> Ask:
        stated = {"max_new_tokens": request.max_tokens, "temperature": request.temperature, "top_p": request.top_p}
        settings: dict[str, Any] = {name: value for name, value in stated.items() if value is not None}
        if self._usual.get("top_k") is None:
            settings["top_k"] = 0  # a temperature alone cuts nothing off; `generate` would draw from the 50 likeliest
        chance = request.temperature is not None or request.top_p is not None
        settings = drawn(settings) if chance else settings
        return Ask(
            text=request.prompt, way=Way(), settings=settings, stop=request.stop, seed=request.seed,
            answer=lambda text, finish, usage: GenerateResponse(text=text, finish=finish, usage=usage, model=self.card.name),
        )  # fmt: skip

    def _rewrite(
        self, request: Summarize | Translate, way: Way, options: Options, answer: Callable[[str, Finish, Usage], Response]
    ) -> Ask:
        if request.truncation == "only_second":
            options.refuse("truncation", "only_second cuts the second of two texts, and there is one")
        settings = dict(request.generate_parameters or {})
        for name in settings:
            if name not in NUMBERS and name not in FLAGS:
                options.refuse(f"{PARAMETERS}.{name}", f"it takes {', '.join((*NUMBERS, *FLAGS))}")
        check_settings(settings, PARAMETERS)
        most, least = most_of(settings), least_of(settings)
        if most is not None and least is not None and least > most:
            raise InvalidRequest(f"{PARAMETERS} asks for at least {least} new tokens, and at most {most}", field=PARAMETERS)
        if least is not None and self._positions is not None and least > self._positions:
            options.refuse(PARAMETERS, f"it cannot write {least} new tokens, at most {self._positions}")
        return Ask(
            text=request.inputs, way=way, settings=drawn(settings), answer=answer,
            cut=request.truncation in ("longest_first", "only_first"), tidy=request.clean_up_tokenization_spaces is True,
        )  # fmt: skip

    def _summary(self, text: str, finish: Finish, usage: Usage) -> Response:
        return SummarizeResponse(summary_text=text, usage=usage, model=self.card.name)

    def _translation(self, text: str, finish: Finish, usage: Usage) -> Response:
        return TranslateResponse(translation_text=text, usage=usage, model=self.card.name)

    def _write(self, ask: Ask, call: Call) -> Response:
        """The text that becomes of a text; piece by piece where each token is certain when it is picked."""
        ids = self._read(ask)
        settings = self._settings(ask)
        pieces = Pieces(self._text, ask.stop, self._loaded.eos_ids, call)
        as_made = settings["num_beams"] == 1 and not ask.tidy
        watch = Watch(call, self.card.name, pieces.feed if as_made else None)
        chance = Dice(self._model.device, ask.seed) if settings["do_sample"] and ask.seed is not None else nullcontext()
        given = torch.tensor([ids], dtype=torch.long, device=self._model.device)  # (1, time)
        with torch.inference_mode(), chance:
            made = self._model.generate(
                given, attention_mask=torch.ones_like(given), generation_config=CONFIG(**settings),
                stopping_criteria=StoppingCriteriaList([watch]), tokenizer=self._loaded.tokenizer,
            )  # fmt: skip
        new = made[0, 1:].tolist()  # without the token that the decoder started from
        if as_made:
            pieces.flush()
        else:
            pieces.whole(new, self._loaded.tokenizer.clean_up_tokenization if ask.tidy else None)
        # A model may be made to end its last token as if it had been done (forced_eos_token_id).
        forced = len(new) >= settings["max_new_tokens"] and settings.get("forced_eos_token_id") is not None
        finish: Finish = "stop" if pieces.stopped or (pieces.ended and not forced) else "length"
        usage = Usage(input_tokens=len(ids), output_tokens=pieces.count)
        return ask.answer("".join(pieces.shown), finish, usage)

    def _settings(self, ask: Ask) -> dict[str, Any]:
        """All that `generate` is told: this request's own word, else its task's, else the model's; without what has no use."""
        layers = (ask.settings, ask.way.settings, self._usual)
        most = next((count for layer in layers if (count := most_of(layer)) is not None), DEFAULT_MAX_TOKENS)
        least = next((count for layer in layers if (count := least_of(layer)) is not None), 0)
        most = most if self._positions is None else min(most, self._positions)
        settings = {"num_beams": 1, "do_sample": False, **self._usual, **ask.way.settings, **ask.settings}
        useless = {"max_length", "min_length"}
        useless |= set() if settings["do_sample"] else set(CHANCE)
        useless |= set() if settings["num_beams"] > 1 else {"early_stopping", "length_penalty"}
        settings = {name: value for name, value in settings.items() if name not in useless}
        return {**settings, "max_new_tokens": most, "min_new_tokens": min(least, most)}

    def _read(self, ask: Ask) -> Sequence[int]:
        """The tokens of a text between those that its way puts around it. ContextTooLong for more than the model takes."""
        before, after = ask.way.before, ask.way.after
        self._core.post_processor = self._frame if before is None else self._around(before, after)
        most, name = self.card.context, self.card.name
        cut: Mapping[str, Any] = {"truncation": True, "max_length": most} if ask.cut and most is not None else {}
        ids: list[int] = tokenized(self._loaded.tokenizer, ask.way.prefix + ask.text, model=name, **cut)["input_ids"]
        if most is not None and len(ids) > most:
            message = f"the text takes {len(ids)} tokens of model {name!r}, which reads at most {most}"
            raise ContextTooLong(message, model=name, tokens=len(ids), context=most)
        return ids or sorted(self._loaded.eos_ids)[:1]

    def _around(self, before: tuple[str, ...], after: tuple[str, ...]) -> Any:
        tokens = [(token, self._core.token_to_id(token)) for token in {*before, *after}]
        return TemplateProcessing(single=[*before, "$A", *after], pair=None, special_tokens=tokens)

    def _text(self, ids: Sequence[int]) -> str:
        words = [id for id in ids if id not in self._codes]
        text: str = self._loaded.tokenizer.decode(words, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


class Pieces:
    """What has been written: `shown` is its text so far, `count` its tokens, `ended` that the last one ends a text."""

    def __init__(self, text: Callable[[Sequence[int]], str], stop: Sequence[str], eos_ids: frozenset[int], call: Call) -> None:
        self.shown: list[str] = []
        self.count = 0
        self.ended = self._cut = False
        self._text, self._eos_ids, self._call = text, eos_ids, call
        self._telling, self._stop = Telling(text, stop), stop

    @property
    def stopped(self) -> bool:
        """True when a stop string is complete."""
        return self._telling.stopped or self._cut

    def feed(self, token: int) -> bool:
        """Show what a token makes certain; whether no other is wanted."""
        if not (self.ended or self.stopped):
            self.count += 1
            self.ended = token in self._eos_ids
            if not self.ended:
                self._show(self._telling.feed(token))
        return self.stopped

    def flush(self) -> None:
        """Show the rest."""
        self._show(self._telling.flush())

    def whole(self, ids: Sequence[int], tidied: Callable[[str], str] | None) -> None:
        """Show all of a text at once."""
        end = next((at for at, token in enumerate(ids) if token in self._eos_ids), None)
        self.ended, self.count = end is not None, len(ids) if end is None else end + 1
        text = self._text(ids[: self.count])
        stops = StopFilter(self._stop)
        self._show(stops.feed(text if tidied is None else tidied(text)) + stops.flush())
        self._cut = stops.stopped

    def _show(self, piece: str) -> None:
        if piece:
            self.shown.append(piece)
            self._call.send(Delta(piece))


class Watch(StoppingCriteria):
    """Looks on while `generate` writes: ends it when nobody waits any more, and hands each token on where there is one."""

    def __init__(self, call: Call, name: str, feed: Callable[[int], bool] | None) -> None:
        self._call, self._name, self._feed = call, name, feed

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Whether each of `(beams, time)` is done. Leaves `generate` by an error when the call is gone."""
        if self._call.gone:
            raise given_up(self._name)
        done = self._feed is not None and self._feed(int(input_ids[0, -1]))
        return torch.full((input_ids.shape[0],), done, dtype=torch.bool, device=input_ids.device)


class Dice(TorchFunctionMode):
    """Chance of its own for what this thread draws: torch's is one for the process, and others draw from it meanwhile."""

    def __init__(self, device: torch.device, seed: int) -> None:
        super().__init__()
        self._chance = torch.Generator(device=device).manual_seed(seed & (2**64 - 1))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The same call, from this chance."""
        kwargs = dict(kwargs or {})
        if func is torch.multinomial:
            kwargs["generator"] = self._chance
        return func(*args, **kwargs)


def drawn(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that say whether tokens are drawn: what means something only then asks for it, and a temperature of 0 not."""
    out = dict(settings)
    if out.get("temperature") == 0:
        del out["temperature"]
        return {**out, "do_sample": False}
    if any(name in out for name in CHANCE):
        out.setdefault("do_sample", True)
    return out
