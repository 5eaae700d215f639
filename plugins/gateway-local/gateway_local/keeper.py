"""Keeper: which models are in memory together, within a budget of bytes."""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway import ConfigError, Overloaded
from gateway_local.facts import BYTES, rounded


class Kept(Protocol):
    """A model that may be in memory."""

    name: str
    pinned: bool
    """Whether it stays, once it is loaded."""

    @property
    def bytes(self) -> int:
        """What it takes, or will take once it is loaded."""

    @property
    def busy(self) -> bool:
        """Whether it is being loaded, or has requests."""

    def unload(self) -> None:
        """Let go of it; `Keeper.leave` is told."""


class Keeper:
    """Keeps the loaded models of one section within `memory_bytes`; None: without a limit. Used on the event loop alone."""

    def __init__(self, memory_bytes: int | None = None) -> None:
        self._memory_bytes = memory_bytes
        self._kept: dict[Kept, None] = {}
        """Those in memory, the least recently used first."""
        self._going: set[asyncio.Future[None]] = set()

    def room(self, name: str, bytes: int) -> int | None:
        """What is left when it alone is loaded; None without a limit. ConfigError for a model that can never be."""
        if self._memory_bytes is None:
            return None
        if bytes > self._memory_bytes:
            raise ConfigError(
                f"plugin.local.memory_bytes: model {name!r} takes {rounded(bytes, BYTES)}, more than the "
                f"{rounded(self._memory_bytes, BYTES)} for all models together: allow more, or choose a smaller dtype, "
                "fewer replicas or a smaller model"
            )
        return self._memory_bytes - bytes

    async def admit(self, model: Kept) -> None:
        """Make room for a model that is about to be loaded: idle ones go, the least recently used first.

        Overloaded, and nobody goes, when there would still be no room.
        """
        idle, free = self._idle(model.bytes)
        if free is not None and free < model.bytes:
            holding = ", ".join(f"{one.name} {rounded(one.bytes, BYTES)}" for one in self._kept if one.busy or one.pinned)
            message = (
                f"there is no memory to load model {model.name!r} now: it takes {rounded(model.bytes, BYTES)} of the "
                f"{rounded(self._memory_bytes or 0, BYTES)} that all models may take (memory_bytes), and busy or pinned are: "
                f"{holding}"
            )
            raise Overloaded(message, model=model.name)
        self._kept[model] = None  # before anything is waited for: who comes meanwhile must see it
        for one in idle:
            one.unload()
        while self._going:
            await asyncio.wait(self._going)

    def used(self, model: Kept) -> None:
        """It has just been used, and its cache may have grown: where that is too much, other idle ones go."""
        self._kept.pop(model, None)
        self._kept[model] = None
        for one in self._idle(0)[0]:
            if one is not model:
                one.unload()

    def leave(self, model: Kept, freed: asyncio.Future[None] | None = None) -> None:
        """It is not in memory any more, or will not be once `freed` is done."""
        self._kept.pop(model, None)
        if freed is not None:
            self._going.add(freed)
            freed.add_done_callback(self._going.discard)

    def _idle(self, wanted: int) -> tuple[list[Kept], int | None]:
        """Who has to go so that so many bytes are free, and how many are then; None without a limit."""
        if self._memory_bytes is None:
            return [], None
        free, going = self._memory_bytes - sum(one.bytes for one in self._kept), list[Kept]()
        for one in self._kept:
            if free < wanted and not one.busy and not one.pinned:
                going.append(one)
                free += one.bytes
        return going, free
