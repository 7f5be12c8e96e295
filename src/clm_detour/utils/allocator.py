"""Set how memory is allocated: by the C library, which holds the tensors on a CPU, and by torch on a GPU.

glibc returns each block of more than 32 MiB to the kernel as soon as it is freed. The next step gets it back
page by page, filled with zeros, which took a quarter of a training step (benchmarks/results, `train_step`).
"""

from __future__ import annotations

import ctypes
import os
import platform

SETTINGS_OF_TORCH = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")  # newer releases read both
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Keep freed memory for later allocations, and return whether the C library can do so; only glibc can."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: 64 << 20}
    return all(libc.mallopt(key, value) for key, value in settings.items())


def let_gpu_memory_grow() -> None:
    """Let torch's segments of GPU memory grow, so that shapes which differ leave no gaps between them.

    A setting of the user stays. torch reads it when CUDA starts, so call this before.
    """
    if not any(name in os.environ for name in SETTINGS_OF_TORCH):
        os.environ[SETTINGS_OF_TORCH[0]] = "expandable_segments:True"


def give_back_freed_memory() -> None:
    """Return freed memory to the kernel now, if the C library is glibc."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
