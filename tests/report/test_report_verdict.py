"""What the top of the page says."""

from __future__ import annotations

import random
import shutil
from html import unescape

import pytest
from test_report_page import table_rows

from clm_detour.config.loading import load_config, save_config
from clm_detour.config.shipped import CONFIGS
from clm_detour.evaluate.summary import TaskRow, summarize
from clm_detour.evaluate.tables import comparison_lines
from clm_detour.records.evaluation import Summary
from clm_detour.records.store import parse, write
from clm_detour.report.card import model_card
from clm_detour.report.caveats import caveats
from clm_detour.report.generated import is_all_generated
from clm_detour.report.load import load_run
from clm_detour.report.page import page_text
from clm_detour.report.verdict import verdict, what_was_done


def sentences_of(run) -> list[str]:
    """The words above the sections."""
    loaded = load_run(run.path)
    result = verdict(loaded)
    return [*what_was_done(loaded), result.title, *result.sentences, *caveats(loaded)]


def top_of(run) -> str:
    return " ".join(sentences_of(run)).replace("\u202f", " ")


def title_of(run) -> str:
    return verdict(load_run(run.path)).title


def set_totals(run, **totals) -> None:
    """Give models their loss and accuracy."""

    def change(record):
        for model, (loss, accuracy) in totals.items():
            record["models"][model].update(loss=loss, accuracy=accuracy)

    run.edit("evaluation/held_out.json", change)


def add_control(run, loss, accuracy) -> None:
    """Give the run a second twin's held-out scores."""

    def change(record):
        record["models"]["control"] = {**record["models"]["twin"], "loss": loss, "accuracy": accuracy}

    run.edit("evaluation/held_out.json", change)


def test_the_page_opens_with_these_sentences(fake_run):
    run = load_run(fake_run.path)
    result = verdict(run)
    top, _, rest = unescape(page_text(run)).partition('<section aria-labelledby="tasks">')
    assert all(sentence in top for sentence in [result.title, *what_was_done(run), *result.sentences])
    limits = rest.partition('id="limits"')[2]
    assert all(sentence in limits for sentence in caveats(run))


@pytest.mark.parametrize(
    ("detour", "title"),
    [
        ((2.90, 0.42), "Held-out loss: the detour is ahead."),
        ((2.90, 0.40), "Held-out loss: the detour is ahead."),
        ((3.10, 0.38), "Held-out loss: the detour is behind."),
        ((3.00, 0.39), "Held-out loss: undecided."),
        ((2.90, 0.38), "Held-out loss: the detour is ahead, but behind in accuracy."),
        ((3.10, 0.42), "Held-out loss: the detour is behind, but ahead in accuracy."),
        ((3.0001, 0.4001), "Held-out loss: undecided."),
        ((float("nan"), 0.4), "Held-out loss: not finite."),
    ],
)
def test_the_title_says_who_is_ahead_in_held_out_loss(fake_run, detour, title):
    set_totals(fake_run, detour=detour, twin=(3.0, 0.4))
    add_control(fake_run, 3.05, 0.395)
    assert title_of(fake_run).partition(" Tasks:")[0] == title


@pytest.mark.parametrize(("loss", "word"), [(2.0, "lower"), (3.0, "the same"), (4.0, "higher")])
@pytest.mark.parametrize("control", [None, float("nan")])
def test_without_a_measured_control_no_difference_in_loss_puts_either_ahead(fake_run, loss, word, control):
    set_totals(fake_run, detour=(loss, 0.6), twin=(3.0, 0.4))
    if control is not None:
        add_control(fake_run, control, 0.4)
    assert title_of(fake_run).partition(" Tasks:")[0] == (
        f"Held-out loss: undecided, the detour's is {word} in this one run and no control shows the noise."
    )
    warning = "held-out loss is undecided"
    assert warning in top_of(fake_run)
    assert warning in str(model_card(load_run(fake_run.path), "detour"))


