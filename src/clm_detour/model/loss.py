"""Cross-entropy over a vocabulary, without ever holding the whole logits matrix.

The P predicted positions go through the vocabulary in chunks. The gradient of the logits is softmax minus
one-hot, so the share of each chunk in the gradients of hidden states and weights is computed at once, in the
forward pass, and its logits are dropped. So the product with the vocabulary is computed once, and not again
in the backward pass. Matrix products run in the autocast precision, the softmax in fp32. Gradients of weights
and bias are summed in fp32; gradients of logits have the precision of the products. `cpu/softmax` computes
the loss and the gradient of a chunk.

Shapes: P predicted positions, E hidden size, V vocabulary, C positions of a chunk.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clm_detour.model import kernels
from clm_detour.model.cpu.softmax import add_rows, loss_and_gradient
from clm_detour.model.documents import IGNORED
from clm_detour.model.input_checks import check_ids
from clm_detour.model.precision import product_dtype
from clm_detour.utils.errors import UserError

CHUNK_BYTES = {"cpu": 192 << 20, "cuda": 1 << 30}  # fp32 logits held at a time
STEP = 128  # positions; chunks of another multiple make products up to a sixth slower
SMALLEST_CHUNK = 256  # below this the product with the vocabulary is bound by reading the weights


def summed_cross_entropy(
    hidden_PE: Tensor, weight_VE: Tensor, bias_V: Tensor | None, labels_P: Tensor, chunk: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return the sum of the cross-entropies of `hidden @ weight.T + bias`, in nats.

    Args:
        hidden_PE: Hidden states.
        weight_VE, bias_V: Projection to the vocabulary.
        labels_P: (P,) int64, each in [0, V).
        chunk: Number of positions per chunk. None chooses it by memory.

    Returns:
        The sum, fp32; and, without gradients, how many labels have the highest logit (None otherwise).

    Raises:
        UserError: If labels are not int64, or one is not in [0, V). The latter is checked on a CPU only,
            because reading it elsewhere would make the host wait.
    """
    check_ids("labels", "label", labels_P, len(weight_VE), (torch.int64,))
    chunk = chunk or chunk_positions(len(weight_VE), weight_VE.device.type)
    dtype = product_dtype(hidden_PE.device.type, hidden_PE.dtype)
    if torch.is_grad_enabled():
        return _ChunkedCrossEntropy.apply(hidden_PE, weight_VE, bias_V, labels_P, chunk, dtype), None
    return _evaluate(hidden_PE, weight_VE, bias_V, labels_P, chunk, dtype)


def predicted_places(labels_T: Tensor, predicted: int | None = None) -> Tensor:
    """Return the positions that have a label, (P,) int64.

    Args:
        labels_T: Labels, -100 where there is none.
        predicted: P, if the host knows it. Then the host does not wait for the device.

    Raises:
        UserError: If `predicted` is not P. This is checked on a CPU only.
    """
    known = labels_T != IGNORED
    if predicted is None:
        return known.nonzero().squeeze(1)
    if labels_T.device.type == "cpu" and predicted != known.sum():
        raise UserError(
            f"predicted is {predicted} but {int(known.sum())} positions have a label; count them anew."
        )
    order = torch.where(known, known.cumsum(0) - 1, predicted)
    numbers = torch.arange(len(labels_T), device=labels_T.device)
    places = numbers.new_empty(predicted + 1)  # the last one receives what is not predicted
    return places.scatter_(0, order, numbers)[:predicted]


def chunk_positions(entries: int, device: str) -> int:
    """Return the multiple of STEP positions whose fp32 logits over `entries` fill CHUNK_BYTES."""
    budget = CHUNK_BYTES.get(device, CHUNK_BYTES["cpu"])
    return max(SMALLEST_CHUNK, budget // (4 * entries) // STEP * STEP)


def _evaluate(
    hidden_PE: Tensor,
    weight_VE: Tensor,
    bias_V: Tensor | None,
    labels_P: Tensor,
    chunk: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    weight = weight_VE.to(dtype)
    total = torch.zeros((), device=hidden_PE.device)
    correct = torch.zeros((), dtype=torch.int64, device=hidden_PE.device)
    for hidden, labels in zip(hidden_PE.split(chunk), labels_P.split(chunk), strict=True):
        logits = (hidden.to(dtype) @ weight.T).to(torch.promote_types(dtype, torch.float32))
        logits = logits if bias_V is None else logits.add_(bias_V)
        total = total + F.cross_entropy(logits, labels, reduction="sum")
        correct = correct + (logits.argmax(-1) == labels).sum()
    return total, correct


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_PE: Tensor,
        weight_VE: Tensor,
        bias_V: Tensor | None,
        labels_P: Tensor,
        chunk: int,
        dtype: torch.dtype,
    ) -> Tensor:
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        precise = torch.promote_types(dtype, torch.float32)
        weight = weight_VE.to(dtype)
        total = torch.zeros((), dtype=precise, device=hidden_PE.device)
        grad_hidden = torch.empty_like(hidden_PE) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VE, dtype=precise) if needs_weight else None
        grad_bias = torch.zeros_like(weight_VE[:, 0], dtype=precise) if needs_bias else None
        for start in range(0, len(labels_P), chunk):
            part = slice(start, start + chunk)
            hidden = hidden_PE[part].to(dtype)
            loss, grad = loss_and_gradient(hidden @ weight.T, bias_V, labels_P[part])
            total += loss
            if grad_bias is not None:
                add_rows(grad_bias, grad)
            if grad_hidden is not None:
                grad_hidden[part] = grad @ weight
            if grad_weight is not None:
                _add_product(grad_weight, grad.T, hidden)
        ctx.save_for_backward(
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight_VE.dtype),
            None if grad_bias is None or bias_V is None else grad_bias.to(bias_V.dtype),
        )
        return total

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor | None, ...]:
        return (*(_scaled(grad, grad_total) for grad in ctx.saved_tensors), None, None, None)


def _scaled(grad: Tensor | None, by: Tensor) -> Tensor | None:
    """Multiply in the precision of `by`: 1 / P in half precision would distort every gradient."""
    return None if grad is None else (grad.to(by.dtype) * by).to(grad.dtype)


def _add_product(sum_VE: Tensor, left_VC: Tensor, right_CE: Tensor) -> None:
    """Compute sum += left @ right, summed in the precision of the sum."""
    if left_VC.dtype == sum_VE.dtype:
        sum_VE.addmm_(left_VC, right_CE)
    elif _product_adds(left_VC.device.type, left_VC.dtype):
        addmm: Any = torch.addmm
        addmm(sum_VE, left_VC, right_CE, out_dtype=sum_VE.dtype, out=sum_VE)
    else:
        sum_VE += left_VC @ right_CE


@cache
def _product_adds(device: str, dtype: torch.dtype) -> bool:
    """Return whether this torch can add a product of half precision to an fp32 sum, which CUDA can.

    It reads and writes the sum once, and does not round the product to half precision before.
    """
    if device != kernels.DEVICE:
        return False
    left, total = (torch.zeros(16, 16, dtype=kind, device=device) for kind in (dtype, torch.float32))
    addmm: Any = torch.addmm
    try:
        addmm(total, left, left, out_dtype=torch.float32, out=total)
    except (TypeError, RuntimeError):  # older releases take no out_dtype, or only a sum in half precision
        return False
    return True
