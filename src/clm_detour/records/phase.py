"""The records of a phase: `phase.json`, `metrics.jsonl` and `held_out.jsonl` in the phase's folder."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from clm_detour.records.run import Scores
from clm_detour.records.store import Number


@dataclass(frozen=True, kw_only=True)
class Share:
    """A source's share of the tokens of a phase: what the mixture asks for, and what was read."""

    target: float
    observed: float


@dataclass(frozen=True)
class ScheduleRecord:
    """The settings of a phase's learning-rate schedule; see `config.schema.Schedule`."""

    name: str
    peak: float
    warmup: str = "0tok"
    decay: str = "0tok"
    floor: float = 0.1


@dataclass(frozen=True)
class FreezeRecord:
    """The parts of the network that a phase did not train; see `config.schema.Freeze`."""

    layers: str | None = None
    embeddings: bool = False
    head: bool = False


@dataclass(frozen=True, kw_only=True)
class PhaseRecord:
    """`phase.json`: what a finished phase did. It is written last, so a phase with this file is finished.

    Args:
        hub: Base model and data sets that were the hub's when the phase ran; None in a record of 0.1.0.
        first_row, next_row: Positions in the stream of the mixture; `next_row` is the first that was not
            read.
        seconds: Wall time of training.
        world_size: Number of processes.
    """

    id: str = ""
    phase: str = ""
    objective: str
    mask_rate: float | None
    mask_unit: str = "token"
    mixture: str
    hub: list[str] | None = None
    seed: int | None = None
    freeze: FreezeRecord | None = None
    reset_head: bool = False
    separate_head: bool = False
    schedule: ScheduleRecord
    steps: int
    skipped_steps: int = 0
    on_bad_loss: str | None = None
    bad_loss_above: float | None = None
    tokens: int
    batch_tokens: int
    first_row: int
    next_row: int
    shares: dict[str, Share]
    seconds: float
    started: str = ""
    finished: str = ""
    world_size: int
    parallel: str | None = None
    device: str
    precision: str
    format: Literal[1] = 1


@dataclass(frozen=True, kw_only=True)
class MicroRowsRecord:
    """`micro_rows.json`: the micro-batch that was found by trial, and all that it depends on.

    Args:
        rows: Rows in one forward pass of each process.
        gpus: Name and memory in bytes of the GPU of each process, by rank.
        versions: Version of each package that decides how much memory a step takes.
        settings: Settings of the recipe and the phase that do.
    """

    rows: int
    gpus: list[tuple[str, int]]
    versions: dict[str, str | None]
    settings: dict[str, Any]
    format: Literal[1] = 1


@dataclass(frozen=True, kw_only=True)
class LoggedStep:
    """A line of `metrics.jsonl`. Rates and shares are means over the steps since the line before.

    Args:
        tokens: Tokens since the start of the phase, padding included.
        tokens_per_second: Over all processes, padding included.
        real_tokens_per_second_per_device: Without padding.
        packing: Share of the rows' positions that hold text.
        data_wait: Share of the time in which the device waited for data.
        mfu: Share of the device's peak that the model's operations come to; only where the peak is known.
        shares: Each source's share of the tokens since the start of the phase.
    """

    step: int
    tokens: int
    loss: Number
    learning_rate: Number
    gradient_norm: Number = math.nan
    skipped_steps: int = 0
    tokens_per_second: Number
    real_tokens_per_second_per_device: Number = math.nan
    packing: Number = math.nan
    data_wait: Number = math.nan
    mfu: Annotated[Number, Field(exclude_if=math.isnan)] = math.nan
    seconds: Number = math.nan
    shares: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class HeldOutStep:
    """A line of `held_out.jsonl`: held-out scores in a phase, as a masked and as a causal language model."""

    step: int
    tokens: int
    mlm: Scores
    clm: Scores
