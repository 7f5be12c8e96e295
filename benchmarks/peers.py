"""transformers' networks with our weights, and the same documents for both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedModel

from clm_detour.data.objectives import IGNORED, Objective
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.model import ModernBertForPretraining
from clm_detour.model.families import family_of


@dataclass(frozen=True)
class Batch:
    """Documents end to end, with their inputs and labels; labels[t] is the id that position t predicts."""

    ids: Tensor
    inputs: Tensor
    labels: Tensor
    lengths: list[int]
    causal: bool
    pad: int

    @classmethod
    def make(
        cls, documents: list[np.ndarray], objective: Any, mask_rate: float | None, tokenizer: Tokenizer
    ) -> Batch:
        """Return a batch of documents whose ids are masked or whose labels are shifted."""
        ids, lengths = np.concatenate(documents), [len(document) for document in documents]
        inputs, labels = Objective(objective, mask_rate).apply(
            ids, np.array(lengths), tokenizer.vocabulary, (0, 0)
        )
        tensors = (torch.from_numpy(array) for array in (ids, inputs, labels))
        return cls(*tensors, lengths, objective == "clm", tokenizer.pad)

    @property
    def tokens(self) -> int:
        """Number of tokens without padding."""
        return len(self.ids)

    @property
    def padded_tokens(self) -> int:
        """Number of positions that transformers computes."""
        return len(self.lengths) * max(self.lengths)

    @property
    def predicted(self) -> int:
        """Number of labels."""
        return int((self.labels != IGNORED).sum())

    def packed(self, device: torch.device) -> dict[str, Any]:
        """Return the arguments of our network: all documents in one row."""
        return {
            "input_ids": self.inputs[None].to(device),
            "labels": self.labels[None].to(device),
            "document_lengths": [self.lengths],
            "predicted": self.predicted,
        }

    def padded(self, device: torch.device, micro_batches: int) -> list[tuple[dict[str, Tensor], float]]:
        """Return the arguments of transformers' network, with one document in each row.

        The rows are divided into micro-batches, each with its share of the labels. transformers' causal class
        shifts the labels itself.
        """
        labels = self.ids if self.causal else self.labels
        rows = {
            "input_ids": self._rows(self.inputs, self.pad).to(device),
            "attention_mask": self._rows(torch.ones_like(self.ids), 0).to(device),
            "labels": self._rows(labels, IGNORED).to(device),
        }
        parts = zip(*(tensor.chunk(micro_batches) for tensor in rows.values()), strict=True)
        shares = ((dict(zip(rows, part, strict=True)), self._share(part[-1])) for part in parts)
        return [(part, share) for part, share in shares if share]  # the mean over no labels is NaN

    def _share(self, labels: Tensor) -> float:
        counted = labels[:, 1:] if self.causal else labels
        return int((counted != IGNORED).sum()) / self.predicted

    def _rows(self, flat: Tensor, fill: int) -> Tensor:
        return pad_sequence(list(flat.split(self.lengths)), batch_first=True, padding_value=fill)


def same_network(
    ours: ModernBertForPretraining,
    device: torch.device,
    options: dict[str, Any],
    attention: str | None = None,
) -> PreTrainedModel:
    """Return transformers' class for our mask, with our weights, in training mode.

    Args:
        attention: `sdpa` or `flash_attention_2`; None is the second one where it is installed.
    """
    if attention is None:
        attention = "flash_attention_2" if device.type == "cuda" and _has_flash() else "sdpa"
    if ours.causal:
        theirs = ours.to_decoder()
        theirs.set_attn_implementation(attention)
    else:
        keys = {**ours.config.to_dict(), **options, "attn_implementation": attention}
        config = AutoConfig.for_model(keys.pop("model_type"), **keys)
        theirs = AutoModelForMaskedLM.from_config(config, attn_implementation=attention)
        theirs.load_state_dict(family_of(config).to_theirs(ours.state_dict(), "ForMaskedLM"))
    return theirs.to(device).train()


def _has_flash() -> bool:
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        return False
    return True
