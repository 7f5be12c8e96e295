"""What a recipe takes, told before any of it is done: passes over the data, steps, operations, memory, disk, hours.

What cannot be known yet is left out: available tokens and operations before the data is prepared, sizes before the tokenizer
is trained, hours without a speed. Activations are left out too, for they depend on the kernels of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table
from transformers import ModernBertConfig

from clm_detour.config.schema import Config
from clm_detour.config.units import parse_tokens
from clm_detour.data.mixture import Mixture
from clm_detour.data.packing import PackedSource, is_packed
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.progress import console, human
from clm_detour.train.freeze import frozen_layers
from clm_detour.train.recipe import PhaseRun, plan_recipe
from clm_detour.train.start import base_config, fresh_config
from clm_detour.train.stream import check_epochs, open_sources, open_stream, prepared_folder, shard_cache

MANY_EPOCHS = 4  # up to four passes, text seen again is worth about as much as new (arXiv 2305.16264)
SAMPLED_ROWS = 64
WEIGHT, MOMENTS, GRADIENT, BF16_COPY = 4, 8, 4, 2  # bytes a parameter


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
    """One phase; `flops` is None before its data is prepared."""

    run: PhaseRun
    sources: Mapping[str, SourcePlan]
    flops: float | None


@dataclass(frozen=True)
class Sizes:
    """What does not depend on the length of the phases; in bytes but for `parameters`.

    Args:
        memory: on each process: weights, gradients, moments, and under bf16 the copies of the weights.
        disk: below `run_dir` at the end, without the data.
        peak_disk: the most that the checkpoints of a phase add to that on the way.
    """

    parameters: int
    memory: int
    disk: int
    peak_disk: int


@dataclass(frozen=True)
class RecipePlan:
    """All phases, each once; `sizes` is None before there is a tokenizer."""

    phases: list[PhasePlan]
    sizes: Sizes | None


def make_plan(config: Config, tokenizer: Tokenizer | None) -> RecipePlan:
    """Plan a whole recipe.

    Raises:
        UserError: a phase freezes layers that the model does not have, a source would be gone through more often than its `max_epochs`, or prepared data is damaged.
    """
    model = model_config(config, tokenizer)
    if model is not None:
        for name, phase in config.phases.items():
            frozen_layers(phase.freeze, model, f"phases.{name}.freeze.layers")
    runs = list(plan_recipe(config).values())
    phases = [plan_phase(config, run, tokenizer, model) for run in runs]
    return RecipePlan(phases, None if model is None else sizes_of(config, runs, model))


def sizes_of(config: Config, runs: list[PhaseRun], model: ModernBertConfig) -> Sizes:
    """Memory and disk."""
    size = count_parameters(model)
    bf16 = BF16_COPY if config.train.precision == "bf16" else 0
    every, kept = parse_tokens(config.train.checkpoint_every, ""), config.train.checkpoints_kept
    checkpoints = max(min((run.tokens - 1) // every, kept + 1) for run in runs)
    return Sizes(
        parameters=size,
        memory=size * (WEIGHT + GRADIENT + MOMENTS + bf16),
        disk=size * (len(runs) * (WEIGHT + MOMENTS) + len(config.arms) * WEIGHT),
        peak_disk=size * checkpoints * (WEIGHT + MOMENTS),
    )


def model_config(config: Config, tokenizer: Tokenizer | None) -> ModernBertConfig | None:
    """The network's, where it can be known already."""
    if config.model.base is not None:
        return base_config(config.model.base)
    return None if tokenizer is None else fresh_config(config.model.config or {}, tokenizer)


def count_parameters(config: ModernBertConfig) -> int:
    """Of a network that is not built."""
    import torch

    from clm_detour.model.modernbert import ModernBertForPretraining

    with torch.device("meta"):
        network = ModernBertForPretraining(config)
    return sum(parameter.numel() for parameter in network.parameters())


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
    flops = None
    if len(found) == len(shares):
        check_epochs(config, run, mixture)
        if tokenizer is not None and model is not None:
            flops = flops_of(config, run, tokenizer, model)
    return PhasePlan(run, sources, flops)


def prepared_sources(
    config: Config, names: list[str], tokenizer: Tokenizer | None
) -> dict[str, PackedSource]:
    """Those that are there."""
    if tokenizer is None:
        return {}
    rows, cache = config.data.sequence_length, shard_cache(config)
    there = [name for name in names if is_packed(f"{prepared_folder(config, name)}/train", rows, cache)]
    return open_sources(config, there, "train", tokenizer)


