"""A ledger is checked when it is loaded, and its arms become phases of a recipe."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from clm_detour.__main__ import main
from clm_detour.config.loading import load_config
from clm_detour.ledger.load import load_ledger
from clm_detour.ledger.runs import ledger_runs, with_arms
from clm_detour.ledger.schema import LedgerArm
from clm_detour.ledger.statistics import STATISTICS
from clm_detour.utils.errors import UserError

WRONG = {
    "a misspelled key": ("    expect: equal", "    expects: equal", "did you mean claims.frozen.expect?"),
    "a missing key": ("    refuted_if: the loss is higher.\n", "", "not set; write it into the file."),
    "an unknown expectation": ("expect: equal", "expect: eqal", "did you mean equal?"),
    "an unknown statistic": ("c: held_out_loss", "c: heldout_loss", "did you mean held_out_loss?"),
    "an unknown arm": ("against: detour\n", "against: detuor\n", "did you mean detour?"),
    "an unknown variant": ("of: dropout/detour", "of: dropot/detour", "did you mean dropout?"),
    "an arm with a space": ("of: low-frozen", "of: low frozen", "write ARM or VARIANT/ARM"),
    "a negative smallest effect": ("smallest: 0.1", "smallest: -0.1", "a number above 0"),
    "a bound above it": ("equivalence: 0.05", "equivalence: 0.2", "0.2 is above the smallest effect"),
    "a recipe": ("claims:", "claim:", "is not a ledger: it has no claims"),
    "no seeds": ("seeds: [1, 2, 3]", "seeds: []", "scales.tiny.seeds is empty"),
    "a seed twice": ("seeds: [1, 2, 3]", "seeds: [1, 1]", "twice"),
    "a seed among the changes": ("evaluate.tasks=null", "seed=3", "seed is set by the ledger"),
    "no value": ("values: {low: \"0\"}", "values: {lo: \"0\"}", "low"),
    "a sum against one arm": ("of: low-frozen", "of: [low-frozen, twin]", "of names 2 arms and against 1"),
    "nothing to compare with": ("against: detour\n", "against: []\n", "frozen.against is empty; name an arm"),
    "an arm of a comparison": ("statistic: held_out_loss", "statistic: divergence", "comparison of the arms"),
}  # fmt: skip


@pytest.mark.parametrize(("there", "here", "expected"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_sentence(ledger_file, monkeypatch, capsys, there, here, expected):
    text = ledger_file.read_text()
    assert there in text
    head, _, tail = text.rpartition(there)
    ledger_file.write_text(head + here + tail)
    monkeypatch.setattr(sys, "argv", ["clm-detour", "reproduce", str(ledger_file), "--dry-run"])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert expected in said
    assert len(said.splitlines()) == 1


def test_a_ledger_is_no_recipe(ledger_file):
    with pytest.raises(UserError, match=r"is a ledger, not a recipe.*`clm-detour reproduce FILE`"):
        load_config(ledger_file)


def test_values_are_those_of_the_scale(ledger_file):
    frozen = [load_ledger(ledger_file, scale).ledger.arms["low-frozen"] for scale in ("tiny", "other")]
    assert [arm.phases["clm"]["freeze"]["layers"] for arm in frozen] == ["0", "0-1"]
    with pytest.raises(UserError, match=r"--scale: 'large' is not known"):
        load_ledger(ledger_file, "large")


def test_a_scale_without_a_variant_does_not_try_its_claims(ledger_file):
    assert set(load_ledger(ledger_file, "other").claims) == {"lower-loss", "frozen"}


def test_comments_and_other_scales_do_not_change_the_hash_but_rules_do(ledger_file):
    def changed(there: str, here: str) -> str:
        copy = ledger_file.with_name("copy.yaml")
        copy.write_text(ledger_file.read_text().replace(there, here, 1))
        return load_ledger(copy).hash

    first = load_ledger(ledger_file).hash
    assert changed("name:", "# A comment\nname:") == first
    assert changed("seeds: [5]", "seeds: [6]") == first
    assert changed("smallest: 0.1", "smallest: 0.2") != first
    assert changed("seeds: [1, 2, 3]", "seeds: [1, 2]") != first


def test_arms_share_the_phases_that_they_do_not_change(loaded):
    runs = ledger_runs(loaded, loaded.claims)
    main = next(run for run in runs if not run.variant and run.seed == 2)
    assert {arm: [phase.id for phase in phases] for arm, phases in main.recipe.arms.items()} == {
        "detour": ["pretrain", "pretrain.clm", "pretrain.clm.decay"],
        "twin": ["pretrain", "pretrain.mlm", "pretrain.mlm.decay"],
        "low-frozen": ["pretrain", "pretrain.clm-low-frozen", "pretrain.clm-low-frozen.decay"],
    }
    frozen = main.recipe.phases["pretrain.clm-low-frozen"].phase
    assert frozen.freeze is not None
    assert frozen.freeze.layers == "0"
    assert frozen.duration == main.recipe.phases["pretrain.clm"].phase.duration


def test_equal_changes_of_two_arms_are_one_phase(loaded):
    loaded.ledger.claims["frozen"].of, loaded.ledger.claims["frozen"].against = "twin-15", "twin-reset"
    arms = ledger_runs(loaded, ["frozen"])[0].recipe.arms
    assert arms["twin-15"][1].id == arms["twin-reset"][1].id == "pretrain.mlm-twin-15"
    assert arms["twin-15"][2].id != arms["twin-reset"][2].id


def test_a_changed_phase_cannot_have_the_name_of_another_phase():
    content = {"phases": {"clm": {"seed": 1}, "clm-low": {"seed": 2}}, "arms": {"detour": ["clm", "clm-low"]}}
    arms = {"low": LedgerArm("detour", {"clm": {"seed": 3}})}
    with pytest.raises(UserError, match="phase clm would be called clm-low, as another phase is"):
        with_arms(content, arms)
    assert with_arms(content, {"high": arms["low"]})["arms"] == {"high": ["clm-high", "clm-low"]}


def test_each_seed_and_variant_has_its_own_run_and_a_seed_sets_masks_and_order(loaded):
    runs = ledger_runs(loaded, loaded.claims)
    assert [(run.variant, run.seed) for run in runs] == [
        (variant, seed) for seed in (1, 2, 3) for variant in ("", "dropout")
    ]
    assert len({run.folder.root for run in runs}) == len(runs)
    for run in runs:
        config = run.recipe.config
        assert (config.seed, config.data.shuffle_seed) == (run.seed, run.seed)
        assert config.model.attention_output_dropout == (0.1 if run.variant else 0.0)
        assert config.data.dir == f"{run.folder.root}/data"


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("{of: detuor}", "did you mean detour?"),
        ("{of: detour, phases: {mlm: {seed: 1}}}", "mlm"),
        ("{of: detour, phases: {clm: {durations: 1tok}}}", "did you mean phases.clm-detour.duration?"),
        ("{of: detour, phases: {clm: {mask_rate: 0.3}}}", "has no effect in a clm phase"),
    ],
)
def test_an_arm_that_its_recipe_cannot_have_is_one_sentence(ledger_file, arm, expected):
    ledger_file.write_text(ledger_file.read_text().replace("  detour: {of: detour}", f"  detour: {arm}"))
    loaded = load_ledger(ledger_file)
    with pytest.raises(UserError, match=expected.replace("?", r"\?")):
        ledger_runs(loaded, loaded.claims)


@pytest.mark.parametrize("scale", ["mini", "minilm", "study", "paper"])
@pytest.mark.parametrize("debug", [(), ("+debug",)], ids=["whole", "debug"])
def test_the_shipped_ledger_makes_recipes_at_every_scale(scale, debug):
    loaded = load_ledger("ledgers/paper", scale)
    runs = ledger_runs(loaded, loaded.claims, ["data.root=x", "evaluate.tasks.data=x", *debug])
    main = runs[0]
    assert {"detour", "twin", "control", "detour-reset", "twin-equal-flops"} <= main.recipe.arms.keys()
    reset = main.recipe.arms["detour-reset"][-2:]
    assert all(phase.phase.reset_head for phase in reset)
    flops, twin = (main.recipe.arms[arm][-2].duration for arm in ("twin-equal-flops", "twin"))
    assert flops == twin if debug else flops > twin
    assert any(run.variant == "dropout" for run in runs)
    assert all(run.tokens > 0 for run in runs)


def test_the_ledger_of_the_study_asks_the_papers_claims_in_the_papers_words():
    study, paper = load_ledger("ledgers/study"), load_ledger("ledgers/paper")
    shared = study.claims.keys() & paper.claims.keys()
    assert {"better-on-tasks", "above-noise", "low-layers-are-needed", "holds-needles"} <= shared
    assert all(study.claims[name] == paper.claims[name] for name in shared)


def test_the_documentation_has_every_statistic_with_its_unit():
    text = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")
    for name, statistic in STATISTICS.items():
        line = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert line.endswith(f"| {statistic.unit} | {statistic.better + ' ' if statistic.better else ''}|")


def test_the_ledger_of_the_documentation_loads(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(re.search(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[1])
    loaded = load_ledger(tmp_path / "mine.yaml")
    loaded.scale.recipe = "quickstart"
    (run, *_) = ledger_runs(loaded, loaded.claims)
    assert list(run.recipe.arms) == ["detour", "twin-15"]
