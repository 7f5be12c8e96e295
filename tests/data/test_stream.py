"""The row at a position of the stream is the same for every reader, however often the run was stopped."""

from __future__ import annotations

import pickle
import random
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_detour.data.batch_size import StepRows
from clm_detour.data.loader import Example, RowStream, StepBatches
from clm_detour.data.mixture import Mixture
from clm_detour.data.objectives import Objective
from clm_detour.data.packing import PackedSource
from clm_detour.train.composer_model import split_batch

LENGTH, FIRST = 16, 5
CASES, STEPS = 10_000, 30
SIZES = [StepRows.constant(24), StepRows.growing(24, 96, over=700)]


@pytest.fixture(scope="module")
def stream(tmp_path_factory, write_source, vocabulary) -> RowStream:
    """Masked rows of two sources, one of them in many shards, the other gone through several times."""
    root = tmp_path_factory.mktemp("stream")
    sources = {
        name: PackedSource.open(write_source(root / name, documents), LENGTH)
        for name, documents in (("a", 3000), ("b", 400))
    }
    mixture = Mixture({"a": 3, "b": 1}, {name: source.shard_rows for name, source in sources.items()}, 42)
    return RowStream(mixture, sources, Objective("mlm", 0.3), vocabulary, LENGTH, seed=17)


def content(example: Example) -> bytes:
    return example.input_ids.tobytes() + example.labels.tobytes() + bytes(example.document_lengths)


def restarted(stream: RowStream, step_rows: StepRows, rank: int, world: int, step: int) -> StepBatches:
    """A resumed run: it keeps nothing of the one before, however often that was stopped."""
    dataset = StepBatches(stream, FIRST, step_rows, rank, world)
    dataset.start_step = step
    return dataset


def test_ten_thousand_ways_to_the_same_rows(stream):
    """At any number of ranks, workers and restarts, the rows of a step are those of one process that never
    stopped.
    """
    alone = [content(stream.example(position)) for position in range(FIRST + SIZES[-1].before(STEPS + 8))]
    dice = random.Random(0)
    processes = [pickle.loads(pickle.dumps(stream)) for _ in range(8)]
    for _ in range(CASES):
        world, workers, step_rows = dice.choice([1, 2, 3, 8]), dice.choice([1, 2, 4]), dice.choice(SIZES)
        rank, worker = dice.randrange(world), dice.randrange(workers)
        start = dice.choice([0, dice.randrange(STEPS)])
        dataset = restarted(dice.choice(processes), step_rows, rank, world, start)
        turn = dice.randrange(2)
        step = next(islice(dataset.steps_of(worker, workers), turn, None))
        assert step == start + turn * workers + worker  # torch asks the workers in turn
        positions = dataset.positions(step)
        share = step_rows.rows(step) // world
        assert positions[0] == FIRST + step_rows.before(step) + rank * share
        assert len(positions) == share
        position = dice.choice(positions)
        assert content(dataset.stream.example(position)) == alone[position]


@pytest.mark.parametrize("step_rows", SIZES)
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_ranks_share_a_step_without_gap_or_overlap(stream, step_rows, world):
    for step in range(STEPS):
        ranks = [StepBatches(stream, FIRST, step_rows, rank, world).positions(step) for rank in range(world)]
        joined = [position for positions in ranks for position in positions]
        first = FIRST + step_rows.before(step)
        assert joined == list(range(first, first + step_rows.rows(step)))


@pytest.mark.parametrize("micro_rows", [1, 5, 24, 100])
def test_micro_batches_are_the_batch_cut_in_order(stream, micro_rows):
    batch = StepBatches(stream, FIRST, SIZES[0]).step(2)
    parts = split_batch(batch, micro_rows)
    assert all(len(part["predicted"]) <= micro_rows for part in parts)
    for key in ("document_lengths", "predicted"):
        assert [row for part in parts for row in part[key]] == batch[key]
    for key in ("input_ids", "labels"):
        np.testing.assert_array_equal(np.concatenate([part[key] for part in parts]), batch[key])


@pytest.mark.parametrize("micro_rows", [1, 5, 24, 100])
def test_a_shorter_last_micro_batch_is_filled_with_rows_without_labels(stream, micro_rows):
    batch = StepBatches(stream, FIRST, SIZES[0]).step(2)
    *whole, last = split_batch(batch, micro_rows, filler=stream.vocabulary.pad)
    *same, shorter = split_batch(batch, micro_rows)
    assert len(whole) == len(same)
    rows = len(shorter["predicted"])
    for key, value in shorter.items():
        assert len(last[key]) == micro_rows
        if torch.is_tensor(value):
            assert torch.equal(last[key][:rows], value)
        else:
            assert last[key][:rows] == value
    assert (last["input_ids"][rows:] == stream.vocabulary.pad).all()
    assert (last["labels"][rows:] == -100).all()
    assert sum(last["predicted"]) == sum(shorter["predicted"])
    assert all(sum(lengths) == batch["input_ids"].shape[1] for lengths in last["document_lengths"])


@settings(max_examples=200, deadline=None)
@given(first=st.integers(1, 12), sizes=st.integers(1, 12), over=st.integers(0, 3000))
def test_growing_steps_follow_the_straight_line_and_stay_full(first, sizes, over):
    steps = StepRows.growing(first, first * sizes, over)
    row = 0
    for step in range(400):
        rows = steps.rows(step)
        assert steps.before(step) == row
        assert steps.steps_for(row) == step
        assert steps.steps_for(row + 1) == step + 1
        reached = min(
            (sizes - 1) * row // over if over else sizes, sizes - 1
        )  # increments of the line at this row
        assert rows == first * (1 + reached)
        row += rows
