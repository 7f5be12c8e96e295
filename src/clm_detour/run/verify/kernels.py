"""Check 1: each attention back end that runs here, in each precision, against the definition in fp64.

Limits are multiples of the precision's eps (the distance from 1 to the next number). Inputs are rounded to
the precision before, so only the computation is compared. A kernel rounds the weights and the output once,
half an eps each at most, and gradients pass through two more roundings; the errors are root mean squares of a
document, in which they add up as squares. In half precision 2 eps for outputs and 4 eps for gradients leave
room for the order of sums, while a key too many or too few in a window of 64 changes the output by a tenth.
In fp32 the sums over up to 8,192 keys count more than the rounding at the end, so the limit is 100 eps;
products in TF32 would exceed it forty times.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from clm_detour.model.attention import BACKENDS, Backend, attention
from clm_detour.model.documents import Documents
from clm_detour.records.verify import Check
from clm_detour.run.verify.checks import Group
from clm_detour.run.verify.definition import exact_attention
from clm_detour.utils.errors import UserError, on_one_line

LENGTHS = [1, 2, 63, 64, 65, 129, 700, 2000, 8192]
LONGEST = {"cuda": 8192, "cpu": 2000, "uncompiled flex": 129}  # what takes seconds
HEADS, SIZE, WINDOW = 2, 64, 64
MASKS = list(itertools.product((False, True), (None, WINDOW)))  # causal, window
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
DTYPES = {"cuda": (torch.bfloat16, torch.float16, torch.float32), "cpu": (torch.bfloat16, torch.float32)}
LIMITS = {"output": 2, "gradients": 4}  # eps, in half precision
FP32_LIMIT = 100  # eps

kernels = Group("kernels")


@dataclass(frozen=True)
class Worst:
    """The largest error of one kind, and where it was found."""

    value: float = 0.0
    where: str = ""

    def or_worse(self, value: float, where: str) -> Worst:
        """Return the larger error; NaN is the largest."""
        return self if value <= self.value else Worst(value, where)


def check_kernels(device: str) -> Iterator[Check]:
    """Check every attention back end on one type of device."""
    for name, backend in BACKENDS.items():
        if (reason := unavailable(backend, device)) is not None:
            yield kernels.left_out(name, reason)
            continue
        for dtype in DTYPES[device]:
            if takes(backend, device, dtype):
                yield from check_backend(name, device, dtype)
    if LONGEST[device] < max(LENGTHS):
        yield kernels.left_out(f"documents over {LONGEST[device]:,} tokens", "too slow on a CPU")


def unavailable(backend: Backend, device: str) -> str | None:
    """Return why a back end is not used on this type of device, or None if it may be."""
    if (reason := backend.unavailable()) is not None:
        return reason
    made_for = any(takes(backend, device, dtype) for dtype in DTYPES[device])
    return None if made_for else f"it is not made for {device}"


def takes(backend: Backend, device: str, dtype: torch.dtype) -> bool:
    """Return whether a back end computes on this type of device in this precision.

    FlexAttention takes all of them, though it is chosen for half precision on a GPU only.
    """
    return backend.suits(device, dtype) or (
        backend.NAME == "flex" and (device == "cpu" or dtype.itemsize == 4)
    )


def check_backend(name: str, device: str, dtype: torch.dtype) -> Iterator[Check]:
    """Check one back end in one precision, under each mask."""
    label = f"{name} {NAMES[dtype]}"
    longest = LONGEST["uncompiled flex" if name == "flex" and device == "cpu" else device]
    lengths = [length for length in LENGTHS if length <= longest]
    errors = dict.fromkeys(LIMITS, Worst())
    moved, differing = Worst(), Worst()
    try:
        for causal, window in MASKS:
            mask = f"{'causal' if causal else 'bidirectional'}, window {window or 'none'}"
            case = Case(name, lengths, causal, window, device, dtype)
            for kind, error, length in case.errors():
                errors[kind] = errors[kind].or_worse(error, f"{mask}, document of {length} tokens")
            differing = differing.or_worse(case.differing_twice(), mask)
            moved = moved.or_worse(case.moved_by_neighbors(), mask)
    except UserError as error:  # newer releases of torch cannot train with FlexAttention on a CPU
        yield kernels.left_out(label, on_one_line(error))
        return
    except Exception as error:  # a kernel may raise anything
        yield kernels.failed(f"{label}: runs", error)
        return
    eps = torch.finfo(dtype).eps
    for kind, worst in errors.items():
        limit = eps * (FP32_LIMIT if dtype == torch.float32 else LIMITS[kind])
        yield kernels.at_most(f"{label}: {kind}", worst.value, limit, where=worst.where)
    yield kernels.at_most(f"{label}: changed by a neighbor", int(moved.value), 0, where=moved.where)
    yield kernels.at_most(f"{label}: differs when repeated", int(differing.value), 0, where=differing.where)


class Case:
    """One back end under one mask, with inputs and what they give in fp64."""

    def __init__(
        self,
        backend: str,
        lengths: list[int],
        causal: bool,
        window: int | None,
        device: str,
        dtype: torch.dtype,
    ):
        self.backend, self.lengths, self.causal, self.window = backend, lengths, causal, window
        self.documents = Documents(lengths, torch.device(device))
        random = torch.Generator(device).manual_seed(0)
        shape = (sum(lengths), 3, HEADS, SIZE)
        self.qkv = torch.randn(shape, generator=random, device=device).to(dtype)
        self.grad = torch.randn(shape[0], HEADS, SIZE, generator=random, device=device).to(dtype)
        self.other = torch.randn(shape, generator=random, device=device).to(dtype)

    def run(self, qkv: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and the gradient of `qkv`."""
        qkv = qkv.detach().requires_grad_()
        q, k, v = qkv.unbind(1)
        output = attention(q, k, v, self.documents, self.causal, self.window, self.backend)
        (gradient,) = torch.autograd.grad(output, qkv, self.grad)
        return output.detach(), gradient

    def errors(self) -> Iterator[tuple[str, float, int]]:
        """Yield each kind of error in each document, relative to the size of the exact values."""
        exact = exact_attention(self.qkv, self.grad, self.lengths, self.causal, self.window)
        for kind, found, expected in zip(LIMITS, self.run(self.qkv), exact, strict=True):
            difference = found.double() - expected
            typical = rms(expected)  # a document of one token has no gradient of queries and keys
            parts = zip(difference.split(self.lengths), expected.split(self.lengths), strict=True)
            for length, (wrong, right) in zip(self.lengths, parts, strict=True):
                yield kind, (rms(wrong) / torch.maximum(rms(right), typical)).item(), length

    @cached_property
    def repeatable(self) -> tuple[Tensor, Tensor]:
        """Output and gradient of a run that torch was asked to make deterministic."""
        with deterministic():
            return self.run(self.qkv)

    def differing_twice(self) -> int:
        """Return how many numbers differ between two runs that torch was asked to make deterministic."""
        with deterministic():
            again = self.run(self.qkv)
        return sum(int((a != b).sum()) for a, b in zip(self.repeatable, again, strict=True))

    def moved_by_neighbors(self) -> int:
        """Return how many numbers of a document change with the documents before and after it."""
        changed = self.documents.index % 2 == 0
        mixed = torch.where(changed[:, None, None, None], self.other, self.qkv)
        with deterministic():
            moved = self.run(mixed)
        pairs = zip(self.repeatable, moved, strict=True)
        return sum(int((a[~changed] != b[~changed]).sum()) for a, b in pairs)


def rms(values: Tensor) -> Tensor:
    """Return the root mean square."""
    return values.square().mean().sqrt()


@contextmanager
def deterministic() -> Iterator[None]:
    """Ask torch for deterministic algorithms while the block runs."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
