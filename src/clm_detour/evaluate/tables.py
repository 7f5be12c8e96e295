"""A summary as the paper's table: a row a model, a column a task and a group's average; Markdown, LaTeX, CSV and plain text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_detour.evaluate.statistics import OVER, Equivalence
from clm_detour.evaluate.tasks.left_out import left_out_sentence
from clm_detour.utils.files import atomic_write

ABSENT = ""
CSV_HEAD = ("model", "origin", "over", "name", "tasks", "mean", "std", "low", "high")


@dataclass(frozen=True)
class Cell:
    """A score in percent; `best` among our own models, unless there is only one."""

    mean: float | None
    std: float | None = None
    best: bool = False

    @property
    def text(self) -> str:
        """`81.0 ± 0.4`."""
        if self.mean is None:
            return ABSENT
        return f"{self.mean:.1f}" + (f" ± {self.std:.1f}" if self.std is not None else "")


@dataclass(frozen=True)
class Table:
    """Columns, and rows of our own models above those that were published."""

    head: list[str]
    own: list[tuple[str, list[Cell]]]
    published: list[tuple[str, list[Cell]]]

    @property
    def rows(self) -> list[tuple[str, list[Cell]]]:
        """All rows; published ones are marked so."""
        return [*self.own, *((f"{name} (published)", cells) for name, cells in self.published)]


def score_table(summary: Mapping[str, Any]) -> Table:
    """The table of a summary (see `clm_detour.evaluate.summary`)."""
    tasks = [task["name"] for task in summary["tasks"]]
    groups = [group for group in summary["groups"] if group["averages"]]
    head = [*tasks, *(f"{group['name']} ({len(group['tasks'])} of {group['of']})" for group in groups)]
    names = [model["name"] for model in summary["models"]]
    columns = [[summary["scores"][name].get(task) for name in names] for task in tasks]
    columns += [[group["averages"][name] for name in names] for group in groups]
    cells = [column_cells(column) for column in columns]
    return Table(
        head=head,
        own=[(name, [column[place] for column in cells]) for place, name in enumerate(names)],
        published=[
            (
                name,
                [Cell(row["scores"].get(task)) for task in tasks]
                + [Cell(row["averages"].get(group["name"])) for group in groups],
            )
            for name, row in summary["published"].items()
        ],
    )


def column_cells(column: Sequence[Mapping[str, Any] | None]) -> list[Cell]:
    """The best is marked, and whatever reads the same in print."""
    printed = [round(score["mean"], 1) for score in column if score is not None]
    best = max(printed) if len(printed) > 1 else None
    return [
        Cell(None) if score is None else Cell(score["mean"], score["std"], round(score["mean"], 1) == best)
        for score in column
    ]


def comparison_lines(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each pair of models."""
    several = several_tests(summary)
    return [comparison_line(row, several) for row in summary["comparisons"]]


def several_tests(summary: Mapping[str, Any]) -> bool:
    """Return whether more than one pair has a p, so that Holm's belongs beside it."""
    return sum(row["p"] is not None for row in summary["comparisons"]) > 1


def comparison_line(row: Mapping[str, Any], several: bool) -> str:
    """What one pair shows."""
    parts = [
        certainty(row, several),
        f"{row['wins']} won, {row['losses']} lost, {row['ties']} tied, of {len(row['tasks'])} {'task' if len(row['tasks']) == 1 else 'tasks'}",
        f"by task and seed {row['seed_wins']} won, {row['seed_losses']} lost",
        equivalence_line(row),
        paper_bootstrap_line(row),
    ]
    return f"{row['a']} - {row['b']}: {row['difference']:+.2f} points, {'; '.join(filter(None, parts))}"


def certainty(row: Mapping[str, Any], several: bool) -> str:
    """Interval and p of a comparison."""
    if row["interval"] is None:
        return "no interval (a task with one seed, or seeds that do not differ)"
    low, high = row["interval"]
    return f"95 % interval {OVER[row['interval_over']]}: {low:+.2f} to {high:+.2f}{p_value(row, several)}"


def p_value(row: Mapping[str, Any], several: bool) -> str:
    """Return `, p = 0.012`, with Holm's if there are several tests; nothing where there is no p."""
    if row["p"] is None:
        return ""
    adjusted = f" (Holm {row['p_adjusted']:.2g})" if several else ""
    return f", p = {row['p']:.2g}{adjusted}"


def equivalence_line(row: Mapping[str, Any]) -> str:
    """What the test of equivalence shows; nothing without one."""
    found = row["equivalence"]
    return "" if found is None else Equivalence(**found).sentence(row["interval_over"])


def paper_bootstrap_line(row: Mapping[str, Any]) -> str:
    """The paper's own test, marked as such; nothing if it was not asked for."""
    found = row["paper_bootstrap"]
    if found is None:
        return ""
    low, high = found["interval"]
    return f"the paper's bootstrap, too sure of itself with few tasks: {low:+.2f} to {high:+.2f}, p = {found['p']:.2g}"