@pytest.mark.parametrize(
    ("control", "title"),
    [
        ((3.05, 0.39), "Held-out loss: the detour is ahead."),
        ((3.05, 0.35), "Held-out loss: the detour is ahead."),
        ((3.20, 0.35), "Held-out loss: undecided."),
    ],
)
def test_a_difference_that_two_twins_show_as_well_counts_for_nothing(fake_run, control, title):
    set_totals(fake_run, detour=(2.9, 0.42), twin=(3.0, 0.4))
    add_control(fake_run, *control)
    assert title_of(fake_run).startswith(title)
    assert (
        f"end {abs(3.0 - control[0]):.3f} apart in held-out loss (detour and twin 0.100); two runs are few"
        in top_of(fake_run)
    )


def test_a_worse_detour_is_called_worse_with_its_figures(fake_run):
    set_totals(fake_run, base=(5.0, 0.2), detour=(3.3, 0.35), twin=(3.0, 0.4))
    top = top_of(fake_run)
    assert (
        "the detour's masked-LM loss is 3.300 against its twin's 3.000: higher, which is worse, by 0.300"
        in top
    )
    assert "Its accuracy is 35.0 % against 40.0 %: lower by 5.0 points" in top
    assert "the detour's loss changes by −1.700 and its accuracy by +15.0 points" in top
    assert "the twin's loss changes by −2.000 and its accuracy by +20.0 points" in top


def test_sources_are_named_on_both_sides_and_so_is_what_the_base_did_better(fake_run):
    top = top_of(fake_run)
    assert "the detour has the lower loss on abstracts and instructions" in top
    assert "its twin has the lower loss on general and notes" in top
    assert "The loss rose on general (detour +0.486, twin +0.390)." in top


def test_what_was_done_is_read_from_the_records(fake_run):
    top = top_of(fake_run)
    assert "From a new ModernBERT (6 layers, hidden size 128) trained here for 999k tokens" in top
    assert "trains for 598k tokens as a causal language model" in top
    assert "returns to masked language modeling for 197k tokens" in top
    assert "with 30 % of the tokens masked, then for 197k tokens with the same kind of decay" in top
    assert "on the same rows in the same order" in top


REVERSE = CONFIGS / "paper" / "ablations" / "reverse.yaml"


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
    words = "too small for 9,774 masked tokens to tell it from chance: two standard errors are 1.4 points"
    assert words in top_of(fake_run)
    set_totals(fake_run, detour=(2.9, 0.45), twin=(3.0, 0.4))
    assert "to tell it from chance" not in top_of(fake_run)


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
    assert (
        "95 % interval over seeds, on these tasks only: −1.00 to +1.00; which leaves open which is better"
        in top_of(fake_run)
    )
    assert title_of(fake_run).endswith(" Tasks: undecided.")


def make_tasks(run, tasks, seeds, gain=1.0, control=None, documents=100, **settings) -> None:
    """Scores of detour and twin through the code that writes them: the detour is better everywhere."""
    rows = [TaskRow(f"task {i}", "en", "single_label", "f1", documents) for i in range(tasks)]
    noise = random.Random(5)
    gains = {"detour": gain, "twin": 0.0} | ({} if control is None else {"control": control})
    scores = {
        model: {row.name: {seed: 70 + level + noise.gauss(0, 0.05) for seed in seeds} for row in rows}
        for model, level in gains.items()
    }
    models = [{"name": name, "path": name, "minutes": 1.0, "flops": 1e12} for name in scores]
    found = summarize("x", models, rows, scores, {}, {}, **settings)
    write(found, run.path / "evaluation" / "tasks" / "summary.json")


@pytest.mark.parametrize(
    ("tasks", "seeds", "words"),
    [
        (1, (1,), "(no interval: seeds are too few or do not differ; which leaves open which is better)"),
        (1, (1, 2, 3), "; which leaves open which is better on other tasks)"),
        (2, (1,), "(no interval: seeds are too few or do not differ; which leaves open which is better)"),
        (5, (1, 2, 3), "; which leaves open which is better on other tasks)"),
    ],
)
def test_one_seed_or_few_tasks_are_said_to_leave_it_open(fake_run, tasks, seeds, words):
    make_tasks(fake_run, tasks, seeds)
    top = top_of(fake_run)
    assert words in top
    assert "p = " not in top
    assert "fewer than 6: there is no test over tasks" in top


