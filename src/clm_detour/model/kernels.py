"""Requirements of the attention kernels (GPU, precision, size of heads), and the form of their window."""

from __future__ import annotations

import torch
from torch import Tensor

from clm_detour.utils.errors import UserError

DEVICE = "cuda"
HALF = (torch.bfloat16, torch.float16)
FLASH_HEADS = range(8, 257, 8)  # supported sizes
OLDEST = 8  # major compute capability: Ampere
OTHER = "(attention_backend of the model, model.attention of a recipe)"


def half_on_cuda(device: str, dtype: torch.dtype) -> bool:
    """Return whether tensors are in half precision on a GPU, for which the CUDA kernels are made."""
    return device == "cuda" and dtype in HALF


def no_gpu() -> str | None:
    """Return why this machine cannot run the CUDA kernels, or None if it can."""
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    major, minor = torch.cuda.get_device_capability()
    if major < OLDEST:
        return f"it needs compute capability {OLDEST}.0 and this GPU has {major}.{minor}"
    return None


def check_flash(name: str, q_THD: Tensor) -> None:
    """Check that queries suit FlashAttention: on CUDA, in half precision, with heads of a supported size.

    Raises:
        UserError: If they do not.
    """
    if q_THD.device.type != DEVICE:
        raise UserError(
            f"The attention back end {name!r} runs on CUDA but the model is on {q_THD.device.type}; "
            f"move it with model.to('cuda') or choose 'portable' {OTHER}."
        )
    if q_THD.dtype not in HALF:
        raise UserError(
            f"The attention back end {name!r} computes in bf16 or fp16 but the model runs in {q_THD.dtype}; "
            f"run it under torch.autocast('cuda', torch.bfloat16) or choose 'flex' {OTHER}."
        )
    check_heads(name, q_THD.shape[-1], FLASH_HEADS)


def check_heads(name: str, size: int, sizes: range) -> None:
    """Check that a kernel supports heads of this size.

    Raises:
        UserError: If it does not.
    """
    if size not in sizes:
        raise UserError(
            f"The attention back end {name!r} takes {describe_heads(sizes)} but the model's is {size}; "
            f"choose 'portable' {OTHER}."
        )


def describe_heads(sizes: range) -> str:
    """Return a description of sizes of heads, for a sentence."""
    steps = f" in steps of {sizes.step}" if sizes.step > 1 else ""
    return f"heads of size {sizes[0]} to {sizes[-1]}{steps}"


def window_sides(
    causal: bool, window: int | None, no_limit: int | None = -1
) -> tuple[int | None, int | None]:
    """Return the number of tokens that a token sees to its left and to its right.

    Args:
        causal: Whether the mask is causal.
        window: Number of tokens on each side, None for all.
        no_limit: The value that stands for all tokens.
    """
    side = no_limit if window is None else window
    return side, 0 if causal else side
