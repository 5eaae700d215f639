"""A model and its tokenizer from opened weights, without a temporary file and without a copy that is not needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from gateway import TensorInfo, Weights, WeightsError
from gateway_local.build import HeaderTensor, build, check_fit, model_class, wanted_tensors
from gateway_local.facts import Facts
from gateway_local.passes import cache_argument
from gateway_local.speed import ONE_THREAD_BYTES
from gateway_local.tokens import eos_ids_of, load_tokenizer


@dataclass(frozen=True)
class Loaded:
    """A model ready to run. `eos_ids` are the tokens that end a text."""

    model: Any
    tokenizer: Any
    eos_ids: frozenset[int]


@dataclass(frozen=True)
class Checked:
    """What is known to be in order before the first tensor is read."""

    tokenizer: Any
    generation_config: Any


class LazyTensor(HeaderTensor):
    """A tensor that is read when the loader slices it."""

    def __init__(self, info: TensorInfo, read: Callable[[], memoryview]) -> None:
        super().__init__(info)
        self._read = read

    def __getitem__(self, index: Any) -> torch.Tensor:
        view = self._read()
        if not self.info.bytes:
            return torch.empty(self.info.shape, dtype=self.dtype)[index]
        tensor = torch.frombuffer(view, dtype=self.dtype)
        if tensor.data_ptr() % self.dtype.itemsize:
            tensor = tensor.clone()  # frombuffer accepts a misaligned offset silently; some kernels do not
        return tensor.reshape(self.info.shape)[index]


def check(weights: Weights, facts: Facts) -> Checked:
    """Refuse what `load` would refuse, from headers and small files alone. WeightsError names the file or the tensor."""
    tokenizer = load_tokenizer(weights, facts)
    model = check_fit(weights, facts)
    if facts.encoder:
        return Checked(tokenizer, None)
    if cache_argument(model) is None:
        raise WeightsError(f"the architecture {facts.architecture!r} keeps no cache between tokens, and is not served yet")
    config = generation_config(weights, facts)
    if facts.rewrite is not None and config.decoder_start_token_id is None and config.bos_token_id is None:
        raise WeightsError("no decoder_start_token_id in generation_config.json, nor in config.json where there is no other")
    return Checked(tokenizer, config)


def generation_config(weights: Weights, facts: Facts) -> Any:
    """How the model's files say that it writes; None where they do not."""
    name = "generation_config.json"
    try:
        if name in weights.files:
            return GenerationConfig.from_dict(weights.json(name))
        if facts.rewrite is None:
            return None
        name = "config.json"  # where encoder-decoders of before 2023 say it
        return GenerationConfig.from_model_config(weights.json(name))
    except (TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{name} is no generation configuration: {type(error).__name__}") from error


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
    checked = check(weights, facts)
    if device == "cpu" and facts.params * 4 <= ONE_THREAD_BYTES:
        compute_on_one_thread()
    kind, config = model_class(weights, facts)
    model = build(kind, config, lazy_tensors(weights, facts, progress, gone), facts, dtype=getattr(torch, dtype), gone=gone)
    model.to(device)
    model.eval()
    if checked.generation_config is not None:
        model.generation_config = checked.generation_config
    return Loaded(model, checked.tokenizer, eos_ids_of(model, checked.tokenizer))


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


def lazy_tensors(
    weights: Weights, facts: Facts, progress: Callable[[int, int], None], gone: Callable[[], bool]
) -> dict[str, LazyTensor]:
    """Every tensor of the model, unread. The loader reads them on a few threads; `progress` is told bytes done and in all."""
    lock = threading.Lock()
    done = 0
    wanted = wanted_tensors(weights, facts)
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

    return {name: LazyTensor(info, reader(name, info)) for name, info in wanted.items()}
