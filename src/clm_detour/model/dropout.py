"""Dropout after the output projection of attention, as a pure function of the seed and the token's place.

Whether a unit is dropped depends on the seed, the row (by its number in the training stream), the position
in the row, the layer and the unit, and on nothing else. So a step drops the same units with any micro-batch,
on any number of processes, under activation checkpointing and after a resume. The training code of
ModernBERT has this dropout at 0.1 (`attn_out_dropout_prob`), where transformers' config has no key for it.

The random numbers are hashes of 32 bits in int64 tensors (the finalizer "lowbias32" of C. Wellons' hash
prospector). No product of two of them exceeds 63 bits.

Shapes: B rows, L positions of a row, T tokens, E hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BITS = 32
MASK = (1 << BITS) - 1
FIRST, SECOND = 0x7FEB352D, 0x846CA68B - (1 << BITS)  # the second is negative, so that products stay small


@dataclass(frozen=True)
class OutputDropout:
    """The dropout of all layers.

    Args:
        rate: Share of the units that become 0, from 0 to less than 1. The others are divided by 1 - rate.
        seed: Seed.
    """

    rate: float
    seed: int

    def token_keys(self, rows_B: Tensor, length: int) -> Tensor:
        """Return a random number for each token, (B, L) int64.

        Args:
            rows_B: Numbers of the rows, (B,) int64.
            length: L.
        """
        seed = hashed(torch.tensor(self.seed & MASK, device=rows_B.device))
        keys_B = hashed(seed ^ hashed(rows_B & MASK) ^ hashed(rows_B >> BITS))
        return hashed(keys_B[:, None] ^ hashed(torch.arange(length, device=rows_B.device)))


def layer_keys(keys_T: Tensor, layer: int) -> Tensor:
    """Return a random number for each token in one layer, (T,) int64."""
    return hashed(keys_T + (layer + 1) * FIRST)


def dropped(update_TE: Tensor, keys_T: Tensor, rate: float) -> Tensor:
    """Return (T, E) with a share of its units set to 0 and the others scaled up.

    Args:
        update_TE: The output of a projection.
        keys_T: A random number for each token, from `layer_keys`.
        rate: Probability of a 0.
    """
    units_E = hashed(torch.arange(update_TE.shape[-1], device=update_TE.device))
    kept_TE = hashed(keys_T[:, None] ^ units_E) >= int(rate * (1 << BITS))
    return torch.where(kept_TE, update_TE / (1 - rate), 0)


def hashed(numbers: Tensor) -> Tensor:
    """Return a hash of 32 bits of each number's lowest 32 bits, as int64."""
    numbers = numbers & MASK
    numbers = ((numbers ^ (numbers >> 16)) * FIRST) & MASK
    numbers = ((numbers ^ (numbers >> 15)) * SECOND) & MASK
    return numbers ^ (numbers >> 16)
