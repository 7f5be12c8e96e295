"""Tasks, networks and costs on the page, and the files beside it."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
from html import unescape

import pytest
from test_report_page import page_and_sheets, page_of, table_rows

from clm_detour.config.loading import load_config, save_config
from clm_detour.report.caveats import caveats
from clm_detour.report.load import load_run
from clm_detour.report.page import write_page
from clm_detour.report.sections.arms import arm_table
from clm_detour.report.sections.costs import costs_section, known_device
from clm_detour.report.sections.needles import needles_section
from clm_detour.report.sections.network import network_section
from clm_detour.report.sections.tasks import introduction, tasks_section
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_folder, write_json

SECTIONS = [(tasks_section, "evaluation/tasks"), (network_section, "analysis"), (costs_section, "phases")]


def test_every_score_of_the_table_stands_in_the_summary(whole_run, whole_page):
    summary = whole_run.json("evaluation/tasks/summary.json")
    head, *rows = table_rows(whole_page, "Scores on tasks")
    assert head[3:] == [model["name"] for model in summary["models"]]
    for row in rows[: len(summary["tasks"])]:
        for model, cell in zip(head[3:], row[3:], strict=True):
            score = summary["scores"][model][row[0]]
            assert cell.replace("*", "") == f"{score['mean']:.1f} ± {score['std']:.1f}"
    averages = summary["groups"][0]["averages"]
    assert [cell.replace("*", "").split()[0] for cell in rows[-1][3:]] == [
        f"{averages[m]['mean']:.1f}" for m in head[3:]
    ]
    assert ["COS", "it is &lt;not&gt; here"] in table_rows(whole_page, "Tasks that are missing")


def test_the_published_scores_stand_beside_them(whole_run, whole_page):
    published = whole_run.json("evaluation/tasks/summary.json")["published"]
    rows = {row[0]: row[1:] for row in table_rows(whole_page, "Published scores")[1:]}
    assert {
        model: [f"{score:.1f}" for score in row["scores"].values()] for model, row in published.items()
    } == {model: cells[:2] for model, cells in rows.items()}


def test_every_divergence_of_the_table_stands_in_the_comparison(whole_run, whole_page):
    parts = whole_run.json("analysis/compare.json")["comparisons"]
    rows = table_rows(whole_page, "Divergence by layer")[1:]
    shown = [
        [f"{100 * parts[part]['variants'][variant]['divergence'][i]:.1f}"
         for variant in ("biased", "debiased", "debiased_trimmed") for part in ("detour_twin", "control")]
        for i in range(len(rows))
    ]  # fmt: skip
    assert [row[1:-1] for row in rows] == shown


def test_every_layers_gradient_stands_in_the_table_by_objective(whole_run, whole_page):
    found = whole_run.json("analysis/gradients.json")["objectives"]
    head, *rows = table_rows(whole_page, "Gradient by layer")
    assert head[1:] == ["CLM", "MLM 30 %"]
    for layer, *cells in rows:
        norms = (values["norms"][layer].values() for values in found.values())
        assert cells == [f"{sum(value**2 for value in each) ** 0.5:.3g}" for each in norms]


def test_a_change_over_an_arms_last_phase_is_not_drawn_as_the_arms(fake_run, whole_page):
    title = "Change of the weights by layer"
    assert title in whole_page
    fake_run.edit(
        "analysis/weights.json",
        lambda record: {"changes": [row for row in record["changes"] if row["phases"] == ["decay", "decay"]]},
    )
    page = page_of(fake_run)
    assert title not in page
    assert len(table_rows(page, "Weight change")) == 3


def test_arms_beyond_the_usual_ones_stand_in_a_table_with_what_they_froze(fake_run, whole_page):
    assert '<h2 id="arms"' not in whole_page
    words = [
        "phases.low={objective: clm, mixture: domain, duration: 600ktok, "
        "schedule: {name: cosine, peak: 1e-3}, freeze: {layers: 0-2, head: true}}"
    ]
    config = fake_run.path / "config.yaml"
    save_config(load_config(config, words), config)
    fake_run.edit("arms.json", lambda arms: arms.update(frozen=["pretrain", "pretrain.low"]))
    fake_run.edit(
        "evaluation/held_out.json", lambda r: r["models"].update(frozen=r["phases"]["pretrain.clm"])
    )
    rows = {row[0]: row for row in table_rows(page_of(fake_run), "Arms")}
    models = fake_run.json("evaluation/held_out.json")["models"]
    assert rows["frozen"][1] == "pretrain, low (layers 0-2 and head frozen)"
    change = models["frozen"]["loss"] - models["twin"]["loss"]
    assert rows["frozen"][2] == f"{models['frozen']['loss']:.3f} (+{change:.3f})"
    assert rows["frozen"][-1] == "–"  # it was not fine-tuned
    (pair,) = (
        row
        for row in fake_run.json("evaluation/tasks/summary.json")["comparisons"]
        if (row["a"], row["b"]) == ("detour", "twin")
    )
    assert f"(+{pair['difference']:.1f}, " in rows["detour"][-1]


def arm_cells(run):
    """The head of the table of arms, and the cells of each arm."""
    table = arm_table(load_run(run.path))
    return table.head, {row.cells[0]: row.cells for row in table.rows}


def test_a_difference_over_more_tasks_than_the_average_beside_it_says_so(fake_run):
    def change(record):
        record["groups"][0].update(tasks=["GAD"], of=3)  # another model lacks the other

    _, rows = arm_cells(fake_run)
    assert "on 2" not in rows["detour"][-1].text
    fake_run.edit("evaluation/tasks/summary.json", change)
    head, rows = arm_cells(fake_run)
    assert head[-1] == "Tasks: all (1)"
    assert rows["detour"][-1].text.endswith(" over seeds, on 2 tasks)")


def test_a_difference_without_an_interval_stands_alone(fake_run):
    def change(record):
        for row in record["comparisons"]:
            row.update(interval=None, p=None, difference=1.24)

    fake_run.edit("evaluation/tasks/summary.json", change)
    _, rows = arm_cells(fake_run)
    assert rows["detour"][-1].text.endswith(" (+1.2)")


def set_seeds(run, **counts) -> None:
    def change(record):
        for rows in record["scores"].values():
            for task, row in rows.items():
                row["seeds"] = {str(seed): 70.0 for seed in range(counts[task])}

    run.edit("evaluation/tasks/summary.json", change)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"GAD": 1, "JNLPBA": 1}, "with one seed each."),
        ({"GAD": 5, "JNLPBA": 5}, "over 5 seeds."),
        ({"GAD": 5, "JNLPBA": 9}, "over 5 to 9 seeds."),
        ({"GAD": 1, "JNLPBA": 9}, "over 1 to 9 seeds (none of one seed)."),
    ],
)
def test_scores_are_said_to_be_over_the_seeds_that_they_have(fake_run, counts, words):
    set_seeds(fake_run, **counts)
    run = load_run(fake_run.path)
    text = introduction(run.evaluation)
    assert text.endswith(words)
    assert "not seen" not in text
    few = min(counts.values())
    of_few = f"{'Tasks' if len(set(counts.values())) == 1 else 'Some tasks'} were fine-tuned with {few} seed"
    assert any(sentence.startswith(of_few) for sentence in caveats(run)) == (few < 5)


def test_a_difference_turned_round_is_its_negative(whole_run):
    found = load_run(whole_run.path).evaluation
    one, other = found.difference("detour", "twin"), found.difference("twin", "detour")
    assert (one.difference, one.wins, one.ties) == (-other.difference, other.losses, other.ties)
    assert one.interval == tuple(-end for end in reversed(other.interval))
    assert other.reversed() == one


@pytest.mark.parametrize(("section", "records"), SECTIONS)
def test_a_run_without_the_records_has_no_such_section(fake_run, section, records):
    assert section(load_run(fake_run.path))
    shutil.rmtree(fake_run.path / records)
    assert section(load_run(fake_run.path)) is None


def test_needles_stand_on_the_page_with_their_intervals_as_far_as_they_were_tested(fake_run):
    assert needles_section(load_run(fake_run.path)) is None
    models = ["/somewhere/models/detour", "/somewhere/models/twin"]
    found = {
        "models": models, "lengths": [128], "positions": [0.0, 1.0], "trials": 50, "candidates": 20,
        "accuracy": {one: [[0.5, 0.25]] for one in models}, "chance": 0.05,
        "control": {one: [0.06] for one in models},
    }  # fmt: skip
    write_json(fake_run.path / "analysis" / "needles.json", found)
    page = page_of(fake_run)
    assert "Needles in long texts" in page
    assert "trained probe" not in page
    assert "95 % interval of at most ± 14 points" in page
    right = {"detour": 140, "twin": 116}
    probed = {
        name: {"total": as_share(n, 225), "by_length": [as_share(n // 5, 45)], "epoch": 3, "validation": 0.6}
        for name, n in right.items()
    }
    record = {
        "language": "fr", "lengths": [512], "positions": [0.0, 0.5, 1.0], "seed": 0, "level": 0.95,
        "pairs": {"train": 1050, "validation": 225, "test": 225},
        "models": {path: probed[path.rsplit("/", 1)[1]] for path in models},
    }  # fmt: skip
    write_json(fake_run.path / "analysis" / "needle_probe.json", record)
    page = write_page(fake_run.path).read_text(encoding="utf-8")
    assert "with 225 test texts up to ± 6.5 points" in page
    assert "62.2 [56, 68]" in page
    numbers = json.loads((fake_run.path / "report" / "numbers.json").read_text(encoding="utf-8"))
    assert numbers["needle_probe"]["models"]["twin"]["total"]["right"] == 116
    assert "/somewhere" not in page + json.dumps(numbers)
    fake_run.edit("analysis/needles.json", lambda record: {**record, "accuracy": {}})
    assert "Needles: analysis/needles.json does not have the form" in page_of(fake_run)


def as_share(right: int, pairs: int) -> dict[str, object]:
    return {"right": right, "pairs": pairs, "accuracy": right / pairs, "interval": [0.56, 0.683]}


def test_the_page_names_no_address_and_no_folder_of_the_machine(whole_run, whole_page):
    shown = re.sub('<script type="module">.*?</script>', "", whole_page, flags=re.DOTALL)
    addresses = set(re.findall(r'https?://[^"\s<]*', shown))
    assert all(re.match("http://www.w3.org/|https://vega.github.io/schema/", found) for found in addresses)
    assert str(whole_run.path.parent) not in whole_page


def test_every_figure_is_a_png_and_an_svg_and_every_table_a_csv(whole_run, whole_page):
    folder = whole_run.path / "report"
    charts = re.findall('class="chart" data-name="([^"]*)"', whole_page)
    files = {ending: sorted(path.stem for path in folder.glob(f"*.{ending}")) for ending in ("svg", "png")}
    assert files["svg"] == files["png"]
    assert all(
        any(name == chart or name.startswith(f"{chart}-") for name in files["svg"]) for chart in charts
    )
    titles = re.findall(r'<table aria-label="([^"]*)"', whole_page)
    for title in titles:
        name = re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")
        with open(folder / f"{name}.csv", encoding="utf-8", newline="") as file:
            assert len(list(csv.reader(file))) == len(table_rows(whole_page, title))
    assert all(b"var(--" not in path.read_bytes() for path in folder.glob("*.svg"))


OF_WORDS = {  # columns of the CSV files that hold no numbers
    "Phase", "Model", "Task", "Arm", "Source", "Split", "Reason", "Step", "What", "Value", "Why", "Pair",
    "Over", "Measure", "Published", "Layer", "Estimator", "Checkpoint of", "Arm and phases", "Objective",
    "Mixture", "Schedule", "On", "Trained as", "In arms", "Phases", "Tasks: all (2) over",
}  # fmt: skip


def test_csv_files_hold_plain_numbers_and_empty_cells(fake_run):
    fake_run.edit("arms.json", lambda arms: arms.update(short=["pretrain", "pretrain.clm"]))  # for arms.csv
    _, found = page_and_sheets(fake_run)
    assert {"arms", "loss", "costs", "time", "shares-of-the-sources", "scores-on-tasks"} <= found.keys()
    for name, rows in found.items():
        for row in rows:
            for column, text in row.items():
                if column not in OF_WORDS and text:
                    assert math.isfinite(float(text)), (name, column)
                assert text not in ("–", "-", "?"), (name, column)


def test_csv_files_hold_the_records_numbers_unrounded(whole_run):
    _, found = page_and_sheets(whole_run)
    scores = whole_run.json("evaluation/tasks/summary.json")["scores"]
    for row in found["scores-on-tasks"][:2]:
        for model, of_tasks in scores.items():
            score = of_tasks[row["Task"]]
            assert [float(row[f"{model}{end}"]) for end in ("", " std", " low", " high")] == [
                score["mean"], score["std"], *score["interval"],
            ]  # fmt: skip
    models = whole_run.json("evaluation/held_out.json")["models"]
    rows = {row["Model"]: row for row in found["loss"]}
    assert {name: float(rows[name]["All"]) for name in models} == {n: s["loss"] for n, s in models.items()}
    assert float(rows["detour"]["notes"]) == models["detour"]["by_source"]["notes"]["loss"]
    (base, *_) = found["held-out-masked-language-modeling"]
    assert (base["Model"], base["Loss − base".replace("−", "-")]) == ("base", "")
    (clm,) = (row for row in found["shares-of-the-sources"] if row["Phase"] == "pretrain.clm")
    assert (clm["notes observed"], clm["notes target"], clm["general observed"]) == ("0.1991", "0.2", "")
    (costs, *_) = found["costs"]
    assert (costs["Time seconds"], costs["GPU-hours"], costs["Energy kWh"]) == ("61.2", "", "")


def test_a_figure_has_one_kind_of_interval(fake_run):
    """Of each task an interval over seeds; so none for all tasks where that is over tasks."""
    (row,) = (r for r in fake_run.json("evaluation/tasks/summary.json")["comparisons"] if r["a"] == "detour")
    assert row["interval_over"] == "seeds"
    seeds = page_of(fake_run)
    assert "over seeds, which are about these tasks only" in seeds

    def over_tasks(record):
        for row in record["comparisons"]:
            row.update(interval_over="tasks", p=0.01, p_adjusted=0.03)

    fake_run.edit("evaluation/tasks/summary.json", over_tasks)
    tasks = page_of(fake_run)
    assert "since their interval is over tasks; it is in the table" in tasks
    drawn = [
        re.search(r'<svg[^>]*aria-label="detour minus twin in points.*?</svg>', page, re.DOTALL)[0].count(
            "<line"
        )
        for page in (seeds, tasks)
    ]
    assert drawn[1] == drawn[0] - 1
    (head, *rows) = table_rows(tasks, "Differences on tasks")
    assert [dict(zip(head, row, strict=True))["Over"] for row in rows] == ["tasks"] * 3


def test_files_name_the_arms_whose_colours_they_have(whole_run, whole_page):
    drawings = {path.stem: path.read_text("utf-8") for path in (whole_run.path / "report").glob("*.svg")}
    for name in ("tasks", "held-out-loss", "training-rate"):
        assert all(f">{arm}<" in drawings[name] for arm in ("base", "detour", "twin")), name


@pytest.mark.parametrize("rename", [0, 1])
def test_files_that_cannot_take_their_place_leave_the_old_ones(tmp_path, monkeypatch, rename):
    folder, renames, replace = tmp_path / "report", iter(range(9)), os.replace
    folder.mkdir()
    (folder / "old.csv").write_text("old", encoding="utf-8")

    def unsteady(*paths):
        if next(renames) == rename:
            raise OSError("no")
        replace(*paths)

    monkeypatch.setattr("clm_detour.utils.files.os.replace", unsteady)
    with pytest.raises(UserError, match="Cannot write"), atomic_folder(folder) as temporary:
        (temporary / "new.csv").write_text("new", encoding="utf-8")
    assert [path.name for path in tmp_path.rglob("*")] == ["report", "old.csv"]
    with atomic_folder(folder) as temporary:
        (temporary / "new.csv").write_text("new", encoding="utf-8")
    assert [path.name for path in tmp_path.rglob("*")] == ["report", "new.csv"]


def test_the_numbers_are_those_of_the_records_unrounded(whole_run, whole_page):
    numbers = json.loads((whole_run.path / "report" / "numbers.json").read_text(encoding="utf-8"))
    summary, held_out = (whole_run.json(f"evaluation/{name}.json") for name in ("tasks/summary", "held_out"))
    assert numbers["tasks"]["scores"]["detour"]["GAD"]["mean"] == summary["scores"]["detour"]["GAD"]["mean"]
    assert numbers["held_out"]["models"]["twin"]["total"]["loss"] == held_out["models"]["twin"]["loss"]
    retention = whole_run.json("analysis/compare.json")["retention"]["debiased"]["model"]
    assert numbers["comparison"]["retention"]["debiased"]["value"] == retention


def test_the_same_records_give_the_same_bytes(fake_run, whole_run, whole_page):
    """Those of another copy of the same run."""
    assert write_page(fake_run.path).read_text(encoding="utf-8") == whole_page
    one, other = (run.path / "report" for run in (fake_run, whole_run))
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in other.iterdir()
    }


def test_what_weakens_tasks_and_comparison_is_said(whole_page):
    for words in (
        "1 of 3 tasks is missing (COS)",
        "with 3 seeds",
        "compared on 60 texts",
        "no control arm that was measured",
    ):
        assert words in whole_page


def test_arms_of_unequal_operations_are_said_to_be(fake_run, whole_page):
    assert "floating-point operations, the twin" not in unescape(whole_page)

    def dearer(plan):
        plan["phases"]["pretrain.clm"]["operations"] *= 1.5

    fake_run.edit("plan.json", dearer)
    page = unescape(page_of(fake_run))
    operations = {id: row["operations"] for id, row in fake_run.json("plan.json")["phases"].items()}
    detour, twin = (
        operations[f"pretrain.{name}"] + operations[f"pretrain.{name}.decay"] for name in ("clm", "mlm")
    )
    assert (
        f"the detour's own phases took {detour:.2e} floating-point operations, the twin's {twin:.2e}" in page
    )
    assert f"{100 * (detour / twin - 1):.0f}\u202f% more in the one" in page


def test_energy_is_that_of_the_boards_where_they_are_known(fake_run):
    record = "phases/pretrain.clm/phase.json"
    fake_run.edit(record, lambda r: r.update(device="NVIDIA H100 80GB HBM3", world_size=4, seconds=3600.0))
    rows = {row[0]: row for row in table_rows(page_of(fake_run), "Costs")}
    assert rows["pretrain.clm"][2] == "4.00"
    assert rows["pretrain.clm"][4] == "2.80\u202fkWh"  # 4 boards of 700 W for an hour
    assert rows["pretrain.mlm"][4] == "–"


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA A10G", None),
        ("cpu", None),
    ],
)
def test_a_device_is_known_by_whole_words_only(name, device):
    assert known_device(name) == device
