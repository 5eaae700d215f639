"""Rerank as Cohere's API (v2) has it, and Jina, vLLM, llama.cpp, Together and others after it: POST /rerank.

A reply's `results` hold `index` and `relevance_score`. The tokens stand in `usage` (Jina: `total_tokens`, vLLM: `prompt_tokens`
too) or in `meta.tokens` (Cohere, where it counts them at all: it bills searches, so give such a row a price per request).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gateway import Ranked, Rerank, RerankResponse, Usage
from gateway_remote.formats.api import Heard, Sending
from gateway_remote.formats.body import Body
from gateway_remote.formats.values import broken, estimate, index, number, object_of

if TYPE_CHECKING:
    from gateway_remote.config import ModelRow


def rerank_body(request: Rerank, row: ModelRow, stream: bool) -> Sending:
    """POST /rerank."""
    body = Body(request, row, model=row.served_model, query=request.query, documents=request.documents)
    body.carry({"top_n": "top_n"})
    return body.sending("/rerank")


def rerank_response(body: bytes, request: Rerank, heard: Heard) -> RerankResponse:
    """The best documents first. Some servers neither sort nor cut: both is done here."""
    payload, model = object_of(body, heard), heard.model
    results = payload.get("results")
    if not isinstance(results, list):
        raise broken(model, "the reply holds no results")
    ranked = []
    for result in results:
        place = index(result.get("index")) if isinstance(result, dict) else None
        score = number(result.get("relevance_score")) if isinstance(result, dict) else None
        if place is None or score is None or not math.isfinite(score):
            raise broken(model, "a result without its place or its score")
        ranked.append(Ranked(index=place, relevance_score=score))
    ranked.sort(key=lambda each: -each.relevance_score)
    used = usage_of(payload) or estimate(request)
    return RerankResponse(results=tuple(ranked[: request.top_n]), usage=used, quota=heard.quota)


def usage_of(payload: dict[str, Any]) -> Usage | None:
    """The tokens as the server states them, None when it does not."""
    usage, meta = payload.get("usage"), payload.get("meta")
    counted = meta.get("tokens") if isinstance(meta, dict) else None
    stated = [usage.get(name) for name in ("prompt_tokens", "total_tokens")] if isinstance(usage, dict) else []
    stated += [counted.get("input_tokens")] if isinstance(counted, dict) else []
    for value in map(number, stated):  # Cohere's counts are floats
        if value is not None and 0 <= value < 1e15:
            return Usage(input_tokens=int(value))
    return None
