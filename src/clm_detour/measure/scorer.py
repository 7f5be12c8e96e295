"""Loss and accuracy of a ModernBERT as a language model, masked or causal, over batches of rows or of texts.

The masks depend on a seed and the tokens alone, so that every model with the same tokenizer is scored on the
same ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clm_detour.data.loader import Batch
from clm_detour.data.objectives import Objective
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.measure.encoder import check_fills_masks, tokenize
from clm_detour.measure.states import batches_by_length
from clm_detour.model import ModernBertForPretraining
from clm_detour.model.precision import best_device, fp32_products
from clm_detour.records.run import Score
from clm_detour.utils.progress import Advance


@dataclass(frozen=True)
class Totals:
    """Sums over predicted tokens.

    Args:
        loss: Sum of the losses, in nats.
        correct: Number of tokens that are predicted correctly.
        predicted: Number of predicted tokens.
    """

    loss: float = 0.0
    correct: int = 0
    predicted: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.loss + other.loss, self.correct + other.correct, self.predicted + other.predicted)

    def means(self) -> Score:
        """Return the means over the predicted tokens."""
        if not self.predicted:
            return Score(loss=math.nan, predicted=0)
        return Score(
            loss=self.loss / self.predicted,
            accuracy=self.correct / self.predicted,
            predicted=self.predicted,
        )


@fp32_products(tf32=False)
@torch.no_grad()
def score(
    network: ModernBertForPretraining,
    batches: Iterable[Batch],
    causal: bool = False,
    advance: Advance = lambda rows: None,
) -> Totals:
    """Score a model, on the GPU if there is one. Its mask and its training mode are the same afterwards.

    Args:
        network: The model.
        batches: input_ids and labels, (rows, positions), and document_lengths for each row.
        causal: Whether a token sees only itself and earlier tokens.
        advance: Called with the number of rows of each batch.
    """
    device, was_training, totals = best_device(), network.training, Totals()
    if device.type == "cuda":
        torch.nn.Module.to(network, device)
    network.eval()
    for batch in batches:
        output = network(
            batch["input_ids"].to(device),
            document_lengths=batch["document_lengths"],
            labels=batch["labels"].to(device),
            return_logits=False,
            causal=causal,
        )
        totals += Totals(float(output.loss_sum), int(output.correct), int(output.predicted))
        advance(len(batch["input_ids"]))
    network.train(was_training)
    return totals


def text_batches(
    tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int, objective: Objective, seed: int
) -> Iterator[Batch]:
    """Yield texts of about equal length as batches of one row, (1, T).

    Args:
        tokenizer: The model's tokenizer.
        texts: The texts, in any order.
        max_tokens: Longer texts are cut.
        objective: What is to be predicted. The masks of text i depend on (seed, i) and its tokens alone.
        seed: Seed of the masks.
    """
    vocabulary = tokenizer.vocabulary
    ids = tokenize(tokenizer, texts, max_tokens)
    for numbers in batches_by_length([len(text) for text in ids]):
        made = [objective.apply(ids[i], np.array([len(ids[i])]), vocabulary, (seed, int(i))) for i in numbers]
        inputs, labels = (torch.from_numpy(np.concatenate(part))[None] for part in zip(*made, strict=True))
        yield {
            "input_ids": inputs,
            "labels": labels,
            "document_lengths": [[len(ids[i]) for i in numbers]],
        }


def readable(network: ModernBertForPretraining, max_tokens: int) -> int:
    """Return the length at which texts are cut: `max_tokens`, or fewer if the network reads fewer."""
    return min(max_tokens, network.architecture.longest or max_tokens)


def masked_loss(
    network: ModernBertForPretraining, tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int = 512,
    mask_rate: float = 0.15, seed: int = 0, folds: int = 1,
) -> Tensor:  # fmt: skip
    """Return the summed masked loss in nats and the number of predicted tokens of each fold, (folds, 2).

    Fold i consists of every `folds`-th text from text i on.
    """
    objective = Objective("mlm", mask_rate)
    max_tokens = readable(network, max_tokens)
    totals = [
        score(network, text_batches(tokenizer, texts[fold::folds], max_tokens, objective, seed))
        for fold in range(folds)
    ]
    return torch.tensor([(each.loss, each.predicted) for each in totals], dtype=torch.float64)


def open_masked(path: str, tokenizer: str | None = None) -> tuple[ModernBertForPretraining, Tokenizer]:
    """Load a model of a known family that fills masks, and its tokenizer.

    Args:
        path: Folder or hub id.
        tokenizer: Folder or hub id of the tokenizer. None means the model's own.

    Raises:
        UserError: If it is another model, has no masked-LM head, or its tokenizer has ids that the model does
            not have.
    """
    check_fills_masks(path, tokenizer)
    return ModernBertForPretraining.from_pretrained(path, causal=False), load_tokenizer(tokenizer or path)
