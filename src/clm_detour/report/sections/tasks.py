"""Scores on tasks beside the published ones, and how far models are apart on them."""

from __future__ import annotations

from markupsafe import Markup
from matplotlib.axes import Axes

from clm_detour.evaluate.statistics import FEWEST_TASKS
from clm_detour.report import wording
from clm_detour.report.arms import colour_slot
from clm_detour.report.dots import figure_height, name_rows
from clm_detour.report.evaluation import Average, Difference, Evaluation, TaskScore
from clm_detour.report.markup import Section, figure, heading, join, key, paragraph
from clm_detour.report.plots import COLOURS, INK, draw
from clm_detour.report.records import Run
from clm_detour.report.tables import Cell, Row, Text, number, table, with_best


def tasks_section(run: Run) -> Section | None:
    """What `evaluation/tasks/summary.json` holds."""
    found = run.evaluation
    if not found or not any(found.scores.values()):
        return None
    main = found.difference("detour", "twin")
    body = join(
        paragraph(introduction(found)),
        score_table(run, found),
        left_out_table(found) if any(task.left_out for task in found.tasks) else None,
        difference_table(found) if found.differences else None,
        difference_figure(main) if main and len(main.by_task) > 1 else None,
        join(heading("Published"), published_table(found)) if found.published else None,
        missing_table(found) if found.missing else None,
    )
    return Section("tasks", "Tasks", body)


def introduction(found: Evaluation) -> str:
    """How to read it."""
    return (
        "Each model was fine-tuned on each task's training texts in the same way, and scored on its test texts. Whether a test "
        "text stands among the training texts too, or among those that the models were trained on before, is not looked into here. "
        f"Scores are in percent, higher is better{seeds_of(found)}."
    )


def seeds_of(found: Evaluation) -> str:
    """Over how many seeds; tasks may differ."""
    seeds = {score.seeds for scores in found.scores.values() for score in scores.values()}
    few, many = min(seeds), max(seeds)
    if many == 1:
        return ", with one seed each"
    over = f"{many} seeds" if few == many else f"{few} to {many} seeds"
    return f", ± their standard deviation over {over}" + (" (none of one seed)" if few == 1 else "")


def score_table(run: Run, found: Evaluation) -> Markup:
    """A row a task, a column a model; averages below."""
    models = [model for model in found.models if found.scores.get(model)]
    head: list[Text] = ["Task", "Measure", "Test texts"]
    head += [key(colour_slot(run, model), model) for model in models]
    rows = []
    for task in found.tasks:
        cells = best_of([found.scores[model].get(task.name) for model in models])
        documents = number(task.documents, wording.count)
        rows.append(Row([task.name, task.metric.replace("_", " "), documents, *cells]))
    for average in found.averages:
        cells = best_of([average.models.get(model) for model in models])
        rows.append(Row([average_name(average), "", Cell("", {"": None}), *cells]))
    return table(
        "Scores on tasks", head, rows, left={1}, note="Best of each row in bold; averages are over the tasks that every model has."
    )  # fmt: skip


def average_name(average: Average) -> str:
    """With how many tasks it lacks."""
    whole = average.tasks == average.of
    every = wording.counted(average.of, "task")
    over = every if whole else f"{average.tasks} of {every}"
    return f"Average, {average.group} ({over})"


def best_of(scores: list[TaskScore | None]) -> list[Cell]:
    """The highest marked, and whatever reads the same in print."""
    means = with_best([None if score is None else score.mean for score in scores], one_decimal, lowest=False)
    return [with_spread(mean, score) for mean, score in zip(means, scores, strict=True)]


def one_decimal(value: float) -> str:
    """81.02 -> '81.0'."""
    return f"{value:.1f}"


def with_spread(mean: Cell, score: TaskScore | None) -> Cell:
    """81.0 ± 0.4, and in the CSV file the 95 % interval over seeds too."""
    if score is None:
        return mean
    low, high = score.interval or (None, None)
    spread = "" if score.std is None else f" ± {score.std:.1f}"
    return Cell(mean.text + spread, {**mean.values, "std": score.std, "low": low, "high": high})


