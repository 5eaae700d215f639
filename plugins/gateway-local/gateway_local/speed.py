"""How fast this machine computes, and so how long a model will take: a prior before anything is loaded. No torch is imported.

The figures are measured once a machine, by the first load or `gateway check`, which have torch, and kept in the user's cache
(``$XDG_CACHE_HOME/gateway-local``, else ``~/.cache/gateway-local``). Until then, and for a GPU, middling ones stand in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from gateway_local.facts import Facts, bytes_of, kv_bytes_per_token

FORMAT = 1
MOST_BYTES = 100_000
PROMPT_TOKENS = 256
"""Of a middling request."""

BEYOND = 1.5
"""A model takes so many times what its weights alone do, read or multiplied, for attention, norms and small pages of memory.
As measured with benchmarks/local_prior.py."""

MIXTURE = 1.75
"""How many times as long a layer takes that sends tokens to experts."""

ONE_THREAD_BYTES = 64 << 20
"""A model whose weights take less as float32 computes on one thread: its matrices are too small to be worth sharing."""

TRANSPOSED = frozenset({"gpt2"})
"""Model types that keep their matrices the other way round (Conv1D): in 16 bits, torch's kernels for these are far slower."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast weights are read for one token, and how fast many tokens are multiplied with them."""

    bytes_per_s: float
    flops: float


@dataclass(frozen=True, kw_only=True)
class Speed:
    """A machine. Each pass through a model takes `step_s`, and each layer of it `layer_s`, however small they are.

    `rates` by the name of `rate_name`.
    """

    step_s: float
    layer_s: float
    rates: Mapping[str, Rate]


def rate_name(dtype: str, *, one_thread: bool, transposed: bool) -> str:
    """The name of a rate, such as "float32", "bfloat16 one thread", "bfloat16 transposed"."""
    if transposed and dtype != "float32":
        return f"{dtype} transposed"
    return f"{dtype} one thread" if one_thread else dtype


DTYPES = ("float32", "bfloat16", "float16")
_FULL, _HALF = Rate(bytes_per_s=15e9, flops=6e10), Rate(bytes_per_s=9e9, flops=1e10)
CPU = Speed(
    step_s=0.5e-3,
    layer_s=0.5e-3,
    rates={
        "float32": _FULL,
        "float32 one thread": _FULL,
        **{f"{dtype}{threads}": _HALF for dtype in DTYPES[1:] for threads in ("", " one thread")},
        **{f"{dtype} transposed": Rate(bytes_per_s=1e9, flops=1e9) for dtype in DTYPES[1:]},
    },
)
"""A small server without 16-bit arithmetic; measured on two cores with AVX2."""

GPU = Speed(
    step_s=0.5e-3,
    layer_s=0.5e-3,
    rates={name: Rate(bytes_per_s=1e12, flops=5e13) for name in CPU.rates},
)


def prior(facts: Facts, dtype: str, speed: Speed) -> tuple[float, float]:
    """Seconds to the first token of a middling request, and per token after it, when the model serves it alone.

    A token takes its passes through the layers and the reading of the weights that it needs, and of what the tokens before it
    left in the cache; a prompt is in addition multiplied with the weights.
    """
    rate, beyond = _rate(facts, dtype, speed)
    width = bytes_of(facts, dtype) / facts.params
    read = facts.sizes.read * width + (kv_bytes_per_token(facts, dtype) or 0) * PROMPT_TOKENS
    layer_s = speed.layer_s * (MIXTURE if facts.sizes.active < facts.params else 1.0)
    per_token_s = speed.step_s + layer_s * facts.layers + beyond * read / rate.bytes_per_s
    prefill_s = PROMPT_TOKENS / prompt_tokens_per_s(facts, dtype, speed)
    return prefill_s + per_token_s, 0.0 if facts.encoder else per_token_s


def prompt_tokens_per_s(facts: Facts, dtype: str, speed: Speed) -> float:
    """How many tokens of a prompt are read in a second."""
    rate, beyond = _rate(facts, dtype, speed)
    return rate.flops / (beyond * 2 * facts.sizes.body)


def _rate(facts: Facts, dtype: str, speed: Speed) -> tuple[Rate, float]:
    """The rates for a model, and how many times what they say it takes."""
    one_thread, transposed = facts.params * 4 <= ONE_THREAD_BYTES, facts.model_type in TRANSPOSED
    slow = transposed and dtype != "float32"  # kernels so slow that nothing else shows
    return speed.rates[rate_name(dtype, one_thread=one_thread, transposed=transposed)], 1.0 if slow else BEYOND


def recall(folder: Path | None = None) -> Speed | None:
    """What was measured on this machine with this torch; None when nothing was, or it cannot be read."""
    try:
        with cache_file(folder).open("rb") as file:
            kept = json.loads(file.read(MOST_BYTES))
        if kept["format"] != FORMAT or kept["machine"] != machine():
            return None
        rates = {
            str(name): Rate(**{key: _positive(value) for key, value in row.items()}) for name, row in kept["rates"].items()
        }
        if not CPU.rates.keys() <= rates.keys():
            return None
        return Speed(step_s=_positive(kept["step_s"]), layer_s=_positive(kept["layer_s"]), rates=rates)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, RuntimeError):
        return None  # a cache: it is measured anew


def keep(speed: Speed, folder: Path | None = None) -> None:
    """Put it where `recall` finds it. Where nothing can be written, nothing is kept."""
    kept = {
        "format": FORMAT,
        "machine": machine(),
        "step_s": speed.step_s,
        "layer_s": speed.layer_s,
        "rates": {name: {"bytes_per_s": rate.bytes_per_s, "flops": rate.flops} for name, rate in speed.rates.items()},
    }
    with contextlib.suppress(OSError, RuntimeError):
        path = cache_file(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(kept, file, indent=1)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def cache_file(folder: Path | None = None) -> Path:
    """The file for this machine: one each, for several may share a home. RuntimeError where the user has none."""
    if folder is None:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "gateway-local")
    digest = hashlib.sha256(json.dumps(machine()).encode()).hexdigest()
    return folder / f"speed-{digest[:16]}.json"


def machine() -> list[str]:
    """What the figures hold for: the processor, how many of its cores are ours, and torch's version."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [processor(), str(cores), os.environ.get("OMP_NUM_THREADS", ""), torch_version()]


@cache
def torch_version() -> str:
    """The version of torch that is installed; "" for none. Looking it up takes longer than all the rest."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""


def processor() -> str:
    """The processor's name and what it can do, as far as the system tells."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            rows = dict(row.partition(":")[::2] for row in file.read(20_000).partition("\n\n")[0].splitlines())
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    found = {key.strip(): value.strip() for key, value in rows.items()}
    return " ".join(found.get(key, "") for key in ("vendor_id", "cpu family", "model", "model name", "flags", "Features"))


def _positive(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
        raise ValueError("not a positive number")
    return float(value)
