"""The network as a Composer model, and its batches as a Composer data specification."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from composer import DataSpec
from composer.models import ComposerModel

from clm_detour.data.loader import Batch, StepBatches, cut_every, make_loader
from clm_detour.data.objectives import IGNORED, Objective
from clm_detour.model.flops import Frozen, flops_per_batch
from clm_detour.model.modernbert import ModernBertForPretraining, PretrainingOutput


class PretrainingModel(ComposerModel):
    """A network under the attention mask of one objective: causal for `clm`, bidirectional for `mlm`.

    Args:
        bf16: Run the forward pass under bf16 autocast. Composer's own `amp_bf16` would compute in fp32 on a
            CPU.
    """

    def __init__(self, network: ModernBertForPretraining, objective: Objective, bf16: bool):
        super().__init__()
        self.network = network
        self.bf16 = bf16
        self.frozen = Frozen.of(network)
        network.causal = objective.causal

    def forward(self, batch: dict[str, Any]) -> PretrainingOutput:
        """Run the network on a batch that `data.loader.collate` made."""
        input_ids = batch["input_ids"]
        with torch.autocast(input_ids.device.type, torch.bfloat16, enabled=self.bf16):
            return self.network(
                input_ids,
                document_lengths=batch["document_lengths"],
                labels=batch["labels"],
                predicted=sum(batch["predicted"]),
                row_numbers=batch.get("row_numbers"),
            )

    def loss(self, outputs: PretrainingOutput, batch: dict[str, Any]) -> torch.Tensor:
        """Return the mean loss over the predicted positions of a micro-batch.

        Composer weights it by the micro-batch's share of the predicted positions of the step, over
        micro-batches and ranks (`accumulate_train_batch_on_tokens`), so the gradient is that of the mean over
        all of them.
        """
        assert outputs.loss is not None
        return outputs.loss

    def flops_per_batch(self, batch: dict[str, Any]) -> int:
        """Return the operations of this process's forward and backward pass, for the MFU."""
        lengths = itertools.chain(*batch["document_lengths"])
        return flops_per_batch(
            self.network.config,
            lengths,
            sum(batch["predicted"]),
            self.network.causal,
            frozen=self.frozen,
        ).total


def data_spec(batches: StepBatches, workers: int, equal: bool = False) -> DataSpec:
    """Return the loader, with functions that count and split its batches.

    Args:
        equal: Whether a shorter last micro-batch is filled, since compiled layers take time for each shape.
    """
    filler = batches.stream.vocabulary.pad if equal else None
    limits = [source.longest for source in batches.stream.sources.values() if source.longest is not None]
    return DataSpec(
        make_loader(batches, workers, pin_memory=torch.cuda.is_available()),
        split_batch=partial(split_batch, filler=filler, longest=min(limits, default=None)),
        get_num_samples_in_batch=lambda batch: len(batch["predicted"]),
        get_num_tokens_in_batch=lambda batch: {
            "total": batch["input_ids"].numel(),
            "loss_generating": sum(batch["predicted"]),
        },
    )


def split_batch(
    batch: Batch, rows: int | float, filler: int | None = None, longest: int | None = None
) -> list[Batch]:
    """Split a batch into micro-batches of `rows` rows.

    Args:
        filler: Id of a token with which the last one is filled; None leaves it shorter.
        longest: Number of tokens of the longest document that the network reads, None if there is no limit.
    """
    rows = int(rows)
    parts = [
        {key: value[first : first + rows] for key, value in batch.items()}
        for first in range(0, len(batch["predicted"]), rows)
    ]
    if filler is not None and (missing := rows - len(parts[-1]["predicted"])):
        parts[-1] = add_rows(parts[-1], missing, filler, longest)
    return parts


def add_rows(batch: Batch, rows: int, filler: int, longest: int | None = None) -> Batch:
    """Return a batch with more rows, each of long documents without a label, which change no gradient."""
    tokens = batch["input_ids"].shape[1]
    return {
        "input_ids": F.pad(batch["input_ids"], (0, 0, 0, rows), value=filler),
        "row_numbers": F.pad(batch["row_numbers"], (0, rows)),
        "labels": F.pad(batch["labels"], (0, 0, 0, rows), value=IGNORED),
        "document_lengths": [*batch["document_lengths"], *([cut_every(tokens, longest)] * rows)],
        "predicted": [*batch["predicted"], *([0] * rows)],
    }
