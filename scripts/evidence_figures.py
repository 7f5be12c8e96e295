"""Draw the figures of docs/evidence.md from the records of a study, and print the tables of the page.

    python scripts/evidence_figures.py dev/study docs/images

The records are those that `scripts/study_records.py` copies. Three figures are written, each for light and
for dark paper (`NAME.svg`, `NAME-dark.svg`):

    evidence-claims       the effects of all claims
    evidence-networks     divergence by layer, and loss on held-out text at the ends of the phases
    evidence-secrets      exposure of secrets against their number of copies, under both masks

Lines are means over seeds, and bands reach from the lowest to the highest seed. A figure or a part of one
whose records are missing is left out with a message.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clm_detour.figures.axes import Copies, Layers, Values
from clm_detour.figures.figure import Figure
from clm_detour.figures.lines import Line, LineChart
from clm_detour.figures.renderers import markdown
from clm_detour.figures.table import Row, Table, Text, number
from clm_detour.figures.wording import listing
from clm_detour.ledger.figure import claims_plot, label_of, shown_effect
from clm_detour.ledger.statistics import ESTIMATOR, STATISTICS
from clm_detour.records.analysis import NetworkComparison
from clm_detour.records.audit import BASE, MASKS, AuditRecord, Mask
from clm_detour.records.evaluation import Summary
from clm_detour.records.ledger import LedgerRecord
from clm_detour.records.run import Arms, HeldOutRecord
from clm_detour.records.run_folder import RunFolder
from clm_detour.records.store import read, read_or_none
from clm_detour.report.run import color_slot
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_write

SEEDS = "mean and range of seeds"
GAP = 14  # pixels between the parts of a figure
PLACES = {"nats": 3, "points": 1}  # decimals of a unit; 2 of others
PAIRS = {"detour_twin": ("detour against twin", "neutral-1"), "control": ("twin against twin", "neutral-3")}


@dataclass(frozen=True)
class Study:
    """The records of a study: runs of one recipe by seed, and the result of the ledger, if it is there."""

    runs: Mapping[str, RunFolder]
    result: LedgerRecord | None

    @property
    def arms(self) -> list[str]:
        """The arms of all runs."""
        return list(dict.fromkeys(arm for run in self.runs.values() for arm in read(Arms, run.arms)))

    @property
    def slots(self) -> dict[str, str]:
        """The color of each arm."""
        arms = self.arms
        return {arm: color_slot(arm, arms) for arm in arms}


@dataclass(frozen=True)
class Drawn:
    """A part of a figure, and what it shows in words."""

    figure: Figure
    label: str


def read_study(folder: Path) -> Study:
    """Return the records in a folder.

    Raises:
        SystemExit: If there are no runs.
    """
    runs = {path.name.removeprefix("seed-"): RunFolder(path) for path in sorted(folder.glob("main/seed-*"))}
    if not runs:
        raise SystemExit(f"{folder} has no run main/seed-N; copy the records with scripts/study_records.py.")
    return Study(runs, read_or_none(LedgerRecord, folder / "ledger.json"))


def line_of(seeds: Iterable[Mapping[float, float]], name: str) -> Line:
    """Return the mean of the finite values over seeds, with a band over their range where there are several.

    Args:
        seeds: For each seed the value at each place on the axis.
    """
    points: dict[float, list[float]] = {}
    pairs = [pair for values in seeds for pair in values.items()]
    for place, value in sorted(pairs, key=lambda pair: pair[0]):
        if math.isfinite(value):
            points.setdefault(place, []).append(value)
    band = [(min(values), max(values)) if len(values) > 1 else None for values in points.values()]
    return Line([*points], [statistics.fmean(values) for values in points.values()], name, band)


def claims(study: Study) -> list[Drawn]:
    """Return the effects of all claims."""
    if study.result is None:
        return []
    plot = claims_plot(study.result)
    return [Drawn(Figure("evidence-claims", plot.draw()), label_of(study.result))] if plot else []


def layers(study: Study) -> list[Drawn]:
    """Return the divergence by layer of detour and twin, and of two twins."""
    found = [read_or_none(NetworkComparison, run.comparison) for run in study.runs.values()]
    compared = [each for each in found if each]
    if not compared:
        return []
    lines, words = [], []
    for pair, (name, _) in PAIRS.items():
        curves = [curve for each in compared if (curve := each.curve(pair, ESTIMATOR))]
        if curves:
            lines.append(line_of([dict(enumerate(curve.divergence)) for curve in curves], name))
            words.append(f"{name} {statistics.fmean(curve.model.divergence for curve in curves):.3f}")
    names = [a for a, _ in compared[0].main.pairs]
    entries = {name: slot for name, slot in PAIRS.values() if any(line.name == name for line in lines)}
    title = Values(f"divergence, 1 − CKA, {SEEDS}")
    chart = LineChart(lines, entries, Layers(names), title, points=True, from_zero=True)
    label = f"Divergence by layer. Mean over layers: {listing(words)}."
    return [Drawn(Figure("evidence-layers", chart.draw()), label)]


def losses(study: Study) -> list[Drawn]:
    """Return the loss on held-out text of each arm before training and at the ends of its phases."""
    found: dict[str, list[dict[float, float]]] = {arm: [] for arm in study.arms}
    for run in study.runs.values():
        held_out = read_or_none(HeldOutRecord, run.held_out)
        if held_out is None:
            continue
        start = held_out.totals.get(BASE)
        ends = {id: scores.total for id, scores in held_out.phases.items()}
        for arm, phases in read(Arms, run.arms).items():
            scores = [start, *(ends.get(id) for id in phases)]
            found[arm].append({float(place): score.loss for place, score in enumerate(scores) if score})
    lines = [line for arm, values in found.items() if len((line := line_of(values, arm)).x) > 1]
    if not lines:
        return []
    last = max(len(phases) for run in study.runs.values() for phases in read(Arms, run.arms).values())
    axis = Layers(["base", *(f"phase {place}" for place in range(1, last)), "decay"], title="after")
    entries = {line.name: study.slots[line.name] for line in lines}
    chart = LineChart(
        lines, entries, axis, Values(f"masked loss on held-out text (nats), {SEEDS}"), points=True
    )
    known = listing([f"{line.name} {line.y[-1]:.3f}" for line in lines if line.x[-1] == last])
    words = f" at the end: {known}" if known else ""
    return [Drawn(Figure("evidence-losses", chart.draw()), f"Loss on held-out text{words}.")]


def secrets(study: Study) -> list[Drawn]:
    """Return exposure by number of copies at the end of each arm, a part for each mask."""
    found = [read_or_none(AuditRecord, run.audit) for run in study.runs.values()]
    audits = [each for each in found if each and each.canaries]
    return [exposure(study, audits, mask) for mask in MASKS if audits]


def exposure(study: Study, audits: Sequence[AuditRecord], mask: Mask) -> Drawn:
    """Return exposure by number of copies under a mask; only the first mask has a legend."""
    known = [each.canaries for each in audits if each.canaries]
    counts = sorted({copies for canaries in known for copies in canaries.copies})
    axis = Copies(counts, statistics.fmean(canaries.chance for canaries in known), "chance")
    lines = []
    for arm in study.arms:
        found = [audit.exposures(model, mask) for audit in audits if (model := audit.final(arm))]
        seeds = [{axis.place(each.copies): each.mean for each in exposures} for exposures in found]
        lines += [line_of(seeds, arm)] if seeds else []
    entries = {line.name: study.slots[line.name] for line in lines}
    title = Values(f"exposure under the {mask} mask (bits), {SEEDS}")
    legend = "" if mask == MASKS[0] else None
    chart = LineChart(lines, entries, axis, title, points=True, from_zero=True, legend=legend, height=200)
    words = listing([f"{line.name} {line.y[-1]:.2f}" for line in lines])
    at = f"Exposure under the {mask} mask at {counts[-1]} copies, in bits"
    label = f"{at}: {words}; by chance {axis.level:.2f}."
    return Drawn(Figure(f"evidence-secrets-{mask}", chart.draw()), label)


Part = Callable[[Study], list[Drawn]]

# Figure -> its parts, each with the record that it needs.
FIGURES: dict[str, dict[Part, str]] = {
    "evidence-claims": {claims: "ledger.json"},
    "evidence-networks": {layers: "analysis/compare.json", losses: "evaluation/held_out.json"},
    "evidence-secrets": {secrets: "analysis/audit.json with canaries"},
}


def write_figures(study: Study, folder: Path) -> list[str]:
    """Write the figures, and return a line on each: its words, or what is missing."""
    said = []
    for name, parts in FIGURES.items():
        drawn = []
        for part, needed in parts.items():
            made = part(study)
            drawn += made
            if not made:
                said.append(f"{name}: {part.__name__} left out, as no run has {needed}.")
        if not drawn:
            continue
        for suffix, dark in (("", False), ("-dark", True)):
            with atomic_write(folder / f"{name}{suffix}.svg", "w") as file:
                file.write(stacked([each.figure.svg(dark) for each in drawn]))
        said.append(f"{name}: {' '.join(each.label for each in drawn)}")
    return said


def stacked(drawings: Sequence[str]) -> str:
    """Return drawings in SVG as one, from top to bottom."""
    if len(drawings) == 1:
        return drawings[0]
    sizes = [re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing) for drawing in drawings]
    widths, heights = ([float(size[place]) for size in sizes if size] for place in (1, 2))
    width, height, top, parts = max(widths), sum(heights) + GAP * (len(drawings) - 1), 0.0, []
    for drawing, tall in zip(drawings, heights, strict=True):
        parts.append(drawing.replace("<svg ", f'<svg y="{top:g}" ', 1))
        top += tall + GAP
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(parts)}</svg>'


def verdict_table(result: LedgerRecord) -> Table:
    """Return the verdict on each claim."""
    rows = [
        Row([claim.claim, claim.words, shown_effect(claim), claim.unit, f"{claim.smallest:g}"])
        for claim in result.claims.values()
    ]
    return Table("Verdicts", ["Claim", "Verdict", "Effect [95 % interval]", "Unit", "Smallest"], rows)


def score_table(study: Study) -> Table:
    """Return the value of each statistic and each task for each arm and seed, with the mean over seeds."""
    rows = []
    for statistic in STATISTICS.values():
        for arm in ["detour"] if statistic.arms else [BASE, *study.arms]:
            values = [statistic.read(run, arm) for run in study.runs.values()]
            name = "" if statistic.arms else arm
            rows.append(score_row(f"{statistic.title} ({statistic.unit})", name, values, statistic.unit))
    found = [read_or_none(Summary, run.tasks / "summary.json") for run in study.runs.values()]
    for task in dict.fromkeys(row.name for summary in found if summary for row in summary.tasks):
        for arm in [BASE, *study.arms]:
            scores = [summary.scores.get(arm, {}).get(task) if summary else None for summary in found]
            rows.append(
                score_row(f"{task} (points)", arm, [each.mean if each else None for each in scores], "points")
            )
    head: list[Text] = ["Measure", "Arm", *(f"seed {seed}" for seed in study.runs), "mean"]
    return Table("Scores by arm and seed", head, [row for row in rows if row])


def score_row(title: str, arm: str, values: Sequence[float | None], unit: str) -> Row | None:
    """Return a row of the scores of an arm; None if no seed has one."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    places = PLACES.get(unit, 2)
    cells = [
        number(value, lambda found: f"{found:.{places}f}") for value in (*values, statistics.fmean(known))
    ]
    return Row([title, arm, *cells])


def main() -> None:
    """Read the arguments, draw the figures and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("records", type=Path, help="folder of the records")
    parser.add_argument("images", type=Path, help="folder of the figures")
    arguments = parser.parse_args()
    try:
        study = read_study(arguments.records)
        print(*write_figures(study, arguments.images), sep="\n\n")
        for table in [*([verdict_table(study.result)] if study.result else []), score_table(study)]:
            print(f"\n{table.caption}\n\n{markdown(table)}", end="")
    except UserError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
