"""The cards of the first screen, and the words beside its figure."""

from __future__ import annotations

import re
import shutil
from html import unescape

import pytest
from test_report_verdict import add_control, make_tasks, set_totals

from clm_detour.config.loading import load_config, save_config
from clm_detour.report.differences import cards
from clm_detour.report.headline import explanation, facts, main_caveat
from clm_detour.report.load import load_run
from clm_detour.report.page import page_text

LOSS, TASKS, NETWORK, COMPUTE = range(4)


def card(run, place):
    return cards(load_run(run.path))[place]


@pytest.mark.parametrize(
    ("detour", "control", "word", "detail"),
    [
        (3.10, 3.05, "worse", "2× noise"),
        (2.90, 3.05, "better", "2× noise"),
        (3.04, 3.05, "inside noise", ""),
        (3.05, 3.05, "inside noise", ""),
        (3.0001, 3.0, "inside noise", ""),
        (3.10, 3.0, "worse", ""),
    ],
)
def test_the_loss_is_better_or_worse_only_beyond_the_difference_of_the_twins(
    fake_run, detour, control, word, detail
):
    set_totals(fake_run, detour=(detour, 0.4), twin=(3.0, 0.4))
    add_control(fake_run, control, 0.4)
    found = card(fake_run, LOSS)
    assert (found.word, found.detail) == (word, detail)
    assert found.beside.startswith("twin − control: ")


def test_a_difference_without_a_second_twin_has_no_verdict(fake_run):
    for place in (LOSS, TASKS):
        found = card(fake_run, place)
        assert found.word == "no control"
        assert re.search("[0-9]", found.value)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"tasks": 7, "gain": 1.0, "control": 0.5}, "better"),
        ({"tasks": 7, "gain": -1.0, "control": 0.5}, "worse"),
        ({"tasks": 7, "gain": 1.0, "control": 1.5}, "inside noise"),
        ({"tasks": 7, "gain": 0.0, "control": 0.0}, "inside noise"),
        ({"tasks": 7, "gain": 1.0}, "no control"),
        ({"tasks": 7, "gain": 0.0, "control": 0.2, "equivalence_points": 1.0}, "equivalent"),
    ],
)
def test_tasks_are_judged_as_in_the_title_where_there_is_a_second_twin(fake_run, settings, word):
    make_tasks(fake_run, seeds=(1, 2, 3), **settings)
    found = card(fake_run, TASKS)
    assert found.word == word
    assert found.title == "Tasks (7 × 3 seeds), detour − twin"


@pytest.mark.parametrize(
    ("interval", "word"), [([1.5, 2.2], "beyond noise"), ([0.9, 2.2], "inside noise"), (None, "beyond noise")]
)
def test_the_divergence_is_beyond_noise_if_its_ratio_is_clearly_above_one(fake_run, interval, word):
    fake_run.edit("analysis/compare.json", lambda found: found["ratio"]["debiased"].update(interval=interval))
    assert card(fake_run, NETWORK).word == word


def test_the_compute_is_that_of_the_own_phases(fake_run):
    found = card(fake_run, COMPUTE)
    assert (found.value, found.word, found.detail) == ("0\u202f%", "same cost", "same tokens")
    fake_run.edit("plan.json", lambda plan: plan["phases"]["pretrain.clm"].update(operations=292e12))
    found = card(fake_run, COMPUTE)
    assert (found.value, found.beside, found.word) == (
        "+75\u202f%",
        "340.00 against 194.00 TFLOP",
        "costs more",
    )
    (fake_run.path / "plan.json").unlink()
    found = card(fake_run, COMPUTE)
    assert (found.title, found.beside) == ("Time of own phases", "57\u202fs against 49\u202fs")


@pytest.mark.parametrize(
    ("records", "place"),
    [
        ("evaluation/held_out.json", LOSS),
        ("evaluation/tasks", TASKS),
        ("analysis", NETWORK),
        ("phases/pretrain.clm.decay/phase.json", COMPUTE),
    ],
)
def test_what_was_not_measured_has_no_number(fake_run, records, place):
    path = fake_run.path / records
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = card(fake_run, place)
    assert (found.value, found.word) == ("–", "not measured")
    assert not re.search("[0-9]", found.beside + found.detail)


def test_a_run_without_detour_and_twin_has_no_cards_and_says_so(fake_run):
    fake_run.edit("arms.json", lambda arms: {"base": arms["base"]})
    run = load_run(fake_run.path)
    run.held_out = run.evaluation = None
    assert cards(run) == []
    page = page_text(run)
    assert "<h1>Arm base: no detour and twin to compare</h1>" in page
    assert 'class="cards"' not in page


def test_the_facts_are_those_of_the_records(fake_run):
    seconds = round(sum(step["seconds"] for step in fake_run.json("steps.json")))
    time = f"{seconds // 60}\u202fmin {seconds % 60:02d}\u202fs"
    assert facts(load_run(fake_run.path)) == ["2 CPU cores", time, "commit 97a91d9"]
    (fake_run.path / "environment.json").unlink()
    assert facts(load_run(fake_run.path)) == ["CPU", time]


def test_the_main_caveat_is_about_real_text_only_where_the_text_is_real(fake_run):
    run = load_run(fake_run.path)
    assert main_caveat(run).endswith("It shows that the pipeline works, not whether a detour helps.")
    assert "14,000 times fewer tokens than the paper's smallest run" in main_caveat(run)
    config = fake_run.path / "config.yaml"
    paths = [f"data.sources.{name}.path=texts/{name}.jsonl" for name in run.sources]
    save_config(load_config(config, paths), config)
    assert "pipeline" not in main_caveat(load_run(fake_run.path))


def test_a_task_whose_mean_one_seed_decides_is_named_with_the_seed(fake_run):
    def scores(summary):
        values = {"detour": (80.0, 80.0, 80.0), "twin": (84.0, 85.0, 60.0)}
        for model, three in values.items():
            score = summary["scores"][model]["GAD"]
            score.update(seeds=dict(zip(("42", "43", "44"), three, strict=True)), mean=sum(three) / 3)

    fake_run.edit("evaluation/tasks/summary.json", scores)
    words = "In GAD the twin wins on 2 of 3 seeds; its mean is lower because of seed 44 (60.0)."
    assert words in explanation(load_run(fake_run.path))
    assert words in unescape(page_text(load_run(fake_run.path)))


def test_a_sentence_is_cut_at_a_word(fake_run):
    def cut(items):
        items[0]["text"] = "The river [MASK] through the old to"
        items[1]["text"] = "The river runs through the [MASK]"

    fake_run.edit("evaluation/fill_mask.json", cut)
    page = page_text(load_run(fake_run.path))
    assert "The river <mark>[MASK]</mark> through the old …</p>" in page
    assert "The river runs through the <mark>[MASK]</mark></p>" in page


def test_a_difference_beyond_the_twins_but_not_beyond_seeds_is_undecided(fake_run, monkeypatch):
    make_tasks(fake_run, seeds=(1, 2, 3), tasks=2, gain=1.0, control=0.5)
    monkeypatch.setattr("clm_detour.report.outcome.is_clear", lambda found: False)
    assert card(fake_run, TASKS).word == "undecided"
