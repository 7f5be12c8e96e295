"""A benchmark runs the phase's own steps, and leaves nothing behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clm_detour.cli import main
from clm_detour.config import load_config
from clm_detour.errors import UserError
from clm_detour.pipeline import prepare_data
from clm_detour.train.bench import bench, numbers


@pytest.fixture(scope="module")
def recipe(tiny_recipe, tmp_path_factory) -> Path:
    """A recipe whose data is prepared, and nothing else."""
    path = tiny_recipe(tmp_path_factory.mktemp("bench") / "run")
    prepare_data(load_config(path))
    return path


def test_each_size_is_measured_in_a_phase_whose_parent_is_not_trained(recipe, capsys):
    before = set(recipe.with_suffix("").rglob("*"))
    found = bench(str(recipe), ["arm=detour", "phase=clm", "steps=2"])
    assert [one.rows for one in found] == [1, 2, 4, 8]
    for one in found:
        assert one.tokens_per_second == pytest.approx(8 * 64 / one.seconds)
    said = capsys.readouterr().err
    assert "pretrain.clm on 1 process" in said
    assert set(recipe.with_suffix("").rglob("*")) == before


def test_two_processes_through_the_launcher(recipe, monkeypatch, capfd):
    words = [
        "bench",
        str(recipe),
        "arm=detour",
        "phase=decay",
        "--gpus",
        "2",
        "--micro-rows",
        "4",
        "--steps",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["clm-detour", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    assert "pretrain.clm.decay on 2 processes" in capfd.readouterr().err


def test_a_wrong_call_is_one_sentence(recipe, tmp_path):
    words = [
        "arm=detour",
        "phase=clm",
        f"run_dir={tmp_path}",
        "tokenizer={path: null, train: {vocab_size: 800}}",
    ]
    with pytest.raises(UserError, match="has no tokenizer yet; run clm-detour prepare first"):
        bench(str(recipe), words)
    with pytest.raises(UserError, match="arm=ARM phase=PHASE"):
        bench(str(recipe), [])
    with pytest.raises(UserError, match="whole numbers above 0"):
        numbers("4,x")
