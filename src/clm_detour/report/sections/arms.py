"""The section on arms beyond the usual ones, such as ablations with frozen layers."""

from __future__ import annotations

from clm_detour.figures import wording
from clm_detour.figures.table import Cell, Row, Table, Text, number
from clm_detour.records.evaluation import Group
from clm_detour.records.run import Score
from clm_detour.report.markup import Section, key, paragraph, table
from clm_detour.report.run import Run

USUAL = {"base", "detour", "twin"}  # whose results are at the top of the page


def arms_section(run: Run) -> Section | None:
    """Return the results of every arm, if there are other arms than the usual ones."""
    if not run.arms.keys() - USUAL:
        return None
    tasks = (
        " For tasks, the difference has its 95 % interval, where there is one, with what the interval is "
        "over. The number of tasks is given where the two arms share more tasks than all arms do."
        if run.evaluation
        else ""
    )
    text = (
        f"Every arm with its phases. In brackets: the difference from {reference_arm(run)}.{tasks} There is "
        "one run of each arm, so another seed might show the same difference, unless it is well above that "
        "of the control."
    )
    found = arm_table(run)
    rows = [
        Row([key(run.color_slot(arm), arm), *row.cells[1:]])
        for arm, row in zip(run.arms, found.rows, strict=True)
    ]
    body = paragraph(text) + table(found.caption, found.head, rows, left={1})
    return Section("arms", "All arms", body, folded=True)


def reference_arm(run: Run) -> str:
    """Return the arm from which differences are taken."""
    return "twin" if "twin" in run.arms else next(iter(run.arms))


def arm_table(run: Run) -> Table:
    """Return the results of every arm, for the page and for the terminal."""
    groups = run.evaluation.averaged if run.evaluation else []
    scores = run.held_out.totals if run.held_out else {}
    reference = reference_arm(run)
    head: list[Text] = ["Arm", "Phases", *(["Held-out loss", "Accuracy"] if scores else [])]
    head += [f"Tasks: {group.name} ({len(group.tasks)})" for group in groups]
    rows = []
    for arm, ids in run.arms.items():
        before = scores.get(reference) if arm != reference else None
        cells: list[Text | Cell] = [arm, ", ".join(phase_words(run, id) for id in ids)]
        cells += held_out_cells(scores.get(arm), before) if scores else []
        cells += [task_cell(run, group, arm, reference) for group in groups]
        rows.append(Row(cells))
    return Table("Arms", head, rows, left={1})


def phase_words(run: Run, id: str) -> str:
    """Return the name of a phase with what it froze: `clm (layers 0-7 frozen)`."""
    name = id.rsplit(".", 1)[-1]
    phase = run.config.phases.get(name) if run.config else None
    freeze = phase.freeze if phase else None
    if freeze is None:
        return name
    parts = [f"layers {freeze.layers}"] if freeze.layers else []
    parts += [part for part in ("embeddings", "head") if getattr(freeze, part)]
    return f"{name} ({wording.listing(parts)} frozen)" if parts else name


def held_out_cells(score: Score | None, reference: Score | None) -> list[Cell]:
    """Return the cells of loss and accuracy, each with its difference from the reference."""
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


def task_cell(run: Run, group: Group, arm: str, reference: str) -> Cell:
    """Return the cell of an average over tasks; over all tasks also the difference from the reference.

    The number of tasks of the difference is given if it is not that of the average.
    """
    score = group.averages.get(arm)
    if score is None:
        return number(None, str)
    found = run.evaluation.difference(arm, reference) if run.evaluation and group.name == "all" else None
    if found is None:
        return number(score.mean, "{:.1f}".format)
    parts, low, high = [wording.signed(found.difference, 1)], None, None
    if found.interval is not None:
        low, high = found.interval
        ends = " to ".join(wording.signed(end, 1) for end in found.interval)
        parts.append(f"{ends} over {found.interval_over}")
    if len(found.tasks) != len(group.tasks):
        parts.append(f"on {wording.counted(len(found.tasks), 'task')}")
    values = {"": score.mean, "difference": found.difference, "low": low, "high": high}
    return Cell(f"{score.mean:.1f} ({', '.join(parts)})", {**values, "over": found.interval_over})
