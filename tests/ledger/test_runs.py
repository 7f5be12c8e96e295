"""The missing runs of a ledger go through the pipeline, and go on after a kill."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clm_detour.__main__ import main
from clm_detour.config.loading import load_config
from clm_detour.ledger.command import make_runs, missing_runs, reproduce, run_table
from clm_detour.ledger.load import load_ledger
from clm_detour.ledger.runs import ledger_runs
from clm_detour.ledger.statistics import STATISTICS
from clm_detour.recipe.settings import recipe_settings
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import write_json
from clm_detour.utils.locks import claimed

ONE_SEED = ("seeds: [1, 2, 3]", "seeds: [1]\n    needles: {lengths: [64], trials: 4}")
FEW_TEXTS = "analysis={texts: 20, samples: 1, max_tokens: 16}"


def short_page(run_dir: Path) -> Path:
    """Write a page without figures, which take longer than the run."""
    (run_dir / "report.html").write_text("page")
    return run_dir / "report.html"


def no_run(*_: object) -> int:
    raise AssertionError("a finished run was repeated")


def test_a_command_leaves_a_run_to_the_command_that_makes_it_and_waits_at_the_end(loaded, monkeypatch):
    made = []
    monkeypatch.setattr("clm_detour.ledger.command.run_one", lambda run, *_: made.append(run.seed))
    runs = ledger_runs(loaded, ["lower-loss"])
    with ThreadPoolExecutor() as pool:
        with claimed(runs[0].lock) as mine:
            assert mine
            command = pool.submit(make_runs, runs, size_warnings=False)
            while len(made) < 2:
                time.sleep(0.01)
            assert not command.done()
            assert made == [2, 3]
        command.result()
    assert made == [2, 3, 1]  # the other command ended without it


def test_a_ledger_runs_what_is_missing_goes_on_after_a_kill_and_repeats_nothing(
    ledger_file, stop_after, monkeypatch, capfd
):
    ledger_file.write_text(ledger_file.read_text().replace(*ONE_SEED))
    loaded, changes = load_ledger(ledger_file), [FEW_TEXTS]
    claims = loaded.ledger.claims
    for name in ("needles", "divergence", "membership"):
        claims[name] = dataclasses.replace(
            claims["frozen"], statistic=name, of="detour", against=0.0, expect="more"
        )
    tried = ["lower-loss", "needles", "divergence", "membership"]
    (before,) = missing_runs(loaded, tried, changes)

    stop_after(2)
    with pytest.raises(KeyboardInterrupt):
        reproduce(loaded, tried, changes)
    monkeypatch.undo()
    monkeypatch.setattr("clm_detour.report.page.write_page", short_page)
    assert not before.is_complete

    result, folder = reproduce(loaded, tried, changes)
    assert not missing_runs(loaded, tried, changes)
    finished = {path: path.stat().st_mtime for path in folder.rglob("phase.json")}
    assert len(finished) == 5  # pretrain, and two phases of each arm
    for name in tried:
        claim = result.claims[name]
        assert claim.verdict == "undecided"
        assert claim.interval is None
        assert (claim.effect is None) == (STATISTICS[claim.statistic].read(before.folder, "detour") is None)
    assert result.claims["lower-loss"].effect is not None
    assert result.claims["divergence"].effect is not None
    assert result.claims["membership"].effect is not None
    assert "Audit: texts that were read" in (before.folder.model("detour") / "README.md").read_text()
    (run,) = result.runs
    assert run.data["abstracts"]["train"]
    assert run.config
    assert run.environment["torch"] == result.versions["torch"]

    monkeypatch.setattr("clm_detour.run.pipeline.run_recipe", no_run)
    again, _ = reproduce(loaded, tried, changes)
    assert again.claims == result.claims
    assert {path: path.stat().st_mtime for path in folder.rglob("phase.json")} == finished

    # Another claim needs one more arm: only its own phases are missing, and the run keeps its other arms.
    (more,) = missing_runs(loaded, ["frozen"], changes)
    assert list(more.recipe.arms) == ["detour", "twin", "low-frozen"]
    ids = ["pretrain.clm-low-frozen", "pretrain.clm-low-frozen.decay"]
    assert more.tokens == sum(more.recipe.phases[id].tokens for id in ids)
    assert run_table([more]).rows[0].cells[0] == "main/seed-1"

    # The needle test of an arm more keeps those of other arms, and other settings repeat it.
    claims["more-needles"] = dataclasses.replace(claims["needles"], of="twin")
    both, _ = reproduce(loaded, ["more-needles"], changes)
    assert both.claims["needles"].effect == result.claims["needles"].effect
    assert both.claims["more-needles"].effect is not None
    loaded.scale.needles.trials += 1
    assert missing_runs(loaded, ["needles"], changes)

    # An arm that was changed after its run is not mixed with the old one.
    loaded.scale.overrides.append("phases.mlm.mask_rate=0.4")
    with pytest.raises(UserError, match=r"started with other settings \(phases\.mlm\.mask_rate was 0\.3"):
        missing_runs(loaded, tried, changes)


def test_a_run_is_incomplete_until_its_networks_are_compared_with_its_control(
    ledger_file,
):
    control = "  twin-15:", "  control: {of: twin, phases: {mlm: {seed: 9}}}\n  twin-15:"
    ledger_file.write_text(ledger_file.read_text().replace(*control))
    loaded = load_ledger(ledger_file)
    loaded.ledger.claims["frozen"].of = "control"
    run, other = (ledger_runs(loaded, [claim])[0] for claim in ("frozen", "lower-loss"))
    run.folder.comparison.parent.mkdir(parents=True)
    roles = {"a": {"layers": [], "hidden": 8}, "b": {"layers": [], "hidden": 8}}
    content = {
        "models": roles,
        "texts": {"distinct": 9, "samples": 1, "per_sample": 9, "overlap": False},
        "comparisons": {"detour_twin": {"models": ["a", "b"], "pairs": [], "variants": {}}},
        "ratio": None,
        "retention": None,
        "notes": [],
    }
    run.folder.comparison.write_text(json.dumps(content))
    assert other.is_compared
    assert not run.is_compared  # the analysis was killed after the control was trained
    content["models"]["control"] = roles["a"]
    run.folder.comparison.write_text(json.dumps(content))
    assert run.is_compared


def test_a_dry_run_lists_runs_and_writes_nothing(ledger_file, loaded, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    words = ["clm-detour", "reproduce", str(ledger_file), "--dry-run", "--only", "lower-loss"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for run in missing_runs(loaded, ["lower-loss"]):
        assert f"main/seed-{run.seed}" in shown
    assert "dropout" not in shown
    assert not (tmp_path / "runs").exists()


def test_a_claim_that_no_run_can_decide_is_named_before_the_runs(ledger_file, capsys):
    assert missing_runs(load_ledger(ledger_file))
    assert capsys.readouterr().err == ""
    text = ledger_file.read_text().replace("seeds: [1, 2, 3]", "seeds: [1]")
    ledger_file.write_text(text.replace("statistic: held_out_loss", "statistic: task_score", 1))
    missing_runs(load_ledger(ledger_file))
    said = " ".join(capsys.readouterr().err.split())
    assert "has one seed, with which every claim is undecided" in said
    assert (
        "claims.lower-loss: task_score is not measured, since the recipe does not set evaluate.tasks" in said
    )
    assert "with-dropout" not in said


def test_a_changed_arm_is_told_what_a_ledger_can_do(loaded):
    (run, *_) = ledger_runs(loaded, ["lower-loss"])
    id, phase = next(iter(run.recipe.phases.items()))
    settings = {**recipe_settings(run.recipe.config, phase), "seed": 99}
    write_json(run.folder.phase(id).settings, settings)
    with pytest.raises(
        UserError, match=r"was 99.*give a changed arm another name, or the scale another folder"
    ):
        missing_runs(loaded, ["lower-loss"])


def test_a_command_line_cannot_set_what_the_ledger_sets(loaded):
    with pytest.raises(UserError, match=r"the command line: seed is set by the ledger"):
        missing_runs(loaded, [], ["seed=3"])


def test_an_error_of_a_recipe_comes_before_any_run(ledger_file, tmp_path):
    ledger_file.write_text(
        ledger_file.read_text().replace("attention_output_dropout=0.1", "attention_output_dropout=2")
    )
    with pytest.raises(UserError, match="attention_output_dropout"):
        reproduce(load_ledger(ledger_file))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_later_claim_adds_its_arms_to_the_runs_of_the_shipped_ledger(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clm_detour.report.page.write_page", short_page)
    loaded = load_ledger("ledgers/paper", "paper")
    del loaded.scale.seeds[1:]
    overrides = ["+debug", "evaluate.tasks={tasks: [SampleVerdict], data: null}"]
    first, folder = reproduce(loaded, ["better-on-tasks"], overrides)
    assert str(folder) == "runs/ledger/paper-debug"
    later, _ = reproduce(loaded, ["data-restarted"], overrides)
    assert not missing_runs(loaded, ["better-on-tasks", "data-restarted"], overrides)
    assert [run.arms for run in later.runs] == [["detour", "twin", "detour-restart", "twin-restart"]]
    assert first.claims["better-on-tasks"].effect is not None
    assert first.claims["data-restarted"].effect is None
    assert later.claims["better-on-tasks"].seeds == first.claims["better-on-tasks"].seeds
    assert later.claims["data-restarted"].effect is not None
    record = json.loads((folder / "ledger.json").read_text())
    assert record["claims"]["data-restarted"]["of"] == ["detour-restart"]


@pytest.mark.slow
def test_the_larger_grid_of_the_study_runs_under_debug(tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clm_detour.report.page.write_page", short_page)
    loaded = load_ledger("ledgers/paper", "study")
    del loaded.scale.seeds[1:]
    overrides = ["+debug", "data.root=x", f"tokenizer={{path: {tiny_data}/tokenizer}}"]
    for name, source in load_config("study/small", ["+debug", "data.root=x"]).data.sources.items():
        overrides.append(f"data.sources.{name}.path={tiny_data}/sample/{Path(source.path).name}")
    overrides += ["data.sample=null", "evaluate.tasks={tasks: [SampleVerdict], data: null}"]
    wanted = ["divergence-grows-with-size", "short-decay-is-enough", "freezing-hurts-the-detour-more"]
    result, folder = reproduce(loaded, wanted, overrides)
    assert str(folder) == "runs/ledger/study-debug"
    assert {run.variant for run in result.runs} == {"", "larger"}
    assert all(result.claims[name].effect is not None for name in wanted)
