"""Survey: what services say when no model is asked: whether they can be used, what they take, what their endpoints offer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from gateway.card import ModelCard
from gateway.errors import Closed, GatewayError, ServiceCrashed, UnknownModel, told
from gateway.registry import Entry
from gateway.service import Footprint, Resources

T = TypeVar("T")

log = logging.getLogger(__name__)

LIMIT_S = 60.0
"""A check may import what a model needs, and try an endpoint."""


async def checked(entries: Sequence[Entry], resources: Resources) -> dict[str, str | GatewayError]:
    """By model: a line about it, or the error that says what is wrong."""

    async def one(entry: Entry) -> str | GatewayError:
        if entry.card is None:
            return entry.error or Closed("the gateway was closed meanwhile")
        try:
            return await _within(entry.service.check(resources), entry.name, "check")
        except GatewayError as error:
            return error

    return dict(zip([entry.name for entry in entries], await asyncio.gather(*map(one, entries)), strict=True))


async def offered(name: str, entries: Sequence[Entry], resources: Resources) -> Sequence[ModelCard]:
    """What the endpoint of a model offers, or that of a provider: then any of its models is asked for its endpoint's.

    UnknownModel when nothing is of that name; the service's error when the endpoint does not tell.
    """
    of_provider = [entry for entry in entries if entry.card is not None and entry.card.provider == name]
    found = [entry for entry in entries if entry.name == name] or of_provider
    if not found:
        models = ", ".join(entry.name for entry in entries) or "none"
        providers = ", ".join(sorted({e.card.provider for e in entries if e.card is not None and e.card.provider})) or "none"
        message = f"no model and no provider is named {name!r}; there are the models: {models}; and the providers: {providers}"
        raise UnknownModel(message, field="remote", known=tuple(entry.name for entry in entries))
    failed: GatewayError | None = None
    for entry in found:
        if entry.card is None:
            failed = entry.error or Closed("the gateway was closed meanwhile")
            continue
        try:
            return await _within(entry.service.offered(resources), entry.name, "offered")
        except GatewayError as error:
            failed = error
    assert failed is not None
    raise failed


def footprint_of(entry: Entry) -> Footprint | None:
    """What a model takes of this machine; None where it does not tell, or fails to."""
    try:
        return entry.service.footprint()
    except Exception as error:
        log.error("model %r raised %s in footprint", entry.name, told(error))
        return None


async def _within(work: Awaitable[T], model: str, step: str) -> T:
    scope = asyncio.timeout(LIMIT_S)
    try:
        async with scope:
            return await work
    except GatewayError:
        raise
    except Exception as error:
        slow = f"{step} took longer than {LIMIT_S:g} s"
        what = slow if scope.expired() else f"model {model!r} raised {told(error)} in {step}"
        raise ServiceCrashed(what, model=model, cause=type(error).__name__) from error
