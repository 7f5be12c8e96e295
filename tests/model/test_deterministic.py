"""No operation of a step lacks a deterministic CUDA version, so `train.deterministic` never stops a training.

The step runs on `meta`. What is dispatched there is what CUDA would be given, except for attention.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_reference import tiny_config
from torch.utils._python_dispatch import TorchDispatchMode

from clm_detour.model import ModernBertForPretraining

# Of the operations that raise under `torch.use_deterministic_algorithms(True)` on CUDA, those that a network
# of this kind might use. cumsum raises for floating-point numbers, scatter_reduce for products.
WITHOUT = {
    "bincount", "cumsum", "histc", "index_reduce", "kthvalue", "median", "nll_loss", "nll_loss_forward",
    "nll_loss_backward", "nll_loss2d_forward", "put_", "put", "_embedding_bag_dense_backward",
    "replication_pad1d_backward", "reflection_pad1d_backward", "scatter_reduce", "upsample_linear1d_backward",
}  # fmt: skip


class Watch(TorchDispatchMode):
    """Collects the names of operations; integer ones apart, whose sums have no order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not (isinstance(found, torch.Tensor) and not found.is_floating_point()):
            self.names.add(func.overloadpacket.__name__)
        return found


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_uses_only_operations_with_a_deterministic_version(causal: bool, checkpointing: bool) -> None:
    model = ModernBertForPretraining(tiny_config(hidden_size=32), "portable").to("meta").train()
    model.causal = causal
    if checkpointing:
        model.gradient_checkpointing_enable()
    ids = torch.zeros(2, 200, dtype=torch.int64, device="meta")
    with Watch() as watch:
        model(ids, labels=ids, document_lengths=[[5, 195], [200]], predicted=60).loss.backward()
    assert {"mm", "embedding_dense_backward", "native_layer_norm_backward"} <= watch.names
    assert not watch.names & WITHOUT


def test_the_watch_sees_an_operation_without_one() -> None:
    numbers = torch.zeros(9, device="meta", requires_grad=True)
    with Watch() as watch:
        numbers.cumsum(0).sum().backward()
        (numbers > 0).cumsum(0)
    assert watch.names & WITHOUT == {"cumsum"}
