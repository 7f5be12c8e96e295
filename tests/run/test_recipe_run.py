"""A whole recipe on a tiny model: transformers opens its models, and interruptions do not change them."""

from __future__ import annotations

import copy
import fcntl
import json
import os
import pty
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from clm_detour.config import load_config
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.export import export_arm
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.schedules import phase_rate
from clm_detour.run.after_training import export_step
from clm_detour.run.check import check_recipe
from clm_detour.run.pipeline import run_recipe
from clm_detour.utils.errors import UserError

ANALYSES = ("compare", "trajectory", "weights", "gradients")


@pytest.fixture(scope="module")
def finished(tiny_recipe, tmp_path_factory):
    """The config of a recipe that ran without interruption."""
    config = load_config(tiny_recipe(tmp_path_factory.mktemp("finished") / "run"))
    run_recipe(config)
    return config


def weights(run_dir: str | Path) -> dict[str, bytes]:
    """Return the bytes of every safetensors file of a run."""
    folder = Path(run_dir)
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))
    }


def metrics(run_dir: str | Path, phase: str) -> list[dict]:
    lines = (Path(run_dir) / "phases" / phase / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def command(*words: object) -> list[str]:
    return [sys.executable, "-c", "from clm_detour.__main__ import main; main()", *map(str, words)]


def test_a_folder_says_which_mask_and_which_length_it_was_trained_with(finished):
    for path in Path(finished.run_dir).glob("*/*/**/config.json"):
        keys = json.loads(path.read_text())
        assert keys.get("causal", False) == (path.parts[-3] == "pretrain.clm")
        assert keys["max_position_embeddings"] == finished.data.sequence_length


def test_it_leaves_models_scores_and_a_page(finished):
    folder = Path(finished.run_dir)
    assert sorted(path.name for path in (folder / "models").iterdir()) == [
        "base",
        "control",
        "detour",
        "twin",
    ]
    assert (folder / "report.html").stat().st_size > 1000
    scores = json.loads((folder / "evaluation" / "held_out.json").read_text())
    assert list(scores["models"]) == ["base", "detour", "twin", "control"]


def test_general_text_is_scored_at_every_phase_end_and_does_not_count_as_the_domain(finished):
    record = json.loads((Path(finished.run_dir) / "evaluation" / "held_out.json").read_text())
    general = record["general"]
    assert general["source"] == "general"
    assert list(general["phases"]) == list(record["phases"])
    assert list(general["models"]) == list(record["models"])
    assert general["models"]["base"] == general["phases"]["pretrain"]
    assert all(score["predicted"] > 0 for score in general["phases"].values())
    assert "general" not in record["models"]["detour"]["by_source"]
    assert "General text" in (Path(finished.run_dir) / "report.html").read_text()


def test_replayed_general_text_is_no_text_of_the_domain(tiny_recipe, tmp_path):
    path = tiny_recipe(tmp_path / "run")
    recipe = Recipe(load_config(path, ["data.mixtures.domain.general=0.1"]))
    assert recipe.domain_sources == ["abstracts", "instructions", "notes"]
    without = Recipe(load_config(path, ["data.mixtures.domain.general=0.1", "evaluate.general=null"]))
    assert set(without.domain_sources) == {"general", "abstracts", "instructions", "notes"}


def test_general_text_that_is_no_source_is_an_error(tiny_recipe, tmp_path):
    with pytest.raises(UserError, match=r"evaluate\.general"):
        load_config(tiny_recipe(tmp_path / "run"), ["evaluate.general=generic"])


@pytest.mark.parametrize("arm", ["base", "detour", "twin"])
def test_plain_transformers_gives_the_logits_that_our_network_gives(finished, arm):
    folder = Path(finished.run_dir) / "models" / arm
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(
        ["The patient was treated.", "A trial of aspirin in patients with pain, and more."],
        padding=True,
        return_tensors="pt",
    )
    theirs, ours = (
        AutoModelForMaskedLM.from_pretrained(folder).eval(),
        ModernBertForPretraining.from_pretrained(folder).eval(),
    )
    with torch.no_grad():
        expected, logits = (
            theirs(**batch).logits,
            ours(batch["input_ids"], attention_mask=batch["attention_mask"]).logits,
        )
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(logits[real], expected[real], rtol=1e-5, atol=1e-5)


def test_the_fill_mask_pipeline_opens_the_folder(finished):
    folder = str(Path(finished.run_dir) / "models" / "detour")
    answers = pipeline("fill-mask", folder)("The patient was treated with [MASK].")
    assert len(answers) == 5


def test_it_leaves_an_analysis_of_detour_and_twin_with_the_control(finished):
    folder = Path(finished.run_dir) / "analysis"
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name in ANALYSES}
    phases = Path(finished.run_dir) / "phases"
    models = {role: Path(model["path"]).parent.name for role, model in found["compare"]["models"].items()}
    assert models == {
        "a": "pretrain.clm.decay",
        "b": "pretrain.mlm.decay",
        "control": "pretrain.mlm_control.decay_control",
        "before_a": "pretrain.clm",
        "before_b": "pretrain.mlm",
    }
    assert found["compare"]["retention"]["debiased"]["model"] > 0
    assert found["compare"]["ratio"]["debiased"]["model"] > 0
    points = found["trajectory"]["points"]
    assert [point["phase"] for point in points] == ["start", "pretrain.clm", "pretrain.clm.decay"]
    assert points[0]["divergence"]["start"]["biased"]["all"] == pytest.approx(0, abs=1e-9)
    assert points[1]["divergence"]["undecayed_twin"]["biased"]["all"] == pytest.approx(
        found["compare"]["comparisons"]["before"]["variants"]["biased"]["model"]["divergence"], abs=1e-9
    )
    spans = [(change["arm"], *change["phases"]) for change in found["weights"]["changes"]]
    assert spans[:3] == [("detour", "clm", "decay"), ("detour", "clm", "clm"), ("detour", "decay", "decay")]
    assert found["gradients"]["model"] == str(phases / "pretrain" / "model")


