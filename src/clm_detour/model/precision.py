"""Choose the device and the precision: bf16 autocast only where it is faster, TF32 only where asked for."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch


def best_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.cache
def cpu_multiplies_bf16() -> bool:
    """Return whether bf16 products are fast on this CPU. Without AVX-512 they are 8 times slower than
    fp32.
    """
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def without_slow_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context that turns autocast off on a CPU where bf16 is slower than fp32."""
    if device.type == "cpu" and not cpu_multiplies_bf16():
        return torch.autocast("cpu", enabled=False)
    return contextlib.nullcontext()


def product_dtype(device: str, dtype: torch.dtype) -> torch.dtype:
    """Return the type in which matrix products of tensors of `dtype` run on this type of device.

    It is that of autocast, if autocast is on.
    """
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else dtype


def set_tf32(allowed: bool) -> None:
    """Allow or forbid TF32, which rounds the inputs of products of fp32 tensors to 10 bits, on every GPU."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    for backend in backends:
        backend.allow_tf32 = allowed
        if hasattr(backend, "fp32_precision"):  # torch 2.9; else one for all back ends would count
            backend.fp32_precision = "tf32" if allowed else "ieee"


@contextlib.contextmanager
def fp32_products(tf32: bool) -> Iterator[None]:
    """Compute products of fp32 tensors in TF32 or exactly within a block, or within a function."""
    before = _allows_tf32()
    set_tf32(tf32)
    try:
        yield
    finally:
        set_tf32(before)


def _allows_tf32() -> bool:
    matmul: Any = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # then the older flag raises where somebody set only this one
        return matmul.fp32_precision == "tf32"
    return matmul.allow_tf32


def computed_precision(asked: str, device: torch.device) -> tuple[str, str]:
    """Return the precision that is used when a config asks for bf16, tf32 or fp32, and the reason."""
    if asked == "bf16" and device.type == "cpu" and not cpu_multiplies_bf16():
        return "fp32", "bf16 was asked for, but this CPU multiplies it eight times as slowly as fp32"
    if asked == "tf32" and device.type == "cpu":
        return "fp32", "tf32 was asked for, but a CPU has no TF32"
    if asked == "tf32" and torch.cuda.get_device_capability(device) < (8, 0):
        return "fp32", "tf32 was asked for, but this GPU is older than Ampere and has no TF32"
    return asked, "asked for"
