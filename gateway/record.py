"""Record: all that one decision was made from, as plain JSON values, so that it can be made again: see replay.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from gateway.card import Need
from gateway.config import PolicyConfig
from gateway.decision import Decision
from gateway.ranking import Row
from gateway.routing import Policy

if TYPE_CHECKING:
    from gateway.basis import Basis

FORMAT = 1
SHUT = ("breaker", "wait")
"""The rules by which the gateway itself says that a model may not be asked now."""


def digest(policies: Iterable[Policy], config: PolicyConfig) -> str:
    """A name for a set of policies and their settings: equal for equal ones. SHA-256, in hex."""
    kinds = [(policy.name, f"{type(policy).__module__}.{type(policy).__qualname__}") for policy in policies]
    return hashlib.sha256(text({"policies": kinds, "config": _config(config)}).encode()).hexdigest()


def record(basis: Basis, decision: Decision) -> dict[str, Any]:
    """The record of a decision, as plain JSON values."""
    ask, shape, ranking, sheet = basis.ask, basis.ask.shape, basis.ranking, basis.ranking.sheet
    return {
        "record": FORMAT,
        "digest": digest(basis.router.policies, basis.router.config),
        "policy": _config(basis.router.config),
        "ask": {
            "task": shape.task.task,
            "need": need_json(shape.need),
            "features": sorted(shape.features),
            "modalities": sorted(shape.modalities),
            "data_classes": sorted(shape.data_classes),
            "local_only": shape.local_only,
            "route": shape.route,
            **{f.name: getattr(ask, f.name) for f in fields(ask) if f.name != "shape"},
        },
        "chance": basis.chance,
        "warm": basis.warm,
        "owed": None if basis.owed is None else basis.owed.name,
        "dry": basis.dry,
        "tried": {name: asdict(veto) for name, veto in basis.tried.items()},
        "models": [_row(basis, row, load) for row, load in zip(sheet.rows, ranking.loads, strict=True)],
        "others": [card.to_json() for card in sheet.cards if sheet.named(card.name) is None],
        "undescribed": [
            {"model": one.model, "vetoes": [asdict(veto) for veto in one.vetoes]} for one in sheet.refused if not one.place
        ],
        "notes": list(basis.notes),
        "decision": decision.to_json(),
    }


def text(value: Any) -> str:
    """JSON with one spelling for equal values."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def need_json(need: Need) -> dict[str, Any]:
    """What a need says, as plain JSON values; what it leaves open is left out."""
    out = {}
    for f in fields(need):
        value = getattr(need, f.name)
        if f.init and value != f.default and value not in (None, (), frozenset()):
            out[f.name] = sorted(value) if isinstance(value, frozenset) else value
    plain: dict[str, Any] = json.loads(text(out))
    return plain


def _row(basis: Basis, row: Row, load: int) -> dict[str, Any]:
    looked, shut = basis.looked.get(row.name, ()), basis.ranking.shut.get(row.name)
    standing = [asdict(veto) for veto in looked if veto.policy == "gateway" and veto.rule in (*SHUT, "quota")]
    live = {f.name: getattr(row.live, f.name) for f in fields(row.live)} | {"in_flight": 0}
    return {
        "card": row.card.to_json(),
        "live": live,
        "at": row.at,
        "load": load,
        "in_flight": basis.load(row) if basis.seen(row) else load,
        "shut": None if shut is None else asdict(shut),
        "standing": standing,
    }


def _config(config: PolicyConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name != "remember"}
