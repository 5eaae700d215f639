"""What ``[plugin.local]`` of gateway.toml may say, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway import ConfigError, parse_config

Task = Literal["generate", "chat", "embed", "classify", "rerank", "extract", "answer", "summarize", "translate"]
Device = str
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

RESERVED = "starter"


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """One row of ``models``."""

    name: str
    weights: str
    """A directory, or any uri that an installed weight store reads, such as ``hf:org/name``."""
    key: str | list[str] = field(default_factory=list)
    """Where the weights are sealed: reference of the key that opens them, such as ``env:NAME``, or several to try in turn."""
    device: Device = "auto"
    """"auto" is the GPU where there is one; otherwise a torch device such as "cpu" or "cuda:1"."""
    dtype: Dtype = "auto"
    """"auto" is as stored, except on a CPU without bfloat16 arithmetic: see `gateway_local.facts.chosen_dtype`."""
    quality: float | dict[str, float] | None = None
    languages: list[str] | None = None
    max_queue: int = 64
    """How many requests may wait; one more is refused with Overloaded."""
    max_batch: int = 16
    """How many requests a decoder answers at once; those do not count as waiting."""
    cache_bytes: int | None = None
    """How much memory a decoder may keep keys and values in; None: three tenths of what is free once it is loaded."""
    replicas: int = 1
    """How many copies are loaded, each with a thread of its own."""
    pinned: bool = False
    """Whether it stays loaded whatever else is wanted."""
    idle_s: float | None = None
    """Let go of it when it has had no request for so many seconds; None: only when another model needs the memory."""
    prefix_sharing: Literal["tenant", "all", "off"] = "tenant"
    """Whose prompts may begin with what is known of another's already. How fast an answer begins then tells that somebody has
    asked alike: so by default only the same tenant's (`Meta.tenant`)."""
    last_resort: bool = False
    """Whether it is asked only when no other model may be."""
    tasks: list[Task] | None = None
    """Serve only these of the tasks that the model can do."""

    def __post_init__(self) -> None:
        if not self.name or not self.weights:
            raise ConfigError("plugin.local.models: name and weights must not be empty")
        for key, least in (("max_queue", 1), ("max_batch", 1), ("cache_bytes", 0), ("replicas", 1), ("idle_s", 0)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ConfigError(f"plugin.local.models: {key} of {self.name!r} must be at least {least}")
        if self.pinned and self.idle_s is not None:
            raise ConfigError(f"plugin.local.models: {self.name!r} is pinned, and has an idle_s: leave one of them out")
        if self.tasks is not None and not self.tasks:
            raise ConfigError(f"plugin.local.models: tasks of {self.name!r} is empty; leave it out to serve all")


@dataclass(frozen=True, kw_only=True)
class LocalOptions:
    """The whole section."""

    models: list[ModelOptions] = field(default_factory=list)
    starter: bool = True
    """Whether to serve the small model that comes with this package, under the name "starter"."""
    memory_bytes: int | None = None
    """What all loaded models may take together; idle ones are let go of for others. None: no limit."""

    def __post_init__(self) -> None:
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise ConfigError("plugin.local.memory_bytes must be at least 1; leave it out for no limit")


def read_options(config: Mapping[str, Any]) -> LocalOptions:
    """The section as options. ConfigError names every key that is wrong, and a name that is given twice."""
    options = parse_config(LocalOptions, dict(config), "plugin.local")
    seen = {RESERVED} if options.starter else set()
    for row in options.models:
        if row.name in seen:
            hint = "; set starter = false to use it" if row.name == RESERVED and options.starter else ""
            raise ConfigError(f"plugin.local.models: the name {row.name!r} is taken{hint}")
        seen.add(row.name)
    return options
