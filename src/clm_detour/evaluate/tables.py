"""A summary as the paper's table, and the differences of its models.

Tables have a row for each model and a column for each task and each average over tasks. They are written as
Markdown, LaTeX, CSV and plain text, and the differences as a figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from clm_detour.evaluate.tasks.left_out import left_out_sentence
from clm_detour.figures import renderers, wording
from clm_detour.figures.renderers import csv_lines
from clm_detour.figures.table import Cell, Row, Table, Value, with_best, with_spread
from clm_detour.records.evaluation import OVER, MeanScore, Summary, TaskComparison
from clm_detour.utils.files import atomic_write

CSV_HEAD = ("model", "origin", "over", "name", "tasks", "mean", "std", "low", "high")


def score_table(summary: Summary, corner: str = "model") -> Table:
    """Return the scores of our own models, the best of each column marked, above those that were published.

    Args:
        corner: Name of the column of models.
    """
    names = [model.name for model in summary.models]
    tasks = [task.name for task in summary.tasks]
    columns = [score_cells([summary.scores[name].get(task) for name in names]) for task in tasks]
    columns += [score_cells([group.averages[name] for name in names]) for group in summary.averaged]
    rows = [Row([name, *(column[place] for column in columns)]) for place, name in enumerate(names)]
    for name, published in summary.published.items():
        values = [published.scores.get(task) for task in tasks]
        values += [published.averages.get(group.name) for group in summary.averaged]
        texts = ["" if value is None else one_decimal(value) for value in values]
        rows.append(Row([f"{name} (published)", *texts], "published"))
    averages = [f"{group.name} ({len(group.tasks)} of {group.of})" for group in summary.averaged]
    return Table(summary.name, [corner, *tasks, *averages], rows, notes=notes(summary))


def score_cells(scores: Sequence[MeanScore | None]) -> list[Cell]:
    """Return the cells of a column, like `81.0 ± 0.4`; empty ones where a model has no score."""
    means = with_best([None if score is None else score.mean for score in scores], one_decimal, lowest=False)
    return [
        Cell("") if score is None else with_spread(mean, score.std, score.interval)
        for mean, score in zip(means, scores, strict=True)
    ]


def one_decimal(score: float) -> str:
    """Return the text of a score."""
    return f"{score:.1f}"


def comparison_line(row: TaskComparison, several: bool) -> str:
    """Return a sentence on what the comparison of two models shows.

    Args:
        several: Whether several comparisons have a p, so that the one corrected for all of them is given,
            too.
    """
    interval, tasks = interval_words(row, two_decimals), wording.counted(len(row.tasks), "task")
    parts = [
        f"{interval}{p_value(row, several)}"
        if interval
        else "no interval (a task with one seed, or seeds that do not differ)",
        f"{row.wins} won, {row.losses} lost, {row.ties} tied, of {tasks}",
        f"by task and seed {row.seed_wins} won, {row.seed_losses} lost",
        row.equivalence.sentence(row.interval_over) if row.equivalence else "",
        paper_bootstrap_line(row),
    ]
    return f"{row.a} - {row.b}: {row.difference:+.2f} points, {'; '.join(filter(None, parts))}"


def two_decimals(difference: float) -> str:
    """Return the text of a difference."""
    return f"{difference:+.2f}"


def interval_words(row: TaskComparison, write: Callable[[float], str]) -> str | None:
    """Return the interval of a comparison in words, with what it is over; None without an interval.

    Args:
        write: Returns the text of a difference.
    """
    if row.interval is None or row.interval_over is None:
        return None
    low, high = map(write, row.interval)
    return f"95 % interval {OVER[row.interval_over]}: {low} to {high}"


def several_tests(summary: Summary) -> bool:
    """Return whether more than one comparison has a p."""
    return sum(row.p is not None for row in summary.comparisons) > 1


def p_value(row: TaskComparison, several: bool) -> str:
    """Return `, p = 0.012`, with Holm's corrected p if there are several tests; empty without a p."""
    if row.p is None:
        return ""
    adjusted = f" (Holm {row.p_adjusted:.2g})" if several else ""
    return f", p = {row.p:.2g}{adjusted}"


def paper_bootstrap_line(row: TaskComparison) -> str:
    """Return the result of the paper's own test, marked as such; empty if it was not asked for."""
    found = row.paper_bootstrap
    if found is None:
        return ""
    low, high = found.interval
    interval = f"{two_decimals(low)} to {two_decimals(high)}"
    return f"the paper's bootstrap, too sure of itself with few tasks: {interval}, p = {found.p:.2g}"


def comparison_lines(summary: Summary) -> list[str]:
    """Return a sentence for each pair of models."""
    several = several_tests(summary)
    return [comparison_line(row, several) for row in summary.comparisons]


def notes(summary: Summary) -> list[str]:
    """Return the sentences below the table: comparisons, costs, what is left out, and missing tasks."""
    return [
        *comparison_lines(summary),
        *(f"{model.name}: {model.minutes:.1f} minutes, {model.flops:.2e} FLOPs" for model in summary.models),
        *(left_out_sentence(task.name, task.left_out) for task in summary.tasks if task.left_out),
        *(f"{row.task} is left out: {row.reason}" for row in summary.missing),
    ]


def markdown(summary: Summary) -> str:
    """Return table and sentences as Markdown."""
    return renderers.markdown(score_table(summary))


def latex(summary: Summary) -> str:
    """Return the table for LaTeX."""
    return renderers.latex(score_table(summary, corner="Model"))


def as_csv(summary: Summary) -> str:
    """Return a line for each score on a task and each average over tasks, with all numbers unrounded.

    The columns are `CSV_HEAD`. `origin` is run or published, `over` is task or group, and `tasks` is how many
    tasks the mean is over. `low` and `high` are the ends of the 95 % interval over seeds. What was not
    measured is empty.
    """
    return csv_lines([CSV_HEAD, *run_rows(summary), *published_rows(summary)])


def run_rows(summary: Summary) -> Iterator[list[Value]]:
    """Yield the rows of the models that were run."""
    for model in (model.name for model in summary.models):
        entries = [("task", task, 1, score) for task, score in summary.scores[model].items()]
        entries += [
            ("group", group.name, len(group.tasks), group.averages[model]) for group in summary.averaged
        ]
        for over, name, tasks, score in entries:
            yield [model, "run", over, name, tasks, score.mean, score.std, *(score.interval or (None, None))]


def published_rows(summary: Summary) -> Iterator[list[Value]]:
    """Yield the rows of the published models."""
    sizes = {group.name: len(group.tasks) for group in summary.groups}
    for model, found in summary.published.items():
        for task, mean in found.scores.items():
            yield [model, "published", "task", task, 1, mean, None, None, None]
        for group, mean in found.averages.items():
            yield [model, "published", "group", group, sizes[group], mean, None, None, None]


def left_out_csv(summary: Summary) -> str:
    """Return a line for each task and reason, with how many things are left out."""
    rows = [(task.name, what, count) for task in summary.tasks for what, count in task.left_out.items()]
    return csv_lines([("task", "left_out", "count"), *rows])


def write_tables(summary: Summary, folder: Path) -> None:
    """Write table.md, table.tex, table.csv and left_out.csv."""
    texts = {
        "table.md": markdown(summary),
        "table.tex": latex(summary),
        "table.csv": as_csv(summary),
        "left_out.csv": left_out_csv(summary),
    }
    for name, text in texts.items():
        with atomic_write(folder / name, "w") as file:
            file.write(text)
