"""Compiled layers give the same numbers, and nothing is compiled again once a batch's shape has been seen."""

from __future__ import annotations

import shutil

import pytest
import torch
from model_reference import assert_close, gradients, some_labels, tiny_model, tokens
from torch._dynamo.utils import counters

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"
)


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


def test_a_compiled_model_is_saved_and_copied_as_any_other(tmp_path) -> None:
    model = tiny_model()
    model.compile_layers()
    assert set(model.state_dict()) == set(tiny_model().state_dict())
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(tokens(9)[None]).logits, tiny_model()(tokens(9)[None]).logits)
