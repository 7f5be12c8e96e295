"""What `torch.compile` needs on a machine: Triton and a C compiler for a GPU, a C++ compiler for a CPU."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec

import torch

OLDEST = (7, 0)  # compute capability that Triton compiles for
C_COMPILERS = ("gcc", "clang")  # in Triton's order
CXX_COMPILERS = ("clang++" if sys.platform == "darwin" else "g++",)  # torch looks for no other


def cannot_compile(device: str) -> str | None:
    """Why torch cannot compile for this type of device here, or None if it can."""
    if device != "cuda":
        return _missing("CXX", CXX_COMPILERS, "C++")
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if (here := torch.cuda.get_device_capability()) < OLDEST:
        return "Triton needs compute capability {}.{} and this GPU has {}.{}".format(*OLDEST, *here)
    if find_spec("triton") is None:
        return "Triton, with which torch compiles for a GPU, is not installed"
    return _missing("CC", C_COMPILERS, "C")


def _missing(variable: str, names: tuple[str, ...], language: str) -> str | None:
    named = os.environ.get(variable)
    if any(map(shutil.which, [named] if named else names)):
        return None
    looked_for = f"{variable}={named}" if named else " or ".join(names)
    return f"there is no {language} compiler ({looked_for}), which torch.compile needs"
