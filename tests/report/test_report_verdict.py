"""What the top of the page says."""

from __future__ import annotations

import shutil
from html import unescape
from pathlib import Path

import pytest
from test_report_page import table_rows

from clm_detour.config.load import load_config, save_config
from clm_detour.evaluate.summary import TaskRow, summarise
from clm_detour.files import write_json
from clm_detour.report.caveats import caveats
from clm_detour.report.load import load_run
from clm_detour.report.page import page_text, write_page
from clm_detour.report.verdict import verdict, what_was_done


def sentences_of(run) -> list[str]:
    """The words above the sections."""
    loaded = load_run(run.path)
    result = verdict(loaded)
    return [*what_was_done(loaded), result.title, *result.sentences, *caveats(loaded)]


def top_of(run) -> str:
    return " ".join(sentences_of(run)).replace("\u202f", " ")


def set_totals(run, **totals) -> None:
    """Give models their loss and accuracy."""

    def change(record):
        for model, (loss, accuracy) in totals.items():
            record["models"][model].update(loss=loss, accuracy=accuracy)

    run.edit("evaluation/held_out.json", change)


def test_the_page_opens_with_these_sentences(fake_run):
    top = unescape(write_page(fake_run.path).read_text(encoding="utf-8").split("<nav", 1)[0])
    assert all(sentence in top for sentence in sentences_of(fake_run))


@pytest.mark.parametrize(
    ("detour", "title"),
    [
        ((2.90, 0.42), "The detour ends ahead of its twin"),
        ((2.90, 0.40), "The detour ends ahead of its twin"),
        ((3.10, 0.38), "The detour ends behind its twin"),
        ((3.00, 0.39), "The detour ends behind its twin"),
        ((2.90, 0.38), "A mixed result: the detour has the better loss, its twin the better accuracy"),
        ((3.10, 0.42), "A mixed result: the detour has the better accuracy, its twin the better loss"),
        ((3.0001, 0.4001), "The detour and its twin end level"),
        ((float("nan"), 0.4), "No comparison: a held-out loss is not finite"),
    ],
)
def test_the_title_says_who_is_ahead(fake_run, detour, title):
    set_totals(fake_run, detour=detour, twin=(3.0, 0.4))
    assert title in top_of(fake_run)


@pytest.mark.parametrize(
    ("control", "title"),
    [
        ((3.05, 0.39), "The detour ends ahead of its twin"),
        ((3.05, 0.35), "The detour ends ahead of its twin"),  # by loss alone
        ((3.20, 0.35), "The detour and its twin end no further apart than two twins"),
    ],
)
def test_a_difference_that_two_twins_show_as_well_counts_for_nothing(fake_run, control, title):
    set_totals(fake_run, detour=(2.9, 0.42), twin=(3.0, 0.4))

    def second_twin(record):
        record["models"]["control"] = {**record["models"]["twin"], "loss": control[0], "accuracy": control[1]}

    fake_run.edit("evaluation/held_out.json", second_twin)
    assert title in top_of(fake_run)


def test_a_worse_detour_is_called_worse_with_its_figures(fake_run):
    set_totals(fake_run, base=(5.0, 0.2), detour=(3.3, 0.35), twin=(3.0, 0.4))
    top = top_of(fake_run)
    assert (
        "the detour's masked-LM loss is 3.300 against its twin's 3.000: higher, that is worse, by 0.300"
        in top
    )
    assert "Its accuracy is 35.0 % against 40.0 %: lower by 5.0 points" in top
    assert "the detour's loss is −1.700, its accuracy +15.0 points" in top
    assert "the twin's loss is −2.000, its accuracy +20.0 points" in top


def test_sources_are_named_on_both_sides_and_so_is_what_the_base_did_better(fake_run):
    top = top_of(fake_run)
    assert "the detour has the lower loss on abstracts and instructions" in top
    assert "its twin has the lower loss on general and notes" in top
    assert "The loss rose on general (detour +0.486, twin +0.390)." in top


