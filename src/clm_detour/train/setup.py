"""What a phase is trained with: its config and folder, the tokenizer, the rows, and where it goes on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from composer.utils import dist
from rich.table import Column, Table

from clm_detour.config.schema import Config
from clm_detour.data.loader import RowStream
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.model.attention import choose_backend
from clm_detour.model.precision import best_device, computed_precision
from clm_detour.recipe.export import tokenizer_path
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.stream import open_stream
from clm_detour.records.run_folder import PhaseFolder, RunFolder
from clm_detour.train.checkpoints import Checkpoint, Position


@dataclass(frozen=True)
class Setup:
    """All of it.

    Args:
        resumed: the phase's own checkpoint that it goes on from; None: it starts.
    """

    config: Config
    run: PhaseRun
    folder: PhaseFolder
    tokenizer: Tokenizer
    stream: RowStream
    resumed: Checkpoint | None = None

    @classmethod
    def open(cls, config: Config, run: PhaseRun, resumed: Checkpoint | None = None) -> Setup:
        """Open the tokenizer and the prepared rows.

        Raises:
            UserError: as `open_stream`.
        """
        tokenizer = load_tokenizer(tokenizer_path(config))
        folder = RunFolder.of(config).phase(run.id)
        return cls(config, run, folder, tokenizer, open_stream(config, run, tokenizer), resumed)


def boundary_table(config: Config, run: PhaseRun, resumed: Position | None = None) -> Table:
    """What the phase takes from the one before, what is fresh, and where it goes on if it was interrupted."""
    phase, before = run.phase, run.parent
    kept = before is not None and phase.moments == "keep"
    origin = config.model.base or "fresh, random" if before is None else f"kept, end of {before.id}"
    position = f"row {run.first_row:,} of {phase.mixture}" + (", goes on" if run.first_row else ", its start")
    rate = phase.mask_rate
    mask = "causal, next token" if phase.objective == "clm" else f"bidirectional, {rate:.0%} masked"
    seen = "" if before is None else f" (before: {before.phase.objective})"
    rows = {
        "weights": origin,
        "optimizer's moments": f"kept, end of {before.id}" if before and kept else "fresh",
        "clock and schedule": f"fresh: {phase.schedule.name}, peak {phase.schedule.peak:g}, {run.steps:,} steps",
        "position in the data": position,
        "attention and objective": mask + seen,
        "seed": f"{run.seed}",
    }
    if phase.reset_head:
        rows["prediction head"] = "initialised anew, without moments"
    if phase.freeze is not None:
        frozen = {
            "layers " + (phase.freeze.layers or ""): phase.freeze.layers,
            "embeddings": phase.freeze.embeddings,
            "head": phase.freeze.head,
        }
        rows["frozen"] = ", ".join(name for name, is_set in frozen.items() if is_set)
    if resumed is not None:
        rows["goes on after"] = f"step {resumed.step:,} of {run.steps:,}, {resumed.tokens:,} tokens"
    table = Table(
        Column("", no_wrap=True), Column(run.id), box=None, padding=(0, 1, 0, 0), title_justify="left"
    )
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def computation_lines(config: Config) -> list[str]:
    """Processes, precision and attention back end, and why."""
    precision, why = computed_precision(config.train.precision, best_device())
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    choice = choose_backend(config.model.attention, best_device().type, dtype)
    together = f", {config.train.parallel}" if dist.get_world_size() > 1 else ""
    return [
        f"{describe_processes()}{together}",
        f"computed in {precision} ({why})",
        f"attention back end {choice.name} ({choice.reason})",
    ]


def describe_processes() -> str:
    """How many train together."""
    number = dist.get_world_size()
    return "1 process" if number == 1 else f"{number} processes"
