"""A recipe -> its plan.

What cannot be known yet is left out: available tokens before the data is prepared, sizes and operations before there is a model's config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from transformers import ModernBertConfig

from clm_detour.config.schema import Config
from clm_detour.data.mixture import Mixture
from clm_detour.data.packing import PackedSource, is_packed
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.plan.memory import Sizes, sizes_of
from clm_detour.plan.operations import Operations, assumed, matched, measured
from clm_detour.recipe.freezing import frozen_layers
from clm_detour.recipe.phases import PhaseRun, plan_recipe
from clm_detour.recipe.start import base_config, fresh_config, untrained_config
from clm_detour.recipe.stream import check_epochs, open_sources, prepared_folder, shard_cache


@dataclass(frozen=True)
class SourcePlan:
    """One source in one phase.

    Args:
        tokens: wanted from it, padding included.
        available: tokens that it has; None before it is prepared.
        epochs: how often it will have been gone through by the end of the phase.
        rows: the first and the one after the last that the phase draws, counted over all epochs.
    """

    share: float
    tokens: int
    available: int | None
    epochs: float | None
    rows: tuple[int, int]


@dataclass(frozen=True)
class PhasePlan:
    """One phase.

    Args:
        operations: None where the model's config is not known yet.
        assumed: whether they are those of documents of an assumed length.
    """

    run: PhaseRun
    sources: Mapping[str, SourcePlan]
    operations: Operations | None
    assumed: bool


@dataclass(frozen=True)
class RecipePlan:
    """All phases, each once.

    Args:
        sizes: None where the model's config is not known yet.
        matched: (clm phase, mlm phase) -> how many times longer the second must be for the same operations.
    """

    phases: list[PhasePlan]
    sizes: Sizes | None
    matched: Mapping[tuple[str, str], float] = field(default_factory=dict)


def make_plan(config: Config, tokenizer: Tokenizer | None, gpus: int = 1) -> RecipePlan:
    """Plan a whole recipe.

    Args:
        gpus: on which it is to run; without `train.micro_rows` they share the rows of a step.

    Raises:
        UserError: a phase freezes layers that the model does not have, a source would be gone through more often than its `max_epochs`, or
            prepared data is damaged.
    """
    model = model_config(config, tokenizer)
    if model is not None:
        for name, phase in config.phases.items():
            frozen_layers(phase.freeze, model, f"phases.{name}.freeze.layers")
    runs = list(plan_recipe(config).values())
    phases = [plan_phase(config, run, tokenizer, model) for run in runs]
    if model is None:
        return RecipePlan(phases, None)
    operations = {phase.run.id: phase.operations for phase in phases if phase.operations is not None}
    return RecipePlan(phases, sizes_of(config, runs, model, gpus), matched(config, operations))


def model_config(config: Config, tokenizer: Tokenizer | None) -> ModernBertConfig | None:
    """The network's, where it can be known already."""
    if config.model.base is not None:
        return base_config(config.model.base)
    keys, training = config.model.config or {}, config.tokenizer.train
    if tokenizer is not None:
        return fresh_config(keys, tokenizer)
    return None if training is None else untrained_config(keys, training.vocab_size)


def plan_phase(
    config: Config, run: PhaseRun, tokenizer: Tokenizer | None, model: ModernBertConfig | None
) -> PhasePlan:
    """Plan one phase."""
    shares = config.data.mixtures[run.phase.mixture]
    found = prepared_sources(config, list(shares), tokenizer)
    mixture = Mixture(shares, {name: found[name].shard_rows if name in found else [1] for name in shares}, 0)
    before, wanted = mixture.counts(0, run.first_row), mixture.counts(0, run.next_row)
    sources = {
        name: SourcePlan(
            share=share,
            tokens=(wanted[name] - before[name]) * run.row_tokens,
            available=found[name].num_tokens if name in found else None,
            epochs=wanted[name] / len(found[name]) if name in found else None,
            rows=(before[name], wanted[name]),
        )
        for name, share in mixture.shares.items()
    }
    if tokenizer is None or len(found) < len(shares):
        return PhasePlan(run, sources, None if model is None else assumed(run, model), assumed=True)
    check_epochs(config, run, mixture)
    operations = None if model is None else measured(config, run, tokenizer, model)
    return PhasePlan(run, sources, operations, assumed=False)


def prepared_sources(
    config: Config, names: list[str], tokenizer: Tokenizer | None
) -> dict[str, PackedSource]:
    """Those that are there."""
    if tokenizer is None:
        return {}
    rows, cache = config.data.sequence_length, shard_cache(config)
    there = [name for name in names if is_packed(f"{prepared_folder(config, name)}/train", rows, cache)]
    return open_sources(config, there, "train", tokenizer)
