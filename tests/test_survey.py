"""What services say when no model is asked: what their endpoints offer. Checks are in test_faults.py and test_cli.py."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gateway import (
    AsyncGateway,
    Gateway,
    MissingSecret,
    ModelCard,
    ModelService,
    Resources,
    ServiceCrashed,
    UnknownModel,
    Unreachable,
)
from gateway.testing import Echo, Scripted


class Endpoint(Echo):
    """One of the models of an endpoint, which tells of two."""

    def __init__(self, name: str, *, fails: Exception | None = None, hangs: bool = False, **facts: Any) -> None:
        super().__init__(name, place="hosted", **facts)
        self.fails, self.hangs, self.told = fails, hangs, 0

    async def offered(self, resources: Resources) -> Sequence[ModelCard]:
        self.told += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails is not None:
            raise self.fails
        return [ModelCard(name=f"{name} of {self.card.name}", tasks=self.card.tasks) for name in ("small", "big")]


def names(name: str, *models: ModelService) -> list[str]:
    with Gateway(models) as gw:
        return [card.name for card in gw.offered(name)]


def test_a_model_s_endpoint_is_asked_what_it_offers() -> None:
    one, two = Endpoint("one", provider="us"), Endpoint("two", provider="us")
    assert names("two", one, two) == ["small of two", "big of two"]
    assert (one.told, two.told) == (0, 1)


def test_a_provider_is_asked_by_any_of_its_models_that_answers() -> None:
    down = Endpoint("one", provider="us", fails=Unreachable("down", model="one"))
    two, three = Endpoint("two", provider="us"), Endpoint("three", provider="them")
    assert names("us", down, two, three) == ["small of two", "big of two"]
    assert (down.told, two.told, three.told) == (1, 1, 0)
    assert names("us", Endpoint("us", provider="them"), two) == ["small of us", "big of us"]  # a model's own name goes before


def test_a_model_that_has_no_endpoint_offers_itself() -> None:
    assert names("local", Echo("local")) == ["local"]


def test_a_name_that_nobody_has_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UnknownModel) as caught:
        names("opnai", Endpoint("one", provider="us"), Endpoint("two", provider="them"), Echo("local"))
    told = "no model and no provider is named 'opnai'; there are the models: local, one, two; and the providers: them, us"
    assert str(caught.value) == told and caught.value.known == ("local", "one", "two")
    with pytest.raises(UnknownModel, match="there are the models: none; and the providers: none"):
        names("opnai")


def test_an_endpoint_that_does_not_tell_says_why() -> None:
    with pytest.raises(Unreachable, match="down"):
        names("one", Endpoint("one", fails=Unreachable("down", model="one")))
    with pytest.raises(ServiceCrashed, match=r"model 'one' raised KeyError at .* in offered") as caught:
        names("one", Endpoint("one", fails=KeyError("may be private")))
    assert "private" not in str(caught.value) and caught.value.cause == "KeyError"
    missing = Scripted("one", fail_describe=MissingSecret("environment variable X is not set", ref="env:X"))
    with pytest.raises(MissingSecret, match="X is not set"):
        names("one", missing)


def test_an_endpoint_that_hangs_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.survey.LIMIT_S", 0.05)

    async def whole() -> None:
        async with AsyncGateway([Endpoint("one", hangs=True)]) as gw:
            with pytest.raises(ServiceCrashed, match=r"offered took longer than 0\.05 s"):
                await gw.offered("one")

    asyncio.run(whole())