def test_what_was_done_is_read_from_the_records(fake_run):
    top = top_of(fake_run)
    assert "From a new ModernBERT (6 layers, hidden size 128) trained here for 999k tokens" in top
    assert "trains for 598k tokens as a causal language model" in top
    assert "returns to masked language modelling for 197k tokens" in top
    assert "with 30 % of the tokens masked instead, then 197k tokens on the same kind of decay" in top
    assert "on the same rows in the same order" in top


REVERSE = Path(__file__).parents[2] / "configs" / "paper" / "ablations" / "reverse.yaml"


def test_the_shipped_detour_the_other_way_round_is_not_told_as_the_papers(tmp_path):
    save_config(load_config(REVERSE, ["run_dir=reverse"]), tmp_path / "config.yaml")
    (sentence,) = what_was_done(load_run(tmp_path))
    assert "detour (mlm: 10B tokens of MLM → clm-decay: 1B tokens of CLM)" in sentence
    assert "twin (clm: 10B tokens of CLM → clm-decay: 1B tokens of CLM)" in sentence


def set_phase(run, id, **values) -> None:
    run.edit(f"phases/{id}/phase.json", lambda record: record.update(values))


CONSTANT = {"schedule": {"name": "warmup_constant", "peak": 1e-3}}
LINEAR = {"schedule": {"name": "linear", "peak": 1e-3}}


@pytest.mark.parametrize(
    "changes",
    [
        {"pretrain.clm.decay": CONSTANT, "pretrain.mlm.decay": CONSTANT},
        {"pretrain.mlm.decay": LINEAR},
        {"pretrain.mlm": {"objective": "clm"}},
        {"pretrain.clm": {"objective": "mlm"}},
        {"pretrain.clm.decay": {"objective": "clm"}},
    ],
)
def test_a_detour_and_a_decay_are_told_of_only_where_the_records_have_them(fake_run, changes):
    for id, values in changes.items():
        set_phase(fake_run, id, **values)
    (sentence,) = what_was_done(load_run(fake_run.path))
    assert sentence.startswith("This run has the arms base (pretrain: 999k tokens of MLM), detour (")


def test_any_decay_that_both_share_is_told_of(fake_run):
    for id in ("pretrain.clm.decay", "pretrain.mlm.decay"):
        set_phase(fake_run, id, **LINEAR)
    assert "while the learning rate decays" in top_of(fake_run)


def test_a_twin_of_more_phases_is_told_whole(fake_run):
    shutil.copytree(
        fake_run.path / "phases" / "pretrain.mlm", fake_run.path / "phases" / "pretrain.mlm.decay.mlm"
    )
    fake_run.edit("arms.json", lambda arms: arms["twin"].append("pretrain.mlm.decay.mlm"))
    (sentence,) = what_was_done(load_run(fake_run.path))
    assert "decay: 197k tokens of MLM → mlm: 598k tokens of MLM)" in sentence


def test_one_seed_a_small_run_and_unequal_compute_are_admitted(fake_run):
    top = top_of(fake_run)
    assert "One seed (17)" in top
    assert "A small run: 795k tokens" in top
    assert "the detour's own phases took 57 s, the twin's 49 s" in top


def test_an_accuracy_within_counting_noise_is_admitted_and_one_beyond_it_is_not(fake_run):
    set_totals(fake_run, detour=(2.9, 0.405), twin=(3.0, 0.4))
    assert "within what 9,774 masked tokens can tell apart: two standard errors are 1.4 points" in top_of(
        fake_run
    )
    set_totals(fake_run, detour=(2.9, 0.45), twin=(3.0, 0.4))
    assert "can tell apart" not in top_of(fake_run)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"tokens": 300_000},
            "Unequal training: the detour saw 794,624 tokens of its own, the twin 496,608.",
        ),
        ({"first_row": 9}, "did not read the same rows"),
        ({"mixture": "general"}, "did not read the same rows"),
        ({"precision": "bf16"}, "Phases pretrain.clm and pretrain.mlm also differ in precision."),
        (
            {"schedule": {"name": "warmup_constant", "peak": 1e-3}},
            "Phases pretrain.clm and pretrain.mlm also differ in schedule.",
        ),
    ],
)
def test_arms_that_differ_in_more_than_the_objective_are_said_to(fake_run, change, sentence):
    assert sentence not in top_of(fake_run)
    fake_run.edit("phases/pretrain.mlm/phase.json", lambda record: record.update(change))
    assert sentence in top_of(fake_run)


