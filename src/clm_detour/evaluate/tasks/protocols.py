"""The paper's settings for fine-tuning (arXiv 2605.12438, appendix), by language and kind. Seeds 42 to 46 in English; nine in French, from 42 on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clm_detour.evaluate.tasks.task import Kind, Protocol

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
