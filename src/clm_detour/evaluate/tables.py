"""A summary as the paper's table: a row a model, a column a task and a group's average; Markdown, LaTeX, CSV and plain text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_detour.files import atomic_write

ABSENT = ""


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
    return [
        f"{row['a']} - {row['b']}: {row['difference']:+.2f} points, {certainty(row)}; "
        f"{row['wins']} won, {row['losses']} lost, {row['ties']} tied, of {len(row['tasks'])} tasks"
        for row in summary["comparisons"]
    ]


def certainty(row: Mapping[str, Any]) -> str:
    """Interval and p of a comparison."""
    if row["interval"] is None:
        return "no interval (one task, or a task with one seed)"
    low, high = row["interval"]
    return f"95 % interval {low:+.2f} to {high:+.2f}, p = {row['p']:.2g}"


def cost_lines(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each model: what its runs took."""
    return [
        f"{model['name']}: {model['minutes']:.1f} minutes, {model['flops']:.2e} FLOPs"
        for model in summary["models"]
    ]


def missing_lines(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each task that could not be read."""
    return [f"{row['task']} is left out: {row['reason']}" for row in summary["missing"]]


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
    sentences = [*comparison_lines(summary), *cost_lines(summary), *missing_lines(summary)]
    return "\n".join([*(text.rstrip() for text in texts), *sentences])


def markdown(summary: Mapping[str, Any]) -> str:
    """Table and sentences."""
    table = score_table(summary)
    lines = [f"| model | {' | '.join(table.head)} |", "|---" * (len(table.head) + 1) + "|"]
    for name, cells in table.rows:
        texts = [f"**{cell.text}**" if cell.best else cell.text for cell in cells]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    sentences = [*comparison_lines(summary), *cost_lines(summary), *missing_lines(summary)]
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
    """A line a row of the table: means, unrounded, then deviations."""
    table = score_table(summary)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", *table.head, *(f"{name} std" for name in table.head)])
    for name, cells in table.rows:
        writer.writerow([name, *(cell.mean for cell in cells), *(cell.std for cell in cells)])
    return out.getvalue()


def write_tables(summary: Mapping[str, Any], folder: Path) -> None:
    """Write table.md, table.tex and table.csv."""
    for name, text in (("md", markdown(summary)), ("tex", latex(summary)), ("csv", as_csv(summary))):
        with atomic_write(folder / f"table.{name}", "w") as file:
            file.write(text)
