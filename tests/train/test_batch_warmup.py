"""Growing steps have the planned tokens, and a run that was stopped among them resumes to the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clm_detour.config import load_config
from clm_detour.config.schema import Config
from clm_detour.recipe.recipe import Recipe
from clm_detour.run.pipeline import prepare_data
from clm_detour.train.callbacks.metrics import Metrics
from clm_detour.train.phase import train_phase
from clm_detour.utils.errors import UserError

WARMUP = ["phases.pretrain.batch_warmup={rows: 2, duration: 3ktok}", "train.checkpoint_every=500tok"]


def config_of(recipe: Path, *overrides: str) -> Config:
    config = load_config(recipe, [*WARMUP, *overrides])
    prepare_data(config)
    return config


def lines_of(config: Config) -> list[dict]:
    text = (Path(config.run_dir) / "phases" / "pretrain" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_stopped_while_its_steps_grow_ends_with_the_same_bits(tiny_recipe, tmp_path, monkeypatch):
    one, other = (config_of(tiny_recipe(tmp_path / name)) for name in ("one", "other"))
    run = Recipe(one).phase("base", "pretrain")
    train_phase(Recipe(one), run)

    batch_end = Metrics.batch_end

    def stop(self, state, logger):
        batch_end(self, state, logger)
        if state.timestamp.batch.value == 11:
            raise KeyboardInterrupt

    monkeypatch.setattr(Metrics, "batch_end", stop)
    with pytest.raises(KeyboardInterrupt):
        train_phase(Recipe(other), run)
    monkeypatch.undo()
    assert list((Path(other.run_dir) / "phases" / "pretrain" / "checkpoints").glob("*/seal.json"))
    train_phase(Recipe(other), run)

    weights = [
        (Path(config.run_dir) / "phases/pretrain/model/model.safetensors").read_bytes()
        for config in (one, other)
    ]
    assert weights[0] == weights[1]
    for config in (one, other):
        seen = [line["tokens"] for line in lines_of(config)]
        assert seen == [run.step_rows.before(step + 1) * run.row_tokens for step in range(run.steps)]
    assert {run.step_rows.rows(step) for step in range(run.steps)} == {2, 4, 6, 8}


def test_every_line_of_the_metrics_tells_what_was_drawn_so_far(tiny_recipe, tmp_path):
    config = config_of(tiny_recipe(tmp_path / "run"), "phases.pretrain.mixture=domain")
    run = Recipe(config).phase("base", "pretrain")
    train_phase(Recipe(config), run)
    mixture = Recipe(config).stream(run).mixture
    for line in lines_of(config):
        rows = line["tokens"] // run.row_tokens
        drawn = [mixture.locate(position).source for position in range(rows)]
        assert line["shares"] == {name: round(drawn.count(name) / rows, 4) for name in mixture.names}


@pytest.mark.parametrize(
    ("warmup", "message"),
    [
        ("{rows: 3, duration: 3ktok}", "use a smaller divisor"),
        ("{rows: 8, duration: 3ktok}", "use a smaller divisor"),
        ("{rows: 2, duration: 9ktok}", "longer than the phase"),
        ("{rows: 2}", r"phases\.pretrain\.batch_warmup\.duration is not set"),
    ],
)
def test_a_growth_that_cannot_be_is_refused(tiny_recipe, tmp_path, warmup, message):
    with pytest.raises(UserError, match=message):
        load_config(tiny_recipe(tmp_path / "run"), [f"phases.pretrain.batch_warmup={warmup}"])


def test_the_smallest_step_must_divide_over_the_processes(tiny_recipe, tmp_path):
    config = load_config(tiny_recipe(tmp_path / "run"), WARMUP)
    Recipe(config).check_world_size(2)
    with pytest.raises(UserError, match=r"phases\.pretrain\.batch_warmup\.rows: 2 rows do not divide over 4"):
        Recipe(config).check_world_size(4)
