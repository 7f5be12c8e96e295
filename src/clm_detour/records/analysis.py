"""The records of the analysis: `compare.json`, `trajectory.json`, `weights.json` and `gradients.json`.

CKA is a similarity of layers from 0 to 1. The divergence of two layers is 1 - CKA; that of two models is the
mean over their layers without embeddings and final norm. Retention is the divergence after the decay over
that before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from clm_detour.records.store import Number, OptionalInterval


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """A model that was compared.

    Args:
        path: Folder or hub id.
        layers: Names, from the embeddings to the final norm.
        network: "packed" or "padded".
        outliers: Of each layer, how many dimensions the trimmed estimators leave out.
        outlier_variance: Their share of the layer's variance.
    """

    path: str = ""
    layers: list[str]
    hidden: int
    network: str = ""
    outliers: list[int] = field(default_factory=list)
    outlier_variance: list[Number] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ComparedTexts:
    """The texts on which models were compared.

    Args:
        source: Where the texts are from.
        available: Texts there were.
        distinct: Texts in all samples together.
        tokens: Tokens of these texts, as model `a` reads them.
        overlap: Whether a text is in several samples.
        tokenised_alike: Whether all models read the same tokens.
        every: Texts of the estimators `every_text`; None if these were not asked for.
    """

    source: Annotated[str, Field(alias="from")] = ""
    available: int = 0
    distinct: int
    samples: int
    per_sample: int
    max_tokens: int = 0
    tokens: int = 0
    overlap: bool
    tokenised_alike: bool = True
    every: int | None = None


@dataclass(frozen=True)
class ModelDivergence:
    """The divergence of two models, with its interval over texts."""

    divergence: Number
    interval: OptionalInterval


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The result of one estimator of CKA for two models.

    Args:
        matrix: CKA of all layers of one model with all of the other; None of estimators without it.
        cka, divergence: Of each pair of matched layers.
        interval: Of each pair's divergence; None of estimators without intervals.
        samples: Mean divergence in each sample of texts.
        chance: CKA of each pair on shuffled texts.
    """

    matrix: list[list[Number]] | None
    cka: list[Number] = field(default_factory=list)
    divergence: list[Number]
    interval: list[OptionalInterval] | None
    samples: list[Number] = field(default_factory=list)
    chance: list[Number] = field(default_factory=list)
    model: ModelDivergence

    @property
    def intervals(self) -> list[OptionalInterval]:
        """The interval of each pair's divergence."""
        return self.interval or [None] * len(self.divergence)


@dataclass(frozen=True)
class Pairing:
    """Two models, their matched layers, and the result of each estimator.

    Args:
        models: The roles of the two models.
        variants: The estimators: biased (the paper's), debiased, biased_trimmed and debiased_trimmed (without
            outlier dimensions), minibatch (debiased, over all texts), tokens (minibatch over single tokens;
            only where models tokenize alike), every_text and every_text_biased (over a whole file, if asked
            for).
    """

    models: list[str]
    pairs: list[tuple[str, str]]
    variants: dict[str, Variant]


@dataclass(frozen=True, kw_only=True)
class Quotient:
    """A divergence over another one: of each pair of layers (None where depths differ), and of the models."""

    layers: list[Number] | None = None
    layer_intervals: list[OptionalInterval] | None = None
    model: Number
    interval: OptionalInterval


@dataclass(frozen=True, kw_only=True)
class NetworkComparison:
    """`compare.json`: how far apart two encoders are, layer by layer.

    Args:
        models: Role (a, b, control, before_a, before_b) -> model.
        settings: Seed, resamples, level of the intervals, and so on.
        comparisons: detour_twin (a and b), control (b and control), before (before_a and before_b), as far as
            measured.
        ratio: Estimator -> divergence of a and b over that of b and its control; None without a control.
        retention: Estimator -> divergence of a and b over that of before_a and before_b; None without these.
        notes: Sentences that a reader should know.
    """

    format: Literal[1] = 1
    date: str = ""
    models: dict[str, ComparedModel]
    texts: ComparedTexts
    settings: dict[str, Any] = field(default_factory=dict)
    comparisons: dict[str, Pairing]
    ratio: dict[str, Quotient] | None
    retention: dict[str, Quotient] | None
    notes: list[str]

    def __post_init__(self) -> None:
        if "detour_twin" not in self.comparisons or len(self.main.models) != 2:
            raise ValueError("The comparison of a and b is missing.")
        if not {*self.main.models} <= self.models.keys():
            raise ValueError("A model of the comparison is missing.")

    @property
    def main(self) -> Pairing:
        """The models a and b."""
        return self.comparisons["detour_twin"]

    @property
    def layers(self) -> tuple[list[str], list[str]]:
        """The layers of a and of b."""
        one, other = (self.models[role].layers for role in self.main.models)
        return one, other

    @property
    def outliers(self) -> dict[str, int]:
        """Layer of a -> how many of its dimensions the trimmed estimators leave out."""
        model = self.models[self.main.models[0]]
        return dict(zip(model.layers, model.outliers, strict=False))

    def variant(self, comparison: str, name: str) -> Variant | None:
        """Return an estimator of a comparison, or None if it was not measured."""
        part = self.comparisons.get(comparison)
        return part.variants.get(name) if part else None

    def curve(self, comparison: str, name: str) -> Variant | None:
        """Return an estimator that has a value for each pair of layers of a and b, or None.

        A control differs in the number of its pairs where a and b differ in depth.
        """
        found = self.variant(comparison, name)
        return found if found and len(found.divergence) == len(self.main.pairs) else None


