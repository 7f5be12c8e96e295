"""Rows -> batches, for any number of ranks and loader workers.

`RowStream.example(i)` depends on the seed and i alone. Step s of a phase takes the rows of the stream that `StepRows` gives it, and each rank
an equal slice of them, so the rows of a step, and their masks, are the same at any number of ranks and workers, and resuming is
starting at another step.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from clm_detour.data.batch_size import StepRows
from clm_detour.data.mixture import Mixture
from clm_detour.data.objectives import IGNORED, Objective, Vocabulary
from clm_detour.data.packing import PackedSource
from clm_detour.utils.interrupt import interrupts_held, leave_interrupts_to_parent

Batch = dict[str, Any]


class Example(NamedTuple):
    """One row: inputs and labels, (sequence_length,) int64, and its documents' lengths, which add up to that."""

    input_ids: np.ndarray
    labels: np.ndarray
    document_lengths: list[int]


@dataclass(frozen=True)
class RowStream:
    """The training stream of one phase: packed rows in the mixture's order, with inputs and labels.

    Args:
        seed: of the masks.
    """

    mixture: Mixture
    sources: Mapping[str, PackedSource]
    objective: Objective
    vocabulary: Vocabulary
    sequence_length: int
    seed: int

    @cached_property
    def remote(self) -> bool:
        """Whether any source is read through the cache."""
        return any(source.is_remote for source in self.sources.values())

    def fetch_ahead(self, position: int) -> None:
        """Begin to copy the shards that will be needed from `position` on."""
        if self.remote:
            for name, (now, after) in self.mixture.shards_at(position).items():
                self.sources[name].fetch_ahead(now, after)

    def release(self) -> None:
        """Unmap the shards of all sources."""
        for source in self.sources.values():
            source.release()

    def example(self, position: int) -> Example:
        """The row at `position`."""
        place = self.mixture.locate(position)
        row = self.sources[place.source].row(place.row)
        return make_example(
            row.tokens,
            row.lengths,
            self.objective,
            self.vocabulary,
            self.sequence_length,
            (self.seed, position),
        )


def make_example(
    tokens: np.ndarray,
    lengths: np.ndarray,
    objective: Objective,
    vocabulary: Vocabulary,
    sequence_length: int,
    key: tuple[int, int],
) -> Example:
    """Pad one row; padding at the end is one more document."""
    count = len(tokens)
    inputs, labels = np.full(sequence_length, vocabulary.pad), np.full(sequence_length, IGNORED)
    inputs[:count], labels[:count] = objective.apply(np.asarray(tokens, np.int64), lengths, vocabulary, key)
    missing = sequence_length - count
    documents = [int(length) for length in lengths] + [missing] * (missing > 0)
    return Example(inputs, labels, documents)


def collate(examples: Sequence[Example]) -> Batch:
    """Stack rows.

    Returns:
        input_ids, labels: (rows, sequence_length) int64; document_lengths: of each row, a list of lists; predicted: how many
        labels each row has, a list. The last two are for the host, which then need not ask the device.
    """
    labels = np.stack([example.labels for example in examples])
    return {
        "input_ids": torch.from_numpy(np.stack([example.input_ids for example in examples])),
        "labels": torch.from_numpy(labels),
        "document_lengths": [example.document_lengths for example in examples],
        "predicted": (labels != IGNORED).sum(axis=1).tolist(),
    }


class StepBatches(IterableDataset[Batch]):
    """One rank's batches, step by step, without end.

    Args:
        first_row: the stream's position at step 0 of the phase.
        step_rows: rows in each step over all ranks; `world_size` divides them.

    Attributes:
        start_step: the first to be made; set it to resume.
    """

    def __init__(
        self, stream: RowStream, first_row: int, step_rows: StepRows, rank: int = 0, world_size: int = 1
    ):
        assert step_rows.smallest % world_size == 0
        self.stream = stream
        self.first_row = first_row
        self.step_rows = step_rows
        self.rank = rank
        self.world_size = world_size
        self.start_step = 0

    def positions(self, step: int) -> range:
        """This rank's place in the stream at one step."""
        rows = self.step_rows.rows(step) // self.world_size
        first = self.first_row + self.step_rows.before(step) + self.rank * rows
        return range(first, first + rows)

    def step(self, step: int) -> Batch:
        """This rank's rows of one step."""
        positions = self.positions(step)
        self.stream.fetch_ahead(positions[0])
        return collate([self.stream.example(position) for position in positions])

    def steps_of(self, worker: int, workers: int) -> Iterator[int]:
        """The steps that one of several loader workers makes; torch takes one from each in turn."""
        return itertools.count(self.start_step + worker, workers)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        steps = self.steps_of(0, 1) if worker is None else self.steps_of(worker.id, worker.num_workers)
        return map(self.step, steps)


class Loader(DataLoader[Batch]):
    """A DataLoader whose processes leave Ctrl-C to the trainer from their start on: torch's would end, without a word."""

    def __iter__(self) -> Any:
        with interrupts_held():
            return super().__iter__()


def make_loader(dataset: StepBatches, workers: int, pin_memory: bool = False) -> DataLoader[Batch]:
    """A loader over whole batches; worker w makes steps w, w + workers, ..., which torch hands out in order."""
    return Loader(
        dataset,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=end_with_trainer,
    )


def end_with_trainer(worker: int) -> None:
    """Let SIGTERM end this loader process only if it comes from the trainer whose it is, and SIGINT never.

    A cluster sends SIGTERM to all processes at once, and the trainer needs its next batch to finish the step. torch's handler would leave,
    and one that ignored the signal would make the trainer wait for ever for the process that it ends so itself.
    """
    sys.excepthook = tell_of_mistakes
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, where no cluster is
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before there is another thread
        threading.Thread(target=leave_when_told, args=(os.getppid(),), daemon=True).start()
    leave_interrupts_to_parent()


def tell_of_mistakes(kind: type[BaseException], error: BaseException, where: Any) -> None:
    """Print a traceback, but not because the trainer left while it was given a batch."""
    if not isinstance(error, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, where)


def leave_when_told(by: int) -> None:
    """Wait for SIGTERM from the process `by`."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != by:
        pass
    os._exit(0)
