"""Encoder: an encoder at work on the owner's thread, on the texts of all who wait, a batch at a time. Imports torch."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from gateway import GatewayError, Response, ServiceCrashed
from gateway_local.batcher import Batcher, Job, Row
from gateway_local.owner import Call, Failed, Owner, as_gateway_error, outcome

Read = Callable[[Any, torch.Tensor], Sequence[Any]]
"""(what the model gives, mask `(batch, time)`) -> one output for each text of the batch, on the CPU; None for one that is no
finite numbers."""


class Encoder:
    """Serves one call after the other, and beside each whatever waits: see `batcher.py`.

    `read` takes the model's output apart; `pad_id` fills up short texts; `pairs`: it is told which token is of which text.
    """

    def __init__(self, model: Any, owner: Owner, read: Read, *, pad_id: int, pairs: bool) -> None:
        self._model, self._owner, self._read = model, owner, read
        self._pad_id, self._pairs = pad_id, pairs
        self._batcher = Batcher()
        self._faults: dict[Job, GatewayError] = {}

    def serve(self, call: Call) -> Response | None:
        """The call's own response; None when its caller has gone."""
        job: Job = call.job
        while not job.whole:
            if call.gone:
                return None
            job.grow(self._batcher.now)
            if (error := self._step(call)) is not None:
                raise error
        return job.response()

    def _step(self, call: Call) -> GatewayError | None:
        """One batch; who is done by it, or has failed in it, is told. What is wrong with the call itself is returned.

        It is not raised here: the traceback would hold on to all the others' texts.
        """
        peers: dict[Job, Call] = {}
        for peer in self._owner.peers():
            grown = outcome(partial(peer.job.grow, self._batcher.now), self._owner.name)
            if isinstance(grown, Failed):
                self._owner.settle(peer, grown)
            else:
                peers[peer.job] = peer
        self._encode(self._batcher.next([call.job, *peers]))
        own = self._faults.pop(call.job, None)
        for job, error in self._faults.items():
            self._owner.settle(peers[job], Failed(error))
        self._faults.clear()
        for job, peer in peers.items():
            if job.whole:
                self._owner.settle(peer, outcome(job.response, self._owner.name))
        return own

    def _encode(self, batch: Sequence[tuple[Job, int]]) -> None:
        """Give each text its output. A batch that fails, as for want of memory, is done by halves; a text fails alone."""
        if not batch:
            return
        try:
            outputs = self._forward([job.rows[place] for job, place in batch])
            if len(outputs) != len(batch):
                raise ValueError("not one output a text")
        except Exception as error:
            outputs = None
            if len(batch) == 1:
                # Where it failed is kept as words: a traceback would hold on to the texts of all who wait.
                error.add_note("".join(traceback.format_tb(error.__traceback__)))
                self._faults.setdefault(batch[0][0], as_gateway_error(error.with_traceback(None), self._owner.name))
        # Not within the except: there what has failed still holds its memory.
        if outputs is None:
            half = len(batch) // 2
            for part in (batch[:half], batch[half:]) if half else ():
                self._encode(part)
            return
        for (job, place), output in zip(batch, outputs, strict=True):
            if output is None:
                message = f'model {self._owner.name!r} gives no finite numbers: in 16 bits, try dtype = "float32"'
                self._faults.setdefault(job, ServiceCrashed(message, model=self._owner.name, cause="NaN"))
            job.take(place, output)

    def _forward(self, rows: Sequence[Row]) -> Sequence[Any]:
        longest = max(len(row.ids) for row in rows)
        device = self._model.device
        ids = torch.tensor([_padded(row.ids, longest, self._pad_id) for row in rows], device=device)  # (batch, time)
        lengths = torch.tensor([[len(row.ids)] for row in rows])  # (batch, 1)
        mask = (torch.arange(longest) < lengths).long().to(device)  # (batch, time)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._pairs:
            types = [_padded(row.types or [0] * len(row.ids), longest, 0) for row in rows]
            inputs["token_type_ids"] = torch.tensor(types, device=device)
        with torch.inference_mode():
            return self._read(self._model(**inputs, return_dict=True), mask)


def _padded(values: Sequence[int], length: int, fill: int) -> list[int]:
    return [*values, *[fill] * (length - len(values))]