def test_the_tasks_result_is_said_with_its_interval(fake_run):
    (row,) = [
        row
        for row in fake_run.json("evaluation/tasks/summary.json")["comparisons"]
        if (row["a"], row["b"]) == ("detour", "twin")
    ]
    assert f"Fine-tuned on 2 tasks, the detour is {row['difference']:+.2f} points from its twin" in top_of(
        fake_run
    )

    def level(record):
        for row in record["comparisons"]:
            row["interval"] = [-1.0, 1.0]

    fake_run.edit("evaluation/tasks/summary.json", level)
    assert "interval −1.00 to +1.00, which leaves open which is better" in top_of(fake_run)


def make_tasks(run, tasks, seeds, gain=1.0) -> None:
    """Scores of detour and twin through the code that writes them: the detour is better everywhere."""
    rows = [TaskRow(f"task {i}", "en", "single_label", "f1", 100) for i in range(tasks)]
    scores = {
        model: {row.name: {seed: level + seed % 3 / 10 + i / 10 * (model == "detour") for seed in seeds} for i, row in enumerate(rows)}
        for model, level in {"detour": 70.0 + gain, "twin": 70.0}.items()
    }  # fmt: skip
    models = [{"name": name, "path": name, "minutes": 1.0, "flops": 1e12} for name in scores]
    write_json(
        run.path / "evaluation" / "tasks" / "summary.json", summarise("x", models, rows, scores, {}, {})
    )


@pytest.mark.parametrize(
    ("tasks", "seeds", "words"),
    [
        (1, (1,), "(no interval: one task with one seed leaves open which is better)"),
        (1, (1, 2, 3), "(no interval: one task leaves open which is better)"),
        (2, (1,), "(no interval: one seed leaves open which is better)"),
        (5, (1, 2, 3), "but so few tasks leave open which is better on others)"),
    ],
)
def test_one_seed_or_few_tasks_are_said_to_leave_it_open(fake_run, tasks, seeds, words):
    make_tasks(fake_run, tasks, seeds)
    assert words in top_of(fake_run)


def test_a_gain_on_many_tasks_and_seeds_is_left_as_it_is(fake_run):
    make_tasks(fake_run, 6, (1, 2, 3))
    assert "leave open" not in top_of(fake_run)


def test_what_cannot_be_inferred_is_a_dash_in_the_table_and_no_line_in_the_figure(fake_run):
    make_tasks(fake_run, 2, (1,))
    page = page_text(load_run(fake_run.path))
    (row,) = table_rows(page, "Differences on tasks")[1:]
    assert row[2:4] == ["–", "–"]
    assert "Tasks, detour minus twin" in page


def test_what_the_networks_show_is_said_with_its_ratio_and_its_retention(fake_run):
    found = fake_run.json("analysis/compare.json")
    divergence = found["comparisons"]["detour_twin"]["variants"]["debiased"]["model"]["divergence"]
    top = top_of(fake_run)
    assert f"diverge by {100 * divergence:.1f} %" in top
    assert f"{found['ratio']['debiased']['model']:.2f} times as much as two twins" in top
    assert f"{found['retention']['debiased']['model']:.2f} times what it was before it" in top


def without_scores(record):
    record["models"] = {}


def not_finite(record):
    record["models"]["detour"]["by_source"]["notes"]["loss"] = None


@pytest.mark.parametrize("change", [None, without_scores, not_finite])
def test_tasks_networks_and_caveats_are_said_whatever_became_of_the_held_out_scores(fake_run, change):
    if change:
        fake_run.edit("evaluation/held_out.json", change)
    else:
        (fake_run.path / "evaluation" / "held_out.json").unlink()
    top = unescape(write_page(fake_run.path).read_text(encoding="utf-8").split("<nav", 1)[0])
    for words in ("Fine-tuned on 2 tasks", "the networks of detour and twin diverge", "One seed (17)"):
        assert words in top
