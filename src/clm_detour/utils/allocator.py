"""How the C library hands out memory, where tensors live in it (on a CPU).

glibc gives each block of more than 32 MiB back to the kernel as soon as it is freed, and the next step gets it back page by
page, zeroed. In a training step that cost a quarter of the time (benchmarks/results, `train_step`).
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Keep what is freed for the next step, for the rest of this process.

    Returns:
        Whether it could be done; only glibc can.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: 64 << 20}
    return all(libc.mallopt(key, value) for key, value in settings.items())


def give_back_freed_memory() -> None:
    """Return what is freed to the kernel now, if the C library is glibc."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