@pytest.mark.parametrize(("documents", "few"), [(99, True), (100, False)])
def test_page_and_card_say_which_scores_are_of_few_test_texts(fake_run, documents, few):
    make_tasks(fake_run, 1, (1, 2, 3), documents=documents)
    words = "Scores of fewer than 100 test texts: task 0 (99)."
    assert (words in top_of(fake_run)) == few
    assert (words in str(model_card(load_run(fake_run.path), "detour"))) == few


def test_one_task_is_not_called_tasks(fake_run):
    make_tasks(fake_run, 1, (1, 2, 3))
    assert "Average, all (1 task)" in page_text(load_run(fake_run.path))


def test_a_gain_on_many_tasks_and_seeds_is_left_as_it_is(fake_run):
    make_tasks(fake_run, 7, (1, 2, 3))
    top = top_of(fake_run)
    for words in ("leaves open", "no test over tasks", "these tasks only"):
        assert words not in top
    assert "(95 % interval over tasks like these: +" in top
    assert "; p after Holm = 0.016)" in top  # 2 of 2**7 flips of sign
    assert "7 tasks won, 0 lost, 0 tied; of single runs with equal seeds 21 won, 0 lost." in top


@pytest.mark.parametrize(
    ("settings", "title"),
    [
        ({"tasks": 7, "seeds": (1, 2, 3)}, "Tasks: the detour is ahead."),
        ({"tasks": 7, "seeds": (1, 2, 3), "gain": -1.0}, "Tasks: the detour is behind."),
        ({"tasks": 7, "seeds": (1,)}, "Tasks: the detour is ahead."),
        ({"tasks": 5, "seeds": (1, 2, 3)}, "Tasks: the detour is ahead on these 5 tasks only."),
        ({"tasks": 1, "seeds": (1, 2, 3)}, "Tasks: the detour is ahead on this 1 task only."),
        ({"tasks": 5, "seeds": (1,)}, "Tasks: undecided."),
        ({"tasks": 7, "seeds": (1, 2, 3), "gain": 0.0}, "Tasks: undecided."),
        ({"tasks": 7, "seeds": (1, 2, 3), "control": 1.5}, "Tasks: undecided."),
        ({"tasks": 7, "seeds": (1, 2, 3), "control": 0.5}, "Tasks: the detour is ahead."),
        ({"tasks": 5, "seeds": (1, 2, 3), "control": 1.5}, "Tasks: undecided."),
        (
            {"tasks": 7, "seeds": (1, 2, 3), "gain": 0.0, "equivalence_points": 1.0},
            "Tasks: equivalent within 1 points.",
        ),
        (
            {"tasks": 7, "seeds": (1, 2, 3), "gain": 0.0, "equivalence_points": 1.0, "control": 2.0},
            "Tasks: undecided.",
        ),
    ],
)
def test_the_title_judges_tasks_by_a_sound_test_and_beside_two_twins_on_the_same_tasks(
    fake_run, settings, title
):
    make_tasks(fake_run, **settings)
    loss, _, tasks = title_of(fake_run).partition(" Tasks:")
    assert f"Tasks:{tasks}" == title
    assert loss.startswith("Held-out loss: ")


def test_a_page_of_generated_text_and_tasks_says_so_at_its_top(fake_run):
    top = page_text(load_run(fake_run.path))
    assert '<p class="facts">made-up · <b class="synthetic">synthetic text</b> · 2 CPU cores · ' in top
    assert "The text of this run is generated (synthetic)" in top
    assert "on made-up (synthetic) text" in top
    assert "SampleVerdict is generated" not in top

    def sample_task(record):
        record["tasks"][0]["name"] = "SampleVerdict"

    fake_run.edit("evaluation/tasks/summary.json", sample_task)
    assert "SampleVerdict is generated, too." in top_of(fake_run)
    config = fake_run.path / "config.yaml"
    paths = [f"data.sources.{name}.path=texts/{name}.jsonl" for name in load_run(fake_run.path).sources]
    save_config(load_config(config, paths), config)
    assert "generated (synthetic)" not in top_of(fake_run)
    assert not is_all_generated(load_run(fake_run.path))


