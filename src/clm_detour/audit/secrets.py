"""Rank the secret of each canary among other secrets in the same sentence.

Under the causal mask the log-probability of a secret is that of its tokens one after another. Under the
bidirectional mask all of its tokens are masked at once, so that one forward gives every secret of as many
tokens, and the log-probability is the sum over these tokens. Exposure is that of Carlini et al. 2019, "The
Secret Sharer" (arXiv 1802.08232).

Shapes: A alternatives, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clm_detour.data.canaries import Canary
from clm_detour.data.objectives import IGNORED
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.measure.token_losses import token_losses
from clm_detour.model import ModernBertForPretraining
from clm_detour.model.precision import fp32_products
from clm_detour.records.audit import Mask
from clm_detour.utils.progress import Advance

BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Sentence:
    """A sentence of a canary with each candidate for its secret.

    Args:
        before, after: Ids of the tokens around the secret, special ones included.
        candidates: Ids of each candidate; the first is the secret itself.
    """

    before: np.ndarray
    after: np.ndarray
    candidates: list[np.ndarray]


def sentence_of(canary: Canary, alternatives: Sequence[str], tokenizer: Tokenizer) -> Sentence:
    """Return the sentence of a canary with its secret and with others in its place.

    Tokens that all candidates share at the start and at the end are not part of the secret.
    """
    texts = [canary.with_secret(secret) for secret in (canary.secret, *alternatives)]
    ids = [each.astype(np.int64) for each in tokenizer.encode_batch(texts)]
    shortest = min(map(len, ids))
    first = shared(ids, shortest - 1)
    last = shared([each[::-1] for each in ids], shortest - 1 - first)
    return Sentence(
        ids[0][:first], ids[0][len(ids[0]) - last :], [each[first : len(each) - last] for each in ids]
    )


def shared(ids: Sequence[np.ndarray], most: int) -> int:
    """Return the number of tokens at the start that all have, at most `most`."""
    same = (np.stack([each[:most] for each in ids]) == ids[0][:most]).all(axis=0)
    return most if same.all() else int(same.argmin())


def log_probabilities(
    network: ModernBertForPretraining,
    sentences: Sequence[Sentence],
    mask: Mask,
    mask_id: int,
    advance: Advance,
) -> Iterator[np.ndarray]:
    """Yield for each sentence the log-probabilities of its candidates, (1 + A,), in nats.

    Args:
        network: The model, in evaluation mode.
        mask_id: Id of the mask token.
        advance: Called with 1 after each sentence.
    """
    measure = teacher_forced if mask == "causal" else masked_at_once
    for sentence in sentences:
        yield measure(network, sentence, mask_id)
        advance(1)


def teacher_forced(network: ModernBertForPretraining, sentence: Sentence, _: int) -> np.ndarray:
    """Return the log-probability of each candidate, token by token, under the causal mask."""
    found = np.zeros(len(sentence.candidates))
    longest = len(sentence.before) + max(map(len, sentence.candidates)) - 1
    for start in range(0, len(found), max(BATCH_TOKENS // longest, 1)):
        candidates = sentence.candidates[start : start + max(BATCH_TOKENS // longest, 1)]
        inputs = [np.concatenate([sentence.before, each[:-1]]) for each in candidates]
        labels = [targets(len(sentence.before), each) for each in candidates]
        lengths = [len(each) for each in inputs]
        places, losses = token_losses(
            network,
            torch.from_numpy(np.concatenate(inputs))[None],
            [lengths],
            torch.from_numpy(np.concatenate(labels))[None],
            causal=True,
        )
        owner = np.repeat(np.arange(len(lengths)), lengths)[places.numpy()]
        found[start : start + len(lengths)] = -np.bincount(owner, losses.double().numpy(), len(lengths))
    return found


def targets(before: int, candidate: np.ndarray) -> np.ndarray:
    """Return what each position of a sentence predicts: the candidate after `before` tokens."""
    return np.concatenate([np.full(before - 1, IGNORED), candidate])


def masked_at_once(network: ModernBertForPretraining, sentence: Sentence, mask_id: int) -> np.ndarray:
    """Return the log-probability of each candidate with all of its tokens masked."""
    found = np.zeros(len(sentence.candidates))
    counts = np.array([len(each) for each in sentence.candidates])
    for count in np.unique(counts[counts > 0]):
        row = np.concatenate([sentence.before, np.full(count, mask_id), sentence.after])
        logits = masked_logits(network, row, len(sentence.before), int(count))
        ids = np.stack([each for each in sentence.candidates if len(each) == count])
        found[counts == count] = np.take_along_axis(logits, ids.T, axis=1).sum(axis=0)
    return found


@fp32_products(tf32=False)
@torch.no_grad()
def masked_logits(network: ModernBertForPretraining, row: np.ndarray, first: int, count: int) -> np.ndarray:
    """Return the log-probabilities of all tokens at `count` places of a text, (count, V) float64."""
    ids = torch.from_numpy(row)[None].to(network.device)
    hidden, _ = network.encode(ids, document_lengths=[[len(row)]], causal=False)
    logits = network.decoder(network.head(hidden[first : first + count]))
    return logits.double().log_softmax(-1).cpu().numpy()


def rank(scores: np.ndarray) -> tuple[float, float]:
    """Return rank and exposure of the first of some scores; NaN if it is not finite.

    Of equal scores half count as higher in the rank. The exposure is the mean over all orders of equal
    scores, so that a model which cannot tell secrets apart has that of chance.
    """
    if not np.isfinite(scores).all():
        return math.nan, math.nan
    higher, equal = int((scores[1:] > scores[0]).sum()), int((scores[1:] == scores[0]).sum())
    ranks = 1 + higher + np.arange(equal + 1)
    return float(ranks.mean()), float(math.log2(len(scores)) - np.log2(ranks).mean())


def chance(alternatives: int) -> float:
    """Return the mean exposure of a secret whose rank is random, in bits: 1.44 for many alternatives."""
    _, exposure = rank(np.zeros(1 + alternatives))
    return exposure
