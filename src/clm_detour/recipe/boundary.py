"""The boundary between two phases: what a phase takes from the phase before it, and what is new.

`cross_boundary` decides it, `starting_network` builds the network accordingly, and `boundary_table` prints
it. The table "Phase boundaries" in docs/training.md says the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Column, Table

from clm_detour.config.schema import Freeze, Model, Phase
from clm_detour.data.objectives import Objective
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.model.dropout import OutputDropout
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.base import fills_masks
from clm_detour.recipe.freezing import freeze, frozen_names, head_names
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.start import check_fit, fresh_config, is_decoder, load_base, load_network
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
        head: Folder or hub id from which the prediction head is taken, without optimizer state. None if it
            comes with the weights.
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
    head: str | None
    frozen: Freeze | None
    first_row: int
    objective: Objective
    seed: int

    def parameters_without_state(self, network: ModernBertForPretraining) -> set[str]:
        """Return the names of parameters whose optimizer state is new although that of the others is kept."""
        new_head = self.reset_head or self.head is not None
        return frozen_names(self.frozen_before, network) | (head_names(network) if new_head else set())


def cross_boundary(recipe: Recipe, run: PhaseRun, checkpoint: Path | None = None) -> Start:
    """Return everything with which a phase starts.

    Args:
        checkpoint: Folder of a checkpoint of the phase itself, from which it resumes.

    Raises:
        UserError: If the phase before has not finished.
    """
    phase, before = run.phase, run.parent
    weights, optimizer_state, frozen_before = recipe.start, None, None
    reset_head, head = head_at_start(recipe, run)
    origin = weights or ""
    if checkpoint is not None:
        origin, weights = f"checkpoint {checkpoint.name}", str(checkpoint)
        optimizer_state, reset_head, head = checkpoint / OPTIMIZER_STATE, False, None
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
        head=head,
        frozen=phase.freeze,
        first_row=run.first_row,
        objective=run.objective,
        seed=run.seed,
    )


def head_at_start(recipe: Recipe, run: PhaseRun) -> tuple[bool, str | None]:
    """Return whether a phase starts with a new prediction head, and the model whose head it takes.

    Both are as in `Start`. With `separate_head`, masked and causal phases have a head each.
    """
    phase, base = run.phase, recipe.config.model.base
    if not phase.separate_head or run.parent is None:
        return phase.reset_head or (phase.separate_head and not has_head_for(base, phase)), None
    if run.parent.phase.objective == phase.objective:
        return False, None
    same = [each for each in run.lineage[:-1] if each.phase.objective == phase.objective]
    if same:
        return False, str(recipe.folder.phase(same[-1].id).model)
    return (False, recipe.start) if has_head_for(base, phase) else (True, None)


def has_head_for(base: str | None, phase: Phase) -> bool:
    """Return whether a base has a prediction head that was trained for the objective of a phase."""
    if base is None:
        return False
    return is_decoder(base) if phase.objective == "clm" else fills_masks(base)


def boundary_table(start: Start, resumes_after: str | None = None) -> Table:
    """Return a table of what a phase takes from the phase before it, and what is new.

    Args:
        resumes_after: Step after which the phase resumes, if it does.
    """
    run, phase, objective = start.run, start.run.phase, start.objective
    kept, clock = f"kept, {start.origin}", "kept" if resumes_after else "new"
    schedule = f"{phase.schedule.name}, peak {phase.schedule.peak:g}, {run.steps:,} steps"
    unit = " of words" if objective.mask_unit == "word" else ""
    masked = f"bidirectional, {objective.mask_rate or 0:.0%}{unit} masked"
    mask = "causal, next token" if objective.causal else masked
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
    if start.head is not None:
        rows["prediction head"] = f"that of {start.head}, without optimizer state"
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
    if start.head is not None:
        take_head(network, load_base(start.head, backend))
    if model.attention_output_dropout:
        network.model.output_dropout = OutputDropout(model.attention_output_dropout, start.seed)
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


def take_head(network: ModernBertForPretraining, other: ModernBertForPretraining) -> None:
    """Replace prediction head and decoder by those of another network, except tied decoder weights."""
    names, weights = head_names(network), other.state_dict()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in names:
                parameter.copy_(weights[name])
