"""The batches of a step are the same rows, with the same masks, however many processes make them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_detour.data.batch_size import StepRows
from clm_detour.data.loader import RowStream, StepBatches, make_loader
from clm_detour.data.mixture import Mixture
from clm_detour.data.objectives import IGNORED, Objective
from clm_detour.data.packing import PackedSource
from clm_detour.utils.errors import UserError, sentence

LENGTH, BATCH = 32, 24
OBJECTIVES = [Objective("clm"), Objective("mlm", 0.3), Objective("mlm", 0.3, "word")]
STEP = StepRows.constant(BATCH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_source) -> Path:
    """Two prepared sources."""
    root = tmp_path_factory.mktemp("loader")
    for seed, name in enumerate("ab"):
        write_source(root / name, 120, LENGTH, seed)
    return root


@pytest.fixture(scope="module")
def stream(folder, vocabulary) -> Callable[[Objective], RowStream]:
    """A function from an objective to the stream of both sources."""

    def make(objective: Objective) -> RowStream:
        sources = {name: PackedSource.open(folder / name, LENGTH) for name in ("a", "b")}
        rows = {name: source.shard_rows for name, source in sources.items()}
        return RowStream(Mixture({"a": 3, "b": 1}, rows, 42), sources, objective, vocabulary, LENGTH, 17)

    return make


def take(dataset: StepBatches, steps: int, workers: int = 0) -> list[dict]:
    batches = iter(make_loader(dataset, workers))
    return [next(batches) for _ in range(steps)]


def join(ranks: list[list[dict]], key: str) -> torch.Tensor:
    """(steps, rows of all ranks, length)."""
    return torch.stack([torch.cat([batch[key] for batch in step]) for step in zip(*ranks, strict=True)])


@settings(max_examples=25, deadline=None)
@given(world=st.sampled_from([1, 2, 3, 8]), start=st.integers(0, 40), objective=st.sampled_from(OBJECTIVES))
def test_a_step_is_the_same_at_any_number_of_ranks_and_after_any_restart(stream, world, start, objective):
    rows = stream(objective)
    alone = [StepBatches(rows, 5, STEP).step(step) for step in range(start, start + 2)]
    ranks = []
    for rank in range(world):
        dataset = StepBatches(rows, 5, STEP, rank, world)
        dataset.start_step = start
        ranks.append(take(dataset, 2))
    for key in ("input_ids", "labels"):
        assert torch.equal(join(ranks, key), torch.stack([batch[key] for batch in alone]))
    for step, batch in zip(zip(*ranks, strict=True), alone, strict=True):
        assert [row for rank in step for row in rank["document_lengths"]] == batch["document_lengths"]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
@pytest.mark.parametrize("workers", [1, 4])
def test_loader_workers_change_nothing(stream, workers, objective):
    rows = stream(objective)
    for one, other in zip(
        take(StepBatches(rows, 0, STEP), 7), take(StepBatches(rows, 0, STEP), 7, workers), strict=True
    ):
        assert torch.equal(one["input_ids"], other["input_ids"])
        assert torch.equal(one["labels"], other["labels"])


def test_both_objectives_see_the_same_rows_in_the_same_order(stream):
    clm = StepBatches(stream(Objective("clm")), 0, STEP).step(3)
    mlm = StepBatches(stream(Objective("mlm", 0.3)), 0, STEP).step(3)
    unmasked = torch.where(mlm["labels"] == IGNORED, mlm["input_ids"], mlm["labels"])
    assert torch.equal(unmasked, clm["input_ids"])
    assert mlm["document_lengths"] == clm["document_lengths"]


@pytest.mark.parametrize("unit", ["token", "word"])
def test_padding_is_its_own_document_and_is_never_predicted(stream, unit):
    rows = stream(Objective("mlm", 0.9, unit))
    batch = StepBatches(rows, 0, STEP).step(0)
    padding = batch["input_ids"] == rows.vocabulary.pad
    assert padding.any()
    assert (batch["labels"][padding] == IGNORED).all()
    for lengths, pad in zip(batch["document_lengths"], padding, strict=True):
        assert sum(lengths) == LENGTH
        assert not pad.any() or lengths[-1] == pad.sum()


def test_a_batch_says_how_many_positions_each_row_predicts(stream):
    batch = StepBatches(stream(Objective("mlm", 0.2)), 0, STEP).step(0)
    assert batch["predicted"] == (batch["labels"] != IGNORED).sum(1).tolist()


def test_a_loader_process_leaves_at_sigterm_only_if_its_trainer_sent_it(stream):
    batches = iter(make_loader(StepBatches(stream(Objective("clm")), 0, STEP), 1))
    next(batches)
    worker = batches._workers[0]
    subprocess.run(["kill", "-s", "TERM", str(worker.pid)], check=True)  # a process that is not its trainer
    for _ in range(5):
        next(batches)
    assert worker.is_alive()
    batches._workers_status[0] = False  # torch is not to miss it
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(timeout=10)
    assert worker.exitcode == 0


def test_a_loader_process_leaves_ctrl_c_to_its_trainer_from_its_start_on(stream):
    batches = iter(make_loader(StepBatches(stream(Objective("clm")), 0, STEP), 1))
    worker = batches._workers[0]
    for _ in range(5):
        os.kill(worker.pid, signal.SIGINT)
        next(batches)
    assert worker.is_alive()


class Mistaken(StepBatches):
    """Batches of which none can be made."""

    def step(self, step: int) -> dict:
        raise UserError("notes/train is damaged:\nprepare it again.")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_in_a_loader_process_is_the_sentence_it_would_be_here(stream, workers):
    with pytest.raises(UserError) as mistake:
        take(Mistaken(stream(Objective("clm")), 0, STEP), 1, workers)
    assert sentence(mistake.value) == "notes/train is damaged:\nprepare it again."
