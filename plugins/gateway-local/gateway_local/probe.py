"""Measuring this machine, in about a second: how fast it reads weights, multiplies, and runs a layer. Imports torch."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import cycle
from typing import Any

import torch
import transformers
from torch.nn.functional import linear

from gateway_local.build import alone
from gateway_local.imports import import_code
from gateway_local.load import compute_on_one_thread
from gateway_local.passes import cache_argument
from gateway_local.speed import DTYPES, Rate, Speed, keep, rate_name, recall

WIDTH = 1024
LARGE_BYTES, SMALL_BYTES = 128 << 20, 32 << 20
"""What is read round and round: more than a cache holds; and about as much as a model that computes on one thread has."""

PROMPT, SHORT_PROMPT = 32, 8
SAMPLE_S = 0.04
STEPS = 24

log = logging.getLogger(__name__)
_measuring = threading.Lock()
"""Two measurements side by side would each see half a machine."""


def ensure() -> None:
    """Measure this machine, unless that has been done: by an earlier run, whose figures are on disk, or in this process."""
    with _measuring:
        if recall() is None:
            try:
                keep(measured())
            except Exception as error:  # no figure is worth a load that fails
                log.warning("this machine could not be measured (%s): middling figures stand in", type(error).__name__)


@cache
def measured() -> Speed:
    """The figures, measured once in a process: where nothing can be written to disk, the next load does not do it again."""
    import_code("LlamaForCausalLM", gone=lambda: False)
    # A thread of its own: its count of threads, and OpenMP's helpers that wait for more work, end with it.
    with ThreadPoolExecutor(1, "gateway-local probe") as pool:
        return pool.submit(_measure).result()


@torch.inference_mode()
def _measure() -> Speed:
    threads = torch.get_num_threads()
    weights = torch.ones(LARGE_BYTES // 4, dtype=torch.float32)
    many = {dtype: _rate(weights, getattr(torch, dtype)) for dtype in DTYPES}
    compute_on_one_thread()
    some = weights[: SMALL_BYTES // 4]
    rates = {}
    for dtype in DTYPES:
        one = _rate(some, getattr(torch, dtype))
        # More threads are never slower than one but when others use the machine too, and this is to hold when they do not.
        rates[rate_name(dtype, one_thread=True, transposed=False)] = one
        rates[dtype] = Rate(bytes_per_s=max(one.bytes_per_s, many[dtype].bytes_per_s), flops=max(one.flops, many[dtype].flops))
        if dtype != "float32":
            rates[f"{dtype} transposed"] = _rate(some, getattr(torch, dtype), transposed=True)
    few, more = _pass_s(2), _pass_s(6)
    layer_s = max((more - few) / 4, few / 100)
    torch.set_num_threads(threads)
    return Speed(step_s=max(few - 2 * layer_s, few / 100), layer_s=layer_s, rates=rates)


def _rate(weights: torch.Tensor, dtype: torch.dtype, *, transposed: bool = False) -> Rate:
    matrices = weights.view(dtype).view(-1, WIDTH, WIDTH)
    multiply: Callable[..., Any] = torch.mm if transposed else linear

    def per_s(tokens: int, work: float) -> float:
        given = torch.ones(tokens, WIDTH, dtype=dtype)
        return work / _seconds(lambda matrix: multiply(given, matrix), cycle(matrices))

    size = WIDTH * WIDTH
    return Rate(
        bytes_per_s=per_s(1, size * dtype.itemsize),
        flops=per_s(tokens := SHORT_PROMPT if transposed else PROMPT, 2.0 * size * tokens),
    )


def _seconds(work: Callable[[torch.Tensor], Any], matrices: Iterator[torch.Tensor]) -> float:
    """What it takes for one matrix, the best within the sample's time: others may use the machine too. None is in a cache."""
    work(next(matrices))
    best, until = math.inf, time.perf_counter() + SAMPLE_S
    while best == math.inf or time.perf_counter() < until:
        began = time.perf_counter()
        work(next(matrices))
        best = min(best, time.perf_counter() - began)
    return best


def _pass_s(layers: int) -> float:
    """One token through a model that is nothing but its layers."""
    library: Any = transformers
    config = library.LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_hidden_layers=layers,
        vocab_size=64,
    )
    with alone(lambda: False), torch.device("meta"):  # no random number is drawn, here or for the app
        model = library.LlamaForCausalLM(config)
    model.to_empty(device="cpu").eval()
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.zero_()
    kept = {str(cache_argument(model)): transformers.DynamicCache(config=config)}
    token = torch.zeros(1, 1, dtype=torch.long)
    best = math.inf
    for _ in range(STEPS):
        began = time.perf_counter()
        model(input_ids=token, **kept, use_cache=True, logits_to_keep=1, return_dict=True)
        best = min(best, time.perf_counter() - began)
    return best
