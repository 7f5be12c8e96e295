"""Try a back end once on this GPU: a kernel that imports may lack windows, documents or the backward pass.

Builds of FlashAttention 3 may leave out any of these, and releases of FlashAttention 4 refuse some GPUs in
the deterministic mode.

Shapes: T tokens, H heads, D size of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from clm_detour.model import kernels
from clm_detour.model.documents import Documents
from clm_detour.utils.errors import on_one_line

LENGTHS, HEADS, SIZE, WINDOW = (65, 130), 2, 64, 16  # of the documents, in tokens; H; D; in tokens

Attend = Callable[[Tensor, Tensor, Tensor, Documents, bool, "int | None"], Tensor]


def problem(attend: Attend) -> str | None:
    """Return why a back end for CUDA does not work on the current GPU, in one line, or None if it does.

    It computes one forward and one backward pass with a window over two documents, causal and not, in bf16.
    The answer is kept for each kind of GPU and for the deterministic mode of torch.

    Raises:
        OutOfMemoryError: If the GPU has no memory left.
    """
    return _tried(attend, torch.cuda.get_device_capability(), torch.are_deterministic_algorithms_enabled())


@cache
def _tried(attend: Attend, capability: tuple[int, int], deterministic: bool) -> str | None:
    try:
        for causal in (False, True):
            _try(attend, causal)
    except torch.OutOfMemoryError:  # says nothing about the kernel
        raise
    except Exception as error:  # a kernel may raise anything
        return on_one_line(error)
    return None


def _try(attend: Attend, causal: bool) -> None:
    """Run forward and backward, whatever surrounds the call.

    Raises:
        Exception: If the kernel raises it, or numbers are not finite.
    """
    device = torch.device(kernels.DEVICE)
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        values = torch.arange(sum(LENGTHS) * 3 * HEADS * SIZE, device=device).sin().to(torch.bfloat16)
        qkv = values.view(-1, 3, HEADS, SIZE).requires_grad_()
        q, k, v = qkv.unbind(1)
        out = attend(q, k, v, Documents(list(LENGTHS), device), causal, WINDOW)
        (grad,) = torch.autograd.grad(out.float().square().sum(), qkv)
        if not bool(out.isfinite().all() & grad.isfinite().all()):
            raise ValueError("its results are not finite")
