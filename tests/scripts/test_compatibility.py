"""The checks of `scripts/compatibility.py`, for the installed release of transformers only."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "compatibility.py"))


@pytest.fixture
def written(tmp_path):
    """A folder with every case, as the installed release and our package save it."""
    SCRIPT["write"](tmp_path)
    return tmp_path


def test_folders_travel_with_the_same_logits(written):
    results = SCRIPT["read"](written)
    checks = set(SCRIPT["CHECKS"]) if SCRIPT["VERSION_5"] else {"theirs in ours", "ours in theirs"}
    assert results == {check: dict.fromkeys(SCRIPT["CASES"], "") for check in checks}


def test_the_matrix_sees_folders_that_do_not_fit(written):
    weights = written / "theirs" / "plain" / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.layers.3.mlp.Wo.weight"] *= 1.001
    save_file(tensors, weights, metadata={"format": "pt"})
    (written / "theirs" / "thetas" / "config.json").unlink()
    results = SCRIPT["read"](written)["theirs in ours"]
    assert "the logits differ by" in results.pop("plain")
    assert "config.json is missing" in results.pop("thetas")
    assert set(results.values()) == {""}
