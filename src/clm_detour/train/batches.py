"""The loader as Composer wants it: how its batches are counted and cut."""

from __future__ import annotations

import torch
from composer import DataSpec

from clm_detour.data.loader import Batch, StepBatches, make_loader


def data_spec(batches: StepBatches, workers: int) -> DataSpec:
    """The loader, and how Composer counts and cuts its batches."""
    return DataSpec(
        make_loader(batches, workers, pin_memory=torch.cuda.is_available()),
        split_batch=split_batch,
        get_num_samples_in_batch=lambda batch: len(batch["predicted"]),
        get_num_tokens_in_batch=lambda batch: {
            "total": batch["input_ids"].numel(),
            "loss_generating": sum(batch["predicted"]),
        },
    )


def split_batch(batch: Batch, rows: int | float) -> list[Batch]:
    """Cut a batch into micro-batches of `rows` rows."""
    rows = int(rows)
    return [
        {key: value[first : first + rows] for key, value in batch.items()}
        for first in range(0, len(batch["predicted"]), rows)
    ]
