"""The section on tasks: scores beside the published ones, and how far models are apart on them."""

from __future__ import annotations

from markupsafe import Markup

from clm_detour.evaluate.statistics import FEWEST_TASKS
from clm_detour.figures import wording
from clm_detour.figures.axes import Values
from clm_detour.figures.dots import Dot, DotPlot
from clm_detour.figures.table import Cell, Row, Text, number, with_best, with_spread
from clm_detour.records.evaluation import Group, MeanScore, Summary, TaskComparison
from clm_detour.records.store import OptionalInterval
from clm_detour.report.markup import Section, figure, heading, join, key, paragraph, side_by_side, table
from clm_detour.report.run import Run


def tasks_section(run: Run) -> Section | None:
    """Return scores, differences and published scores."""
    found = run.evaluation
    if not found or not any(found.scores.values()):
        return None
    main = found.difference("detour", "twin")
    body = join(
        paragraph(introduction(found)),
        score_table(run, found),
        left_out_table(found) if any(task.left_out for task in found.tasks) else None,
        difference_table(found) if found.comparisons else None,
        difference_figure(main) if main and len(main.by_task) > 1 else None,
        join(heading("Published"), published_table(found)) if found.published else None,
        missing_table(found) if found.missing else None,
    )
    return Section("tasks", "Tasks", body)


def introduction(found: Summary) -> str:
    """Return how the scores were measured."""
    return (
        "Each model was fine-tuned on each task's training texts in the same way, and scored on its test "
        "texts. It was not checked whether a test text is also among the training texts, or among the texts "
        f"on which the models were trained before. Scores are in percent, higher is better{seeds_of(found)}."
    )


def seeds_of(found: Summary) -> str:
    """Return over how many seeds the scores are, which may differ between tasks, as the end of a sentence."""
    seeds = {len(score.seeds) for scores in found.scores.values() for score in scores.values()}
    few, many = min(seeds), max(seeds)
    if many == 1:
        return ", with one seed each"
    over = f"{many} seeds" if few == many else f"{few} to {many} seeds"
    return f", ± their standard deviation over {over}" + (" (none of one seed)" if few == 1 else "")


def score_table(run: Run, found: Summary) -> Markup:
    """Return a row for each task and a column for each model; averages below."""
    models = found.scored
    head: list[Text] = [
        "Task",
        "Measure",
        "Test texts",
        *(key(run.color_slot(model), model) for model in models),
    ]
    rows = []
    for task in found.tasks:
        cells = score_cells([found.scores[model].get(task.name) for model in models])
        rows.append(Row([task.name, task.metric.replace("_", " "), number(task.n, wording.count), *cells]))
    for group in found.averaged:
        cells = score_cells([group.averages.get(model) for model in models])
        rows.append(Row([average_name(group), "", Cell("", {"": None}), *cells]))
    note = "The best of each row is in bold; averages are over the tasks that every model has."
    return table("Scores on tasks", head, rows, left={1}, note=note)


def average_name(group: Group) -> str:
    """Return the name of an average, with the number of tasks and how many are missing."""
    every = wording.counted(group.of, "task")
    over = every if len(group.tasks) == group.of else f"{len(group.tasks)} of {every}"
    return f"Average, {group.name} ({over})"


def score_cells(scores: list[MeanScore | None]) -> list[Cell]:
    """Return cells like `81.0 ± 0.4`, of which the highest is marked."""
    means = with_best([None if score is None else score.mean for score in scores], one_decimal, lowest=False)
    return [
        mean if score is None else with_spread(mean, score.std, score.interval)
        for mean, score in zip(means, scores, strict=True)
    ]


def one_decimal(value: float) -> str:
    """Return a score: 81.02 -> '81.0'."""
    return f"{value:.1f}"


