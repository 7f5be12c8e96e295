"""From packed rows to batches, for any number of ranks and loader workers.

`RowStream.example(i)` depends on the seed and i alone. Step s of a phase takes the rows of the stream that
`StepRows` gives it, and each rank takes an equal slice of them. So the rows of a step, and their masks, are
the same at any number of ranks and workers, and to resume is to start at another step.
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
    """One row: inputs and labels, (sequence_length,) int64, and the lengths of its documents."""

    input_ids: np.ndarray
    labels: np.ndarray
    document_lengths: list[int]


@dataclass(frozen=True)
class RowStream:
    """The training stream of one phase: packed rows in the mixture's order, with inputs and labels.

    Args:
        seed: Seed of the masks.
    """

    mixture: Mixture
    sources: Mapping[str, PackedSource]
    objective: Objective
    vocabulary: Vocabulary
    sequence_length: int
    seed: int

    @cached_property
    def remote(self) -> bool:
        """True if any source is read through the cache."""
        return any(source.is_remote for source in self.sources.values())

    def fetch_ahead(self, position: int) -> None:
        """Start to download the shards that are needed from `position` on."""
        if self.remote:
            for name, (now, after) in self.mixture.shards_at(position).items():
                self.sources[name].fetch_ahead(now, after)

    def release(self) -> None:
        """Unmap the shards of all sources."""
        for source in self.sources.values():
            source.release()

    def example(self, position: int) -> Example:
        """Return the row at `position`."""
        place = self.mixture.locate(position)
        source = self.sources[place.source]
        row = source.row(place.row)
        return make_example(
            row.tokens,
            row.lengths,
            self.objective,
            self.vocabulary,
            self.sequence_length,
            (self.seed, position),
            source.longest,
        )


def make_example(
    tokens: np.ndarray,
    lengths: np.ndarray,
    objective: Objective,
    vocabulary: Vocabulary,
    sequence_length: int,
    key: tuple[int, int],
    longest: int | None = None,
) -> Example:
    """Return one row, padded.

    Padding at the end counts as one more document, or as several of at most `longest` tokens.
    """
    count = len(tokens)
    inputs, labels = np.full(sequence_length, vocabulary.pad), np.full(sequence_length, IGNORED)
    inputs[:count], labels[:count] = objective.apply(np.asarray(tokens, np.int64), lengths, vocabulary, key)
    missing = sequence_length - count
    documents = [int(length) for length in lengths] + cut_every(missing, longest)
    return Example(inputs, labels, documents)


def cut_every(tokens: int, longest: int | None) -> list[int]:
    """Return the lengths of the pieces into which tokens are cut: at most `longest`, None for one piece."""
    if longest is None or tokens <= longest:
        return [tokens] * (tokens > 0)
    whole, rest = divmod(tokens, longest)
    return [longest] * whole + [rest] * (rest > 0)


def collate(examples: Sequence[Example]) -> Batch:
    """Return rows as one batch.

    Returns:
        input_ids, labels: Tensors, (rows, sequence_length) int64. document_lengths: A list of lengths for
        each row. predicted: The number of labels in each row, as a list. The last two are for the host, which
        then need not ask the device.
    """
    labels = np.stack([example.labels for example in examples])
    return {
        "input_ids": torch.from_numpy(np.stack([example.input_ids for example in examples])),
        "labels": torch.from_numpy(labels),
        "document_lengths": [example.document_lengths for example in examples],
        "predicted": (labels != IGNORED).sum(axis=1).tolist(),
    }


class StepBatches(IterableDataset[Batch]):
    """The batches of one rank, step by step, without end.

    Args:
        first_row: Position in the stream at step 0 of the phase.
        step_rows: Number of rows in each step over all ranks, which `world_size` divides.

    Attributes:
        start_step: First step to be made; set it to resume.
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
        """Return the positions in the stream that this rank takes at one step."""
        rows = self.step_rows.rows(step) // self.world_size
        first = self.first_row + self.step_rows.before(step) + self.rank * rows
        return range(first, first + rows)

    def step(self, step: int) -> Batch:
        """Return this rank's rows of one step, with their positions in the stream, (rows,) int64."""
        positions = self.positions(step)
        self.stream.fetch_ahead(positions[0])
        batch = collate([self.stream.example(position) for position in positions])
        return {**batch, "row_numbers": torch.tensor(positions)}

    def steps_of(self, worker: int, workers: int) -> Iterator[int]:
        """Yield the steps that one loader worker makes; torch takes one from each worker in turn."""
        return itertools.count(self.start_step + worker, workers)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        steps = self.steps_of(0, 1) if worker is None else self.steps_of(worker.id, worker.num_workers)
        return map(self.step, steps)


class Loader(DataLoader[Batch]):
    """A DataLoader whose workers ignore Ctrl-C, which the trainer handles."""

    def __iter__(self) -> Any:
        with interrupts_held():
            return super().__iter__()


def make_loader(dataset: StepBatches, workers: int, pin_memory: bool = False) -> DataLoader[Batch]:
    """Return a loader of whole batches in order; worker w makes steps w, w + workers, ..."""
    return Loader(
        dataset,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=end_with_trainer,
    )


def end_with_trainer(worker: int) -> None:
    """Let SIGTERM end this loader worker only if the trainer sent it, and SIGINT never.

    A cluster sends SIGTERM to all processes at once, and the trainer needs its next batch to finish the step.
    torch's handler would end the worker at once. If the worker ignored the signal, the trainer, which ends
    its workers by SIGTERM, would wait for ever.
    """
    sys.excepthook = print_traceback
    if hasattr(signal, "sigwaitinfo"):  # macOS lacks it, but no cluster runs macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before there is another thread
        threading.Thread(target=exit_at_sigterm_from, args=(os.getppid(),), daemon=True).start()
    leave_interrupts_to_parent()


def print_traceback(kind: type[BaseException], error: BaseException, where: Any) -> None:
    """Print the traceback of an exception, unless it is due to the end of the trainer."""
    if not isinstance(error, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, where)


def exit_at_sigterm_from(sender: int) -> None:
    """Wait for SIGTERM from the process `sender`, then exit."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != sender:
        pass
    os._exit(0)
