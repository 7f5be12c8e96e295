"""Set how a GPU computes a phase: products of fp32 in TF32 or exactly, and deterministically if asked for.

Composer switches TF32 on each time that it describes a GPU, so `FixedPrecision` makes the setting again
before every event of the Trainer.

`train.deterministic` asks for the same bits from the same GPUs, versions and settings:
- torch uses only deterministic algorithms, also in the backward pass of every attention back end, or raises;
  cuDNN and Inductor do not choose by measured time.
- cuBLAS and NCCL read environment variables; see `train/deterministic.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from composer.core import Callback, Event, State
from composer.loggers import Logger

from clm_detour.config.schema import Train
from clm_detour.model.precision import fp32_products, set_tf32


@contextmanager
def numerics(train: Train) -> Iterator[None]:
    """Compute as the section `train` says within a block, and as before after it."""
    with ExitStack() as stack:
        stack.enter_context(fp32_products(train.precision == "tf32"))
        if train.deterministic:
            stack.enter_context(_deterministic_algorithms())
        yield


@contextmanager
def _deterministic_algorithms() -> Iterator[None]:
    import torch._inductor.config as inductor  # only here, because it takes long

    cudnn = torch.backends.cudnn
    before = torch.get_deterministic_debug_mode(), cudnn.benchmark, cudnn.deterministic
    with ExitStack() as stack:
        if hasattr(inductor, "deterministic"):  # torch 2.9; before that the line below is enough
            stack.enter_context(inductor.patch(deterministic=True))
        torch.use_deterministic_algorithms(True)
        cudnn.benchmark, cudnn.deterministic = False, True
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(before[0])
            cudnn.benchmark, cudnn.deterministic = before[1:]


class FixedPrecision(Callback):
    """Sets TF32 as the recipe asks before every event, whatever Composer set since the last one."""

    def __init__(self, train: Train):
        self.tf32 = train.precision == "tf32"

    def run_event(self, event: Event, state: State, logger: Logger) -> None:
        """Make the setting; callbacks after this one and the Trainer then compute with it."""
        set_tf32(self.tf32)
