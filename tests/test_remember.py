"""What was measured is kept from one run to the next; a damaged file costs nothing but what it held."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import AsyncGateway, Chat, ModelCard
from gateway.config import load_config
from gateway.remember import MODELS_KEPT, recall, snapshot, write
from gateway.testing import Echo
from gateway.vitals import Knowledge, Vitals

CARD = ModelCard(name="m", tasks=frozenset({Chat}), place="hosted", quality=0.5)


def learned() -> Knowledge:
    knowledge = Knowledge()
    vitals = knowledge.of(CARD)
    for n in range(20):
        vitals.succeeded("chat", 4.0 + n / 100, 3.0, 50, float(n))
    vitals.scored("chat", 1.0)
    return knowledge


def test_what_was_measured_is_there_in_the_next_run(tmp_path: Path) -> None:
    first, path = learned(), tmp_path / "measured.json"
    write(path, snapshot(first))
    second = Knowledge()
    recall(path, second)
    before, after = first.vitals["m"].read("chat", 0.0), second.of(CARD).read("chat", 0.0)
    assert after == before
    assert after.first_token_s == pytest.approx(3.0, rel=0.1) and after.quality is not None and after.quality > 0.5


def test_only_its_owner_may_read_the_file_and_nothing_else_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    write(path, snapshot(learned()))
    write(path, snapshot(learned()))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["measured.json"]


def test_models_that_are_not_there_today_are_kept_for_tomorrow_but_not_without_bound(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    write(path, snapshot(learned()))
    today = Knowledge()
    recall(path, today)
    today.of(ModelCard(name="other", tasks=frozenset({Chat})))
    assert set(snapshot(today)["models"]) == {"m", "other"}
    today.kept = {str(n): {} for n in range(3 * MODELS_KEPT)}
    assert len(snapshot(today)["models"]) == MODELS_KEPT


def test_a_first_run_has_no_file_and_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recall(tmp_path / "none.json", Knowledge())
    assert not caplog.records


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2, "models": {}}', '{"format": 1, "models": []}', "\x00", "[" * 9999]
)
def test_a_damaged_file_is_left_out_with_a_warning(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "measured.json"
    path.write_text(text)
    knowledge = Knowledge()
    recall(path, knowledge)
    assert knowledge.kept == {}
    assert "measured anew" in caplog.text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
kept = json_values | st.fixed_dictionaries(
    {"first_token": json_values, "per_token": json_values, "outputs": json_values, "scores": json_values}
)


@given(kept)
def test_whatever_was_kept_of_a_model_is_taken_up_whole_or_not_at_all(value: Any) -> None:
    vitals, untouched = Vitals(CARD), Vitals(CARD).read("chat", 0.0)
    try:
        vitals.recall(value)
    except ValueError:
        assert vitals.read("chat", 0.0) == untouched
    live = vitals.read("chat", 0.0)
    assert live.first_token_s > 0 and live.per_token_s > 0 and live.output_tokens > 0
    assert live.quality is None or 0.0 <= live.quality <= 1.0


def test_a_place_that_cannot_be_written_warns_and_harms_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        write(tmp_path / "no" / "such" / "place.json", snapshot(learned()))
    assert "cannot be written" in caplog.text


def test_a_gateway_remembers_from_one_life_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    config = load_config({"policy": {"remember": str(path)}})

    async def life() -> float:
        async with AsyncGateway([Echo("m", place="hosted")], config=config) as gw:
            for _ in range(5):
                reply = await gw.chat("one two three")
            await gw.feedback(reply, 1.0)
            [status] = await gw.models()
            assert status.first_token_s is not None
            return status.first_token_s

    first = asyncio.run(life())
    assert set(json.loads(path.read_text())["models"]) == {"m"}

    async def second() -> float:
        async with AsyncGateway([Echo("m", place="hosted")], config=config) as gw:
            [status] = await gw.models()
            assert status.first_token_s is not None
            return status.first_token_s

    assert asyncio.run(second()) == pytest.approx(first, rel=0.05)