def test_the_noise_beside_tasks_is_that_of_the_twins_on_tasks(fake_run):
    make_tasks(fake_run, 7, (1, 2, 3), gain=1.0, control=2.0)
    rows = fake_run.json("evaluation/tasks/summary.json")["comparisons"]
    apart = {(row["a"], row["b"]): abs(row["difference"]) for row in rows}
    noise, found = apart["twin", "control"], apart["detour", "twin"]
    top = top_of(fake_run)
    assert f"On the same tasks two equal twins are {noise:.2f} points apart." in top
    assert f"(twin and control) end {noise:.2f} points apart on tasks (detour and twin {found:.2f})" in top
    assert "apart in held-out loss" not in top  # no control was scored there


def test_no_noise_is_quoted_of_twins_that_lack_one_of_the_tasks(fake_run):
    make_tasks(fake_run, 7, (1, 2, 3), control=2.0)

    def forget(record):
        for row in record["comparisons"]:
            if "control" in (row["a"], row["b"]):
                row["by_task"].pop("task 3")

    fake_run.edit("evaluation/tasks/summary.json", forget)
    assert "two equal twins" not in top_of(fake_run)


def test_an_evaluation_of_the_first_version_has_no_interval_and_is_undecided(fake_run):
    make_tasks(fake_run, 7, (1, 2, 3))

    def as_before(record):
        for row in record["comparisons"]:
            for name in (
                "interval_over",
                "p_adjusted",
                "seed_wins",
                "seed_losses",
                "equivalence",
                "paper_bootstrap",
            ):
                del row[name]

    fake_run.edit("evaluation/tasks/summary.json", as_before)
    assert title_of(fake_run).endswith("Tasks: undecided.")
    assert "no interval: the evaluation is of version 0.1.0" in top_of(fake_run)


def test_what_cannot_be_inferred_is_a_dash_in_the_table_and_no_line_in_the_figure(fake_run):
    make_tasks(fake_run, 2, (1,))
    page = page_text(load_run(fake_run.path))
    (row,) = table_rows(page, "Differences on tasks")[1:]
    assert row[2:6] == ["–", "–", "–", "–"]
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
    top = unescape(page_text(load_run(fake_run.path)))
    for words in ("Fine-tuned on 2 tasks", "the networks of detour and twin diverge", "One seed (17)"):
        assert words in top


@pytest.mark.parametrize(("p", "title"), [(0.05, "equivalent within 1 points"), (0.0501, "undecided")])
def test_page_and_table_call_two_models_equivalent_at_the_same_p(fake_run, p, title):
    make_tasks(fake_run, 7, (1, 2, 3), gain=0.0, equivalence_points=1.0)

    def set_p(found):
        found["comparisons"][0]["equivalence"]["p"] = p

    fake_run.edit("evaluation/tasks/summary.json", set_p)
    (sentence,) = comparison_lines(parse(Summary, fake_run.json("evaluation/tasks/summary.json")))
    shown = "; equivalent within" if title != "undecided" else "; not shown to be equivalent within"
    assert f"{shown} ±1 points (p = 0.05)" in sentence
    assert f"{shown} ±1 points (p = 0.05)" in top_of(fake_run)
    assert title_of(fake_run).endswith(f" Tasks: {title}.")


@pytest.mark.parametrize(("p", "title"), [(0.05, "the detour is ahead"), (0.0501, "undecided")])
def test_a_p_at_the_level_decides_which_is_better(fake_run, p, title):
    make_tasks(fake_run, 7, (1, 2, 3))

    def set_p(found):
        found["comparisons"][0]["p_adjusted"] = p

    fake_run.edit("evaluation/tasks/summary.json", set_p)
    assert title_of(fake_run).endswith(f" Tasks: {title}.")
