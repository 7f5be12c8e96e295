"""Say whether `torch.compile` can run on this machine, and let it compile a function often enough.

For a GPU it needs Triton, a C compiler and Python's headers; for a CPU a C++ compiler.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
import torch._dynamo

OLDEST = (7, 0)  # compute capability that Triton compiles for
C_COMPILERS = ("gcc", "clang")  # in Triton's order
CXX_COMPILERS = ("clang++" if sys.platform == "darwin" else "g++",)  # torch looks for this one only


@cache
def cannot_compile(device: str) -> str | None:
    """Return why torch cannot compile for this type of device here, or None if it can."""
    if device != "cuda":
        return _missing("CXX", CXX_COMPILERS, "C++")
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if (here := torch.cuda.get_device_capability()) < OLDEST:
        return "Triton needs compute capability {}.{} and this GPU has {}.{}".format(*OLDEST, *here)
    if find_spec("triton") is None:
        return "Triton, with which torch compiles for a GPU, is not installed"
    if not _has_headers():
        return "Python's headers, which Triton needs, are not installed (python3-dev)"
    return _missing("CC", C_COMPILERS, "C")


def compile_choice(asked: bool | Literal["auto"], device: str) -> tuple[bool, str]:
    """Return whether layers are compiled for this type of device, and the reason.

    Args:
        asked: The user's setting; `auto` compiles for a GPU if torch can.
    """
    if asked != "auto":
        return asked, "asked for"
    if device != "cuda":
        return False, "on a CPU only if asked for"
    reason = cannot_compile(device)
    return reason is None, reason or "torch can compile for this GPU"


def allow_many_versions() -> None:
    """Let torch compile as many versions of one function as its limit for all functions allows.

    A function has a version for each shape, with gradients and without, and torch refuses the ninth. Under
    DDP torch also does not split what is compiled at DDP's buckets: a part of a layer is small enough for DDP
    to overlap communication with it.
    """
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, limits.accumulated_recompile_limit)
    limits.optimize_ddp = False


def _has_headers() -> bool:
    return Path(sysconfig.get_path("include"), "Python.h").exists()


def _missing(variable: str, names: tuple[str, ...], language: str) -> str | None:
    named = os.environ.get(variable)
    if any(map(shutil.which, [named] if named else names)):
        return None
    looked_for = f"{variable}={named}" if named else " or ".join(names)
    return f"there is no {language} compiler ({looked_for}), which torch.compile needs"
