"""Where to compute, and bf16 autocast where the device gains from it."""

from __future__ import annotations

import contextlib
import functools
from contextlib import AbstractContextManager

import torch


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.cache
def cpu_multiplies_bf16() -> bool:
    """Whether torch has a fast bf16 product on this CPU; without AVX-512 it takes eight times as long as fp32."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def autocast_that_pays(device: torch.device) -> AbstractContextManager[object]:
    """Leaves autocast as it is, or turns it off on a CPU that would be slower for it; fp32 is only more exact."""
    if device.type == "cpu" and not cpu_multiplies_bf16():
        return torch.autocast("cpu", enabled=False)
    return contextlib.nullcontext()


def product_dtype(device: str, dtype: torch.dtype) -> torch.dtype:
    """What matrix products of tensors of `dtype` run in on this type of device: autocast's precision, where that is on."""
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else dtype


def computed_precision(asked: str, device: torch.device) -> tuple[str, str]:
    """What is computed when a config asks for bf16 or fp32, and why."""
    if asked == "bf16" and device.type == "cpu" and not cpu_multiplies_bf16():
        return "fp32", "bf16 was asked for, but this CPU multiplies it eight times as slowly as fp32"
    return asked, "asked for"
