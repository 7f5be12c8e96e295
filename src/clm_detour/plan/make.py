"""Compute the plan of a recipe.

Values that are not known yet are None: available tokens before the data is prepared, sizes and operations
before the config of the model is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clm_detour.config.schema import Model, TokenizerTraining
from clm_detour.data.mixture import Mixture
from clm_detour.data.packing import PackedSource
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.plan.memory import Sizes, sizes_of
from clm_detour.plan.operations import Operations, assumed, matched, measured
from clm_detour.recipe.freezing import frozen_layers
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.start import base_config, fresh_config, pad_vocabulary, untrained_config


@dataclass(frozen=True)
class SourcePlan:
    """A source in one phase.

    Args:
        share: Share of the source in the phase's mixture.
        tokens: Tokens that the phase takes from it, padding included.
        available: Tokens that it has; None before it is prepared.
        epochs: Number of passes over it from the start of the stream to the end of the phase.
        rows: The first row that the phase takes, and the row after the last, counted over all epochs.
    """

    share: float
    tokens: int
    available: int | None
    epochs: float | None
    rows: tuple[int, int]


@dataclass(frozen=True)
class PhasePlan:
    """A phase.

    Args:
        operations: None if the model's config is not known yet.
        assumed: Whether the operations assume a length of the documents.
    """

    run: PhaseRun
    sources: Mapping[str, SourcePlan]
    operations: Operations | None
    assumed: bool


@dataclass(frozen=True)
class RecipePlan:
    """The plan of a recipe.

    Args:
        phases: Each phase once.
        sizes: None if the model's config is not known yet.
        matched: See `clm_detour.plan.operations.matched`.
    """

    phases: list[PhasePlan]
    sizes: Sizes | None
    matched: Mapping[tuple[str, str], float] = field(default_factory=dict)


def make_plan(
    recipe: Recipe, gpus: int = 1, read_data: bool = True, gpu_memory: int | None = None
) -> RecipePlan:
    """Return the plan of a recipe.

    Args:
        gpus: Number of GPUs on which it is to run. They share the rows of a step.
        read_data: Whether to use the tokenizer and the prepared rows, as far as they exist.
        gpu_memory: Memory of each GPU in bytes, for `train.micro_rows: auto`; None plans for a CPU.

    Raises:
        UserError: If a phase freezes layers that the model does not have, a source would be repeated more
            often than its `max_epochs`, or prepared data is damaged.
    """
    read_data = read_data and recipe.has_tokenizer
    tokenizer = recipe.tokenizer if read_data else None
    model = model_config(recipe.config.model, recipe.config.tokenizer.train, tokenizer)
    if tokenizer is not None and recipe.start != recipe.config.model.base:
        model.vocab_size = max(model.vocab_size, pad_vocabulary(tokenizer.vocab_size))
    if model is not None:
        for name, phase in recipe.config.phases.items():
            frozen_layers(phase.freeze, model, f"phases.{name}.freeze.layers")
    phases = [plan_phase(recipe, run, model, read_data) for run in recipe.phases.values()]
    if model is None:
        return RecipePlan(phases, None)
    operations = {phase.run.id: phase.operations for phase in phases if phase.operations is not None}
    return RecipePlan(
        phases, sizes_of(recipe, model, gpus, gpu_memory), matched(recipe.arms.values(), operations)
    )


def model_config(model: Model, training: TokenizerTraining | None, tokenizer: Tokenizer | None) -> Any:
    """Return the config of the network; None if it is not known yet.

    Args:
        model: Section `model` of the recipe.
        training: Section `tokenizer.train` of the recipe.
        tokenizer: The tokenizer, if it exists.
    """
    if model.base is not None:
        return base_config(model.base)
    if tokenizer is not None:
        return fresh_config(model.config or {}, tokenizer)
    return None if training is None else untrained_config(model.config or {}, training.vocab_size)


def plan_phase(recipe: Recipe, run: PhaseRun, model: Any, read_data: bool) -> PhasePlan:
    """Return the plan of a phase."""
    shares = recipe.config.data.mixtures[run.phase.mixture]
    names = [name for name in shares if read_data and recipe.prepared.has_rows(name)]
    complete = len(names) == len(shares)
    found: Mapping[str, PackedSource] = {}
    if names:
        found = recipe.stream(run).sources if complete else recipe.open_sources(names, "train")
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
    if model is None:
        return PhasePlan(run, sources, None, assumed=not complete)
    operations = measured(run, recipe.stream(run), model) if complete else assumed(run, model)
    return PhasePlan(run, sources, operations, assumed=not complete)
