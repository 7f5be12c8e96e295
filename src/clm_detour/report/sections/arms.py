"""What every arm came to, beside what it was: the table of ablations, such as freezing."""

from __future__ import annotations

from clm_detour.report import wording
from clm_detour.report.arms import colour_slot
from clm_detour.report.evaluation import Average
from clm_detour.report.markup import Section, key, paragraph
from clm_detour.report.records import Run, Score
from clm_detour.report.tables import Row, Text, table

USUAL = {"base", "detour", "twin"}  # whose result is the top of the page


def arms_section(run: Run) -> Section | None:
    """Only where there are other arms than the usual ones."""
    if not run.arms.keys() - USUAL:
        return None
    reference = reference_arm(run)
    text = (
        f"Every arm with its phases. In brackets: the difference from {reference}"
        + (
            ", on tasks with its 95 % interval where there is one, and over how many tasks where the two share more than all arms do."
            if run.evaluation
            else "."
        )
        + " One run of each arm: a difference is no more than what another seed might show, unless it is well above that of the control."
    )
    head, *rows = arm_rows(run)
    names: list[Text] = [key(colour_slot(run, row[0]), row[0]) for row in rows]
    lines = [Row([name, *row[1:]]) for name, row in zip(names, rows, strict=True)]
    return Section("arms", "Arms", paragraph(text) + table("Arms", head, lines, left={1}))


def reference_arm(run: Run) -> str:
    """From which differences are taken."""
    return "twin" if "twin" in run.arms else next(iter(run.arms))


def arm_rows(run: Run) -> list[list[str]]:
    """A head and a row an arm, as they read on the page and on the terminal."""
    averages = run.evaluation.averages if run.evaluation else []
    scores = run.held_out.models if run.held_out else {}
    reference = reference_arm(run)
    before = scores[reference].total if reference in scores else None
    rows = [
        ["Arm", "Phases", *(["Held-out loss", "Accuracy"] if scores else []), *map(average_name, averages)]
    ]
    for arm, ids in run.arms.items():
        score = scores[arm].total if arm in scores else None
        measured = held_out_cells(score, before if arm != reference else None) if scores else []
        tasks = [task_cell(run, average, arm, reference) for average in averages]
        rows.append([arm, ", ".join(phase_words(run, id) for id in ids), *measured, *tasks])
    return rows


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


def held_out_cells(score: Score | None, reference: Score | None) -> list[str]:
    """Loss and accuracy, each with its difference."""
    if score is None:
        return [wording.ABSENT] * 2
    loss, accuracy = wording.loss(score.loss), wording.percent(score.accuracy)
    if reference is None:
        return [loss, accuracy]
    changes = wording.signed(score.loss - reference.loss), wording.points(score.accuracy - reference.accuracy)
    return [f"{loss} ({changes[0]})", f"{accuracy} ({changes[1]})"]


def average_name(average: Average) -> str:
    """Of a column."""
    return f"Tasks: {average.group} ({average.tasks})"


def task_cell(run: Run, average: Average, arm: str, reference: str) -> str:
    """The average over tasks; over all of them also the difference with its interval, and over how many if they are not the average's."""
    score = average.models.get(arm)
    if score is None:
        return wording.ABSENT
    found = run.evaluation.difference(arm, reference) if run.evaluation and average.group == "all" else None
    text = f"{score.mean:.1f}"
    if found is None:
        return text
    parts = [wording.signed(found.value, 1)]
    if found.interval is not None:
        parts.append(" to ".join(wording.signed(end, 1) for end in found.interval))
    if found.tasks != average.tasks:
        parts.append(f"over {found.tasks} {'task' if found.tasks == 1 else 'tasks'}")
    return f"{text} ({', '.join(parts)})"
