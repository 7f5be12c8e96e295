"""Every shipped config runs from end to end under `+debug`, which makes it small."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clm_detour.__main__ import main
from clm_detour.config import load_config
from clm_detour.config.debug import STEPS
from clm_detour.config.shipped import CONFIGS
from clm_detour.plan import make_plan, print_plan
from clm_detour.recipe.export import export_arm
from clm_detour.recipe.merge import merge
from clm_detour.recipe.recipe import Recipe
from clm_detour.run.check import check_recipe
from clm_detour.run.pipeline import prepare_data
from clm_detour.train.phase import train_phase
from clm_detour.utils.files import read_json

pytestmark = pytest.mark.slow

SHIPPED = [
    path
    for path in sorted(CONFIGS.rglob("*.yaml"))
    if not {"base", "cloud", "eval", "ledgers"} & set(path.relative_to(CONFIGS).parts)
]


@pytest.fixture(scope="session")
def small(tiny_data, tmp_path_factory):
    """A function from a shipped config to its `+debug` recipe.

    Configs with the same sources share a run folder, so that equal phases are trained once. settings.json of
    each phase guarantees that they are equal.
    """
    root = tmp_path_factory.mktemp("configs")

    def load(path: Path):
        words = ["data.sample=null", "tokenizer.train=null", f"tokenizer.path={tiny_data}/tokenizer"]
        sources = load_config(path, ["+debug"]).data.sources
        for name, source in sources.items():
            words.append(f"data.sources.{name}.path={tiny_data}/sample/{Path(source.path).name}")
        # The sizes of the study have phases of one name with other settings.
        apart = [path.stem] if path.parent.name == "study" else []
        return load_config(path, ["+debug", *words, f"run_dir={root}/{'-'.join([*sources, *apart])}"])

    return load


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_it_is_checked_planned_trained_and_exported(path, small, tmp_path, capsys):
    config = small(path)
    prepare_data(config)
    recipe = Recipe(config)
    check_recipe(recipe, deep=False, size_warnings=False)
    print_plan(make_plan(recipe))
    shown = capsys.readouterr().err
    assert "Nothing wrong found" in shown
    for run in Recipe(config).phases.values():
        assert run.id[-23:] in shown  # the plan cuts long ids at their start
        train_phase(Recipe(config), run)  # or find it trained
        record = read_json(Recipe(config).folder.phase(run.id).record)
        assert (record["steps"], record["objective"]) == (run.steps, run.phase.objective)
        assert run.steps >= STEPS
    arm = list(config.arms)[-1]
    export_arm(Recipe(config), arm, tmp_path / arm)
    assert (tmp_path / arm / "model.safetensors").exists()


def test_three_decays_of_a_detour_make_a_soup(small, tmp_path):
    config = small(CONFIGS / "paper" / "ablations" / "soup.yaml")
    prepare_data(config)
    recipe, arms = Recipe(config), ("detour", "detour-42", "detour-43")
    for arm in arms:
        for run in recipe.arms[arm]:
            train_phase(recipe, run)  # or find it trained
        export_arm(recipe, arm, tmp_path / arm)
    merge([str(tmp_path / arm) for arm in arms], tmp_path / "soup")
    parents = [load_file(tmp_path / arm / "model.safetensors") for arm in arms]
    for name, found in load_file(tmp_path / "soup" / "model.safetensors").items():
        a, b, c = (parent[name].double() for parent in parents)
        torch.testing.assert_close(found.double(), (a + b + c) / 3, rtol=1e-6, atol=1e-8)
        assert not torch.equal(a, b), name  # other masks, other weights
    assert "detour-42: 0.3333" in (tmp_path / "soup" / "README.md").read_text()


def test_debug_is_a_word_on_the_command_line(monkeypatch, capsys, tmp_path):
    words = ["run", str(CONFIGS / "paper" / "cpt-en-base.yaml"), "+debug", f"run_dir={tmp_path}/run"]
    monkeypatch.setattr(sys, "argv", ["clm-detour", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code, capsys.readouterr().err
    assert (tmp_path / "run" / "report.html").exists()


def test_debug_keeps_what_the_recipe_is_about_and_the_command_line_wins():
    path = CONFIGS / "paper" / "ablations" / "freeze.yaml"
    large, little = (
        load_config(path, ["data.root=x"]),
        load_config(path, ["+debug", "phases.clm.duration=8ktok"]),
    )
    assert (little.arms, little.data.mixtures) == (large.arms, large.data.mixtures)
    for name, phase in little.phases.items():
        of = large.phases[name]
        assert (phase.objective, phase.mask_rate, phase.freeze) == (of.objective, of.mask_rate, of.freeze)
        assert (phase.schedule.name, phase.schedule.peak) == (of.schedule.name, of.schedule.peak)
    assert little.phases["clm"].duration == "8ktok"
    assert little.run_dir == f"{large.run_dir}-debug"


def test_debug_takes_the_bundled_tasks_for_those_below_the_users_folder():
    large, little = load_config("minilm", ["data.root=x"]), load_config("minilm", ["+debug"])
    assert (large.evaluate.tasks.data, little.evaluate.tasks.data) == ("x/tasks", None)
    assert little.evaluate.tasks.tasks == ["SampleEntities", "SampleVerdict"]


def test_debug_makes_small_what_a_recipe_does_beside_training(tmp_path):
    train = "{export_at: [5Btok], evaluate_every: 1Btok, loggers: {wandb: {}}}"
    text = f"extends: {CONFIGS / 'paper' / 'cpt-en-base.yaml'}\ntrain: {train}\n"
    (tmp_path / "mine.yaml").write_text(text)
    assert load_config(tmp_path / "mine.yaml", ["data.root=x"]).train.export_at == ["5Btok"]
    config = load_config(tmp_path / "mine.yaml", ["+debug"])
    assert (config.train.export_at, config.train.loggers, config.train.evaluate_every) == ([], {}, "1024tok")
