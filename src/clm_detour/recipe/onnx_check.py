"""Compare an ONNX file with the network that it was made from, on bundled text in padded batches.

Shapes: B rows of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from clm_detour.data.sample import SOURCES, shipped
from clm_detour.data.sources import read_documents
from clm_detour.model.pretrained import longest_input
from clm_detour.utils.errors import UserError

TOLERANCE = 1e-4  # of the largest output; fp32 kernels of torch and onnxruntime differ by about 1e-6
DOCUMENTS, ROWS, TOKENS = 8, 8, 512  # documents of each bundled source, rows of a batch, longest row
EVERY = 7  # one token of seven is masked, as with a masking rate of 14 %

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Head:
    """The class that opens a model, and what its ONNX file returns."""

    auto: str  # transformers' class
    suffix: str  # of the architecture that a config names
    output: str  # name of the output, as text-embeddings-inference and transformers.js expect it
    measure: str  # what `answers_kept` measures


HEADS = {
    "fill-mask": Head("AutoModelForMaskedLM", "ForMaskedLM", "logits", "equal top answers at masked tokens"),
    "text-classification": Head(
        "AutoModelForSequenceClassification", "ForSequenceClassification", "logits", "equal labels of texts"
    ),
    "token-classification": Head(
        "AutoModelForTokenClassification", "ForTokenClassification", "logits", "equal labels of tokens"
    ),
    "features": Head("AutoModel", "Model", "last_hidden_state", "mean cosine of mean-pooled states"),
}


@dataclass(frozen=True)
class Parity:
    """The distance of the outputs from those of torch, at tokens that are not padding."""

    difference: float  # the largest, absolute
    largest: float  # the largest absolute output of torch
    texts: int
    shortest: int  # tokens of the shortest and the longest text
    longest: int


def read_batches(tokenizer: Any, config: Any, head: str) -> list[Batch]:
    """Return padded batches of bundled texts of different lengths.

    Args:
        tokenizer: A fast tokenizer of transformers.
        config: The model's config, which limits the length.
        head: A key of `HEADS`. With `fill-mask`, one token of seven is masked.
    """
    limit = min(longest_input(config) or TOKENS, TOKENS)
    # Every other text is cut, so that every batch has rows of different lengths.
    texts = [
        text[: 20 * place] if place % 2 else text
        for name in SOURCES
        for place, text in enumerate(islice(read_documents(str(shipped(name))), DOCUMENTS))
    ]
    batches = []
    for start in range(0, len(texts), ROWS):
        rows = tokenizer(
            texts[start : start + ROWS], truncation=True, max_length=limit, padding=True, return_tensors="pt"
        )
        batch = {name: rows[name] for name in ("input_ids", "attention_mask")}
        if head == "fill-mask":
            batch["input_ids"][asked(batch, head)] = tokenizer.mask_token_id
        batches.append(batch)
    return batches


def check_parity(network: nn.Module, file: Path, batches: Sequence[Batch]) -> Parity:
    """Compare an ONNX file with its network.

    Raises:
        UserError: If the outputs differ by more than `TOLERANCE` of the largest output.
    """
    run = session(file)
    difference = largest = 0.0
    for batch in batches:
        with torch.no_grad():
            expected = network(**batch)
        actual, expected = (at_tokens(output, batch) for output in (run(batch), expected))
        difference = max(difference, (actual - expected).abs().max().item())
        largest = max(largest, expected.abs().max().item())
    if not difference <= TOLERANCE * largest:
        raise UserError(
            f"The ONNX file answers otherwise than torch (outputs up to {largest:.3g} differ by "
            f"{difference:.1e}), so it was not kept; try the newest torch, transformers and onnxscript."
        )
    lengths = [length for batch in batches for length in batch["attention_mask"].sum(1).tolist()]
    return Parity(difference, largest, len(lengths), min(lengths), max(lengths))


def session(file: Path) -> Callable[[Batch], Tensor]:
    """Open an ONNX file with onnxruntime on the CPU, as a function from a batch to the output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    opened = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(
        opened.run(None, {name: tensor.numpy() for name, tensor in batch.items()})[0]
    )


def at_tokens(output: Tensor, batch: Batch) -> Tensor:
    """Return the outputs of tokens that are not padding, or those of texts (B, labels) as they are."""
    return output if output.dim() == 2 else output[batch["attention_mask"].bool()]


def asked(batch: Batch, head: str) -> Tensor:
    """Return which tokens have an answer (B, T): masked ones, or all that are not padding."""
    real_BT = batch["attention_mask"].bool()
    if head == "fill-mask":
        real_BT = real_BT & (torch.arange(real_BT.shape[1]) % EVERY == EVERY // 2)
    return real_BT


def answers_kept(fp32: Path, int8: Path, batches: Sequence[Batch], head: str) -> float:
    """Return how well an int8 file agrees with the fp32 file, between 0 and 1.

    The measure is that of the head: the share of equal answers, or the mean cosine of mean-pooled states.
    """
    one, other = session(fp32), session(int8)
    values: list[np.ndarray] = []
    for batch in batches:
        outputs = one(batch), other(batch)
        if head == "features":
            mask_BT1 = batch["attention_mask"].unsqueeze(-1)
            means = [(output * mask_BT1).sum(1) / mask_BT1.sum(1) for output in outputs]
            values.append(cosine_similarity(means[0], means[1]).numpy())
            continue
        equal = outputs[0].argmax(-1) == outputs[1].argmax(-1)
        if equal.dim() == 2:  # an answer for each token
            equal = equal[asked(batch, head)]
        values.append(equal.float().numpy())
    return float(np.concatenate(values).mean())
