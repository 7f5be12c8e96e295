"""Held-out loss by source, and the difference of two models by source."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes

from clm_detour.report.arms import colour_slot, colour_slots
from clm_detour.report.plots import COLOURS, FAINT, INK, MARKERS, PAPER, draw
from clm_detour.report.records import Run, Scores
from clm_detour.report.wording import signed

NAME_LENGTH = 20


def figure_height(rows: int) -> float:
    """Inches for so many sources."""
    return 0.9 + 0.36 * rows


def loss_dots(run: Run, models: dict[str, Scores], sources: Sequence[str]) -> Markup:
    """A row for each source, in it a mark for each model."""

    def paint(axes: Axes) -> None:
        for place, (model, scores) in enumerate(models.items()):
            slot = colour_slot(run, model)
            apart = 0.2 * (place - (len(models) - 1) / 2)  # so that equal losses do not hide each other
            found = [(row + apart, scores.by_source.get(source)) for row, source in enumerate(sources)]
            measured = [(row, score.loss) for row, score in found if score]
            axes.plot(
                [loss for _, loss in measured],
                [row for row, _ in measured],
                linestyle="",
                marker=MARKERS[slot],
                color=COLOURS[slot],
                markeredgecolor=PAPER,
                markeredgewidth=0.8,
                markersize=6.5,
            )
        name_rows(axes, sources)
        axes.set_xlabel("loss (lower is better)")

    label = f"Held-out loss of {', '.join(models)} on each source; the table has the figures."
    return draw("held-out-loss", label, figure_height(len(sources)), paint, colour_slots(run, models))


def difference_bars(first: str, second: str, differences: dict[str, float]) -> Markup:
    """Loss of `first` minus that of `second` by source, in the colour of the better one."""

    def paint(axes: Axes) -> None:
        values = list(differences.values())
        shades = [COLOURS[first if value < 0 else second] for value in values]
        axes.barh(range(len(values)), values, height=0.5, color=shades)
        axes.axvline(0, color=INK, linewidth=0.8)
        reach = max([abs(value) for value in values] + [1e-6])
        axes.set_xlim(-1.45 * reach, 1.45 * reach)
        for row, value in enumerate(values):
            side, align = (-1, "right") if value < 0 else (1, "left")
            axes.text(value + side * 0.05 * reach, row, signed(value), ha=align, va="center")
        name_rows(axes, list(differences))
        axes.set_xlabel(f"← {first} better   |   {second} better →")

    label = f"Loss of {first} minus loss of {second} by source: "
    label += ", ".join(f"{source} {signed(value)}" for source, value in differences.items())
    return draw("held-out-difference", label, figure_height(len(differences)), paint)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Sources from top to bottom; a name that would take the panel is cut, the table has it whole."""
    short = [name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…" for name in names]
    axes.set_yticks(range(len(names)), short)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.spines["bottom"].set_color(FAINT)
