"""Averages are over the same tasks, a p needs a sound test, and the summary has all that tables show."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clm_detour.evaluate.figure import difference_plot, write_differences
from clm_detour.evaluate.published import published_scores
from clm_detour.evaluate.statistics import (
    SignFlips,
    average,
    bootstrap_p,
    bootstrap_weights,
    compare,
    holm,
    mean_over,
    two_sided,
)
from clm_detour.evaluate.summary import TaskRow, summarize
from clm_detour.evaluate.tables import as_csv, latex, markdown, score_table, write_tables
from clm_detour.records.evaluation import Summary
from clm_detour.records.store import as_json, parse

SEEDS = (42, 43, 44)
seed_scores = st.dictionaries(st.integers(0, 9), st.floats(0, 100), min_size=1)


def row(name: str, language: str = "en") -> TaskRow:
    return TaskRow(name, language, "single_label", "f1", 100)


def scores(**tasks: float) -> dict[str, dict[int, float]]:
    return {task.replace("_", "-"): {s: mean + s % 3 for s in SEEDS} for task, mean in tasks.items()}


def summary(models, tasks=("GAD", "HoC", "NCBI-disease"), missing=None, groups=None, **tests):
    listed = [{"name": name, "path": name, "minutes": 1.0, "flops": 1e12} for name in models]
    return summarize(
        "en", listed, [row(task) for task in tasks], models, groups or {}, missing or {}, **tests
    )


def apart(*tasks):
    """Scores of two models from the differences of each task by seed."""
    base = {f"t{i}": dict.fromkeys(range(len(seeds)), 70.0) for i, seeds in enumerate(tasks)}
    better = {f"t{i}": {seed: 70.0 + x for seed, x in enumerate(seeds)} for i, seeds in enumerate(tasks)}
    return better, base


def summary_apart(*tasks, **tests):
    a, b = apart(*tasks)
    return summary({"a": a, "b": b}, tuple(a), **tests)


SEVEN = [[0.9, 1.1], [2.0, 2.2], [0.4, 0.2], [-0.3, -0.1], [1.5, 1.5], [0.7, 0.5], [1.2, 1.4]]
# Quarters, whose sums are exact, since scipy does not count sums as equal that differ by rounding.
ENOUGH = st.lists(st.integers(-80, 80).map(lambda x: x / 4), min_size=6, max_size=10)


@given(seed_scores)
def test_mean_deviation_and_interval_are_numpys_and_scipys(values):
    found, given_ = mean_over(values), np.array(list(values.values()))
    assert found.mean == pytest.approx(given_.mean(), abs=1e-9)
    if len(values) == 1:
        assert found.std is None
        assert found.interval is None
    elif len(set(values.values())) == 1:
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
    found = compare(better, base)
    assert found.p == pytest.approx(2 / 2**11)
    assert (found.wins, found.seed_wins, found.seed_losses) == (11, 55, 0)
    assert compare(noise, base).p > 0.05
    assert compare(base, base).p == 1


@given(ENOUGH)
def test_the_test_over_tasks_is_scipys_and_its_interval_holds_what_it_does_not_reject(values):
    found = SignFlips(values)
    p, (low, high) = two_sided(found), found.interval(0.95)
    flips = {"permutation_type": "samples", "n_resamples": np.inf}
    assert p == pytest.approx(stats.permutation_test((values,), np.mean, **flips).pvalue)
    if min(abs(low), abs(high)) > 1e-6:
        assert (p <= 0.05) == (not low < 0 < high)


def test_six_tasks_of_one_sign_are_just_significant_and_their_interval_is_their_range():
    found = compare(*apart(*([x, x + 0.2] for x in range(1, 7))))
    assert found.p == pytest.approx(2 / 2**6)
    assert found.interval == pytest.approx((1.1, 6.1))
    assert found.interval_over == "tasks"


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_below_six_tasks_there_is_no_p_but_an_interval_over_the_seeds(tasks):
    found = compare(*apart(*([[0.5, 0.6, 0.9]] * tasks)))
    assert found.p is None
    assert found.interval_over == "seeds"
    assert found.interval[0] < found.difference < found.interval[1]


def test_the_interval_over_seeds_is_welchs():
    one, other = [0.5, 0.9, 1.0, 0.7], [2.0, -1.5]
    found = compare(*apart(one, other))
    welch = stats.ttest_ind(one, [-x for x in other], equal_var=False).confidence_interval()
    assert found.interval == pytest.approx((welch.low / 2, welch.high / 2))


@pytest.mark.parametrize("spread", [0, 1])
@pytest.mark.parametrize("noise", ["normal", "heavy tails"])
def test_six_tasks_of_three_seeds_reject_a_true_null_in_3_of_100_whatever_the_noise(spread, noise):
    rng = np.random.default_rng(1)
    shape = (20_000, 6, 3)
    draws = rng.normal(size=shape) if noise == "normal" else rng.standard_t(3, size=shape)
    draws += spread * rng.normal(size=(20_000, 6, 1))
    draws *= np.geomspace(1, 8, 6)[:, None]
    assert 0.027 < (two_sided(SignFlips(draws.mean(-1))) <= 0.05).mean() < 0.036
    if spread:
        resampled = draws[:2000].reshape(2000, -1) @ bootstrap_weights([3] * 6, 2000).T
        assert (bootstrap_p(resampled) <= 0.05).mean() > 0.08  # the paper's is too sure of itself


def test_the_committed_simulation_still_runs(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    simulation = importlib.import_module("statistics_size")
    monkeypatch.setattr(simulation, "DRAWS", {8: 500})
    monkeypatch.setattr(simulation, "BOOTSTRAP_DRAWS", 100)
    monkeypatch.setattr(simulation, "COVERAGE_DRAWS", 2000)
    found = simulation.measured(simulation.Cell(8, 3, 1, "normal", "unequal"))
    assert all(each["size"] < 0.3 < each["power"] for each in found.values())
    assert simulation.coverage(simulation.Cell(3, 3, 0, "normal", "equal")) == pytest.approx(0.967, abs=0.015)


def test_more_tasks_than_can_be_listed_are_judged_by_flips_that_are_drawn():
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 1, size=17)
    exact = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=2**17).pvalue
    assert two_sided(SignFlips(values)) == pytest.approx(exact, rel=0.1)
    assert two_sided(SignFlips(-values)) == two_sided(SignFlips(values))


def test_too_few_tasks_for_an_interval_are_refused():
    with pytest.raises(ValueError, match="too few"):
        SignFlips([1.0, 2.0, 3.0]).interval(0.95)


@pytest.mark.parametrize(
    "seeds", [[1], [5, 1], [1, 1]], ids=["one task, one seed", "one seed of one", "one seed"]
)
def test_few_tasks_with_one_seed_give_a_difference_and_no_inference(seeds):
    found = compare(*apart(*([0.5 + seed for seed in range(n)] for n in seeds)), 1.0, True)
    assert found.wins == len(seeds)
    assert (
        found.interval is found.interval_over is found.p is found.equivalence is found.paper_bootstrap is None
    )


def test_seeds_without_any_spread_give_no_interval_over_seeds():
    found = compare(*apart([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]))
    assert found.difference == pytest.approx(0.5)
    assert found.interval is found.interval_over is None


def test_one_seed_is_enough_for_the_test_over_tasks():
    found = compare(*apart([1.0], [2.0], [3.0], [0.5], [-0.2], [1.5], [2.5]))
    assert found.p == pytest.approx(4 / 2**7)
    assert {each.interval for each in found.by_task.values()} == {None}


def test_wins_count_tasks_and_pairs_of_runs_and_what_reads_the_same_in_print_is_neither():
    found = compare(*apart([1.0, -0.5, 0.02], [0.04, -0.04], [-1.0, -2.0]))
    assert (found.wins, found.losses, found.ties) == (1, 1, 1)
    assert (found.seed_wins, found.seed_losses) == (1, 3)


def test_holms_p_is_that_of_the_textbook():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1, 1]
    assert holm([]) == []


def test_every_pair_with_a_p_has_holms_beside_it():
    a, b = apart(*SEVEN)
    made = summary({"a": a, "b": b, "c": a}, tuple(a))
    p = [row.p for row in made.comparisons]
    assert [row.p_adjusted for row in made.comparisons] == holm(p)
    assert p == [4 / 2**7, 1, 4 / 2**7]
    assert "p = 0.031 (Holm 0.094)" in markdown(made)


def test_equivalence_of_one_task_is_two_one_sided_t_tests():
    seeds = [0.2, -0.1, 0.3, 0.05, 0.1]
    found = compare(*apart(seeds), 0.5).equivalence
    above = stats.ttest_1samp(seeds, -0.5, alternative="greater").pvalue
    below = stats.ttest_1samp(seeds, 0.5, alternative="less").pvalue
    assert found.bound == 0.5
    assert found.p == pytest.approx(max(above, below))


@given(ENOUGH, st.floats(0.1, 20))
def test_equivalence_over_tasks_is_a_90_percent_interval_within_the_bound(values, bound):
    found = compare(*apart(*([value] for value in values)), bound).equivalence
    low, high = SignFlips(values).interval(0.90)
    if min(abs(low + bound), abs(high - bound)) > 1e-6:
        assert (found.p <= 0.05) == (-bound < low <= high < bound)


def test_no_difference_is_claimed_only_within_a_bound_that_was_tested():
    close, wide = [[0.1, 0.2], [-0.1, 0.0], [0.2, 0.1]] * 3, SEVEN
    assert "equivalent within ±0.5 points (p = 0.002)" in markdown(
        summary_apart(*close, equivalence_points=0.5)
    )
    assert "not shown to be equivalent within ±0.5 points (p = 0.91)" in markdown(
        summary_apart(*wide, equivalence_points=0.5)
    )
    assert "within ±0.5 points on these tasks (p = " in markdown(
        summary_apart(*close[:2], equivalence_points=0.5)
    )
    assert "equivalent" not in markdown(summary_apart(*close))


def test_the_papers_bootstrap_is_there_if_asked_for_and_marked_as_too_sure():
    two = [[0.5, 0.6, 0.7], [1.0, 1.2, 1.1]]
    assert summary_apart(*two).comparisons[0].paper_bootstrap is None
    made = summary_apart(*two, paper_bootstrap=True)
    assert made.comparisons[0].paper_bootstrap.p == pytest.approx(2 / 10_001)
    assert made.comparisons[0].p is None
    assert "the paper's bootstrap, too sure of itself with few tasks: +0.57 to +1.15, p = 0.0002" in markdown(
        made
    )


def test_a_summary_is_the_same_when_it_is_read_again():
    made = summary_apart(*SEVEN, equivalence_points=1.0, paper_bootstrap=True)
    content = as_json(made)
    assert parse(Summary, json.loads(json.dumps(content))) == made
    (found,) = parse(Summary, content).comparisons
    (written,) = content["comparisons"]
    for key in ("p", "p_adjusted", "interval_over", "wins", "losses", "ties", "seed_wins", "seed_losses"):
        assert getattr(found, key) == written[key]
    assert list(found.interval) == written["interval"]
    assert vars(found.equivalence) == written["equivalence"]
    assert list(found.paper_bootstrap.interval) == written["paper_bootstrap"]["interval"]
    assert found.reversed().reversed() == found
    assert found.reversed().seed_wins == found.seed_losses


def test_interval_and_p_of_an_evaluation_of_0_1_0_are_read_as_the_papers_bootstrap():
    made = as_json(summary_apart([0.5, 0.6], [1.0, 1.2]))
    new = ("interval_over", "p_adjusted", "seed_wins", "seed_losses", "equivalence", "paper_bootstrap")
    old = {key: value for key, value in made["comparisons"][0].items() if key not in new}
    made["comparisons"] = [{**old, "interval": [0.5, 1.2], "p": 0.0002}]
    (found,) = parse(Summary, made).comparisons
    assert found.interval is found.interval_over is found.p is found.p_adjusted is found.seed_wins is None
    assert (found.paper_bootstrap.interval, found.paper_bootstrap.p) == ((0.5, 1.2), 0.0002)
    assert found.by_task.keys() == {"t0", "t1"}


def test_sentences_name_what_an_interval_speaks_of():
    few, many = markdown(summary_apart(*SEVEN[:2])), markdown(summary_apart(*SEVEN))
    assert "95 % interval over seeds, on these tasks only: +1.25 to +1.85; 2 won" in few
    assert "p =" not in few
    assert "95 % interval over tasks like these: +0.20 to +1.70, p = 0.031; 6 won, 1 lost, 0 tied" in many
    assert "by task and seed 12 won, 2 lost" in many
    assert "Holm" not in many


@pytest.mark.parametrize(("tasks", "intervals"), [(3, 4), (7, 1)])
def test_a_figure_has_one_kind_of_interval(tasks, intervals):
    (found,) = summary_apart(*SEVEN[:tasks]).comparisons
    plot = difference_plot(found, several=False)
    dots = [dot for row in plot.rows.values() for dot in row if dot]
    assert sum(dot.interval is not None for dot in dots) == intervals
    kind = "over seeds, on these tasks only" if tasks < 6 else "over tasks like these"
    assert kind in plot.title


def test_tables_and_figure_print_no_inference_where_there_is_none(tmp_path):
    made = summary({"a": {"GAD": {42: 71.0}}, "b": {"GAD": {42: 70.5}}})
    assert made.comparisons[0].interval is made.comparisons[0].p is None
    text = markdown(made)
    assert (
        "a - b: +0.50 points, no interval (a task with one seed, or seeds that do not differ); 1 won" in text
    )
    assert "p =" not in text
    write_differences(made, tmp_path / "differences.png")
    assert (tmp_path / "differences.png").exists()


def test_the_bootstraps_spread_is_that_of_its_two_levels():
    rng = np.random.default_rng(1)
    tasks = [rng.normal(size=4) for _ in range(6)]
    means = np.array([task.mean() for task in tasks])
    within = np.mean([task.var() / len(task) for task in tasks])
    drawn = bootstrap_weights([4] * 6, 40_000) @ np.concatenate(tasks)
    assert drawn.mean() == pytest.approx(means.mean(), abs=0.01)
    assert drawn.var() == pytest.approx((means.var() + within) / len(tasks), rel=0.03)


def test_tasks_with_other_numbers_of_seeds_count_the_same():
    drawn = bootstrap_weights([9, 2], 500) @ np.repeat([1.0, -1.0], [9, 2])
    assert set(np.round(drawn, 9)) == {-1.0, 0.0, 1.0}


def test_an_average_takes_its_spread_from_the_seeds_that_all_tasks_share():
    found = average({"a": {1: 10.0, 2: 20.0, 3: 99.0}, "b": {1: 30.0, 2: 30.0}})
    assert found.n == 2
    assert found.std == pytest.approx(np.std([20, 25], ddof=1))
    assert found.mean == pytest.approx((43 + 30) / 2)


def test_an_average_has_the_interval_over_the_seeds_of_all_tasks():
    one, other = [10.0, 20.0, 14.0], [30.0, 31.0]
    found = average({"a": dict(enumerate(one)), "b": dict(enumerate(other, start=9))})
    welch = stats.ttest_ind(one, [-x for x in other], equal_var=False).confidence_interval()
    assert found.interval == pytest.approx((welch.low / 2, welch.high / 2))
    assert (found.std, found.n) == (None, 0)


def test_averages_run_over_the_tasks_that_every_model_has():
    made = summary({"a": scores(GAD=70, HoC=60), "b": scores(GAD=71)})
    (everything,) = made.groups
    assert (everything.tasks, everything.of) == (["GAD"], 3)
    assert everything.averages["a"].mean == pytest.approx(made.scores["a"]["GAD"].mean)
    assert made.comparisons[0].tasks == ["GAD"]


def test_published_averages_run_over_the_same_tasks_as_ours():
    made = summary(
        {"a": scores(GAD=70, HoC=60)}, missing={"COS": "not here"}, groups={"big": ["GAD", "HoC", "COS"]}
    )
    printed = published_scores("en")["PubMedBERT"]
    assert made.published["PubMedBERT"].averages["big"] == pytest.approx(
        (printed["GAD"] + printed["HoC"]) / 2
    )
    assert [group.of for group in made.groups] == [4, 3]


@pytest.mark.parametrize(("language", "tasks"), [("en", 11), ("fr", 8)])
def test_the_papers_averages_are_the_means_of_its_rows(language, tasks):
    for model, printed in published_scores(language).items():
        row_mean = np.mean([score for task, score in printed.items() if task != "average"])
        assert len(printed) == tasks + 1
        assert row_mean == pytest.approx(printed["average"], abs=0.15), model


def test_the_csv_has_a_line_a_score_of_plain_numbers():
    made = summary({"a b": scores(GAD=70, HoC=60), "c": {"GAD": {42: 69.0}}})
    lines = {(row["model"], row["name"]): row for row in csv.DictReader(io.StringIO(as_csv(made)))}
    found = lines["a b", "GAD"]
    assert (found["origin"], found["over"], found["tasks"]) == ("run", "task", "1")
    assert float(found["mean"]) == pytest.approx(71.0)
    assert float(found["std"]) == pytest.approx(1.0)
    assert [float(found["low"]), float(found["high"])] == list(made.scores["a b"]["GAD"].interval)
    assert lines["c", "GAD"]["std"] == lines["c", "GAD"]["low"] == ""
    assert ("c", "HoC") not in lines
    assert lines["a b", "all"]["over"] == "group"
    assert lines["PubMedBERT", "GAD"]["origin"] == "published"
    for line in lines.values():
        assert all(
            math.isfinite(float(line[key])) for key in ("tasks", "mean", "std", "low", "high") if line[key]
        )


def test_a_model_without_any_score_stands_in_the_table_with_empty_cells():
    made = summary({"a": scores(GAD=70), "b": {}})
    assert made.comparisons == []
    assert made.groups[0].averages == {}
    assert "| b |" in markdown(made)


def test_tables_hold_every_score_and_mark_the_best(tmp_path):
    made = summary({"a_b": scores(GAD=70, HoC=60), "c": scores(GAD=69, HoC=61)})
    own = {row.cells[0]: row.cells[1:] for row in score_table(made).rows}
    assert [cell.best for cell in own["a_b"][:2]] == [True, False]
    assert "**71.0 ± 1.0**" in markdown(made)
    assert r"a\_b & \textbf{71.0}{\tiny$\pm$1.0}" in latex(made)
    write_tables(made, tmp_path)
    write_differences(made, tmp_path / "differences.png")
    assert (tmp_path / "differences.png").read_bytes()[:4] == b"\x89PNG"
    names = {"table.md", "table.tex", "table.csv", "left_out.csv", "differences.png"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_where_no_pair_is_compared_an_earlier_figure_goes(tmp_path):
    figure = tmp_path / "differences.png"
    write_differences(summary({"a": scores(GAD=70), "b": scores(GAD=69)}), figure)
    assert figure.exists()
    write_differences(summary({"a": scores(GAD=70)}), figure)
    assert not figure.exists()
