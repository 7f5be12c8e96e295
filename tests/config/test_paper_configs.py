"""The shipped configs of the paper say what the paper says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clm_detour.config import load_config
from clm_detour.config.expressions.conditions import Condition
from clm_detour.config.shipped import CONFIGS
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.schedules import phase_rate

PAPER = sorted((CONFIGS / "paper").rglob("*.yaml"))
STEPS = {
    "cpt-en-base": (15_895, 1_590), "cpt-en-large": (15_895, 1_590), "en-base-10b": (3_179, 318),
    "en-base-mimic": (3_179, 318), "cpt-fr-base": (3_179, 318), "cpt-fr-large": (7_948, 795),
}  # fmt: skip


REPEATED = {  # share of an article's paragraphs in percent -> copies
    0.5: 4.3, 1: 4.3, 25: 4.3, 26: 8.5, 50: 8.5, 51: 12.8, 75: 12.8, 76: 21.3, 99: 21.3, 99.5: 21.3,
    100: 34.1,
}  # fmt: skip


def load(path: Path):
    return load_config(path, ["data.root=somewhere"])


@pytest.mark.parametrize("name", STEPS)
def test_steps_and_warmup_are_the_papers(name):
    config = load(CONFIGS / "paper" / f"{name}.yaml")
    for arm, first in (("detour", "clm"), ("twin", "mlm")):
        before, decay = Recipe(config).phase(arm, first), Recipe(config).phase(arm, "decay")
        assert (before.steps, decay.steps) == STEPS[name]
        assert (before.warmup_steps, decay.warmup_steps) == (32, 0)
        assert before.batch_tokens == decay.batch_tokens == 3_145_728


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_settings_are_the_papers(path):
    config = load(path)
    assert (config.seed, config.data.shuffle_seed) == (17, 42)
    assert (config.data.sequence_length, config.train.batch_rows, config.train.precision) == (
        8192,
        384,
        "bf16",
    )
    optimizer = config.optimizer
    assert (tuple(optimizer.betas), optimizer.eps, optimizer.weight_decay) == ((0.9, 0.98), 1e-6, 1e-5)
    for run in Recipe(config).phases.values():
        assert run.phase.moments == "keep"
        rate = phase_rate(run.phase)
        falls = run.phase.schedule.name == "one_minus_sqrt"
        assert rate(10**8) == pytest.approx(2e-4) or falls
        assert rate(0) == pytest.approx(2e-4 if falls else 0.0)
        assert rate(run.duration) == pytest.approx(2e-5 if falls else 2e-4)
    assert sum(config.data.mixtures["domain"].values()) == pytest.approx(1)


@pytest.mark.parametrize("path", [path for path in PAPER if path.stem in STEPS], ids=lambda path: path.stem)
def test_detour_and_twin_differ_in_phase_1_alone(path):
    phases = load(path).phases
    assert [(p.objective, p.mask_rate) for p in phases.values()] == [
        ("clm", None),
        ("mlm", 0.3),
        ("mlm", 0.15),
    ]
    assert (phases["clm"].duration, phases["clm"].schedule) == (
        phases["mlm"].duration,
        phases["mlm"].schedule,
    )


@pytest.mark.parametrize("name", ["cpt-fr-base", "cpt-fr-large"])
def test_french_articles_are_repeated_by_the_share_of_their_good_paragraphs(name):
    articles = load(CONFIGS / "paper" / f"{name}.yaml").data.sources["articles"]
    kept = Condition.parse(articles.where)
    steps = [(Condition.parse(text), copies) for text, copies in articles.repeat.items()]

    def copies_of(share: float) -> list[float]:
        return [copies for condition, copies in steps if condition({"good_paragraphs": share})]

    assert not kept({"good_paragraphs": 0})
    assert all(kept({"good_paragraphs": share}) for share in REPEATED)
    assert {share: copies_of(share)[0] for share in REPEATED} == REPEATED  # the first that holds counts


def test_the_decays_of_a_soup_start_from_one_phase_and_differ_in_their_seed_alone():
    recipe = Recipe(load(CONFIGS / "paper/ablations/soup.yaml"))
    ends = [recipe.arms[arm][-1] for arm in ("detour", "detour-42", "detour-43")]
    assert len({run.parent.id for run in ends}) == 1
    assert len({run.seed for run in ends}) == 3
    assert len({(run.first_row, run.steps, run.duration, run.objective.mask_rate) for run in ends}) == 1


def test_an_ablation_shares_the_phases_and_the_folder_of_the_run_that_it_extends():
    sweep, plain = (
        load(CONFIGS / "paper/ablations/decay-sweep.yaml"),
        load(CONFIGS / "paper/cpt-fr-base.yaml"),
    )
    assert sweep.run_dir == plain.run_dir
    runs = Recipe(sweep).phases
    assert runs.items() >= Recipe(plain).phases.items()
    decays = {run.duration / runs["clm"].duration for run in runs.values() if run.parent is not None}
    assert decays == {0.025, 0.1, 0.2, 0.3, 0.5}


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_a_config_opens_with_what_it_expects_on_what_and_its_command(path):
    lines = path.read_text().splitlines()
    opening = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    text = "\n".join(opening)
    assert "# Expected" in text
    assert re.search(r"# Hardware: 4 x H100, about [^#]*hour", text)
    assert f"clm-detour run {path.relative_to(CONFIGS).with_suffix('')}" in opening[-1]
    asks = any(source.path.startswith("somewhere/") for source in load(path).data.sources.values())
    assert ("data.root=DIR" in opening[-1]) == asks
