"""Slots: where the keys and values of all the texts lie that a decoder is writing. Imports torch.

A text's slot is room for the whole of it, reserved before it begins: nothing is ever moved, or runs out halfway. Slots of one
capacity lie side by side in a `Chunk`, so that attention to all of them is one call. A slot that is left keeps what it holds
until the room is wanted, and a text that begins alike copies that part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

Sharing = Literal["tenant", "all", "off"]

CHUNK_TOKENS = 16384
LEAST_CAPACITY = 256
LEAST_SHARED = 16
"""A beginning that is shorter is not worth a copy."""

Layers = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""By layer keys and values, `(slots, heads, capacity, width)`."""


class Chunk:
    """Slots of one capacity, in tokens, and their memory: for layers like those of `like`, which grows as layers are met."""

    def __init__(self, capacity: int, count: int, like: Layers) -> None:
        self.capacity, self._like = capacity, like
        self.slots = [Slot(self, place) for place in range(count)]
        self.layers: Layers = {}
        for at in like:
            self._make(at)

    @property
    def tokens(self) -> int:
        """For how many tokens there is room."""
        return self.capacity * len(self.slots)

    def layer(self, at: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer that is given such keys and values, `(1, heads, time, width)`."""
        if at not in self.layers:
            self._like.setdefault(at, (_like(key), _like(value)))
            self._make(at)
        return self.layers[at]

    def _make(self, at: int) -> None:
        # Zeros, which cost nothing until they are touched: what is masked is multiplied by nought, and that takes a number.
        key, value = (like.new_zeros(len(self.slots), like.shape[1], self.capacity, like.shape[3]) for like in self._like[at])
        self.layers[at] = key, value


@dataclass(eq=False, slots=True)
class Slot:
    """Room for one text. `ids`: the tokens whose keys and values it holds; `tenant`: whose they are."""

    chunk: Chunk
    place: int
    ids: list[int] = field(default_factory=list)
    tenant: str = ""
    taken: bool = False
    left_at: int = 0

    def copy(self, other: Slot, count: int) -> None:
        """Hold the first tokens of another one."""
        for at, theirs in other.chunk.layers.items():
            for ours, held in zip(self.chunk.layers[at], theirs, strict=True):
                ours[self.place, :, :count] = held[other.place, :, :count]
        self.ids = other.ids[:count]

    def wipe(self) -> None:
        """Hold nothing, not even what is no number."""
        self.ids = []
        for key, value in self.chunk.layers.values():
            key[self.place], value[self.place] = 0, 0


class Slots:
    """All slots of a model, of at most so many `tokens`, which one text may have for itself.

    `sharing`: whose beginnings a text may copy, its own tenant's or all.
    """

    def __init__(self, tokens: int, *, sharing: Sharing = "tenant") -> None:
        self._sharing = sharing
        self.layers: Layers = {}
        self._clock = 0
        self.resize(tokens)

    def resize(self, tokens: int) -> None:
        """Forget everything, and hold at most so many tokens from now on; but never too few for a short text."""
        self.tokens = max(tokens, LEAST_CAPACITY)
        self._chunks: list[Chunk] = []

    @property
    def held(self) -> int:
        """For how many tokens there is memory now."""
        return sum(chunk.tokens for chunk in self._chunks)

    @property
    def bytes_per_token(self) -> int:
        """What the keys and values of one token take; known once the model has run."""
        return sum(like.shape[1] * like.shape[3] * like.element_size() for pair in self.layers.values() for like in pair)

    def __iter__(self) -> Iterator[Slot]:
        return (slot for chunk in self._chunks for slot in chunk.slots)

    def shares(self, one: str, other: str) -> bool:
        """Whether one tenant may have what is known of the other's text."""
        return self._sharing == "all" or (self._sharing == "tenant" and one == other)

    def take(self, tokens: int, prompt: Sequence[int], tenant: str) -> Slot | None:
        """A slot for so many tokens, with what is known of the prompt's beginning, but never its last token. None: no room."""
        capacity = min(max(LEAST_CAPACITY, 1 << (tokens - 1).bit_length()), self.tokens)
        source, count = self._alike(prompt, tenant)
        slot = self._free(capacity, source)
        if slot is None and source is not None:  # that one's own room may be wanted
            source, count, slot = None, 0, self._free(capacity, None)
        if slot is None:
            return None
        if source is None or slot is source:
            slot.ids = slot.ids[:count]
        else:
            slot.copy(source, count)
        slot.taken, slot.tenant = True, tenant
        return slot

    def leave(self, slot: Slot) -> None:
        """The text is written, or nobody wants it."""
        self._clock += 1
        slot.taken, slot.left_at = False, self._clock
        if self._sharing == "off":
            slot.ids = []

    def _alike(self, prompt: Sequence[int], tenant: str) -> tuple[Slot | None, int]:
        """The slot that begins most like the prompt, and for how many tokens."""
        best, count = None, min(LEAST_SHARED, len(prompt)) - 1
        for slot in self:
            if self.shares(slot.tenant, tenant):
                alike = shared(slot.ids, prompt[:-1])
                if alike > count:
                    best, count = slot, alike
        return best, count if best else 0

    def _free(self, capacity: int, source: Slot | None) -> Slot | None:
        """A slot that nobody is writing in: an empty one, a new one, or the one that was left longest ago."""
        fits = [slot for slot in self if slot.chunk.capacity == capacity and not slot.taken]
        empty = next((slot for slot in fits if not slot.ids), None)
        if empty is not None:
            return empty
        count = max(1, min(CHUNK_TOKENS, self.tokens // 8) // capacity)
        room = self.tokens - capacity * count
        idle = [chunk for chunk in self._chunks if not any(slot.taken for slot in chunk.slots) and not _holds(chunk, source)]
        for chunk in sorted(idle, key=lambda chunk: max(slot.left_at for slot in chunk.slots)):
            if self.held <= room or fits:
                break
            self._chunks.remove(chunk)
        if self.held <= room:
            self._chunks.append(Chunk(capacity, count, self.layers))
            return self._chunks[-1].slots[0]
        return min(fits, key=lambda slot: (slot is source, slot.left_at), default=None)


def _like(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.new_empty(1, tensor.shape[1], 0, tensor.shape[3])


def _holds(chunk: Chunk, slot: Slot | None) -> bool:
    return slot is not None and slot.chunk is chunk


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
