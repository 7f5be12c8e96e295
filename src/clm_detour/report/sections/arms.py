"""What every arm came to, beside what it was: the table of ablations, such as freezing."""

from __future__ import annotations

from clm_detour.report import wording
from clm_detour.report.arms import colour_slot
from clm_detour.report.evaluation import Average
from clm_detour.report.markup import Section, key, paragraph
from clm_detour.report.records import Run, Score
from clm_detour.report.tables import Cell, Content, Row, number, table

USUAL = {"base", "detour", "twin"}  # whose result is the top of the page


def arms_section(run: Run) -> Section | None:
    """Only where there are other arms than the usual ones."""
    if not run.arms.keys() - USUAL:
        return None
    reference = reference_arm(run)
    text = (
        f"Every arm with its phases. In brackets: the difference from {reference}"
        + (
            ", on tasks with its 95 % interval where there is one and over what it is, and over how many tasks where the two share more than all "
            "arms do."
            if run.evaluation
            else "."
        )
        + " One run of each arm: a difference is no more than what another seed might show, unless it is well above that of the control."
    )
    head, rows = arm_rows(run)
    lines = [Row([key(colour_slot(run, arm), arm), *cells]) for arm, cells in rows]
    return Section("arms", "Arms", paragraph(text) + table("Arms", head, lines, left={1}))


def reference_arm(run: Run) -> str:
    """From which differences are taken."""
    return "twin" if "twin" in run.arms else next(iter(run.arms))


def arm_rows(run: Run) -> tuple[list[str], list[tuple[str, list[Content]]]]:
    """Return a head, and the name and cells of every arm, as they read on the page and on the terminal."""
    averages = run.evaluation.averages if run.evaluation else []
    scores = run.held_out.totals if run.held_out else {}
    reference = reference_arm(run)
    head = ["Arm", "Phases", *(["Held-out loss", "Accuracy"] if scores else []), *map(average_name, averages)]
    rows = []
    for arm, ids in run.arms.items():
        before = scores.get(reference) if arm != reference else None
        cells: list[Content] = [", ".join(phase_words(run, id) for id in ids)]
        cells += held_out_cells(scores.get(arm), before) if scores else []
        cells += [task_cell(run, average, arm, reference) for average in averages]
        rows.append((arm, cells))
    return head, rows


def phase_words(run: Run, id: str) -> str:
    """clm (layers 0-7 frozen)."""
    name = id.rsplit(".", 1)[-1]
    phase = run.config.phases.get(name) if run.config else None
    freeze = phase.freeze if phase else None
    if freeze is None:
        return name
    parts = [f"layers {freeze.layers}"] if freeze.layers else []
    parts += [part for part in ("embeddings", "head") if getattr(freeze, part)]
    return f"{name} ({wording.listing(parts)} frozen)" if parts else name


def held_out_cells(score: Score | None, reference: Score | None) -> list[Cell]:
    """Loss and accuracy, each with its difference."""
    if score is None:
        return [number(None, str)] * 2
    loss, accuracy = number(score.loss, wording.loss), number(score.accuracy, wording.percent)
    if reference is None:
        return [loss, accuracy]
    changes = score.loss - reference.loss, score.accuracy - reference.accuracy
    return [
        Cell(f"{loss.text} ({wording.signed(changes[0])})", {**loss.values, "difference": changes[0]}),
        Cell(
            f"{accuracy.text} ({wording.points(changes[1])})", {**accuracy.values, "difference": changes[1]}
        ),
    ]


def average_name(average: Average) -> str:
    """Of a column."""
    return f"Tasks: {average.group} ({average.tasks})"


def task_cell(run: Run, average: Average, arm: str, reference: str) -> Cell:
    """The average over tasks; over all of them also the difference with its interval, and over how many if they are not the average's."""
    score = average.models.get(arm)
    if score is None:
        return number(None, str)
    found = run.evaluation.difference(arm, reference) if run.evaluation and average.group == "all" else None
    if found is None:
        return number(score.mean, "{:.1f}".format)
    parts, low, high = [wording.signed(found.value, 1)], None, None
    if found.interval is not None:
        low, high = found.interval
        ends = " to ".join(wording.signed(end, 1) for end in found.interval)
        parts.append(f"{ends} over {found.interval_over}")
    if found.tasks != average.tasks:
        parts.append(f"on {wording.counted(found.tasks, 'task')}")
    values = {"": score.mean, "difference": found.value, "low": low, "high": high}
    return Cell(f"{score.mean:.1f} ({', '.join(parts)})", {**values, "over": found.interval_over})
