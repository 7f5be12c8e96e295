"""A step never needs a number that the device computed: it runs on `meta`, where there are none.

So the host of a GPU runs ahead of it. On `meta` whatever asks for a value (item, tolist, nonzero, a mask as
an index) raises.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_standins import VARLEN, Machine
from model_reference import tiny_config
from torch import Tensor

from clm_detour.model import ModernBertForPretraining, kernels
from clm_detour.model.attention import flex, probe
from clm_detour.model.documents import Documents

LENGTHS = [[5, 195], [200]]


def varlen_attn(query: Tensor, key: Tensor, value: Tensor, *_: Any, window_size: Any = (-1, -1)) -> Tensor:
    """The signature alone: a kernel asks for no value either."""
    return query + key + value


@pytest.fixture(params=["varlen", "portable"])
def model(request: pytest.FixtureRequest) -> ModernBertForPretraining:
    if request.param == "varlen":
        machine: Machine = request.getfixturevalue("machine")
        machine.install(VARLEN, varlen_attn)
        machine.patch.setattr(kernels, "DEVICE", "meta")
        machine.patch.setattr(probe, "problem", lambda attend: None)  # it waits, once before training
        machine.patch.setattr(kernels, "HALF", (torch.float32,))
    return ModernBertForPretraining(tiny_config(hidden_size=32), request.param).to("meta").train()


def rows() -> Tensor:
    return torch.zeros(2, 200, dtype=torch.int64, device="meta")


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_forward_and_backward_wait_for_nothing(
    model: ModernBertForPretraining, causal: bool, checkpointing: bool
) -> None:
    model.causal = causal
    if checkpointing:
        model.gradient_checkpointing_enable()
    model(rows(), labels=rows(), document_lengths=LENGTHS, predicted=60).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_what_the_host_does_not_know_it_would_wait_for(model: ModernBertForPretraining) -> None:
    for unknown in ({"predicted": 60, "document_ids": rows()}, {"document_lengths": LENGTHS}):
        with pytest.raises(NotImplementedError):
            model(rows(), labels=rows(), **unknown)


@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.parametrize("causal", [False, True])
def test_masks_of_flex_wait_for_nothing(causal: bool, window: int | None) -> None:
    mask = flex.block_mask(Documents([5, 195, 200], "meta"), causal, window)
    assert mask.kv_indices.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["auto", "portable"])
def test_cuda_itself_sees_no_wait(name: str) -> None:
    model = ModernBertForPretraining(tiny_config(hidden_size=32), name).cuda().train()
    ids = torch.zeros(2, 200, dtype=torch.int64, device="cuda")
    for strict in ("default", "error"):  # the first step compiles
        torch.cuda.set_sync_debug_mode(strict)
        try:
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(ids, labels=ids, document_lengths=LENGTHS, predicted=400).loss
            loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
