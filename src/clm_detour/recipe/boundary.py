"""The boundary between two phases: what a phase takes from the phase before it, and what is new.

`cross_boundary` decides it, `starting_network` builds the network accordingly, and `boundary_table` prints
it. The table "Phase boundaries" in docs/training.md says the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Column, Table

from clm_detour.config.schema import Freeze, Model
from clm_detour.data.objectives import Objective
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.freezing import freeze, frozen_names, head_names
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.start import check_fit, fresh_config, load_base, load_network
from clm_detour.utils.errors import UserError

OPTIMIZER_STATE = "optimizer.safetensors"  # in the folder of a phase and of a checkpoint


@dataclass(frozen=True)
class Start:
    """Everything with which a phase starts.

    Args:
        run: The phase. Its schedule and Composer's clock start at 0, unless the phase resumes.
        origin: Name of the place that weights and optimizer state come from, for the printed table.
        weights: Hugging Face folder or hub id; None for random weights.
        weights_seed: Seed of random weights.
        optimizer_state: File of the optimizer state; None for a new optimizer.
        frozen_before: What the phase before froze; that file has no optimizer state of it.
        reset_head: Whether the prediction head is initialized again, without optimizer state.
        frozen: What stays unchanged during the phase.
        first_row: Position in the stream of the phase's mixture: the row after the last one that an earlier
            phase took from it.
        objective: Objective, which sets the attention mask.
        seed: Seed of masks, dropout and a reset head.
    """

    run: PhaseRun
    origin: str
    weights: str | None
    weights_seed: int
    optimizer_state: Path | None
    frozen_before: Freeze | None
    reset_head: bool
    frozen: Freeze | None
    first_row: int
    objective: Objective
    seed: int

    def parameters_without_state(self, network: ModernBertForPretraining) -> set[str]:
        """Return the names of parameters whose optimizer state is new although that of the others is kept."""
        return frozen_names(self.frozen_before, network) | (head_names(network) if self.reset_head else set())


def cross_boundary(recipe: Recipe, run: PhaseRun, checkpoint: Path | None = None) -> Start:
    """Return everything with which a phase starts.

    Args:
        checkpoint: Folder of a checkpoint of the phase itself, from which it resumes.

    Raises:
        UserError: If the phase before has not finished.
    """
    phase, before = run.phase, run.parent
    weights, optimizer_state, frozen_before, reset_head = (
        recipe.config.model.base,
        None,
        None,
        phase.reset_head,
    )
    origin = weights or ""
    if checkpoint is not None:
        origin, weights = f"checkpoint {checkpoint.name}", str(checkpoint)
        optimizer_state, reset_head = checkpoint / OPTIMIZER_STATE, False
    elif before is not None:
        folder = recipe.folder.phase(before.id)
        if not folder.finished:
            raise UserError(
                f"Phase {run.id} starts from the end of {before.id}, which has not finished; run that first."
            )
        origin, weights = f"end of {before.id}", str(folder.model)
        if phase.moments == "keep":
            optimizer_state, frozen_before = folder.moments, before.phase.freeze
    return Start(
        run=run,
        origin=origin,
        weights=weights,
        weights_seed=recipe.config.seed,
        optimizer_state=optimizer_state,
        frozen_before=frozen_before,
        reset_head=reset_head,
        frozen=phase.freeze,
        first_row=run.first_row,
        objective=run.objective,
        seed=run.seed,
    )


def boundary_table(start: Start, resumes_after: str | None = None) -> Table:
    """Return a table of what a phase takes from the phase before it, and what is new.

    Args:
        resumes_after: Step after which the phase resumes, if it does.
    """
    run, phase, rate = start.run, start.run.phase, start.objective.mask_rate
    kept, clock = f"kept, {start.origin}", "kept" if resumes_after else "new"
    schedule = f"{phase.schedule.name}, peak {phase.schedule.peak:g}, {run.steps:,} steps"
    mask = "causal, next token" if start.objective.causal else f"bidirectional, {rate:.0%} masked"
    rows = {
        "weights": "new, random" if start.weights is None else kept,
        "optimizer state": "new" if start.optimizer_state is None else kept,
        "clock and schedule": f"{clock}: {schedule}",
        "position in the data": f"row {start.first_row:,} of {phase.mixture}"
        + (", continued" if start.first_row else ", its start"),
        "attention and objective": mask
        + ("" if run.parent is None else f" (before: {run.parent.phase.objective})"),
        "seed": f"{start.seed}",
    }
    if start.reset_head:
        rows["prediction head"] = "initialized again, without optimizer state"
    if start.frozen is not None:
        frozen = {
            f"layers {start.frozen.layers}": start.frozen.layers,
            "embeddings": start.frozen.embeddings,
            "head": start.frozen.head,
        }
        rows["frozen"] = ", ".join(name for name, is_set in frozen.items() if is_set)
    if resumes_after is not None:
        rows["resumes after"] = resumes_after
    table = Table(
        Column("", no_wrap=True), Column(run.id), box=None, padding=(0, 1, 0, 0), title_justify="left"
    )
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def starting_network(start: Start, model: Model, tokenizer: Tokenizer) -> ModernBertForPretraining:
    """Return the network with which a phase starts, in fp32 and with its frozen layers.

    Args:
        model: Section `model` of the recipe.

    Raises:
        UserError: If weights cannot be loaded, or the tokenizer does not fit the model.
    """
    backend, row_tokens = None if model.attention == "auto" else model.attention, start.run.row_tokens
    if start.weights is None:
        torch.manual_seed(start.weights_seed)
        keys = {"max_position_embeddings": row_tokens, **(model.config or {})}
        network = ModernBertForPretraining(fresh_config(keys, tokenizer), backend)
    elif start.weights == model.base:
        network = load_base(start.weights, backend, start.weights_seed)
    else:
        network = load_network(start.weights, backend)
    check_fit(network.config, tokenizer)
    if network.architecture.longest is None:
        positions = max(network.config.max_position_embeddings, row_tokens)
        network.config.max_position_embeddings = positions  # never fewer than a base states
    if start.reset_head:
        reset_head(network, start.seed)
    freeze(start.frozen, network)
    return network.float()


def reset_head(network: ModernBertForPretraining, seed: int) -> None:
    """Initialize prediction head and decoder, except decoder weights that are tied to the embeddings."""
    torch.manual_seed(seed)
    network._init_weights(network.head)
    network.head.norm.reset_parameters()
    if not network.config.tie_word_embeddings:
        network._init_weights(network)  # fills the decoder
    if network.decoder.bias is not None:
        torch.nn.init.zeros_(network.decoder.bias)
