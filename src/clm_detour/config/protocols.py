"""The paper's settings for fine-tuning (arXiv 2605.12438, appendix), by language and kind. Seeds 42 to 46 in English; nine in French, from 42 on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Kind = Literal["entities", "nested_entities", "single_label", "multi_label"]


@dataclass(frozen=True)
class Protocol:
    """How a model is fine-tuned on a task. The defaults are the paper's for English classification.

    Args:
        steps: instead of `epochs`.
        warmup: share of the steps.
        head_learning_rate: of the new layers, where it differs.
        max_tokens: longer documents are read in overlapping windows (entities) or cut (labels), which is counted.
        positive_weight: BCE weighs a label's positives by its negatives over positives (multi-label).
    """

    learning_rate: float = 5e-5
    head_learning_rate: float | None = None
    weight_decay: float = 0.01
    batch_size: int = 16
    epochs: int = 10
    steps: int | None = None
    warmup: float = 0.0
    max_tokens: int = 512
    positive_weight: bool = False
    seeds: tuple[int, ...] = (42, 43, 44, 45, 46)


FRENCH_SEEDS = tuple(range(42, 51))

ENGLISH_LABELS = Protocol()
ENGLISH_ENTITIES = replace(ENGLISH_LABELS, epochs=20)
LONG = 8192  # tokens: Phenotype and DEID
FRENCH_LABELS = Protocol(
    learning_rate=2e-5, batch_size=4, epochs=15, warmup=0.1, max_tokens=2048, seeds=FRENCH_SEEDS
)
FRENCH_CODES = replace(FRENCH_LABELS, max_tokens=4096, positive_weight=True)
QUAERO = Protocol(head_learning_rate=1e-3, steps=4000, max_tokens=1024, seeds=FRENCH_SEEDS)


def changed(protocol: Protocol, changes: Mapping[str, Any]) -> Protocol:
    """With some settings changed; a length in epochs replaces one in steps, which would hide it."""
    instead = {"steps": None} if changes.get("epochs") is not None else {}
    return replace(protocol, **{**instead, **changes})


def default(language: str, kind: Kind) -> Protocol:
    """For a task that the paper has not; other languages are taken as English."""
    if kind == "nested_entities":
        return QUAERO if language == "fr" else replace(QUAERO, seeds=ENGLISH_LABELS.seeds)
    if kind == "entities":
        return ENGLISH_ENTITIES
    if language != "fr":
        return ENGLISH_LABELS
    return FRENCH_CODES if kind == "multi_label" else FRENCH_LABELS
