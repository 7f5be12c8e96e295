"""The training loop of fine-tuning keeps no model in memory, and leaves the precision of products alone."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from clm_detour.evaluate.finetune.loop import FitSettings, fit
from clm_detour.model.precision import fp32_products


class Problem(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 1)

    def loss(self, batch):
        return self.head(batch.inputs).mean()


class Batches:
    batch_size = 2

    def __len__(self):
        return 2

    def epoch(self, number):
        for _ in range(2):
            yield SimpleNamespace(examples=[1, 2], inputs=torch.ones(2, 3), device=torch.device("cpu"))


def stop_all(step: int, loss: float) -> bool:
    raise KeyboardInterrupt


@pytest.fixture
def no_collector():
    """Few objects are made in a run, so the collector may not come by before memory is full."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_finished_run_leaves_no_model_in_memory(no_collector):
    problem = Problem()
    left = weakref.ref(problem)
    fit(
        problem, Batches(), FitSettings(4, 1e-3, None, 0.0, 0.1, seed=1), [4], lambda *_: True, lambda _: None
    )
    del problem
    assert left() is None


def test_nor_does_one_that_was_stopped():
    problem = Problem()
    left = weakref.ref(problem)
    with pytest.raises(KeyboardInterrupt):
        fit(problem, Batches(), FitSettings(4, 1e-3, None, 0.0, 0.1, seed=1), [2], stop_all, lambda _: None)
    del problem
    gc.collect()
    assert left() is None


@pytest.mark.parametrize("tf32", [False, True])
def test_it_computes_as_it_is_told_on_a_gpu(tf32, monkeypatch):
    """Exactly in fp32: it used to switch TF32 on, also for everything that came after it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for check in ("_cuda_graph_capture_health_check", "_accelerator_graph_capture_health_check"):
        # It asks the driver.
        monkeypatch.setattr(torch.optim.Optimizer, check, lambda self: None, raising=False)
    seen = []

    class Watched(Problem):
        def loss(self, batch):
            seen.append(torch.backends.cuda.matmul.allow_tf32)
            return super().loss(batch)

    with fp32_products(tf32):
        fit(Watched(), Batches(), FitSettings(2, 1e-3, None, 0.0, 0.1, seed=1), [], stop_all, lambda _: None)
    assert seen == [tf32, tf32]
    assert torch.backends.cuda.matmul.allow_tf32 is False
