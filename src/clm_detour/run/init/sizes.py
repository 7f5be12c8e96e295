"""Choose durations, batches and rates for an amount of text, in the proportions of the paper.

The paper trains for 10B tokens in phase 1 and a tenth of that in the decay, in steps of 3.1M tokens at a
learning rate of 2e-4 (arXiv 2605.12438). Less text gets shorter phases, with smaller steps so that there are
enough of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from clm_detour.plan.show import MANY_EPOCHS

PAPER_PHASE = 10_000_000_000  # tokens of phase 1 in the paper's shorter runs
PAPER_STEP = 384 * 8192  # tokens
PAPER_RATE = 2e-4
PAPER_CHECKPOINT = 500_000_000  # tokens between checkpoints
DECAY = 0.1  # length of the decay as a fraction of phase 1
CPU_PHASE = 500_000  # tokens of phase 1 without a GPU
FEWEST_TOKENS = 10_000  # with fewer, there are not enough steps
LITTLE = 10_000_000  # tokens; with fewer, an effect is not to be expected

WARMUP = 0.01  # of phase 1, as in the paper
STEPS = 1000  # in phase 1, where that gives steps of SMALL_STEP or more
FEWEST_STEPS = 200  # in phase 1, and so 20 in the decay
SMALL_STEP = 32_768  # tokens
LOWEST_RATE = 2e-5
COVERED = 0.95  # share of the documents that fit into a row
SHORTEST_ROW, LONGEST_CPU_ROW = 64, 1024  # tokens
HELD_OUT_DOCUMENTS = 60  # wanted of each source: twice and more what the comparison of networks needs
HELD_OUT, MOST_HELD_OUT = 0.01, 0.1  # shares of the documents


@dataclass(frozen=True)
class Sizes:
    """The numbers of a recipe.

    Args:
        phase, decay, warmup: Tokens of phase 1, of the decay and of the warm-up.
        checkpoint: Tokens between checkpoints.
        passes: Passes over the text in an arm.
        limit: What limits the duration: "text", "paper" or "cpu".
        row: Tokens in a row.
        rows: Rows in a step.
        rate: Largest learning rate.
        held_out: Share of the documents that is kept out of training.
    """

    phase: int
    decay: int
    warmup: int
    checkpoint: int
    passes: float
    limit: str
    row: int
    rows: int
    rate: float
    held_out: float


def choose(tokens: int, lengths: Sequence[int], fewest_documents: int, longest_row: int, gpus: int) -> Sizes:
    """Return the numbers of a recipe.

    Args:
        tokens: Tokens of all sources together.
        lengths: Tokens of sampled documents.
        fewest_documents: Number of documents of the source with the fewest.
        longest_row: Tokens that the base model can read at once.
        gpus: Number of GPUs of this machine.
    """
    share = HELD_OUT_DOCUMENTS / max(fewest_documents, 1)
    held_out = min(max(HELD_OUT, math.ceil(100 * share) / 100), MOST_HELD_OUT)
    there = tokens * (1 - held_out)
    limits = {"text": MANY_EPOCHS * there / (1 + DECAY), "paper": PAPER_PHASE}
    if not gpus:
        limits["cpu"] = CPU_PHASE
    limit = min(limits, key=lambda name: limits[name])
    phase = rounded_down(limits[limit])
    decay = round(DECAY * phase)
    step = min(PAPER_STEP, max(phase / STEPS, min(SMALL_STEP, phase / FEWEST_STEPS)))
    longest = min(longest_row, longest_row if gpus else LONGEST_CPU_ROW)
    covering = sorted(lengths)[math.ceil(COVERED * len(lengths)) - 1]
    row = max(min(power_above(covering), longest, power_below(step / 4)), SHORTEST_ROW)
    rows = 384 if step == PAPER_STEP and row == 8192 else power_below(step / row)
    rows = -(-rows // max(gpus, 1)) * max(gpus, 1)
    rate = max(PAPER_RATE * math.sqrt(min(rows * row / PAPER_STEP, 1)), LOWEST_RATE)
    return Sizes(
        phase=phase,
        decay=decay,
        warmup=rounded_down(min(max(WARMUP * phase, 10 * rows * row), decay)),
        checkpoint=min(max(round(phase / 10), rows * row), PAPER_CHECKPOINT),
        passes=(phase + decay) / there,
        limit=limit,
        row=row,
        rows=rows,
        rate=float(f"{rate:.1e}"),
        held_out=held_out,
    )


def rounded_down(number: float) -> int:
    """Return a number with two digits that are not 0, so that a tenth of it is short too."""
    scale = 10 ** max(math.floor(math.log10(number)) - 1, 0)
    return int(number // scale) * scale


def power_above(number: float) -> int:
    """Return the smallest power of two that is not smaller."""
    return int(2 ** math.ceil(math.log2(max(number, 1))))


def power_below(number: float) -> int:
    """Return the largest power of two that is not larger, at least 1."""
    return int(2 ** math.floor(math.log2(max(number, 1))))
