"""The checks of attention back ends and of the network fail where a fault is planted, with the right line."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from clm_detour.model import layers, loss
from clm_detour.model.attention import BACKENDS, portable
from clm_detour.model.documents import Documents
from clm_detour.records.verify import Check
from clm_detour.run.verify import kernels, network
from clm_detour.run.verify.definition import exact_attention
from clm_detour.utils.errors import UserError


@pytest.fixture
def short(monkeypatch):
    """Short documents only, so that a test takes a second."""
    monkeypatch.setattr(kernels, "LENGTHS", [1, 2, 63, 64, 65, 129])


def failed(checks: Iterable[Check]) -> dict[str, str]:
    """Return the names of the checks that failed, with their reasons."""
    return {check.name: check.why for check in checks if check.status == "FAILED"}


def check_portable() -> dict[str, str]:
    return failed(kernels.check_backend("portable", "cpu", torch.float32))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 5])
def test_the_definition_has_the_gradients_of_torch(monkeypatch, causal, window):
    monkeypatch.setattr("clm_detour.run.verify.definition.QUERIES", 7)
    lengths = [1, 20, 9]
    qkv = torch.randn(30, 3, 2, 8, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(30, 2, 8, dtype=torch.float64)
    output = portable.attend(*qkv.unbind(1), Documents(lengths), causal, window)
    (expected,) = torch.autograd.grad(output, qkv, grad)
    for found, right in zip(
        exact_attention(qkv.detach(), grad, lengths, causal, window), (output, expected), strict=True
    ):
        torch.testing.assert_close(found, right)


def test_every_back_end_has_a_line(short):
    checks = list(kernels.check_kernels("cpu"))
    assert not failed(checks)
    for name in BACKENDS:
        assert [check for check in checks if check.name.startswith(name)]
    assert [check.status for check in checks if check.name == "flash"] == ["left out"]


def test_a_key_too_many_in_the_window_is_found(short, monkeypatch):
    attend = portable.attend

    def wide(q, k, v, documents, causal, window):
        return attend(q, k, v, documents, causal, None if window is None else window + 1)

    monkeypatch.setattr(portable, "attend", wide)
    lines = check_portable()
    assert lines.keys() == {"portable fp32: output", "portable fp32: gradients"}
    assert "window 64" in lines["portable fp32: output"]


def test_a_document_that_sees_its_neighbor_is_found(short, monkeypatch):
    attend = portable.attend

    def leaking(q, k, v, documents, causal, window):
        return attend(q, k, v, Documents([documents.tokens]), causal, window)

    monkeypatch.setattr(portable, "attend", leaking)
    assert "portable fp32: changed by a neighbor" in check_portable()


def test_a_sum_in_random_order_is_found(short, monkeypatch):
    attend = portable.attend

    def noisy(*arguments):
        return attend(*arguments) * (1 + 1e-5 * torch.rand(()))

    monkeypatch.setattr(portable, "attend", noisy)
    assert "portable fp32: differs when repeated" in check_portable()


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_an_output_that_is_not_finite_fails(short, monkeypatch, wrong):
    attend = portable.attend
    monkeypatch.setattr(portable, "attend", lambda *arguments: attend(*arguments) * wrong)
    assert "portable fp32: output" in check_portable()


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (UserError, "left out")])
def test_a_kernel_that_raises_is_one_line(short, monkeypatch, error, status):
    def broken(*arguments: object) -> Tensor:
        raise error("no kernel image is available")

    monkeypatch.setattr(portable, "attend", broken)
    (check,) = kernels.check_backend("portable", "cpu", torch.float32)
    assert check.status == status
    assert "no kernel image is available" in check.why


def test_the_network_passes_and_says_what_it_leaves_out():
    checks = list(network.check_network("cpu", compiles=False))
    assert not failed(checks)
    left_out = {check.name for check in checks if check.status == "left out"}
    assert left_out == {"compiled", "both", "recompiled in ten batches", "waits for the device"}


def test_a_wrong_recomputation_fails_the_checkpointed_line(monkeypatch):
    monkeypatch.setattr(layers, "checkpoint", lambda layer, states, view, **_: layer(states.detach(), view))
    names = failed(network.check_network("cpu", compiles=False))
    assert names.keys() == {"checkpointed"} or names.keys() == {"checkpointed: gradients"}


def test_a_wrong_loss_fails_the_line_of_the_fused_loss(monkeypatch):
    evaluate = loss._add_product
    monkeypatch.setattr(loss, "_add_product", lambda total, left, right: evaluate(total, left, right * 1.1))
    assert "fused loss: loss and gradients" in failed(network.check_network("cpu", compiles=False))


@pytest.mark.slow
def test_a_compiled_network_passes_and_does_not_recompile():
    checks = {check.name: check for check in network.check_network("cpu", compiles=True)}
    if checks.get("compiled", checks["eager: loss"]).status != "left out":
        assert checks["both: gradients"].status == "ok"
        assert checks["recompiled in ten batches"].status == "ok"


@pytest.mark.parametrize("waits", [False, True])
def test_a_wait_for_the_device_is_found(monkeypatch, waits):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    original = network.Step.loss

    def step_loss(self, *arguments):
        if waits and modes[-1:] == ["error"]:
            raise RuntimeError("called a synchronizing CUDA operation")
        return original(self, *arguments)

    monkeypatch.setattr(network.Step, "loss", step_loss)
    found = failed(network.check_waits("cpu", torch.float32, compiled=False))
    assert list(found) == (["waits for the device"] if waits else [])
    assert modes == ["error", "default"]
