"""Hop: deltas pass the rewrites in reverse order, and what is held back comes out at the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway import Chat, Delta, Rewrite, Text, assemble
from gateway.hop import Hop


class Marks(Rewrite):
    """Puts its mark behind every delta and at the end; holds back so many deltas first."""

    def __init__(self, mark: str, hold: int = 0) -> None:
        super().__init__(Chat.ask("a"))
        self.mark, self.hold, self.held = mark, hold, list[Delta]()

    def feed(self, delta: Delta) -> Iterable[Delta]:
        self.held.append(Delta(delta.data + self.mark))
        while len(self.held) > self.hold:
            yield self.held.pop(0)

    def flush(self) -> Iterable[Delta]:
        yield from self.held
        yield Delta(self.mark.upper())


def through(*rewrites: Rewrite, deltas: Iterable[str] = ("1", "2")) -> str:
    # Feeding and flushing use nothing of a hop but its rewrites.
    nothing: Any = None
    hop = Hop(nothing, nothing, nothing, nothing, Chat.ask("a"), rewrites=[("test", rewrite) for rewrite in rewrites])
    out = [one for data in deltas for one in hop.feed(Delta(data))]
    return "".join(part.text for part in assemble([*out, *hop.flush()]) if isinstance(part, Text))


def test_without_rewrites_deltas_pass_as_they_are() -> None:
    assert through() == "12"


def test_the_last_rewrite_on_the_way_out_is_the_first_on_the_way_back() -> None:
    assert through(Marks("a"), Marks("b")) == "1ba2baBaA"


def test_what_a_later_rewrite_flushes_is_fed_to_the_earlier_ones() -> None:
    assert through(Marks("a"), Marks("b", hold=2)) == "1ba2baBaA"
    assert through(Marks("a", hold=5), Marks("b", hold=1), deltas="123") == "1ba2ba3baBaA"


def test_an_empty_stream_is_flushed_too() -> None:
    assert through(Marks("a"), Marks("b"), deltas=()) == "BaA"
