"""Compiled layers give the same numbers, and nothing is compiled again once a batch's shape has been seen."""

from __future__ import annotations

import functools
import shutil

import pytest
import torch
import torch.distributed as dist
from model_reference import assert_close, gradients, randomise, some_labels, tiny_config, tiny_model, tokens
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch.nn.parallel import DistributedDataParallel

from clm_detour.model import ModernBertForPretraining, compiling, precision
from clm_detour.utils.errors import UserError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"),
]


def test_compiled_equals_eager_and_other_documents_compile_nothing_anew() -> None:
    ids = tokens(40)[None]
    labels = some_labels(ids)
    eager, compiled = tiny_model(), tiny_model()
    compiled.compile_layers()
    seen = set()
    for lengths in ([40], [11, 9, 20], [1, 2, 30, 7]):
        for causal in (False, True):
            grads = []
            for model in (eager, compiled):
                model.causal = causal
                output = model(ids, document_lengths=[lengths], labels=labels, return_logits=True)
                output.loss.backward()
                grads.append((output.logits, gradients(model)))
            assert_close(grads[1][0], grads[0][0])
            for name, grad in grads[0][1].items():
                assert_close(grads[1][1][name], grad)
            seen.add(counters["stats"]["unique_graphs"])
    assert len(seen) == 1, "something was compiled after the first batch"


def test_compiled_layers_run_under_bf16_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: True)  # slow elsewhere, and right
    ids = tokens(40)[None]
    losses, grads = [], []
    for compiled in (False, True):
        model = ModernBertForPretraining(tiny_config(), "portable").eval()
        randomise(model)
        if compiled:
            model.compile_layers()
        with torch.autocast("cpu", torch.bfloat16):
            output = model(ids, document_lengths=[[11, 9, 20]], labels=some_labels(ids))
        output.loss.backward()
        losses.append(output.loss.detach())
        grads.append(gradients(model))
    assert_close(losses[1], losses[0], 1e-2)
    for name, grad in grads[0].items():
        assert (grads[1][name] - grad).norm() <= 3e-2 * grad.norm(), name


def test_a_compiled_model_is_saved_and_copied_as_any_other(tmp_path) -> None:
    model = tiny_model()
    model.compile_layers()
    assert set(model.state_dict()) == set(tiny_model().state_dict())
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(tokens(9)[None]).logits, tiny_model()(tokens(9)[None]).logits)


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch):
    """torch keeps a version for each shape, as ever, but does not spend seconds on making code of it."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    compiling.compiled.cache_clear()
    torch._dynamo.reset()
    with torch._dynamo.config.patch(
        recompile_limit=8, optimize_ddp=True
    ):  # torch's own; undoes what the layers set
        yield
    compiling.compiled.cache_clear()
    torch._dynamo.reset()


def test_many_shapes_are_compiled_with_gradients_and_without(traced_only) -> None:
    model = tiny_model()
    model.compile_layers()
    for count in range(10, 16):
        model(tokens(count)[None], return_logits=True).logits.sum().backward()
        with torch.no_grad():
            model(tokens(count)[None])


def test_more_shapes_than_torch_takes_are_one_sentence_with_the_remedy(traced_only) -> None:
    model = tiny_model()
    model.compile_layers()
    few = torch._dynamo.config.patch(recompile_limit=4, accumulated_recompile_limit=4)
    with few, pytest.raises(UserError, match=r"more shapes than torch.compile takes.*micro_rows"):
        [model(tokens(count)[None]) for count in range(10, 16)]


@pytest.mark.parametrize("frozen", [False, True])
def test_compiled_and_checkpointed_equals_eager(traced_only, frozen: bool) -> None:
    ids = tokens(40)[None]
    grads = []
    for fast in (False, True):
        model = tiny_model().train()
        model.model.layers[0].requires_grad_(not frozen)
        if fast:
            model.compile_layers()
            model.gradient_checkpointing_enable()
        model(ids, document_lengths=[[11, 29]], labels=ids).loss.backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        assert_close(grads[1][name], grad)


def test_ddp_does_not_cut_compiled_layers(traced_only, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the size of a bucket torch would, and lose what it fused."""
    graphs = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile.func, backend=graphs))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        counted = []
        for wrap in (torch.nn.Identity(), DistributedDataParallel):
            torch._dynamo.reset()
            graphs.frame_count = 0
            model = ModernBertForPretraining(tiny_config(hidden_size=768, num_hidden_layers=2)).train()
            model.compile_layers()
            wrap(model)(tokens(40)[None], labels=tokens(40)[None]).loss.backward()
            counted.append(graphs.frame_count)
        assert counted[0] == counted[1] > 0
    finally:
        dist.destroy_process_group()
