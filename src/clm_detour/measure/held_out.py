"""Language-modelling loss and accuracy on held-out rows, masked or causal: the same rows and masks for every model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from clm_detour.data.loader import Batch, collate, make_example
from clm_detour.data.objectives import Objective, Vocabulary
from clm_detour.data.packing import PackedSource
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.utils.progress import Advance


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows under fixed masks.

    Args:
        mask_rate: share of tokens to predict, for `mlm`.
        rows: of each source, at most.
        seed: of the masks.
        batch_rows: rows in one forward.
        kind: mlm, seen in both directions, or clm, seen causally.
    """

    sources: Mapping[str, PackedSource]
    vocabulary: Vocabulary
    sequence_length: int
    mask_rate: float
    rows: int
    seed: int
    batch_rows: int = 8
    kind: Literal["mlm", "clm"] = "mlm"

    @property
    def total_rows(self) -> int:
        """Rows that one model is scored on."""
        return sum(min(self.rows, len(source)) for source in self.sources.values())

    def score(self, network: ModernBertForPretraining, advance: Advance) -> dict[str, Any]:
        """Score one model, on the GPU if there is one; its mode and mask are as before at the end.

        Returns:
            loss (nats a predicted token), accuracy, predicted; and the same `by_source`. Where nothing is predicted, as for want of
            held-out text, loss and accuracy are None.
        """
        if torch.cuda.is_available():
            torch.nn.Module.cuda(network)
        was_causal, was_training = network.causal, network.training
        network.causal = self.kind == "clm"
        network.eval()
        sums = {name: self._sums(network, source, advance) for name, source in self.sources.items()}
        network.causal = was_causal
        network.train(was_training)
        whole = [sum(values) for values in zip(*sums.values(), strict=True)]
        return {**means(*whole), "by_source": {name: means(*values) for name, values in sums.items()}}

    @torch.no_grad()
    def _sums(
        self, network: ModernBertForPretraining, source: PackedSource, advance: Advance
    ) -> tuple[float, int, int]:
        loss, correct, predicted = 0.0, 0, 0
        device = next(network.parameters()).device
        for batch in self._batches(source):
            ids, labels = batch["input_ids"].to(device), batch["labels"].to(device)
            output = network(
                ids, document_lengths=batch["document_lengths"], labels=labels, return_logits=False
            )
            loss += float(output.loss_sum)
            correct += int(output.correct)
            predicted += int(output.predicted)
            advance(len(ids))
        return loss, correct, predicted

    def _batches(self, source: PackedSource) -> Iterator[Batch]:
        objective = Objective(self.kind, self.mask_rate if self.kind == "mlm" else None)
        rows = iter(range(min(self.rows, len(source))))
        while chosen := list(itertools.islice(rows, self.batch_rows)):
            yield collate(
                [
                    make_example(
                        *source.row(i), objective, self.vocabulary, self.sequence_length, (self.seed, i)
                    )
                    for i in chosen
                ]
            )


def means(loss: float, correct: int, predicted: int) -> dict[str, float | None]:
    """Sums -> what is reported: no mean of nothing."""
    if not predicted:
        return {"loss": None, "accuracy": None, "predicted": 0}
    return {"loss": loss / predicted, "accuracy": correct / predicted, "predicted": predicted}
