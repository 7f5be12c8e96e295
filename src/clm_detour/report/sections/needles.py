"""The section on needles: whether models find a made-up fact in a long text."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from clm_detour.figures.table import Cell, Row, Text, number
from clm_detour.figures.wording import short_names
from clm_detour.records.needles import NeedleProbeRecord, NeedlesRecord, ProbeShare
from clm_detour.report.markup import Section, heading, join, key, paragraph, table
from clm_detour.report.run import Run

LANGUAGES = {"en": "English", "fr": "French"}


def needles_section(run: Run) -> Section | None:
    """Return the tests that were made."""
    parts = [
        without_training(run, run.needles) if run.needles else None,
        trained_probe(run, run.needle_probe) if run.needle_probe else None,
    ]
    body = join(*parts)
    return Section("needles", "Needles in long texts", body) if body else None


def without_training(run: Run, found: NeedlesRecord) -> Markup:
    """Return how often each model fills in the value of a fact that stands in the text."""
    text = (
        "A made-up fact stands in running text, and a masked sentence asks for its value. The right one of "
        f"{found.candidates} values must get the highest logit, so chance is {percent(found.chance)} %. Each "
        f"share is over {found.trials} texts, with a 95 % interval of at most ± {margin(found.trials):.0f} "
        "points. Nothing is trained."
    )
    rows = []
    for name, path in named(run, found.models):
        for length, shares, control in zip(
            found.lengths, found.accuracy[path], found.control[path], strict=True
        ):
            cells = (number(value, percent) for value in (*shares, control))
            rows.append(Row([name, str(length), *cells]))
    places = [f"at {100 * place:.0f} %" for place in found.positions]
    head: list[Text] = ["Model", "Tokens", *places, "no needle"]
    return join(heading("Without training"), paragraph(text), table("Needles found (%)", head, rows))


def trained_probe(run: Run, found: NeedleProbeRecord) -> Markup:
    """Return how often a probe on frozen states judges statements about a fact rightly."""
    tested = found.pairs["test"]
    text = (
        "The test of the paper. A statement about the fact follows the text, and a small network, trained on "
        f"{found.pairs['train']:,} other texts, tells from the state of the first token whether it is true; "
        f"chance is 50 %. The facts are in {LANGUAGES.get(found.language, found.language)}. In brackets is "
        f"the 95 % interval (Wilson): with {tested:,} test texts up to ± {margin(tested):.1f} points, and "
        "more for each length alone. Smaller differences between models say nothing. There is one seed."
    )
    rows = [
        Row([name, *(share_cell(share) for share in (result.total, *result.by_length))])
        for name, path in named(run, list(found.models))
        for result in [found.models[path]]
    ]
    head: list[Text] = ["Model", "all", *(f"{length:,} tokens" for length in found.lengths)]
    return join(
        heading("With a trained probe"), paragraph(text), table("Statements judged rightly (%)", head, rows)
    )


def named(run: Run, paths: Sequence[str]) -> list[tuple[Text, str]]:
    """Return what the page calls each model, and its path."""
    names = short_names(paths)
    return [
        (key(run.color_slot(names[p]), names[p]) if names[p] in run.names else names[p], p) for p in paths
    ]


def margin(trials: int) -> float:
    """Return half the width of the 95 % interval of a share near one half, in points."""
    return float(98 / trials**0.5)


def percent(share: float) -> str:
    """Return a share in whole percent, without the sign."""
    return f"{100 * share:.0f}"


def share_cell(found: ProbeShare) -> Cell:
    """Return the cell of a share with its interval."""
    low, high = found.interval
    text = f"{100 * found.accuracy:.1f} [{percent(low)}, {percent(high)}]"
    return Cell(text, {"": found.accuracy, "low": low, "high": high, "texts": found.pairs})
