"""What an encoder-decoder can do, and how it is asked to, from its small files alone. Pure.

A model that does several things says in `task_specific_params` what is written before a text, and how it is then generated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway import InvalidRequest, WeightsError

Family = Literal["t5", "bart", "pegasus", "mbart", "m2m_100", "marian"]
FAMILIES: Mapping[str, Family] = {
    "T5ForConditionalGeneration": "t5", "MT5ForConditionalGeneration": "t5", "UMT5ForConditionalGeneration": "t5",
    "BartForConditionalGeneration": "bart", "PegasusForConditionalGeneration": "pegasus",
    "MBartForConditionalGeneration": "mbart", "M2M100ForConditionalGeneration": "m2m_100", "MarianMTModel": "marian",
}  # fmt: skip
"""The architectures that are served, and how each is asked. NLLB's is M2M100's."""

NUMBERS: Mapping[str, tuple[float, float, bool]] = {
    "max_new_tokens": (1, math.inf, True), "max_length": (2, math.inf, True),
    "min_new_tokens": (0, math.inf, True), "min_length": (0, math.inf, True),
    "num_beams": (1, 64, True), "length_penalty": (-math.inf, math.inf, False),
    "temperature": (0, math.inf, False), "top_k": (0, math.inf, True), "top_p": (0, 1, False), "min_p": (0, 1, False),
    "typical_p": (0, 1, False), "repetition_penalty": (1e-6, math.inf, False),
    "no_repeat_ngram_size": (0, math.inf, True), "encoder_no_repeat_ngram_size": (0, math.inf, True),
}  # fmt: skip
"""What of transformers' generation may be set to a number: the least, the most, whether whole."""

FLAGS = ("do_sample", "early_stopping", "renormalize_logits")
CHANCE = ("temperature", "top_k", "top_p", "min_p", "typical_p")
"""What only means something where tokens are drawn, and so asks for it."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a text is put to a model.

    `prefix` is written before it. `before` and `after` are the special tokens around it, None where the tokenizer's own stand.
    `settings` are of transformers' generation.
    """

    prefix: str = ""
    before: tuple[str, ...] | None = None
    after: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


Pairs = Mapping[tuple[str | None, str | None], Way]
"""A way from each language to each other; None for one that the model's files do not name."""


@dataclass(frozen=True, kw_only=True)
class RewriteFacts:
    """An encoder-decoder: what it serves, what it `may` serve where its row says so, and how it is asked for each.

    `src` and `tgt` are the languages that it was saved for, None where its files do not say. Where languages have tokens:
    `first`, the source's stands before the text, else at its end; `starts`, the decoder starts from the target's, else it
    writes that first.
    """

    family: Family
    serves: tuple[str, ...]
    may: tuple[str, ...]
    summary: Way
    pairs: Pairs
    src: str | None = None
    tgt: str | None = None
    first: bool = True
    starts: bool = False


def read_rewrite(
    uri: str, architecture: str, config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]
) -> RewriteFacts | None:
    """The facts of an encoder-decoder, None for any other. WeightsError when task_specific_params makes no sense."""
    family = FAMILIES.get(architecture)
    if family is None:
        return None
    stated = config.get("task_specific_params") or {}
    prefix = config.get("prefix")
    usual = prefix if isinstance(prefix, str) else ""
    try:
        ways = {str(task): way_of(params, usual) for task, params in dict(stated).items()}
    except (TypeError, ValueError, AttributeError, InvalidRequest) as error:
        raise WeightsError(f"{uri!r}: task_specific_params in config.json does not say how each task is asked") from error
    named = {task: task.removeprefix("translation_").split("_to_") for task in ways if task.startswith("translation_")}
    pairs: Pairs = {(each[0], each[1]): ways[task] for task, each in named.items() if len(each) == 2}
    summary = ways.get("summarization")
    serves: tuple[str, ...]
    may: tuple[str, ...]
    match family:
        case "t5":
            may = ("generate", "summarize", "translate") if pairs else ("generate", "summarize")
            serves = tuple(task for task in may if task != "summarize" or summary is not None)
        case "bart":
            may = ("generate", "summarize")
            serves = ("generate",) if summary is None else ("summarize",)
        case "pegasus":
            may, serves = ("generate", "summarize"), ("summarize",)
        case _:
            may = serves = ("translate",)
    src, tgt = ("source_lang", "target_lang") if family == "marian" else ("src_lang", "tgt_lang")
    tokenizer = str(tokenizer_config.get("tokenizer_class") or config.get("tokenizer_class") or "")
    old = family == "mbart" and "MBart50" not in tokenizer  # mBART of 2020, which knew 25 languages
    return RewriteFacts(
        family=family,
        serves=serves,
        may=may,
        summary=summary or Way(prefix=usual),
        pairs=pairs,
        src=text_of(tokenizer_config.get(src)),
        tgt=text_of(tokenizer_config.get(tgt)),
        first=not old and tokenizer_config.get("legacy_behaviour") is not True,
        starts=old,
    )


def text_of(value: object) -> str | None:
    """A text that is one, else None."""
    return value if isinstance(value, str) and value else None


def way_of(params: Mapping[str, Any], usual: str) -> Way:
    """One task of task_specific_params. What is not of generation stands there for training, and is left."""
    prefix = params.get("prefix", usual)
    settings = {name: value for name, value in params.items() if name in NUMBERS or name in FLAGS}
    check_settings(settings, "task_specific_params")
    return Way(prefix=prefix if isinstance(prefix, str) else "", settings=settings)


def check_settings(settings: Mapping[str, Any], where: str) -> None:
    """InvalidRequest for a value that is none, naming it. Its name must be one of NUMBERS or FLAGS."""
    for name, value in settings.items():
        if name in FLAGS:
            if type(value) is not bool and not (name == "early_stopping" and value == "never"):
                raise InvalidRequest(f"{where}.{name} must be true or false", field=f"{where}.{name}")
            continue
        low, high, whole = NUMBERS[name]
        right = type(value) is int if whole else type(value) in (int, float) and math.isfinite(value)
        if not right or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            span = " that is finite" if low == -math.inf else f" of at least {low:g}" if high == math.inf else ""
            message = f"{where}.{name} must be {kind}{span or f' from {low:g} to {high:g}'}"
            raise InvalidRequest(message, field=f"{where}.{name}")


def most_of(settings: Mapping[str, Any]) -> int | None:
    """The most new tokens. A `max_length` counts the one that the decoder starts from, too."""
    most, length = settings.get("max_new_tokens"), settings.get("max_length")
    return most if most is not None else None if length is None else max(length - 1, 1)


def least_of(settings: Mapping[str, Any]) -> int | None:
    """The fewest new tokens, counted likewise."""
    least, length = settings.get("min_new_tokens"), settings.get("min_length")
    return least if least is not None else None if length is None else max(length - 1, 0)