def test_a_second_run_finds_nothing_to_do(finished):
    before = weights(finished.run_dir)
    assert run_recipe(finished) == 0
    assert weights(finished.run_dir) == before


def test_on_a_terminal_it_counts_all_steps_and_ends_with_where_to_look(finished):
    lines = on_terminal(command("run", Path(finished.run_dir).with_suffix(".yaml")))
    steps = [re.search(r"Step (\d+) of (\d+)\. ", line) for line in lines]  # a bar may end on the line
    numbers = [(int(step[1]), int(step[2])) for step in steps if step]
    assert numbers == [(number, len(numbers)) for number in range(1, len(numbers) + 1)]
    end = lines[lines.index("Everything was done before; nothing to do.") + 1 :]
    assert [line.split()[0] for line in end if line.startswith("  ")] == ["Page", "Models", "Numbers"]
    assert Path(finished.run_dir).name in "".join(end)
    assert not [line for line in lines if "Warning" in line or "\x1b[2K" in line]


def on_terminal(words: list[str]) -> list[str]:
    """Return the lines that a command prints on a terminal of 80 columns, without colors."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(words, stdin=side, stdout=side, stderr=side, env=environment)
    os.close(side)
    printed = b""
    with suppress(OSError):  # by which Linux reports the end
        while data := os.read(main, 65536):
            printed += data
    assert process.wait() == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", printed.decode()).replace("\r\n", "\n").splitlines()


def test_scores_made_with_other_settings_are_made_again_and_nothing_else_is(finished):
    scores = Path(finished.run_dir) / "evaluation" / "held_out.json"
    before, rows = scores.read_bytes(), finished.evaluate.rows
    try:
        finished.evaluate.rows = rows - 1
        assert run_recipe(finished) > 0
        fewer = json.loads(scores.read_text())["models"]["twin"]
        assert fewer["predicted"] < json.loads(before)["models"]["twin"]["predicted"]
    finally:
        finished.evaluate.rows = rows
    trained = weights(finished.run_dir)
    assert run_recipe(finished) > 0
    assert scores.read_bytes() == before
    assert weights(finished.run_dir) == trained
    assert run_recipe(finished) == 0


def test_an_arm_made_of_phases_that_are_there_is_scored_and_another_analysis_is_made(finished):
    root, trained = Path(finished.run_dir), weights(finished.run_dir)
    tokens = finished.analysis.max_tokens
    finished.arms["undecayed"] = ["pretrain", "clm"]
    finished.analysis.max_tokens = 16
    try:
        assert run_recipe(finished) > 0
        found = json.loads((root / "evaluation" / "held_out.json").read_text())
        assert found["models"]["undecayed"] == found["phases"]["pretrain.clm"]
        assert json.loads((root / "analysis" / "compare.json").read_text())["texts"]["max_tokens"] == 16
        assert run_recipe(finished) == 0
    finally:
        del finished.arms["undecayed"]
        shutil.rmtree(root / "models" / "undecayed")
        finished.analysis.max_tokens = tokens
    assert run_recipe(finished) > 0
    assert weights(finished.run_dir) == trained


def test_an_export_replaces_a_model_of_ours_and_nothing_else(finished, tmp_path):
    export_arm(Recipe(finished), "detour", tmp_path / "model")
    export_arm(Recipe(finished), "twin", tmp_path / "model")
    assert json.loads((tmp_path / "model" / "clm_detour.json").read_text())["arm"] == "twin"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "precious").write_text("of someone else")
    with pytest.raises(UserError, match="something other than an exported model, which would be lost"):
        export_arm(Recipe(finished), "detour", tmp_path / "models")
    assert (tmp_path / "models" / "precious").read_text() == "of someone else"


def copied(finished, tmp_path):
    """Return the config of a copy of the finished run, with its modification times."""
    config = copy.deepcopy(finished)
    config.run_dir = str(tmp_path / "run")
    shutil.copytree(finished.run_dir, config.run_dir, dirs_exist_ok=True)
    return config


def test_an_arm_is_exported_anew_when_it_ends_in_another_phase_whichever_was_trained_first(
    finished, tmp_path
):
    config = copied(finished, tmp_path)
    chain = config.arms["detour"]
    for phases in (chain[:-1], chain):
        config.arms["detour"] = phases
        folder, last = Recipe(config).folder, ".".join(phases)
        step = export_step(
            "detour", last, folder, partial(export_arm, Recipe(config), "detour", folder.model("detour"))
        )
        assert step.is_stale()
        step.do()
        exported = Path(config.run_dir) / "models" / "detour" / "model.safetensors"
        end = Path(config.run_dir) / "phases" / last / "model" / "model.safetensors"
        assert exported.read_bytes() == end.read_bytes()
        assert not step.is_stale()


def test_what_a_killed_export_left_is_removed_by_the_next_and_that_of_a_living_process_is_not(
    finished, tmp_path
):
    ended = subprocess.Popen(["true"])
    ended.wait()
    names = [f".model.tmp{ended.pid}", f".model.tmp{os.getppid()}", f".model-b.tmp{ended.pid}"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    export_arm(Recipe(finished), "detour", tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[1:], "model"])


def test_a_refused_run_leaves_the_recipe_that_trained_what_is_there(finished, tmp_path):
    config = copied(finished, tmp_path)
    root = Path(config.run_dir)
    before = {name: (root / name).read_bytes() for name in ("config.yaml", "arms.json", "plan.json")}
    config.phases["decay"].schedule.peak = 1e-4  # of the last phase of the arms
    config.arms["short"] = ["pretrain"]
    with pytest.raises(UserError, match=r"decay was started with other settings .*schedule\.peak"):
        run_recipe(config)
    assert {name: (root / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("error", [UserError("The disk is full."), RuntimeError("out of memory")])
def test_a_step_after_training_that_fails_does_not_keep_the_page_from_being_made(
    finished, tmp_path, monkeypatch, capsys, error
):
    config = copied(finished, tmp_path)
    root = Path(config.run_dir)
    (root / "report.html").unlink()
    (root / "evaluation" / "fill_mask.json").unlink()

    def fails(*_):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("clm_detour.evaluate.fill_mask.fill", fails)
        with pytest.raises(type(error), match=str(error)):
            run_recipe(config)
    assert (
        f"Fill masks: left out. {'' if isinstance(error, UserError) else 'RuntimeError: '}{error}"
        in capsys.readouterr().err
    )
    assert (root / "report.html").stat().st_size > 1000
    assert run_recipe(config) > 0  # and the next run makes it
    assert (root / "evaluation" / "fill_mask.json").exists()


def test_results_on_tasks_that_could_not_be_compared_are_refused_before_any_training(finished, tmp_path):
    config = copied(finished, tmp_path)
    check_recipe(Recipe(config), deep=False)
    config.evaluate.tasks.protocol = {"epochs": 2}
    with pytest.raises(
        UserError, match=r"SampleVerdict was started with other settings \(protocol\.epochs was 1, is now 2\)"
    ):
        check_recipe(Recipe(config), deep=False)
    config = copied(finished, tmp_path)
    config.arms["detour"] = ["pretrain", "clm"]
    with pytest.raises(
        UserError,
        match=r"results of arm detour when it ended in "
        r"pretrain\.clm\.decay, and it now ends in pretrain\.clm; give",
    ):
        check_recipe(Recipe(config), deep=False)


def test_the_learning_rate_is_the_formula_at_every_step(finished):
    for name, run in Recipe(finished).phases.items():
        rate = phase_rate(run.phase)
        lines = metrics(finished.run_dir, name)
        assert [line["step"] for line in lines] == list(range(1, run.steps + 1))
        for line in lines:
            assert line["learning_rate"] == rate(line["tokens"] - run.batch_tokens)


def test_training_learns_something(finished):
    lines = metrics(finished.run_dir, "pretrain")
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.1


def test_the_same_recipe_gives_the_same_bits(finished, tiny_recipe, tmp_path):
    again = load_config(tiny_recipe(tmp_path / "again"))
    run_recipe(again)
    assert weights(again.run_dir) == weights(finished.run_dir)


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_it_ends_with_the_same_bits(finished, tiny_recipe, tmp_path):
    path = tiny_recipe(tmp_path / "killed")
    generator = random.Random(0)
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    kills = 0
    for _ in range(2):  # at a moment when a checkpoint of some phase is there
        process = subprocess.Popen(
            command("run", path), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_checkpoint(process, path.with_suffix(""), generator.uniform(0, 0.3))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills
    run_recipe(load_config(path))
    assert weights(path.with_suffix("")) == weights(finished.run_dir)


def wait_for_checkpoint(process: subprocess.Popen, run_dir: Path, more: float) -> None:
    """Wait until there is a new sealed checkpoint, and `more` seconds longer."""
    before = set(run_dir.glob("phases/*/checkpoints/*/seal.json"))
    while process.poll() is None and not set(run_dir.glob("phases/*/checkpoints/*/seal.json")) - before:
        time.sleep(0.02)
    time.sleep(more)
