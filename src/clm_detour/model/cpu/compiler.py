"""Compile a folder's `kernel.cpp` for this CPU and torch, once per machine, into the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from clm_detour.utils.files import cache_folder

MAIN = "kernel.cpp"
OPENMP = "-fopenmp"
FLAGS = ("-O3", "-std=c++17", "-fPIC", OPENMP)
AVX2 = ("-mavx2", "-mfma")
AVX512 = (*AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl")))


@cache
def library(sources: Path, flags: tuple[str, ...]) -> ctypes.CDLL | str:
    """Return the compiled code, or why there is none.

    Args:
        sources: The folder.
        flags: Flags of the compiler, in addition to FLAGS. A CPU without these instructions must not call the
            compiled code.
    """
    command = compiler()
    if not command:
        return "there is no C++ compiler, such as g++, to compile it"
    try:
        return load(sources, (*command, *FLAGS, *flags), cache_folder())
    except subprocess.CalledProcessError as error:
        return f"{' '.join(command)} does not compile it ({first_error(error.stderr)})"
    except OSError as error:
        return f"it cannot be compiled or loaded here ({error})"


def compiler() -> list[str]:
    """Return the command of a C++ compiler, from CXX if that is set; empty if there is none."""
    named = shlex.split(os.environ.get("CXX", ""))
    return named or list(filter(shutil.which, ("g++", "c++")))[:1]


def load(sources: Path, command: Sequence[str], folder: Path) -> ctypes.CDLL:
    """Compile, unless `folder` holds the result, and load it.

    Args:
        sources: The folder with the C++.
        command: The compiler and its flags.
        folder: The cache.

    Raises:
        CalledProcessError: If the compiler stops with an error.
        OSError: If there is no such compiler, the folder cannot be written, or the result cannot be loaded.
    """
    compiled = folder / f"{sources.name}-{_key(sources, command)}.so"
    if not compiled.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            os.replace(_compile(sources / MAIN, command, Path(place)), compiled)
    return ctypes.CDLL(str(compiled))


def _compile(main: Path, command: Sequence[str], folder: Path) -> Path:
    torch_folder = Path(torch.__file__).parent
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    code, linked = folder / "code.o", folder / "code.so"
    _run([*command, abi, f"-I{torch_folder / 'include'}", "-c", str(main), "-o", str(code)])
    linker = [part for part in command if part != OPENMP]  # the threads must be those of torch's OpenMP
    libraries = (f"-L{torch_folder / 'lib'}", "-Wl,--no-as-needed", "-ltorch_cpu", "-lc10")
    _run([*linker, "-shared", str(code), *libraries, "-o", str(linked)])
    return linked


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _key(sources: Path, command: Sequence[str]) -> str:
    """Return a hash of everything that the compiled code depends on."""
    texts = [path.read_text() for path in [*sorted(sources.glob("*.h")), sources / MAIN]]
    of = [torch.__version__, platform.platform(), *command, *texts]
    return hashlib.sha256("\0".join(of).encode()).hexdigest()[:16]


def first_error(printed: str) -> str:
    """Return the first line with an error from what a compiler printed."""
    lines = printed.strip().splitlines() or ["it says nothing"]
    return next((line for line in lines if "error" in line), lines[-1]).strip()
