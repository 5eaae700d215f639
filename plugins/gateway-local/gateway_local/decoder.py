"""Decoder: a decoder at work on the owner's thread, on the answers to all who wait, a token each at a time. Imports torch.

Continuous batching (Orca, Yu et al., OSDI 2022): who comes joins the next pass, who is done or has gone leaves at once. A long
prompt is read in pieces, so that those who are being answered meanwhile are not held up (Sarathi-Serve, Agrawal et al., OSDI
2024).
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gateway import Delta, GatewayError, Response, ServiceCrashed
from gateway_local.owner import Call, Done, Failed, Owner, as_gateway_error, given_up, outcome
from gateway_local.passes import Apart, Together
from gateway_local.picking import Picked
from gateway_local.slots import LEAST_SHARED, Slot, shared
from gateway_local.writer import Writer


class Row:
    """One request on its way. `begin` makes its prompt; `end` the response, once all is written."""

    def __init__(self, begin: Callable[[], Writer], end: Callable[[Writer], Response], *, tenant: str = "") -> None:
        self.begin, self.end, self.tenant = begin, end, tenant
        self.writer: Writer | None = None
        self.slot: Slot | None = None
        self.cache: Any = None
        self.ids: list[int] = []
        """The prompt, and what has been written."""
        self.read = 0
        """How many of them the model has read."""
        self.todo: Sequence[int] = ()
        """Those that it reads next."""


class Decoder:
    """Serves one call after the other, and beside each whoever waits: at most `most` at once.

    `prompt_tokens`: how many tokens of prompts are read in one pass.
    """

    def __init__(self, owner: Owner, passes: Together | Apart, *, most: int, prompt_tokens: int) -> None:
        self._owner, self._passes = owner, passes
        self._most, self._prompt_tokens = most, prompt_tokens
        self._rows: list[Row] = []
        self._ended: dict[Row, Done | Failed] = {}

    @property
    def longest(self) -> int | None:
        """How many tokens a prompt and its answer may have; None: as many as the model takes."""
        return self._passes.slots.tokens if self._passes.slots is not None else None

    def serve(self, call: Call) -> Response:
        """The call's own response."""
        try:
            while not call.gone:
                ended = self._step(call)
                if isinstance(ended, Failed):
                    raise ended.error
                if ended is not None:
                    response: Response = ended.value
                    return response
            raise given_up(self._owner.name)
        finally:  # the others go on where they are, with the next call; it may come much later, so who left is let go now
            self._ended.clear()
            waiting = [each.job for each in self._owner.peers()]
            self._drop([row for row in self._rows if row not in waiting])

    def _step(self, call: Call) -> Done | Failed | None:
        """One pass; who is done by it, or has failed in it, is told. What became of the call itself is returned.

        It is not raised here: the traceback would hold on to all the others' texts.
        """
        calls: dict[Row, Call] = {each.job: each for each in [call, *self._owner.peers()][: self._most]}
        self._drop([row for row in self._rows if row not in calls])
        with torch.inference_mode():
            for row in calls:
                if row not in self._rows and not self._admit(row):
                    break  # first come, first served: those who need less room would take what this one waits for
            for rows in self._parts():
                self._forward(rows, calls)
        own = self._ended.pop(call.job, None)
        self._drop([call.job] if own else [])
        for row, what in self._ended.items():
            self._drop([row])
            self._owner.settle(calls[row], what)
        self._ended.clear()
        return own

    def _drop(self, rows: Sequence[Row]) -> None:
        for row in list(rows):
            if row.slot is not None and self._passes.slots is not None:
                self._passes.slots.leave(row.slot)
            row.slot = row.cache = None
        self._rows = [row for row in self._rows if row not in rows]

    def _admit(self, row: Row) -> bool:
        """Begin to answer a request. False: there is no room for it yet."""
        if row.writer is None:
            begun = outcome(row.begin, self._owner.name)
            if isinstance(begun, Failed):
                self._ended[row] = begun
                return True
            row.writer = begun.value
            row.ids = list(begun.value.prompt)
        slots = self._passes.slots
        if slots is None:
            row.cache = self._passes.cache()
        elif any(self._ahead(other, row) for other in self._rows):
            return True
        else:
            tokens, writer = len(row.ids) + row.writer.limit, row.writer
            taken = outcome(lambda: slots.take(tokens, writer.prompt, row.tenant), self._owner.name)
            if isinstance(taken, Failed):
                self._ended[row] = taken
                return True
            if taken.value is None:
                return False
            row.slot = taken.value
            row.read = len(taken.value.ids)
        self._rows.append(row)
        return True

    def _ahead(self, other: Row, row: Row) -> bool:
        """Whether another one is just reading what this one begins with too: this one waits then, and copies it."""
        slots = self._passes.slots
        alike = slots is not None and slots.shares(other.tenant, row.tenant)
        return alike and shared(other.ids, row.ids) - other.read >= LEAST_SHARED

    def _parts(self) -> list[list[Row]]:
        """Who is read in which forward pass, and of each what."""
        if self._passes.slots is None:
            for row in self._rows:
                row.todo = row.ids[row.read :]
            return [[row] for row in self._rows]
        left = {row: len(row.ids) - row.read for row in self._rows}
        count = {row: int(left[row] == 1) for row in self._rows}
        reading = [row for row in self._rows if left[row] > 1]
        budget = self._prompt_tokens
        # Half for the prompt that came first, the rest for those of which least is left: neither holds up the other.
        shares = [(row, (budget + 1) // 2) for row in reading[:1]]
        shares += [(row, budget) for row in sorted(reading, key=lambda row: left[row])]
        for row, share in shares:
            more = min(left[row] - count[row], share, budget)
            count[row] += more
            budget -= more
        for row in self._rows:
            row.todo = row.ids[row.read : row.read + count[row]]
        return [[row for row in self._rows if row.todo]]

    def _forward(self, rows: Sequence[Row], calls: dict[Row, Call]) -> None:
        """Read what is to be read. Rows that fail together, as for want of memory, are read by halves; one fails alone."""
        if not rows:
            return
        try:
            logits = self._passes.forward(rows).to(torch.float32, copy=True)  # (rows, vocabulary)
            best, likeliest = (each.tolist() for each in logits.max(dim=-1))
        except Exception as error:
            logits = None
            if len(rows) == 1:
                # Where it failed is kept as words: a traceback would hold on to the texts of all who wait.
                error.add_note("".join(traceback.format_tb(error.__traceback__)))
                self._fail(rows[0], as_gateway_error(error.with_traceback(None), self._owner.name))
        # Not within the except: there what has failed still holds its memory.
        if logits is None:
            half = len(rows) // 2
            for part in (rows[:half], rows[half:]) if half else ():
                self._forward(part, calls)
            return
        for at, row in enumerate(rows):
            row.read += len(row.todo)
            if not math.isfinite(best[at]):  # also amid a prompt: if its caller left, what is no number would stay in the slot
                message = f'model {self._owner.name!r} gives no finite numbers: in 16 bits, try dtype = "float32"'
                self._fail(row, ServiceCrashed(message, model=self._owner.name, cause="NaN"))
            elif row.read == len(row.ids):
                self._write(row, calls[row], likeliest[at], logits[at : at + 1])

    def _fail(self, row: Row, error: GatewayError) -> None:
        self._ended[row] = Failed(error)
        if row.slot is not None:
            row.slot.wipe()

    def _write(self, row: Row, call: Call, likeliest: int, logits: torch.Tensor) -> None:
        """One more token of an answer."""
        writer = row.writer
        assert writer is not None

        def write() -> Sequence[Delta]:
            picked = Picked(likeliest) if writer.picker.likeliest else writer.picker.pick(logits, writer.left)
            row.ids.append(picked.id)
            return writer.take(picked)

        written = outcome(write, self._owner.name)
        if isinstance(written, Failed):
            self._ended[row] = written
            return
        for delta in written.value:
            call.send(delta)
        if writer.done:
            self._ended[row] = outcome(lambda: row.end(writer), self._owner.name)
