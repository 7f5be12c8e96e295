"""The paper's settings for fine-tuning (arXiv 2605.12438, appendix), by language and kind of task.

English tasks are run with the seeds 42 to 46, French ones with the seeds 42 to 50.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from clm_detour.config.values import (
    NonNegativeInt,
    NonNegativeNumber,
    PositiveInt,
    PositiveNumber,
    check_distinct,
)

Kind = Literal["entities", "nested_entities", "single_label", "multi_label"]
Head = Literal["biaffine", "crf_biaffine"]


@dataclass(frozen=True)
class Protocol:
    """Settings of fine-tuning on a task. The defaults are the paper's for classifying English texts."""

    learning_rate: PositiveNumber = 5e-5  # largest learning rate
    head_learning_rate: PositiveNumber | None = None  # learning rate of the new layers; null: `learning_rate`
    weight_decay: NonNegativeNumber = 0.01  # weight decay of AdamW
    batch_size: PositiveInt = 16  # number of texts in a step
    epochs: PositiveInt = 10  # number of passes over the training split
    steps: PositiveInt | None = None  # number of steps; if it is given, `epochs` has no effect
    warmup: NonNegativeNumber = 0.0  # share of the steps in which the learning rate grows from 0
    clip_norm: PositiveNumber = 1.0  # largest norm of the gradient
    # Number of steps between validations. null: at the end of each epoch, or 20 times if `steps` is given.
    validate_every: PositiveInt | None = None
    # Validation score that chooses the round whose weights are tested; null: the score in the tables.
    select_by: str | None = None
    # Longest input. Longer documents are read in overlapping windows (entities) or cut (labels), and counted.
    max_tokens: Annotated[int, Field(ge=8)] = 512
    # For entities: read each line of a document by itself, instead of windows of the whole document.
    by_line: bool = False
    # For nested_entities: the layers above the encoder, see docs/evaluation.md.
    head: Head = "biaffine"
    # For multi_label: predict the most likely label where no label has a probability above 0.5.
    at_least_one: bool = False
    # For multi_label: weigh the positives of a label by its negatives divided by its positives.
    positive_weight: bool = False
    # One run for each seed.
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), AfterValidator(check_distinct)] = (
        42, 43, 44, 45, 46,
    )  # fmt: skip


FRENCH_SEEDS = tuple(range(42, 51))

ENGLISH_LABELS = Protocol()
ENGLISH_ENTITIES = replace(ENGLISH_LABELS, epochs=20)
LONG = 8192  # tokens: Phenotype and DEID
FRENCH_LABELS = Protocol(
    learning_rate=2e-5, batch_size=4, epochs=15, warmup=0.1, max_tokens=2048, seeds=FRENCH_SEEDS
)
FRENCH_CODES = replace(
    FRENCH_LABELS, max_tokens=4096, positive_weight=True, at_least_one=True, select_by="micro_f1"
)
NESTED = Protocol(head_learning_rate=1e-3, steps=4000, max_tokens=1024)
QUAERO = replace(
    NESTED, head="crf_biaffine", warmup=0.1, clip_norm=10.0, validate_every=500, seeds=FRENCH_SEEDS
)
SINCE_0_2 = ("clip_norm", "validate_every", "select_by", "by_line", "head", "at_least_one")


def changed(protocol: Protocol, changes: Mapping[str, Any]) -> Protocol:
    """Return a protocol with some settings changed.

    A new `epochs` replaces `steps`, which would win, and `validate_every`.
    """
    instead = {"steps": None, "validate_every": None} if changes.get("epochs") is not None else {}
    return replace(protocol, **{**instead, **changes})


def recorded(protocol: Protocol) -> dict[str, Any]:
    """Return a protocol as it is written into records.

    Settings that 0.2.0 did not have are left out at their defaults, so that folders of 0.2.0 are continued.
    """
    return {
        key: value
        for key, value in asdict(protocol).items()
        if key not in SINCE_0_2 or value != getattr(ENGLISH_LABELS, key)
    }


def default(language: str, kind: Kind) -> Protocol:
    """Return the protocol of a task that is not in the paper; languages but French use the English one."""
    if kind == "nested_entities":
        return QUAERO if language == "fr" else NESTED
    if kind == "entities":
        return ENGLISH_ENTITIES
    if language != "fr":
        return ENGLISH_LABELS
    return FRENCH_CODES if kind == "multi_label" else FRENCH_LABELS
