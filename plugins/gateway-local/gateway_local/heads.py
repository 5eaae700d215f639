"""What an encoder with a trained head can do, from its config.json alone: classify, rank, find spans, answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway import WeightsError

Kind = Literal["classify", "rerank", "extract", "answer"]
Function = Literal["sigmoid", "softmax", "none"]
ENDINGS: Mapping[str, Kind] = {
    "ForSequenceClassification": "classify", "ForTokenClassification": "extract", "ForQuestionAnswering": "answer",
}  # fmt: skip
"""How the names of architectures end, and what such a head is for."""


@dataclass(frozen=True, kw_only=True)
class HeadFacts:
    """A head: what it is for, its labels by number, and what makes scores of its logits.

    `entailment` is the number of the label by which it can tell whether one sentence follows from another: zero-shot
    classification asks it whether "this text is about X" follows from the text.
    """

    kind: Kind
    labels: tuple[str, ...]
    function: Function = "softmax"
    entailment: int | None = None


def head_of(architecture: str) -> Kind | None:
    """What the head of an architecture is for; None where it has none."""
    return next((kind for ending, kind in ENDINGS.items() if architecture.endswith(ending)), None)


def read_head(uri: str, architecture: str, config: Mapping[str, Any]) -> HeadFacts | None:
    """The head that a config.json describes. WeightsError when its labels are none."""
    kind = head_of(architecture)
    if kind is None:
        return None
    labels = labels_of(uri, config)
    if kind == "classify" and len(labels) == 1:
        kind = "rerank"  # one number a pair of texts: how cross-encoders are saved
    entailment = next((at for at, label in enumerate(labels) if label.lower().startswith("entail")), None)
    return HeadFacts(kind=kind, labels=labels, function=function_of(config, len(labels)), entailment=entailment)


def labels_of(uri: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels in the order of the logits, named as transformers names them where config.json does not."""
    named, count = config.get("id2label"), config.get("num_labels", 2)
    if named is None and isinstance(count, int) and count > 0:
        return tuple(f"LABEL_{at}" for at in range(count))
    try:
        by_number = {int(at): label for at, label in dict(named).items()}  # type: ignore[arg-type]  # the check is below
    except (TypeError, ValueError):
        by_number = {}
    labels = tuple(label if isinstance(label := by_number.get(at), str) else "" for at in range(len(by_number)))
    if not labels or not all(labels):
        raise WeightsError(f"{uri!r}: id2label in config.json does not name each label by its number")
    return labels


def function_of(config: Mapping[str, Any], labels: int) -> Function:
    """What makes scores of logits where a request does not say: as transformers' own pipeline has it."""
    problem = config.get("problem_type")
    if problem == "regression":
        return "none"
    return "sigmoid" if problem == "multi_label_classification" or labels == 1 else "softmax"
