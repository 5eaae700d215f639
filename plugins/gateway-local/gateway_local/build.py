"""A model built by transformers' own loader from a state dict, and refused unless every weight fits. Imports torch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import transformers

from gateway import TensorInfo, Weights, WeightsError
from gateway_local.facts import Facts, is_head

TORCH_DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip


MAKING = threading.Lock()


class HeaderTensor:
    """A tensor of which only the header is known. What the loader asks of one (transformers 5): dtype, shape, slice."""

    def __init__(self, info: TensorInfo) -> None:
        self.info = info
        self.dtype = TORCH_DTYPES[info.dtype]

    def get_shape(self) -> list[int]:
        """The shape, without reading."""
        return list(self.info.shape)

    def is_floating_point(self) -> bool:
        """Whether the dtype is a floating-point one."""
        return self.dtype.is_floating_point

    def __getitem__(self, index: Any) -> torch.Tensor:
        return torch.empty(self.info.shape, dtype=self.dtype, device="meta").as_subclass(Outline)[index]


class Outline(torch.Tensor):
    """A shape without numbers, which stays one when the loader wants it on a device."""

    def to(self, *args: Any, **kwargs: Any) -> Outline:
        """Itself: there is nothing to move."""
        return self


def check_fit(weights: Weights, facts: Facts) -> Any:
    """The model's outline, without numbers, when the headers agree with the architecture; else WeightsError. Reads no tensor.

    It is the loader itself that compares, so what it renames, fuses, ties or leaves out is judged as at a load.
    """
    kind, config = model_class(weights, facts)
    # Weights that are missing or of another shape would be made up at random, gigabytes of them.
    bare: Any = type(kind.__name__, (kind,), {"initialize_weights": lambda self: None, "__module__": kind.__module__})
    state = {name: HeaderTensor(info) for name, info in wanted_tensors(weights, facts).items()}
    return build(bare, config, state, facts, dtype=TORCH_DTYPES[facts.stored], gone=lambda: False)


def build(
    kind: Any, config: Any, state: Mapping[str, HeaderTensor], facts: Facts, *, dtype: torch.dtype, gone: Callable[[], bool]
) -> Any:
    """The model on the CPU, in `dtype`, every weight accounted for."""
    try:
        with alone(gone), quiet():
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


def _plain(value: Any) -> Any:
    """JSON with floats in the place of ``{"__float__": "Infinity"}``, as transformers writes those that JSON has not."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    named = value.get("__float__")
    return float(named) if named in ("NaN", "Infinity", "-Infinity") else {key: _plain(each) for key, each in value.items()}


def model_class(weights: Weights, facts: Facts) -> tuple[Any, Any]:
    """The class to make, and its configuration; an encoder's head is left off. Code that came with the weights is not run."""
    raw = _plain(weights.json("config.json"))
    raw.pop("auto_map", None)
    kind = getattr(transformers, facts.architecture, None)
    if kind is None:
        raise WeightsError(f"the installed transformers has no {facts.architecture!r}")
    try:
        config = kind.config_class.from_dict(raw)
    except Exception as error:  # transformers checks the values with errors of several libraries
        raise WeightsError(f"config.json is no configuration of {facts.architecture!r}: {type(error).__name__}") from error
    if facts.embed is not None:
        kind = transformers.AutoModel._model_mapping[type(config)]
    return kind, config


def wanted_tensors(weights: Weights, facts: Facts) -> dict[str, TensorInfo]:
    """The tensors that the model takes: all but an encoder's head."""
    wanted = {name: info for name, info in weights.tensors.items() if facts.embed is None or not is_head(name)}
    unknown = sorted({info.dtype for info in wanted.values()} - TORCH_DTYPES.keys())
    if unknown:
        raise WeightsError(f"tensors of the type {', '.join(unknown)} are not served yet")
    return wanted


def check_loaded(info: Mapping[str, Any], facts: Facts) -> None:
    """WeightsError unless every weight of the model was in the file, in its shape, and nothing else was.

    Tied weights and what a family names as left out are settled by the loader. An encoder may have a pooler that its class has
    not, and one for sentence embeddings may lack it: they are pooled from the last hidden state and never look at it.
    """
    missing = {key for key in info["missing_keys"] if facts.embed is None or not key.startswith("pooler.")}
    unexpected = {key for key in info["unexpected_keys"] if not facts.encoder or "pooler." not in key}
    shapes = {f"{name} {list(found)} for {list(wanted)}" for name, found, wanted in info["mismatched_keys"]}
    for keys, what in ((missing, "lack"), (unexpected, "hold, beyond the model,"), (shapes, "have in another shape")):
        if keys:
            first = ", ".join(sorted(keys)[:3]) + (", ..." if len(keys) > 3 else "")
            raise WeightsError(f"the weights {what} {len(keys)} tensors of {facts.architecture!r}: {first}")
    if info["error_msgs"]:
        raise WeightsError(f"the weights do not load as {facts.architecture!r}")


@contextmanager
def alone(gone: Callable[[], bool]) -> Iterator[None]:
    """No other model is made meanwhile. WeightsError when it is `gone` before its turn.

    transformers patches its own classes while it makes one (`initialization.no_tie_weights`), and sets torch's default dtype:
    of two at once one would get the other's, and the patch might stay.
    """
    while not MAKING.acquire(timeout=0.1):
        if gone():
            raise WeightsError("the load was given up")
    try:
        yield
    finally:
        MAKING.release()


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own progress bar and load report: the gateway shows progress, and errors, itself."""
    bar: Any = transformers.logging
    shown = bar.is_progress_bar_enabled()
    bar.disable_progress_bar()
    here = threading.get_ident()

    def passes(record: logging.LogRecord) -> bool:
        return record.thread != here or record.levelno >= logging.ERROR

    # A filter of its own and not the logger's level: an app may load models too, and its settings stay.
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)
        if shown:
            bar.enable_progress_bar()