def flops_of(config: Config, run: PhaseRun, tokenizer: Tokenizer, model: ModernBertConfig) -> float:
    """Operations of the phase: those of its first rows, exactly, times the number of rows."""
    from clm_detour.data.loader import collate
    from clm_detour.model.flops import flops_per_batch

    stream = open_stream(config, run, tokenizer)
    rows = range(run.first_row, min(run.first_row + SAMPLED_ROWS, run.next_row))
    batch = collate([stream.example(position) for position in rows])
    lengths = [length for row in batch["document_lengths"] for length in row]
    sample = flops_per_batch(model, lengths, sum(batch["predicted"]), causal=run.phase.objective == "clm")
    return sample.total / len(rows) * (run.next_row - run.first_row)


def print_plan(plan: RecipePlan, tokens_per_second: float | None = None) -> None:
    """Show it.

    Args:
        tokens_per_second: the speed of training, for the hours.
    """
    console.print(phase_table(plan, tokens_per_second))
    console.print()
    console.print(source_table(plan))
    console.print()
    for line in summary(plan, tokens_per_second):
        console.print(line, soft_wrap=True)


def phase_table(plan: RecipePlan, tokens_per_second: float | None) -> Table:
    """A line a phase."""
    table = new_table(
        "phase", "objective", *("tokens", "steps", "FLOPs"), *(["hours"] if tokens_per_second else [])
    )
    for phase in plan.phases:
        run = phase.run
        rate = f" {run.phase.mask_rate:.0%}" if run.phase.mask_rate else ""
        table.add_row(
            run.id,
            run.phase.objective + rate,
            human(run.tokens),
            f"{run.steps:,}",
            "?" if phase.flops is None else f"{phase.flops:.2e}",
            *([hours(run.tokens, tokens_per_second)] if tokens_per_second else []),
        )
    return table


def source_table(plan: RecipePlan) -> Table:
    """What is drawn from each mixture, and below it from each of its sources; phases that draw the same share their lines."""
    table = new_table("mixture, source", "share", "tokens", "available", "epochs", "rows")
    drawn: dict[tuple[str, int, int], list[PhasePlan]] = {}
    for phase in plan.phases:
        run = phase.run
        drawn.setdefault((run.phase.mixture, run.first_row, run.next_row), []).append(phase)
    for (mixture, first, end), phases in drawn.items():
        total = human(phases[0].run.tokens)
        table.add_row(
            f"[bold]{mixture}[/bold]", "", f"[bold]{total}[/bold]", "", "", f"{first:,}-{end - 1:,}"
        )
        for name, source in phases[0].sources.items():
            table.add_row(*source_cells(name, source))
    return table


def new_table(*names: str) -> Table:
    """Text on the left, numbers on the right."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, name in enumerate(names):
        table.add_column(name, justify="right" if number and name != "objective" else "left", no_wrap=True)
    return table


def source_cells(name: str, source: SourcePlan) -> list[str]:
    """One source's line."""
    epochs = "?" if source.epochs is None else f"x{source.epochs:.2f}"
    if source.epochs is not None and source.epochs > MANY_EPOCHS:
        epochs = f"[bold yellow]{epochs}[/bold yellow]"
    first, end = source.rows
    available = "?" if source.available is None else human(source.available)
    rows = f"{first:,}-{end - 1:,}" if end > first else "none"
    return [f"  {name}", f"{source.share:.1%}", human(source.tokens), available, epochs, rows]


def hours(tokens: int, tokens_per_second: float) -> str:
    """How long that takes."""
    return f"{tokens / tokens_per_second / 3600:,.2f}"


def summary(plan: RecipePlan, tokens_per_second: float | None) -> list[str]:
    """Totals, and what stands out."""
    tokens = sum(phase.run.tokens for phase in plan.phases)
    parts = [f"{sum(phase.run.steps for phase in plan.phases):,} steps", f"{human(tokens)} tokens"]
    flops = [phase.flops for phase in plan.phases if phase.flops is not None]
    if len(flops) == len(plan.phases):
        parts.append(f"{sum(flops):.2e} FLOPs")
    if tokens_per_second:
        parts.append(f"{hours(tokens, tokens_per_second)} hours at {human(tokens_per_second)} tokens/s")
    lines = [f"In all {', '.join(parts)}."]
    if plan.sizes is not None:
        sizes = plan.sizes
        lines.append(
            f"{human(sizes.parameters)} parameters. Memory of each process: {human(sizes.memory)}B for weights, gradients and moments, and "
            f"activations beside them. Disk: {human(sizes.disk)}B for models and moments, up to {human(sizes.peak_disk)}B for checkpoints "
            "on the way."
        )
    if any(source.epochs is None for phase in plan.phases for source in phase.sources.values()):
        lines.append(
            "A question mark stands for what is known once the data is prepared (clm-detour prepare)."
        )
    often = {
        name: None
        for phase in plan.phases
        for name, source in phase.sources.items()
        if (source.epochs or 0) > MANY_EPOCHS
    }
    if often:
        lines.append(f"[yellow]Gone through more than {MANY_EPOCHS} times: {', '.join(often)}.[/yellow]")
    return lines
