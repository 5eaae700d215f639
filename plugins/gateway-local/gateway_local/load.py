"""A model and its tokenizer from opened weights, without a temporary file and without a copy that is not needed."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers import GenerationConfig

from gateway import TensorInfo, Weights, WeightsError
from gateway_local.facts import Facts, is_head, optional_json

TORCH_DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip


ONE_THREAD_BYTES = 64 << 20
"""Below this a matrix is too small to be worth sharing between threads."""


@dataclass(frozen=True)
class Loaded:
    """A model ready to run. `eos_ids` are the tokens that end a text."""

    model: Any
    tokenizer: Any
    eos_ids: frozenset[int]


class LazyTensor:
    """A tensor that is read when the loader slices it. What the loader asks of one (transformers 5): dtype, shape, slice."""

    def __init__(self, info: TensorInfo, read: Callable[[], memoryview]) -> None:
        self._info = info
        self._read = read
        self.dtype = TORCH_DTYPES[info.dtype]

    def get_shape(self) -> list[int]:
        """The shape, without reading."""
        return list(self._info.shape)

    def is_floating_point(self) -> bool:
        """Whether the dtype is a floating-point one."""
        return self.dtype.is_floating_point

    def __getitem__(self, index: Any) -> torch.Tensor:
        view = self._read()
        if not self._info.bytes:
            return torch.empty(self._info.shape, dtype=self.dtype)[index]
        tensor = torch.frombuffer(view, dtype=self.dtype)
        if tensor.data_ptr() % self.dtype.itemsize:
            tensor = tensor.clone()  # frombuffer accepts a misaligned offset silently; some kernels do not
        return tensor.reshape(self._info.shape)[index]


def load(
    weights: Weights,
    facts: Facts,
    *,
    device: str,
    dtype: str,
    progress: Callable[[int, int], None],
    gone: Callable[[], bool],
) -> Loaded:
    """Read everything. WeightsError when the tensors are not those of the architecture, or anything is damaged."""
    if device == "cpu" and facts.params * 4 <= ONE_THREAD_BYTES:
        compute_on_one_thread()
    model = load_model(weights, facts, dtype=getattr(torch, dtype), progress=progress, gone=gone)
    tokenizer = load_tokenizer(weights)
    model.to(device)
    model.eval()
    if facts.embed is None:
        if "past_key_values" not in inspect.signature(model.forward).parameters:
            raise WeightsError(f"the architecture {facts.architecture!r} keeps no key-value cache, and is not served yet")
        if "generation_config.json" in weights.files:
            model.generation_config = GenerationConfig.from_dict(weights.json("generation_config.json"))
    return Loaded(model, tokenizer, eos_ids_of(model, tokenizer))


def compute_on_one_thread() -> None:
    """Make torch compute without helper threads on the calling thread, and on no other.

    OpenMP's helpers wait by spinning. For a tiny model they gain nothing, and on a busy machine they made each token ten
    times slower (50 ms for 4.5). torch keeps the count per thread, but also as the default of threads that come
    later: so that is set back, from a thread that ends at once.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    back = threading.Thread(target=torch.set_num_threads, args=(before,))
    back.start()
    back.join()


def load_model(
    weights: Weights,
    facts: Facts,
    *,
    dtype: torch.dtype,
    progress: Callable[[int, int], None],
    gone: Callable[[], bool],
) -> Any:
    """The model on the CPU, in `dtype`, every weight accounted for."""
    kind, config = model_class(weights, facts)
    state = lazy_tensors(weights, facts, progress, gone)
    try:
        with quiet():
            # Mismatched shapes are let through here so that `check_loaded` can refuse them by name.
            model, info = kind.from_pretrained(
                None, config=config, state_dict=state, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except WeightsError:
        raise
    except Exception as error:
        if gone():
            raise WeightsError("the load was given up") from error
        raise WeightsError(f"the weights do not load as {facts.architecture!r}: {type(error).__name__}") from error
    check_loaded(info, facts)
    return model


def model_class(weights: Weights, facts: Facts) -> tuple[Any, Any]:
    """The class to make, and its configuration; an encoder's head is left off. Code that came with the weights is not run."""
    raw = weights.json("config.json")
    raw.pop("auto_map", None)
    kind = getattr(transformers, facts.architecture, None)
    if kind is None:
        raise WeightsError(f"the installed transformers has no {facts.architecture!r}")
    config = kind.config_class.from_dict(raw)
    if facts.embed is not None:
        kind = transformers.AutoModel._model_mapping[type(config)]
    return kind, config


def lazy_tensors(
    weights: Weights, facts: Facts, progress: Callable[[int, int], None], gone: Callable[[], bool]
) -> dict[str, LazyTensor]:
    """Every tensor of the model, unread. The loader reads them on a few threads; `progress` is told bytes done and in all."""
    lock = threading.Lock()
    done = 0
    wanted = {name: info for name, info in weights.tensors.items() if facts.embed is None or not is_head(name)}
    total = sum(info.bytes for info in wanted.values())

    def reader(name: str, info: TensorInfo) -> Callable[[], memoryview]:
        def read() -> memoryview:
            nonlocal done
            if gone():
                raise WeightsError("the load was given up")
            view = weights.read(name)
            with lock:
                done += info.bytes
                progress(done, total)
            return view

        return read

    unknown = sorted({info.dtype for info in wanted.values()} - TORCH_DTYPES.keys())
    if unknown:
        raise WeightsError(f"tensors of the type {', '.join(unknown)} are not served yet")
    return {name: LazyTensor(info, reader(name, info)) for name, info in wanted.items()}


def check_loaded(info: Mapping[str, Any], facts: Facts) -> None:
    """WeightsError unless every weight of the model was in the file, in its shape, and nothing else was.

    Tied weights and what a family names as left out are settled by the loader. An encoder may lack its pooler, or have
    one that its class does not: sentence embeddings are pooled from the last hidden state and never look at it.
    """
    pooler = "pooler." if facts.embed is not None else "\0"
    missing = {key for key in info["missing_keys"] if not key.startswith(pooler)}
    unexpected = {key for key in info["unexpected_keys"] if pooler not in key}
    shapes = {str(key[0]) for key in info["mismatched_keys"]}
    for keys, what in ((missing, "lack"), (unexpected, "hold, beyond the model,"), (shapes, "have in another shape")):
        if keys:
            first = ", ".join(sorted(keys)[:3])
            raise WeightsError(f"the weights {what} {len(keys)} tensors of {facts.architecture!r}: {first}, ...")
    if info["error_msgs"]:
        raise WeightsError(f"the weights do not load as {facts.architecture!r}")


def load_tokenizer(weights: Weights) -> Any:
    """The tokenizer from its files' bytes, with its chat template; nothing is looked up anywhere else."""
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
    template = config.get("chat_template")
    if isinstance(template, list):  # several named ones: the default is what a plain chat uses
        template = {row["name"]: row["template"] for row in template}.get("default")
    if "chat_template.jinja" in weights.files:
        template = weights.file("chat_template.jinja").decode()
    kind: Any = transformers.PreTrainedTokenizerFast
    return kind(tokenizer_object=core, chat_template=template, clean_up_tokenization_spaces=False, **tokens)


def eos_ids_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a text, by generation_config, config and tokenizer."""
    ids: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        value = getattr(source, "eos_token_id", None)
        ids.update(value if isinstance(value, Sequence) else () if value is None else (value,))
    return frozenset(ids)


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own progress bar: the gateway shows progress itself."""
    bar: Any = transformers.logging
    shown = bar.is_progress_bar_enabled()
    bar.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bar.enable_progress_bar()
