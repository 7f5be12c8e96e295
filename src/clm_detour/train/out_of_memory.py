"""Recognize errors for lack of memory, and put the one that ends a phase into a sentence with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from clm_detour.model.precision import best_device
from clm_detour.plan.memory import divisors
from clm_detour.records.phase import MicroRowsRecord
from clm_detour.records.store import read, write
from clm_detour.train.setup import Setup
from clm_detour.utils.errors import UserError

OUT_OF_MEMORY = (  # in messages of torch, and of the libraries that fail in its place
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
)


def memory_can_run_out() -> bool:
    """Return whether a lack of memory is an error here. On a CPU the kernel kills the process instead."""
    return best_device().type == "cuda"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, also where a library reports something else."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


@contextmanager
def explain_out_of_memory(setup: Setup, rows: int) -> Iterator[None]:
    """Replace an error for lack of memory in training by a UserError.

    The process ends with it, and the launcher then ends those that wait for it. If the size was found by
    trial, the next start takes the next smaller one.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        smaller = next((size for size in divisors(setup.rows) if size < rows), None)
        raise UserError(out_of_memory_message(setup, rows, smaller)) from error


def out_of_memory_message(setup: Setup, rows: int, smaller: int | None) -> str:
    """Return the sentence for a lack of memory in training, and note the smaller size for the next start."""
    many = f"{rows} row{'s' * (rows > 1)}"
    told = f"Memory ran out in training with {many} in a forward pass"
    if smaller is None:
        return f"{told}; {remedies(setup)}."
    path = setup.folder.micro_rows
    if setup.config.train.micro_rows == "auto" and path.exists():
        write(replace(read(MicroRowsRecord, path), rows=smaller), path)
        return f"{told}; the same command resumes at the newest checkpoint with train.micro_rows={smaller}."
    return f"{told}; set train.micro_rows={smaller}, and the phase resumes at its newest checkpoint."


def remedies(setup: Setup) -> str:
    """Return what takes less memory than one row, as far as it is not set yet."""
    train = setup.config.train
    ways = [
        "" if train.activation_checkpointing else "train.activation_checkpointing=true",
        "train.parallel=fsdp on several GPUs" if train.parallel == "ddp" else "",
        "a shorter data.sequence_length",
    ]
    return f"set {', or '.join(filter(None, ways))}"