@dataclass(frozen=True, kw_only=True)
class TrajectoryPoint:
    """A checkpoint of the detour.

    Args:
        tokens: Tokens of its phase.
        total: Tokens since detour and twin parted.
        divergence: Reference -> estimator -> group of layers -> mean divergence.
        interval: The same with intervals over texts.
    """

    phase: str
    tokens: int = 0
    total: int
    path: str = ""
    divergence: dict[str, dict[str, dict[str, Number]]]
    interval: dict[str, dict[str, dict[str, OptionalInterval]]]

    def __post_init__(self) -> None:
        for reference, variants in self.divergence.items():
            for name, groups in variants.items():
                if not groups.keys() <= self.interval.get(reference, {}).get(name, {}).keys():
                    raise ValueError("A divergence has no interval.")

    def estimate(self, reference: str, variant: str, group: str) -> ModelDivergence:
        """Return a divergence with its interval."""
        return ModelDivergence(
            self.divergence[reference][variant][group], self.interval[reference][variant][group]
        )


@dataclass(frozen=True, kw_only=True)
class TrajectoryRecord:
    """`trajectory.json`: how divergence builds up along the detour, and what the decay takes back.

    Args:
        references: Name -> folder: undecayed_twin (the twin before its decay) and start (where both arms set
            out).
        groups: low, mid, high and all -> first and last layer.
        points: The start, every model exported on the way, and the end of each phase of the detour.
    """

    references: dict[str, str] = field(default_factory=dict)
    groups: dict[str, tuple[int, int]]
    variants: list[str] = field(default_factory=list)
    texts: dict[str, int] = field(default_factory=dict)
    points: list[TrajectoryPoint]
    format: Literal[1] = 1


@dataclass(frozen=True)
class MovedWeight:
    """A weight and its relative change."""

    name: str
    change: Number


@dataclass(frozen=True, kw_only=True)
class WeightChange:
    """The relative change of weights: the norm of the change over the norm of the weights before it.

    Args:
        arm, phases: The arm, and the names of its first and last phase that the change is over.
        before, after: Folders.
        kinds: attention, mlp, norms, embeddings, head.
        change: Layer -> kind -> change of all weights of that layer and kind; NaN where the weights were all
            zero.
        whole: Kind -> the same over all layers; and `all`.
        largest: The weights that moved most.
    """

    arm: str = ""
    phases: list[str] = field(default_factory=list)
    before: Annotated[str, Field(alias="from")] = ""
    after: Annotated[str, Field(alias="to")] = ""
    layers: list[str]
    kinds: list[str] = field(default_factory=list)
    change: dict[str, dict[str, Number]]
    whole: dict[str, Number]
    largest: list[MovedWeight] = field(default_factory=list)


@dataclass(frozen=True)
class WeightsRecord:
    """`weights.json` of a run: the change of each arm over all its own phases, and over each of them."""

    changes: list[WeightChange]
    format: Literal[1] = 1

    def __post_init__(self) -> None:
        if not all(change.arm and change.phases for change in self.changes):
            raise ValueError("A change names no arm or no phases.")


@dataclass(frozen=True, kw_only=True)
class ObjectiveGradient:
    """The gradient of one objective.

    Args:
        loss: Nats for each predicted token.
        predicted: Predicted tokens.
        density: Share of the positions that have a target.
        norm: Norm of the gradient of the mean loss.
        norms: Layer -> kind of weights -> norm.
        reached: Output of a layer -> share of the positions to which any gradient flows.
        spread: Output of a layer -> participation ratio of the positions' gradient norms, (sum g)^2 / (T sum
            g^2): 1 if all positions have the same norm, 1/T if one has it all.
    """

    loss: Number
    predicted: int = 0
    density: float
    norm: Number | None = None
    norms: dict[str, dict[str, float]]
    reached: dict[str, Number] = field(default_factory=dict)
    spread: dict[str, Number] = field(default_factory=dict)

    def layer_norm(self, layer: str) -> float | None:
        """Return the norm of the gradient of all weights of a layer; None where no position has a target."""
        kinds = self.norms.get(layer) if self.density else None
        return None if kinds is None else sum(value**2 for value in kinds.values()) ** 0.5


@dataclass(frozen=True, kw_only=True)
class GradientsRecord:
    """`gradients.json`: what a step of each objective would do to one model on the same texts."""

    model: str = ""
    texts: int = 0
    tokens: int = 0
    layers: list[str] = field(default_factory=list)
    objectives: dict[str, ObjectiveGradient]
    format: Literal[1] = 1
