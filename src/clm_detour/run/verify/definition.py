"""Attention and its gradients in fp64, written out from the definition, to compare the back ends with.

For scores S = q k / sqrt(D), weights P = softmax(S) over the keys that a query sees, and output O = P v, the
gradients for a gradient G of O are dv = P' G, dS = P * (G v' - rowsum(G * O)), dq = dS k / sqrt(D) and dk =
dS' q / sqrt(D). A part of the queries of a document is computed at a time, so memory grows with the length
and not with its square.

Shapes: T tokens, H heads, D size of a head, Q queries of a part, K keys that they may see.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

QUERIES = 1024  # computed at a time


def exact_attention(
    qkv_T3HD: Tensor, grad_THD: Tensor, lengths: Sequence[int], causal: bool, window: int | None
) -> tuple[Tensor, Tensor]:
    """Return the output, (T, H, D), and the gradient of `qkv`, (T, 3, H, D), in fp64.

    Args:
        qkv_T3HD: Queries, keys and values, of any type.
        grad_THD: Gradient of the output.
        lengths: Tokens of each document; their sum is T.
        causal: Whether a token sees only itself and what is to its left.
        window: Tokens that a token sees on each side, inclusive; None for all.
    """
    outputs, gradients = [], []
    parts = zip(qkv_T3HD.double().split(list(lengths)), grad_THD.double().split(list(lengths)), strict=True)
    for qkv, grad in parts:
        output, gradient = _document(qkv, grad, causal, window)
        outputs.append(output)
        gradients.append(gradient)
    return torch.cat(outputs), torch.cat(gradients)


def _document(qkv_T3HD: Tensor, grad_THD: Tensor, causal: bool, window: int | None) -> tuple[Tensor, Tensor]:
    q, k, v = qkv_T3HD.unbind(1)
    tokens, scale = len(q), 1 / math.sqrt(q.shape[-1])
    output, gradient = torch.empty_like(q), torch.zeros_like(qkv_T3HD)
    reach = tokens if window is None else window
    for start in range(0, tokens, QUERIES):
        end = min(start + QUERIES, tokens)
        low, high = max(0, start - reach), end if causal else min(tokens, end + reach)
        query = torch.arange(start, end, device=q.device)[:, None]
        key = torch.arange(low, high, device=q.device)
        seen_QK = (key >= query - reach) & (key <= (query if causal else query + reach))
        scores_HQK = torch.einsum("qhd,khd->hqk", q[start:end], k[low:high]) * scale
        weights_HQK = scores_HQK.masked_fill_(~seen_QK, -torch.inf).softmax(-1)
        grad_QHD, values = grad_THD[start:end], v[low:high]
        output[start:end] = torch.einsum("hqk,khd->qhd", weights_HQK, values)
        inner_HQ = (grad_QHD * output[start:end]).sum(-1).T
        grad_weights_HQK = torch.einsum("qhd,khd->hqk", grad_QHD, values)
        grad_scores_HQK = weights_HQK * (grad_weights_HQK - inner_HQ[..., None]) * scale
        gradient[start:end, 0] = torch.einsum("hqk,khd->qhd", grad_scores_HQK, k[low:high])
        gradient[low:high, 1] += torch.einsum("hqk,qhd->khd", grad_scores_HQK, q[start:end])
        gradient[low:high, 2] += torch.einsum("hqk,qhd->khd", weights_HQK, grad_QHD)
    return output, gradient
