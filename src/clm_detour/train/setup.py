"""A phase with everything that its training needs, and the lines that say how it is computed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from composer.utils import dist

from clm_detour.config.schema import Config, Train
from clm_detour.data.loader import RowStream
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.model.attention import choose_backend
from clm_detour.model.compiling import compile_choice
from clm_detour.model.precision import best_device, computed_precision
from clm_detour.recipe.boundary import Start, cross_boundary
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.run_folder import PhaseFolder
from clm_detour.train.checkpoints import Checkpoint
from clm_detour.train.loggers import PhaseLog, open_log


@dataclass(frozen=True)
class Setup:
    """A phase with everything that its training needs.

    Args:
        resumed: Checkpoint of the phase from which it resumes; None if it starts.
    """

    recipe: Recipe
    run: PhaseRun
    resumed: Checkpoint | None = None

    @property
    def config(self) -> Config:
        """Config of the recipe."""
        return self.recipe.config

    @property
    def folder(self) -> PhaseFolder:
        """Paths of the phase."""
        return self.recipe.folder.phase(self.run.id)

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of the recipe."""
        return self.recipe.tokenizer

    @property
    def stream(self) -> RowStream:
        """Rows of the phase."""
        return self.recipe.stream(self.run)

    @property
    def precision(self) -> str:
        """Precision in which this device computes the phase."""
        return computed_precision(self.config.train.precision, best_device())[0]

    @property
    def compiles(self) -> bool:
        """True if the layers are compiled."""
        return compile_choice(self.config.train.compile, best_device().type)[0]

    @property
    def rows(self) -> int:
        """Rows of a full step that each process takes."""
        return self.run.step_rows.full // dist.get_world_size()

    @cached_property
    def start(self) -> Start:
        """Weights, optimizer state and position with which the phase starts.

        Raises:
            UserError: If the phase before has not finished.
        """
        return cross_boundary(self.recipe, self.run, self.resumed.folder if self.resumed else None)

    @cached_property
    def log(self) -> PhaseLog:
        """The loggers of `train.loggers`. Every process must open them, and the Trainer starts them.

        Raises:
            UserError: If a package is not installed, or an argument is not known.
        """
        return open_log(self.recipe, self.run)

    def observed_shares(self, tokens: int) -> dict[str, float]:
        """Return the share of each source in the first `tokens` tokens of the phase."""
        run = self.run
        return self.stream.mixture.observed_shares(run.first_row, run.first_row + tokens // run.row_tokens)


def computation_lines(train: Train, attention: str) -> list[str]:
    """Return lines that name the processes, the precision and the attention back end, with the reasons.

    Args:
        train: Section `train` of the recipe.
        attention: Setting `model.attention`.
    """
    precision, reason = computed_precision(train.precision, best_device())
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    backend = choose_backend(attention, best_device().type, dtype)
    details = [", residual stream in bf16"] if precision == train.residual == "bf16" else []
    details += [", with deterministic algorithms"] if train.deterministic else []
    parallel = f", {train.parallel}" if dist.get_world_size() > 1 else ""
    return [
        f"{describe_processes()}{parallel}",
        f"computed in {precision} ({reason}){''.join(details)}",
        f"attention back end {backend.name} ({backend.reason})",
    ]


def compile_line(train: Train) -> str:
    """Return a line that says whether the layers are compiled, and why."""
    compiled, reason = compile_choice(train.compile, best_device().type)
    return f"layers {'compiled' if compiled else 'not compiled'} ({reason})"


def describe_processes() -> str:
    """Return the number of processes in words."""
    number = dist.get_world_size()
    return "1 process" if number == 1 else f"{number} processes"