def difference_table(found: Evaluation) -> Markup:
    """Every pair of models."""
    head: list[Text] = [
        "Pair", "Points", "95 % interval", "Over", "p", "p, Holm", "Tasks", "Tasks won", "Tasks lost", "Tasks tied", "Seeds won", "Seeds lost",
    ]  # fmt: skip
    rows = []
    for row in found.differences:
        counts = (row.tasks, row.wins, row.losses, row.ties, row.seed_wins, row.seed_losses)
        rows.append(
            Row(
                [
                    f"{row.a} − {row.b}",
                    number(row.value, signed_points),
                    bounds(row.interval),
                    row.interval_over or wording.ABSENT,
                    number(row.p, "{:.2g}".format),
                    number(row.p_adjusted, "{:.2g}".format),
                    *(number(count, wording.count) for count in counts),
                ]
            )
        )
    note = (
        "Mean over tasks of the first minus the second. An interval over tasks, and p, speak of tasks like these; an interval over seeds "
        f"speaks of these tasks only, and with fewer than {FEWEST_TASKS} tasks there is no other and no p. Holm: p after the correction for all pairs. "
        "Seeds: runs of both on one task with one seed. An interval that holds 0 leaves open which is better."
    )
    return table("Differences on tasks", head, rows, left={3}, note=note)


def signed_points(value: float) -> str:
    """1.2 -> '+1.20'."""
    return wording.signed(value, 2)


def bounds(interval: tuple[float, float] | None) -> Cell:
    """−0.12 to +0.40."""
    low, high = interval or (None, None)
    text = wording.ABSENT if interval is None else " to ".join(map(signed_points, interval))
    return Cell(text, {"low": low, "high": high})


def difference_figure(row: Difference) -> Markup:
    """Detour minus twin on each task, and over all; every interval is one over seeds."""
    names = [*row.by_task, "all tasks"]
    entries = [*row.by_task.values(), (row.value, row.interval if row.interval_over == "seeds" else None)]
    ends = [abs(end) for _, interval in entries for end in interval or ()]
    core = [abs(value) for value in (*(entries[-1][1] or ()), *(value for value, _ in entries))]
    reach = 1.1 * max(
        min(max(ends, default=max(core)), 3 * max(core)), 0.1
    )  # two seeds can give an interval of hundreds of points

    def paint(axes: Axes) -> None:
        for place, (value, interval) in enumerate(entries):
            colour = COLOURS["detour" if value > 0 else "twin"]
            if interval is not None:
                axes.plot(interval, [place, place], color=colour, linewidth=1.5)
            axes.plot([value], [place], "D" if place == len(names) - 1 else "o", color=colour, markersize=6)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_xlim(-reach, reach)
        name_rows(axes, names)
        axes.set_xlabel(f"points: ← {row.b} better   |   {row.a} better →")

    label = f"{row.a} minus {row.b} in points by task: "
    label += ", ".join(f"{name} {wording.signed(value, 1)}" for name, (value, _) in row.by_task.items())
    drawing = draw("task-differences", label, figure_height(len(names)), paint)
    caption = (
        "Lines are 95 % intervals over seeds: of these tasks only; none where seeds are too few or do not differ"
        + (
            ", and none for all tasks, whose interval over tasks stands in the table"
            if row.interval_over == "tasks"
            else ""
        )
        + ". A line that reaches the edge goes on beyond it."
    )
    return Markup('<div class="figures">{}</div>').format(
        figure(drawing, f"Tasks, {row.a} minus {row.b}", caption)
    )


def published_table(found: Evaluation) -> Markup:
    """The paper's figures for the tasks that were run here."""
    tasks = [task.name for task in found.tasks if any(task.name in row for row in found.published.values())]
    rows = []
    for model, scores in found.published.items():
        cells = [number(scores.get(task), one_decimal) for task in tasks]
        averages = [found.published_averages[model].get(average.group) for average in found.averages]
        rows.append(Row([model, *cells, *(number(value, one_decimal) for value in averages)]))
    head: list[Text] = ["Published", *tasks, *(average_name(average) for average in found.averages)]
    return table(
        "Published scores", head, rows, note="Of arXiv 2605.12438, whose models, texts and number of seeds differ from this run's."
    )  # fmt: skip


def missing_table(found: Evaluation) -> Markup:
    """Tasks that were left out."""
    reason = Markup('<span class="long">{}</span>')
    rows = [Row([task, reason.format(why)]) for task, why in found.missing.items()]
    return table("Tasks that are missing", ["Task", "Why"], rows, left={1})


def left_out_table(found: Evaluation) -> Markup:
    """Return what the scores are without, a row for each task and reason."""
    rows = [
        Row([task.name, what, str(count)]) for task in found.tasks for what, count in task.left_out.items()
    ]
    note = (
        "What the data sets have and these scores do not speak of; docs/tasks.md says what each line means."
    )
    return table("Left out of the tasks", ["Task", "What", "Count"], rows, left={1}, note=note)
