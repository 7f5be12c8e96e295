"""The batches of a step are the same rows, with the same masks, however many processes make them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_detour.data.loader import RowStream, StepBatches, make_loader
from clm_detour.data.mixture import Mixture
from clm_detour.data.objectives import IGNORED, Objective, Vocabulary
from clm_detour.data.packing import PackedSource
from clm_detour.data.prepare import prepare_source
from clm_detour.data.tokenizer import load_tokenizer, train_tokenizer

LENGTH, BATCH = 32, 24
WORDS = ["heart", "lung", "tumour", "drug", "trial", "dose", "of", "the", "patient"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two prepared sources."""
    root = tmp_path_factory.mktemp("loader")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        texts = [" ".join(rng.choice(WORDS, rng.integers(3, 60))) + f" {name}{i}" for i in range(120)]
        (root / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    train_tokenizer([" ".join(WORDS)] * 20, 300, root / "tokenizer")
    tokenizer = load_tokenizer(str(root / "tokenizer"))
    for name in ("a", "b"):
        prepare_source(name, str(root / f"{name}.jsonl"), root / name, tokenizer, LENGTH, 42, 0.1)
    return root


def stream(folder: Path, objective: Objective, seed: int = 17) -> RowStream:
    tokenizer = load_tokenizer(str(folder / "tokenizer"))
    sources = {name: PackedSource.open(folder / name / "train", LENGTH) for name in ("a", "b")}
    rows = {name: len(source) for name, source in sources.items()}
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.pad, tokenizer.mask, tokenizer.special_ids)
    return RowStream(Mixture({"a": 3, "b": 1}, rows, 42), sources, objective, vocabulary, LENGTH, seed)


def take(dataset: StepBatches, steps: int, workers: int = 0) -> list[dict]:
    batches = iter(make_loader(dataset, workers))
    return [next(batches) for _ in range(steps)]


def join(ranks: list[list[dict]], key: str) -> torch.Tensor:
    """(steps, rows of all ranks, length)."""
    return torch.stack([torch.cat([batch[key] for batch in step]) for step in zip(*ranks, strict=True)])


@settings(max_examples=25, deadline=None)
@given(world=st.sampled_from([1, 2, 3, 8]), start=st.integers(0, 40), kind=st.sampled_from(["clm", "mlm"]))
def test_a_step_is_the_same_at_any_number_of_ranks_and_after_any_restart(folder, world, start, kind):
    rows = stream(folder, Objective(kind, 0.3 if kind == "mlm" else None))
    alone = [StepBatches(rows, 5, BATCH).step(step) for step in range(start, start + 2)]
    ranks = []
    for rank in range(world):
        dataset = StepBatches(rows, 5, BATCH, rank, world)
        dataset.load_state_dict({**dataset.state_dict(start * BATCH), "first_row": 5})
        ranks.append(take(dataset, 2))
    for key in ("input_ids", "labels"):
        assert torch.equal(join(ranks, key), torch.stack([batch[key] for batch in alone]))
    for step, batch in zip(zip(*ranks, strict=True), alone, strict=True):
        assert [row for rank in step for row in rank["document_lengths"]] == batch["document_lengths"]


@pytest.mark.parametrize("workers", [1, 3])
def test_loader_workers_change_nothing(folder, workers):
    rows = stream(folder, Objective("mlm", 0.3))
    for one, other in zip(
        take(StepBatches(rows, 0, BATCH), 7), take(StepBatches(rows, 0, BATCH), 7, workers), strict=True
    ):
        assert torch.equal(one["input_ids"], other["input_ids"])
        assert torch.equal(one["labels"], other["labels"])


def test_both_objectives_see_the_same_rows_in_the_same_order(folder):
    clm = StepBatches(stream(folder, Objective("clm")), 0, BATCH).step(3)
    mlm = StepBatches(stream(folder, Objective("mlm", 0.3)), 0, BATCH).step(3)
    unmasked = torch.where(mlm["labels"] == IGNORED, mlm["input_ids"], mlm["labels"])
    assert torch.equal(unmasked, clm["input_ids"])
    assert mlm["document_lengths"] == clm["document_lengths"]


def test_padding_is_its_own_document_and_is_never_predicted(folder):
    rows = stream(folder, Objective("mlm", 0.9))
    batch = StepBatches(rows, 0, BATCH).step(0)
    padding = batch["input_ids"] == rows.vocabulary.pad
    assert padding.any()
    assert (batch["labels"][padding] == IGNORED).all()
    for lengths, pad in zip(batch["document_lengths"], padding, strict=True):
        assert sum(lengths) == LENGTH
        assert not pad.any() or lengths[-1] == pad.sum()


def test_a_batch_says_how_many_positions_each_row_predicts(folder):
    batch = StepBatches(stream(folder, Objective("mlm", 0.2)), 0, BATCH).step(0)
    assert batch["predicted"] == (batch["labels"] != IGNORED).sum(1).tolist()
