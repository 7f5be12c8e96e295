"""Masked-LM loss of ModernBERT models on texts: the same masks for every model with the same tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clm_detour.data.objectives import IGNORED, Objective, Vocabulary
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.measure.states import batches_of, cut_to
from clm_detour.model import ModernBertForPretraining, hf
from clm_detour.model.precision import best_device
from clm_detour.model.pretrained import can_fill_masks, check_encoder
from clm_detour.utils.errors import UserError


@dataclass(frozen=True)
class Batch:
    """Texts end to end: inputs and labels (1, T) int64, and the texts' lengths."""

    inputs: torch.Tensor
    labels: torch.Tensor
    lengths: list[int]


def batches(
    tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int, objective: Objective, seed: int
) -> Iterator[Batch]:
    """The texts as one objective's batches; text i's mask depends on (seed, i) and its tokens alone."""
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.pad, tokenizer.mask, tokenizer.special_ids)
    ids = cut_to(tokenizer, texts, max_tokens)
    for numbers in batches_of([len(text) for text in ids]):
        made = [objective.apply(ids[i], np.array([len(ids[i])]), vocabulary, (seed, int(i))) for i in numbers]
        inputs, labels = (torch.from_numpy(np.concatenate(part))[None] for part in zip(*made, strict=True))
        yield Batch(inputs, labels, [len(ids[i]) for i in numbers])


@torch.no_grad()
def masked_sums(
    network: ModernBertForPretraining, tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int = 512,
    mask_rate: float = 0.15, seed: int = 0, folds: int = 1,
) -> Tensor:  # fmt: skip
    """(folds, 2): of every `folds`-th text, from each of the first on, the summed loss in nats and the number of predicted tokens."""
    device = best_device()
    torch.nn.Module.to(network, device)
    sums = torch.zeros(folds, 2, dtype=torch.float64)
    for fold, found in enumerate(sums):
        for batch in batches(tokenizer, texts[fold::folds], max_tokens, Objective("mlm", mask_rate), seed):
            output = network(
                batch.inputs.to(device),
                labels=batch.labels.to(device),
                document_lengths=[batch.lengths],
                return_logits=False,
                causal=False,
            )
            found += torch.tensor([float(output.loss_sum), int((batch.labels != IGNORED).sum())])
    return sums


def open_masked(path: str, tokenizer: str | None = None) -> tuple[ModernBertForPretraining, Tokenizer]:
    """A ModernBERT with its tokenizer.

    Args:
        tokenizer: the folder or hub id of the tokenizer; None: the model's own.

    Raises:
        UserError: it is something else, or its tokenizer is larger than its vocabulary.
    """
    opened = tokenizer_of_masked(path, tokenizer)
    return ModernBertForPretraining.from_pretrained(path, causal=False), opened


def tokenizer_of_masked(path: str, tokenizer: str | None = None) -> Tokenizer:
    """Return the tokenizer of a ModernBERT that fills masks; the weights are not read, only their names.

    Args:
        tokenizer: see `open_masked`.

    Raises:
        UserError: it is something else, it has no masked-LM head, or its tokenizer is larger than its vocabulary.
    """
    hf.read_config(hf.fetch(path))
    check_encoder(path, tokenizer)
    if not can_fill_masks(path):
        raise UserError(
            f"{path} has no masked-LM head, so its predictions cannot be measured; give the masked model that it was made from."
        )
    return load_tokenizer(tokenizer or path)
