"""The loss of every predicted token of packed documents, under the bidirectional or the causal mask.

Shapes: B rows, L positions of a row, P predicted tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from clm_detour.data.objectives import IGNORED
from clm_detour.model import ModernBertForPretraining
from clm_detour.model.precision import fp32_products

CHUNK = 256  # positions whose logits are held at a time; more no longer fit into the cache of a core


@fp32_products(tf32=False)
@torch.no_grad()
def token_losses(
    network: ModernBertForPretraining,
    ids_BL: Tensor,
    lengths: Sequence[Sequence[int]],
    labels_BL: Tensor,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """Return the places of the predicted tokens in the flattened rows, and their losses in nats.

    Args:
        network: The model, in evaluation mode, on any device.
        ids_BL: (B, L) int64.
        lengths: Lengths of the documents of each row, which add up to L.
        labels_BL: (B, L) int64, the token that each position predicts, `IGNORED` where it predicts none.
        causal: Whether a token sees only itself and earlier tokens of its document.

    Returns:
        (P,) int64 and (P,) float32, on the CPU.
    """
    labels_T = labels_BL.flatten()
    places_P = (labels_T != IGNORED).nonzero().flatten()
    labels_P = labels_T[places_P].to(network.device)
    hidden_TE, _ = network.encode(ids_BL.to(network.device), document_lengths=lengths, causal=causal)
    chunks = hidden_TE[places_P.to(network.device)].split(CHUNK)
    losses = [
        F.cross_entropy(network.decoder(network.head(hidden)).float(), labels, reduction="none").cpu()
        for hidden, labels in zip(chunks, labels_P.split(CHUNK), strict=True)
    ]
    return places_P, torch.cat(losses) if losses else torch.empty(0)
