"""The analysis of a run that exported models on its way and has an arm with frozen layers."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from clm_detour.analyze.compare import Settings, compare
from clm_detour.analyze.run import analyze_run, common_start
from clm_detour.analyze.texts import held_out_texts
from clm_detour.analyze.weights import weight_change
from clm_detour.config import load_config
from clm_detour.recipe.recipe import Recipe
from clm_detour.run.after_training import analysis_step
from clm_detour.run.engine import StepRunner
from clm_detour.run.pipeline import prepare_data, run_recipe
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json

from .test_compare import assert_refused

FROZEN = {
    "objective": "clm", "mixture": "domain", "moments": "fresh", "duration": "${phases.clm.duration}",
    "schedule": "${phases.clm.schedule}", "freeze": {"layers": "0-1", "embeddings": True},
}  # fmt: skip
WORDS = (
    "train.export_at=[2ktok,4ktok]", "evaluate.tasks=null", f"phases.clm_low={json.dumps(FROZEN)}",
    "arms.frozen=[pretrain, clm_low, decay]",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tiny_recipe, tmp_path_factory):
    config = load_config(tiny_recipe(tmp_path_factory.mktemp("frozen") / "run"), WORDS)
    run_recipe(config)
    return config


def analysis_of(config, name: str) -> dict:
    return json.loads((Recipe(config).folder.analysis / f"{name}.json").read_text())


def test_the_trajectory_goes_through_every_export_in_order(finished):
    points = analysis_of(finished, "trajectory")["points"]
    clm, decay = "pretrain.clm", "pretrain.clm.decay"
    assert [point["phase"] for point in points] == ["start", clm, clm, clm, decay, decay]
    folder = Recipe(finished).folder
    batch = finished.train.batch_rows * finished.data.sequence_length
    for id in (clm, decay):
        exported = sorted(
            folder.phase(id).exports.iterdir(), key=lambda path: int(path.name.partition("-")[2])
        )
        ours = [point for point in points if point["phase"] == id]
        assert [point["path"] for point in ours[:-1]] == [
            str(path) for path in exported if int(path.name.partition("-")[2]) <= ours[-1]["tokens"] - batch
        ]
        assert ours[-1]["path"] == str(folder.phase(id).model)
    totals = [point["total"] for point in points]
    assert totals == sorted(totals)
    assert points[4]["total"] == points[3]["total"] + points[4]["tokens"]


def test_a_point_of_the_trajectory_is_the_comparison_of_its_two_models(finished):
    found = analysis_of(finished, "trajectory")
    wanted = finished.analysis
    texts = held_out_texts(Recipe(finished), wanted.samples * wanted.texts)
    settings = Settings(**found["texts"], seed=finished.seed)
    point = found["points"][1]
    again = compare({"a": point["path"], "b": found["references"]["start"]}, texts, settings)
    for variant in found["variants"]:
        measured = again["comparisons"]["detour_twin"]["variants"][variant]
        assert point["divergence"]["start"][variant]["all"] == pytest.approx(
            measured["model"]["divergence"], abs=1e-9
        )
        low, high = point["interval"]["start"][variant]["all"]
        assert low < point["divergence"]["start"][variant]["all"] < high
        assert [low, high] == pytest.approx(measured["model"]["interval"], abs=1e-9)


@pytest.mark.slow
def test_a_start_without_a_tokenizer_is_read_with_that_of_the_run(finished, tmp_path, monkeypatch):
    before = {name: analysis_of(finished, name) for name in ("trajectory", "gradients")}
    recipe = Recipe(finished)
    start = common_start(recipe.arms, None, recipe.folder)
    bare = shutil.copytree(start, tmp_path / "bare", ignore=shutil.ignore_patterns("*token*"))
    monkeypatch.setattr("clm_detour.analyze.run.common_start", lambda *arguments: str(bare))
    assert analyze_run(recipe) is None
    after = {name: analysis_of(finished, name) for name in before}
    assert after["gradients"] == {**before["gradients"], "model": str(bare)}
    told = [
        [(point["total"], point["divergence"]) for point in found["trajectory"]["points"]]
        for found in (before, after)
    ]
    assert told[0] == told[1]


def test_frozen_layers_have_not_moved_and_the_others_have(finished):
    folder = Recipe(finished).folder
    change = weight_change(str(folder.phase("pretrain").model), str(folder.phase("pretrain.clm_low").model))[
        "change"
    ]
    assert change["embeddings"]["embeddings"] == 0
    for layer, still in (("0", True), ("1", True), ("2", False)):
        for kind in ("attention", "mlp"):
            assert (change[layer][kind] == 0) is still


def test_all_arms_stand_in_one_table_with_what_was_frozen(finished, run_cli):
    folder = Recipe(finished).folder
    code, said = run_cli("arms", folder.root)
    assert code == 0, said
    assert "frozen" in said
    with open(folder.report_files / "arms.csv", encoding="utf-8", newline="") as file:
        rows = {row["Arm"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["base", "detour", "twin", "control", "frozen"]
    assert rows["frozen"]["Phases"] == "pretrain, clm_low (layers 0-1 and embeddings frozen), decay"
    models = json.loads(folder.held_out.read_text())["models"]
    loss, twin = models["frozen"]["loss"], models["twin"]["loss"]
    assert float(rows["frozen"]["Held-out loss"]) == loss
    assert float(rows["frozen"]["Held-out loss difference"]) == loss - twin
    assert rows["twin"]["Held-out loss difference"] == ""
    assert '<h2 id="arms">' in folder.report.read_text(encoding="utf-8")


def test_a_folder_without_arms_has_no_such_table(run_cli, tmp_path):
    assert_refused(run_cli("arms", tmp_path), "none of a run's records")


def test_with_too_few_held_out_texts_the_step_is_left_out_and_says_why(tiny_recipe, tmp_path, capsys):
    words = [f"data.dir={tmp_path}/data", "data.held_out=0.01"]
    config = load_config(tiny_recipe(tmp_path / "run"), words)
    prepare_data(config)
    runner = StepRunner(tmp_path / "steps.json")
    capsys.readouterr()
    runner.run(analysis_step(Recipe(config)))
    said = capsys.readouterr().err
    assert "left out" in said
    assert "held-out texts" in said
    assert "done before" not in said
    assert runner.ran == 0
    (record,) = read_json(tmp_path / "steps.json")
    assert record["step"] == "analysis"
    assert re.match(r"There are \d+ distinct held-out texts", record["left_out"])


def test_a_damaged_held_out_shard_stops_the_step_and_is_named(tiny_recipe, tmp_path):
    config = load_config(tiny_recipe(tmp_path / "run"), [f"data.dir={tmp_path}/data"])
    prepare_data(config)
    shard = next(Path(tmp_path).glob("data/*/held_out/tokens-00000.bin"))
    damaged = bytearray(shard.read_bytes())
    damaged[3] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(UserError, match=str(shard)):
        analysis_step(Recipe(config)).do()
