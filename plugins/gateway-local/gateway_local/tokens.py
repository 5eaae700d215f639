"""The tokenizer and its chat template, from the small files beside the weights. Imports transformers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import jinja2
import transformers
from tokenizers import Tokenizer

from gateway import Rejected, Weights, WeightsError
from gateway_local.facts import Facts, optional_json
from gateway_local.template import chat_template


def load_tokenizer(weights: Weights, facts: Facts) -> Any:
    """The tokenizer from its files' bytes, with its chat template; nothing is looked up anywhere else.

    WeightsError names the file that is broken, and the line of a chat template that does not compile.
    """
    try:
        core = Tokenizer.from_str(weights.file("tokenizer.json").decode())
    except Exception as error:  # tokenizers raises a bare Exception
        raise WeightsError(f"tokenizer.json cannot be read: {type(error).__name__}") from error
    core.no_truncation()
    core.no_padding()
    config = optional_json(weights, "tokenizer_config.json")
    options = {key: value for key, value in config.items() if key.endswith("_token") and isinstance(value, (str, dict))}
    tokens = {key: value if isinstance(value, str) else value.get("content") for key, value in options.items()}
    tokens = {key: value for key, value in tokens.items() if isinstance(value, str) and core.token_to_id(value) is not None}
    file, template = chat_template(weights, config) if facts.chat else ("", None)
    kind: Any = transformers.PreTrainedTokenizerFast
    side = "left" if config.get("truncation_side") == "left" else "right"
    facts_of = {"chat_template": template, "clean_up_tokenization_spaces": False, "truncation_side": side}
    tokenizer = kind(tokenizer_object=core, **facts_of, **tokens)
    if template is not None:
        check_template(tokenizer, file)
    return tokenizer


def tokenized(tokenizer: Any, *texts: Any, model: str, **options: Any) -> Any:
    """What the tokenizer makes of a text, of a pair, or of lists of them. Rejected for what is no text."""
    try:
        return tokenizer(*texts, verbose=False, **options)
    except (TypeError, UnicodeError) as error:
        message = "the text holds a lone surrogate, which is no character: decode its source as UTF-8 first"
        raise Rejected(message, model=model) from error


def hidden_ids(tokenizer: Any, marks: Collection[str]) -> frozenset[int]:
    """The special tokens that no reader should see: all but `marks`, which a reply is read by.

    ``decode([id for id in ids if id not in hidden], skip_special_tokens=False)`` is the text with the marks in it.
    """
    added = tokenizer.added_tokens_decoder.items()
    special = {id for id, token in added if token.special} | set(tokenizer.all_special_ids)
    return frozenset(special - {id for id, token in added if token.content in marks})


def check_template(tokenizer: Any, file: str) -> None:
    """WeightsError when the chat template does not compile."""
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    except jinja2.TemplateSyntaxError as error:
        message = f"{file}: the chat template does not compile: line {error.lineno}: {error.message}"
        raise WeightsError(message) from error
    except Exception:
        return  # it compiles: a template may refuse this conversation and take another


def eos_ids_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a text, by generation_config, config and tokenizer."""
    ids: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        value = getattr(source, "eos_token_id", None)
        ids.update(value if isinstance(value, Sequence) else () if value is None else (value,))
    return frozenset(ids)
