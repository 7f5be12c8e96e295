"""Softmax over the vocabulary: the cross-entropy of logits together with its gradient.

Memory is the limit, so the number of times that logits are read and written decides the speed. On a CPU in
bf16 or fp32, C++ that is compiled on first use reads them once and writes the gradient over them, 4 to 10
times as fast as torch's operators. On a GPU torch compiles the definition into one loop over each row, which
moves a fifth of the bytes that its separate operators move. Elsewhere the separate operators are used. It is
deterministic, whatever the number of threads.

Shapes: C positions, V vocabulary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from clm_detour.model.compiling import allow_many_versions, cannot_compile
from clm_detour.model.cpu.compiler import AVX2, AVX512, library

FLAGS = {"AVX512": AVX512, "AVX2": AVX2}  # by torch's own choice; without flags for any other CPU
DTYPES = {torch.bfloat16: "bf16", torch.float32: "fp32"}


def loss_and_gradient(logits_CV: Tensor, bias_V: Tensor | None, labels_C: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of the cross-entropies of `logits + bias`, and its gradient: softmax minus one-hot.

    Args:
        logits_CV: Logits, which may be overwritten.
        bias_V: Bias, or None.
        labels_C: (C,) int64, each in [0, V), which is not checked.

    Returns:
        The sum, in nats, at least fp32; and the gradient (C, V), computed in fp32, in the precision of the
        logits.

    Raises:
        ValueError: If shapes do not fit, or labels are not int64.
    """
    _check(logits_CV, bias_V, labels_C)
    return _way(logits_CV)(logits_CV, bias_V, labels_C)


def add_rows(sum_V: Tensor, rows_CV: Tensor) -> None:
    """Compute sum += rows.sum(0), in the precision of the sum."""
    if _suits(rows_CV) and sum_V.dtype == torch.float32 and sum_V.is_contiguous():
        _call("add_rows", rows_CV, *rows_CV.shape, sum_V)
    else:
        sum_V += rows_CV.sum(0, dtype=sum_V.dtype)


def unavailable(device: str = "cpu") -> str | None:
    """Return why nothing compiled can run here on this type of device, or None if it can."""
    if device == "cuda":
        return cannot_compile(device)
    found = _library()
    return found if isinstance(found, str) else None


def fusable(logits_CV: Tensor, bias_V: Tensor | None, labels_C: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `loss_and_gradient` in a form that a compiler turns into one pass."""
    wide = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    wide = wide if bias_V is None else wide + bias_V
    normaliser = wide.logsumexp(-1, keepdim=True)
    right = torch.arange(wide.shape[1], device=wide.device) == labels_C[:, None]
    grad = (wide - normaliser).exp() - right.to(wide.dtype)
    loss = (normaliser - wide.gather(1, labels_C[:, None])).sum()
    return loss, grad.to(logits_CV.dtype)


def _way(logits_CV: Tensor) -> Callable[[Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor]]:
    if torch.compiler.is_compiling():
        return fusable
    if _suits(logits_CV):
        return _in_cpp
    return fused() if logits_CV.is_cuda and unavailable("cuda") is None else _one_after_another


def _in_cpp(logits_CV: Tensor, bias_V: Tensor | None, labels_C: Tensor) -> tuple[Tensor, Tensor]:
    bias = None if bias_V is None else bias_V.float().contiguous()
    total = _call("gradient", logits_CV, bias, labels_C.contiguous(), *logits_CV.shape)
    return logits_CV.new_tensor(total, dtype=torch.float32), logits_CV


@cache
def fused(backend: str = "inductor") -> Callable[..., tuple[Tensor, Tensor]]:
    """Return `fusable`, compiled. At the second number of positions torch compiles it for any number."""
    allow_many_versions()
    return torch.compile(fusable, fullgraph=True, backend=backend)


def _one_after_another(logits_CV: Tensor, bias_V: Tensor | None, labels_C: Tensor) -> tuple[Tensor, Tensor]:
    log_p = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    log_p = (log_p if bias_V is None else log_p.add_(bias_V)).log_softmax(-1)
    places = labels_C[:, None]
    loss = -log_p.gather(1, places).sum()
    grad = log_p.exp_()
    grad.scatter_add_(1, places, grad.new_full((1, 1), -1.0).expand_as(places))
    return loss, grad.to(logits_CV.dtype)


@cache
def _library() -> ctypes.CDLL | str:
    instructions = FLAGS.get(torch.backends.cpu.get_cpu_capability(), ())
    # comparisons do not trap here, so the compiler may vectorize them
    return library(Path(__file__).parent, ("-fno-trapping-math", *instructions))


def _check(logits_CV: Tensor, bias_V: Tensor | None, labels_C: Tensor) -> None:
    positions, entries = logits_CV.shape
    if labels_C.shape != (positions,) or labels_C.dtype != torch.int64:
        raise ValueError(f"labels are {tuple(labels_C.shape)} {labels_C.dtype}, not ({positions},) int64")
    if bias_V is not None and bias_V.shape != (entries,):
        raise ValueError(f"the bias is {tuple(bias_V.shape)}, not ({entries},)")


def _suits(matrix: Tensor) -> bool:
    return (
        type(matrix) is Tensor
        and matrix.device.type == "cpu"
        and matrix.dtype in DTYPES
        and matrix.is_contiguous()
        and not torch.compiler.is_compiling()
        and unavailable() is None
    )


def _call(name: str, matrix: Tensor, *arguments: Tensor | int | None) -> float:
    code = _library()
    assert isinstance(code, ctypes.CDLL), code
    function = code[f"{name}_{DTYPES[matrix.dtype]}"]
    function.restype = ctypes.c_double
    return function(_value(matrix), *map(_value, arguments))


def _value(argument: Tensor | int | None) -> ctypes.c_void_p | ctypes.c_int64:
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return ctypes.c_void_p(None if argument is None else argument.data_ptr())