def cost_lines(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each model: what its runs took."""
    return [
        f"{model['name']}: {model['minutes']:.1f} minutes, {model['flops']:.2e} FLOPs"
        for model in summary["models"]
    ]


def left_out_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each task of which something is left out."""
    return [
        left_out_sentence(task["name"], task["left_out"]) for task in summary["tasks"] if task.get("left_out")
    ]


def missing_lines(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each task that could not be read."""
    return [f"{row['task']} is left out: {row['reason']}" for row in summary["missing"]]


def notes(summary: Mapping[str, Any]) -> list[str]:
    """Return all sentences that stand below the table."""
    return [
        *comparison_lines(summary),
        *cost_lines(summary),
        *left_out_lines(summary),
        *missing_lines(summary),
    ]


def plain(summary: Mapping[str, Any]) -> str:
    """Table and sentences for a terminal: columns set flush right, the best marked with a star."""
    table = score_table(summary)
    lines = [["", *table.head]]
    lines += [
        [name, *(cell.text + ("*" if cell.best else " ") for cell in cells)] for name, cells in table.rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        "  ".join(
            [line[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    ]
    sentences = notes(summary)
    return "\n".join([*(text.rstrip() for text in texts), *sentences])


def markdown(summary: Mapping[str, Any]) -> str:
    """Table and sentences."""
    table = score_table(summary)
    lines = [f"| model | {' | '.join(table.head)} |", "|---" * (len(table.head) + 1) + "|"]
    for name, cells in table.rows:
        texts = [f"**{cell.text}**" if cell.best else cell.text for cell in cells]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    sentences = notes(summary)
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in sentences)]) + "\n"


def latex(summary: Mapping[str, Any]) -> str:
    r"""A `tabular` with booktabs' rules; deviations as `81.0{\tiny$\pm$0.4}`."""
    table = score_table(summary)
    lines = [rf"\begin{{tabular}}{{l{'c' * len(table.head)}}}", r"\toprule"]
    lines += [" & ".join(["Model", *map(escape, table.head)]) + r" \\", r"\midrule"]
    lines += [latex_row(name, cells) for name, cells in table.own]
    if table.published:
        lines += [r"\midrule", *(latex_row(f"{name} (published)", cells) for name, cells in table.published)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def latex_row(name: str, cells: Sequence[Cell]) -> str:
    """One line of the tabular."""
    texts = []
    for cell in cells:
        mean = ABSENT if cell.mean is None else f"{cell.mean:.1f}"
        deviation = rf"{{\tiny$\pm${cell.std:.1f}}}" if cell.std is not None else ""
        texts.append(rf"\textbf{{{mean}}}{deviation}" if cell.best else mean + deviation)
    return " & ".join([escape(name), *texts]) + r" \\"


def escape(text: str) -> str:
    """Text for LaTeX."""
    return re.sub(r"([&%$#_{}])", r"\\\1", text)


def as_csv(summary: Mapping[str, Any]) -> str:
    """A line for each score of a model on a task and for each average over tasks; all numbers unrounded.

    The columns are `CSV_HEAD`. `origin` is run or published, `over` is task or group, `tasks` how many the mean is over; `low` and `high` are
    the ends of the 95 % interval over seeds. Fields of what was not measured are empty.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_HEAD, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*own_rows(summary), *published_rows(summary)])
    return out.getvalue()


def own_rows(summary: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the lines of the models that were run."""
    for model in (model["name"] for model in summary["models"]):
        for task, score in summary["scores"][model].items():
            yield csv_row(model, "run", "task", task, 1, score)
        for group in summary["groups"]:
            if group["averages"]:
                yield csv_row(
                    model, "run", "group", group["name"], len(group["tasks"]), group["averages"][model]
                )


def published_rows(summary: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the lines of the paper's models."""
    sizes = {group["name"]: len(group["tasks"]) for group in summary["groups"]}
    for model, found in summary["published"].items():
        for task, mean in found["scores"].items():
            yield csv_row(model, "published", "task", task, 1, {"mean": mean})
        for group, mean in found["averages"].items():
            yield csv_row(model, "published", "group", group, sizes[group], {"mean": mean})


def csv_row(
    model: str, origin: str, over: str, name: str, tasks: int, score: Mapping[str, Any]
) -> dict[str, Any]:
    """Return one line by column."""
    low, high = score.get("interval") or (None, None)
    values = (model, origin, over, name, tasks, score["mean"], score.get("std"), low, high)
    return dict(zip(CSV_HEAD, values, strict=True))


def left_out_csv(summary: Mapping[str, Any]) -> str:
    """Return a line for each task and reason: how many things are left out."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["task", "left_out", "count"])
    for task in summary["tasks"]:
        writer.writerows([task["name"], what, count] for what, count in task.get("left_out", {}).items())
    return out.getvalue()


def write_tables(summary: Mapping[str, Any], folder: Path) -> None:
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
