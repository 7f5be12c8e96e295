"""Averages never mix sets of tasks, comparisons are paired and deterministic, and the summary says all that the tables show."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clm_detour.evaluate.figure import write_differences
from clm_detour.evaluate.published import published_scores
from clm_detour.evaluate.statistics import average, bootstrap, compare, mean_over
from clm_detour.evaluate.summary import TaskRow, summarise
from clm_detour.evaluate.tables import as_csv, latex, markdown, score_table, write_tables

SEEDS = (42, 43, 44)
seed_scores = st.dictionaries(st.integers(0, 9), st.floats(0, 100), min_size=1)


def row(name: str, language: str = "en") -> TaskRow:
    return TaskRow(name, language, "single_label", "f1", 100)


def scores(**tasks: float) -> dict[str, dict[int, float]]:
    return {task.replace("_", "-"): {s: mean + s % 3 for s in SEEDS} for task, mean in tasks.items()}


def summary(models, tasks=("GAD", "HoC", "NCBI-disease"), missing=None, groups=None):
    listed = [{"name": name, "path": name, "minutes": 1.0, "flops": 1e12} for name in models]
    return summarise("en", listed, [row(task) for task in tasks], models, groups or {}, missing or {})


@given(seed_scores)
def test_mean_deviation_and_interval_are_numpys_and_scipys(values):
    found, given_ = mean_over(values), np.array(list(values.values()))
    assert found.mean == pytest.approx(given_.mean(), abs=1e-9)
    if len(values) == 1:
        assert found.std is None
        assert found.interval is None
    elif given_.std() > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, given_.mean(), stats.sem(given_))
        assert found.interval == pytest.approx((low, high))


@given(st.lists(seed_scores, min_size=1, max_size=5), st.lists(seed_scores, min_size=1, max_size=5))
def test_swapping_two_models_changes_only_the_sign(first, second):
    a, b = ({str(i): each for i, each in enumerate(tasks)} for tasks in (first, second))
    one, other = compare(a, b), compare(b, a)
    if one is None or other is None:
        assert one is other is None
        return
    assert one.difference == pytest.approx(-other.difference)
    if one.interval is None:
        assert one.p is other.interval is other.p is None
    else:
        assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))
        assert one.p == pytest.approx(other.p)
    assert (one.wins, one.losses, one.ties) == (other.losses, other.wins, other.ties)


def test_a_clear_gain_is_significant_and_noise_is_not():
    rng = np.random.default_rng(0)
    base = {str(t): {s: 70 + rng.normal() for s in range(5)} for t in range(11)}
    better = {t: {s: x + 3 for s, x in each.items()} for t, each in base.items()}
    noise = {t: {s: 70 + rng.normal() for s in range(5)} for t in base}
    assert compare(better, base).p < 0.001
    assert compare(better, base).wins == 11
    assert compare(noise, base).p > 0.05


@pytest.mark.parametrize(
    "seeds", [[1], [5], [1, 1], [5, 1]], ids=["one task, one seed", "one task", "one seed", "one seed of one"]
)
def test_one_task_or_one_seed_gives_a_difference_and_no_inference(seeds):
    base = {str(task): {seed: 70.0 + seed for seed in range(n)} for task, n in enumerate(seeds)}
    better = {task: {seed: x + 0.5 for seed, x in each.items()} for task, each in base.items()}
    found = compare(better, base)
    assert found.difference == pytest.approx(0.5)
    assert found.wins == len(seeds)
    assert found.interval is found.p is None


def test_tables_and_figure_print_no_inference_where_there_is_none(tmp_path):
    made = summary({"a": {"GAD": {42: 71.0}}, "b": {"GAD": {42: 70.5}}})
    assert made["comparisons"][0]["interval"] is made["comparisons"][0]["p"] is None
    text = markdown(made)
    assert "a - b: +0.50 points, no interval (one task, or a task with one seed); 1 won" in text
    assert "p =" not in text
    write_differences(made, tmp_path / "differences.png")
    assert (tmp_path / "differences.png").exists()


def test_the_bootstraps_spread_is_that_of_its_two_levels():
    rng = np.random.default_rng(1)
    tasks = [rng.normal(size=4) for _ in range(6)]
    means = np.array([task.mean() for task in tasks])
    within = np.mean([task.var() / len(task) for task in tasks])
    drawn = bootstrap(tasks, 40_000)
    assert drawn.mean() == pytest.approx(means.mean(), abs=0.01)
    assert drawn.var() == pytest.approx((means.var() + within) / len(tasks), rel=0.03)


def test_tasks_with_other_numbers_of_seeds_count_the_same():
    tasks = [np.full(9, 1.0), np.full(2, -1.0)]
    assert set(np.round(bootstrap(tasks, 500), 9)) == {-1.0, 0.0, 1.0}


def test_an_average_takes_its_spread_from_the_seeds_that_all_tasks_share():
    found = average({"a": {1: 10.0, 2: 20.0, 3: 99.0}, "b": {1: 30.0, 2: 30.0}})
    assert found.n == 2
    assert found.std == pytest.approx(np.std([20, 25], ddof=1))
    assert found.mean == pytest.approx((43 + 30) / 2)


def test_averages_run_over_the_tasks_that_every_model_has():
    made = summary({"a": scores(GAD=70, HoC=60), "b": scores(GAD=71)})
    (everything,) = made["groups"]
    assert (everything["tasks"], everything["of"]) == (["GAD"], 3)
    assert everything["averages"]["a"]["mean"] == pytest.approx(made["scores"]["a"]["GAD"]["mean"])
    assert made["comparisons"][0]["tasks"] == ["GAD"]


def test_published_averages_run_over_the_same_tasks_as_ours():
    made = summary(
        {"a": scores(GAD=70, HoC=60)}, missing={"COS": "not here"}, groups={"big": ["GAD", "HoC", "COS"]}
    )
    printed = published_scores("en")["PubMedBERT"]
    assert made["published"]["PubMedBERT"]["averages"]["big"] == pytest.approx(
        (printed["GAD"] + printed["HoC"]) / 2
    )
    assert [group["of"] for group in made["groups"]] == [4, 3]


@pytest.mark.parametrize(("language", "tasks"), [("en", 11), ("fr", 8)])
def test_the_papers_averages_are_the_means_of_its_rows(language, tasks):
    for model, printed in published_scores(language).items():
        row_mean = np.mean([score for task, score in printed.items() if task != "average"])
        assert len(printed) == tasks + 1
        assert row_mean == pytest.approx(printed["average"], abs=0.15), model


def test_a_model_without_any_score_stands_in_the_table_with_empty_cells():
    made = summary({"a": scores(GAD=70), "b": {}})
    assert made["comparisons"] == []
    assert made["groups"][0]["averages"] == {}
    assert "| b |" in markdown(made)


def test_tables_hold_every_score_and_mark_the_best(tmp_path):
    made = summary({"a_b": scores(GAD=70, HoC=60), "c": scores(GAD=69, HoC=61)})
    own = dict(score_table(made).own)
    assert [cell.best for cell in own["a_b"][:2]] == [True, False]
    assert "**71.0 ± 1.0**" in markdown(made)
    assert r"a\_b & \textbf{71.0}{\tiny$\pm$1.0}" in latex(made)
    rows = list(csv.DictReader(io.StringIO(as_csv(made))))
    assert float(rows[0]["GAD"]) == pytest.approx(71.0)
    assert float(rows[0]["GAD std"]) == pytest.approx(1.0)
    write_tables(made, tmp_path)
    write_differences(made, tmp_path / "differences.png")
    assert (tmp_path / "differences.png").read_bytes()[:4] == b"\x89PNG"
    assert len(list(tmp_path.iterdir())) == 4