def difference_table(found: Summary) -> Markup:
    """Return the difference of every pair of models."""
    head: list[Text] = [
        "Pair", "Points", "95 % interval", "Over", "p", "p, Holm",
        "Tasks", "Tasks won", "Tasks lost", "Tasks tied", "Seeds won", "Seeds lost",
    ]  # fmt: skip
    rows = []
    for row in found.comparisons:
        counts = (len(row.tasks), row.wins, row.losses, row.ties, row.seed_wins, row.seed_losses)
        cells = [number(row.difference, signed_points), bounds(row.interval)]
        tests = [number(p, "{:.2g}".format) for p in (row.p, row.p_adjusted)]
        counted = [number(count, wording.count) for count in counts]
        rows.append(
            Row([f"{row.a} − {row.b}", *cells, row.interval_over or wording.ABSENT, *tests, *counted])
        )
    note = (
        "Mean over tasks of the first model minus the second. An interval over tasks, and p, are about tasks "
        f"like these. An interval over seeds is about these tasks only; with fewer than {FEWEST_TASKS} tasks "
        "there is no other interval and no p. Holm: p after the correction for all pairs. Seeds: pairs of "
        "runs on one task with one seed. An interval that contains 0 leaves open which model is better."
    )
    return table("Differences on tasks", head, rows, left={3}, note=note)


def signed_points(value: float) -> str:
    """Return a difference: 1.2 -> '+1.20'."""
    return wording.signed(value, 2)


def bounds(interval: OptionalInterval) -> Cell:
    """Return the cell of an interval: `−0.12 to +0.40`."""
    low, high = interval or (None, None)
    text = wording.ABSENT if interval is None else " to ".join(map(signed_points, interval))
    return Cell(text, {"low": low, "high": high})


def difference_figure(row: TaskComparison) -> Markup:
    """Return a dot plot of the difference on each task and over all tasks, in the color of the better model.

    Every interval is one over seeds. The axis is limited, since two seeds can give an interval of hundreds of
    points.
    """
    entries = {task: (each.difference, each.interval) for task, each in row.by_task.items()}
    whole = row.difference, row.interval if row.interval_over == "seeds" else None
    ends = [abs(end) for _, interval in (*entries.values(), whole) for end in interval or ()]
    core = [abs(value) for value in (*(whole[1] or ()), whole[0], *(value for value, _ in entries.values()))]
    reach = 1.1 * max(min(max(ends, default=max(core)), 3 * max(core)), 0.1)
    rows = {
        name: [Dot(value, "detour" if value > 0 else "twin", interval)]
        for name, (value, interval) in (*entries.items(), ("all tasks", whole))
    }
    label = f"{row.a} minus {row.b} in points by task: "
    label += ", ".join(f"{task} {wording.signed(value, 1)}" for task, (value, _) in entries.items())
    whole_interval = (
        " All tasks together have none here, since their interval is over tasks; it is in the table."
        if row.interval_over == "tasks"
        else ""
    )
    caption = (
        "Lines are 95 % intervals over seeds, which are about these tasks only. Tasks with too few seeds, or "
        f"whose seeds do not differ, have none.{whole_interval} A line that reaches the edge continues "
        "beyond it."
    )
    axis = Values(f"points: ← {row.b} better   |   {row.a} better →", "~g", ".2f")
    better = {"detour": "detour", "twin": "twin"}
    plot = DotPlot(rows, better, axis, zero=True, reach=reach, legend=False)
    return side_by_side(figure("task-differences", plot, label, f"Tasks, {row.a} minus {row.b}", caption))


def published_table(found: Summary) -> Markup:
    """Return the paper's scores for the tasks that were run here."""
    published = found.published
    tasks = [task.name for task in found.tasks if any(task.name in row.scores for row in published.values())]
    rows = []
    for model, row in published.items():
        values = [row.scores.get(task) for task in tasks]
        values += [row.averages.get(group.name) for group in found.averaged]
        rows.append(Row([model, *(number(value, one_decimal) for value in values)]))
    head: list[Text] = ["Published", *tasks, *map(average_name, found.averaged)]
    note = "From arXiv 2605.12438, whose models, texts and number of seeds differ from this run's."
    return table("Published scores", head, rows, note=note)


def missing_table(found: Summary) -> Markup:
    """Return the tasks that could not be read."""
    reason = Markup('<span class="long">{}</span>')
    rows = [Row([row.task, reason.format(row.reason)]) for row in found.missing]
    return table("Tasks that are missing", ["Task", "Why"], rows, left={1})


def left_out_table(found: Summary) -> Markup:
    """Return what the scores do not cover, a row for each task and reason."""
    rows = [
        Row([task.name, what, str(count)]) for task in found.tasks for what, count in task.left_out.items()
    ]
    note = "Parts of the data sets that these scores do not cover; docs/tasks.md says what each line means."
    return table("Left out of the tasks", ["Task", "What", "Count"], rows, left={1}, note=note)
