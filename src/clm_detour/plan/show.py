"""Print a plan as tables and a few sentences."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from clm_detour.plan.hardware import Hardware
from clm_detour.plan.make import PhasePlan, RecipePlan, SourcePlan
from clm_detour.plan.memory import USED, Sizes
from clm_detour.plan.operations import ASSUMED_LENGTH
from clm_detour.utils.gpus import smallest_memory
from clm_detour.utils.progress import console, human, human_bytes, say, shortened

MANY_EPOCHS = 4  # up to four passes, repeated text is worth about as much as new text (arXiv 2305.16264)


def print_plan(
    plan: RecipePlan, tokens_per_second: float | None = None, hardware: Hardware | None = None
) -> None:
    """Print a plan.

    Args:
        tokens_per_second: Speed of training, from which hours are computed.
        hardware: GPUs, from which energy is computed, and hours if no speed is given.
    """
    console.print(phase_table(plan, tokens_per_second, hardware))
    console.print()
    if plan.sizes is not None:
        console.print(operation_table(plan))
        console.print()
    console.print(source_table(plan))
    console.print()
    for line in summary(plan, tokens_per_second, hardware):
        say(line)


def phase_table(plan: RecipePlan, speed: float | None, hardware: Hardware | None) -> Table:
    """Return a table with a line for each phase."""
    timed = speed is not None or hardware is not None
    names = ("phase", "objective", "tokens", "steps", "warm-up", "FLOPs")
    table = new_table(*names, *(["hours"] if timed else []))
    for phase in plan.phases:
        run = phase.run
        seconds = seconds_of(phase, speed, hardware)
        table.add_row(
            shortened(run.id, phase_width()),
            str(run.objective),
            human(run.tokens),
            f"{run.steps:,}",
            f"{run.warmup_steps:,}",
            operation_cells(phase)[0],
            *(["?" if seconds is None else f"{seconds / 3600:,.2f}"] if timed else []),
        )
    return table


def phase_width() -> int:
    """Return the width of the column of phases, which leaves the other columns theirs at 80 columns."""
    return max(console.width - 56, 12)


def operation_table(plan: RecipePlan) -> Table:
    """Return a table of the operations of each phase by part."""
    table = new_table("operations of", "in all", "body", "attention", "head")
    for phase in plan.phases:
        table.add_row(shortened(phase.run.id, phase_width()), *operation_cells(phase))
    return table


def scientific(number: float) -> str:
    """Return a number in scientific notation, like 5.00e12."""
    return f"{number:.2e}".replace("e+", "e")


def operation_cells(phase: PhasePlan) -> list[str]:
    """Return the operations of a phase and the share of each part, as cells."""
    of = phase.operations
    if of is None:
        return ["?"] * 4
    parts = (of.body, of.attention, of.head)
    about = "~" if phase.assumed else ""
    return [f"{about}{scientific(of.total)}", *(f"{part / of.total:.0%}" for part in parts)]


def seconds_of(phase: PhasePlan, speed: float | None, hardware: Hardware | None) -> float | None:
    """Return the seconds that a phase takes, from the speed if it is given; None if they are not known."""
    if speed is not None:
        return phase.run.tokens / speed
    known = hardware is not None and phase.operations is not None
    return hardware.seconds(phase.operations.total) if known else None  # type: ignore[union-attr]


def source_table(plan: RecipePlan) -> Table:
    """Return a table of the rows taken from each mixture and source, once for phases with equal rows."""
    table = new_table("mixture, source", "share", "tokens", "available", "epochs", "rows")
    taken: dict[tuple[str, int, int], list[PhasePlan]] = {}
    for phase in plan.phases:
        run = phase.run
        taken.setdefault((run.phase.mixture, run.first_row, run.next_row), []).append(phase)
    for (mixture, first, end), phases in taken.items():
        total = human(phases[0].run.tokens)
        table.add_row(Text(mixture, "bold"), "", Text(total, "bold"), "", "", f"{first:,}-{end - 1:,}")
        for name, source in phases[0].sources.items():
            table.add_row(*source_cells(name, source))
    return table


def new_table(*names: str) -> Table:
    """Return an empty table with text on the left and numbers on the right."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, name in enumerate(names):
        table.add_column(name, justify="right" if number and name != "objective" else "left", no_wrap=True)
    return table


def source_cells(name: str, source: SourcePlan) -> list[str | Text]:
    """Return the cells of a source."""
    epochs = Text("?" if source.epochs is None else f"x{source.epochs:.2f}")
    if source.epochs is not None and source.epochs > MANY_EPOCHS:
        epochs.stylize("bold yellow")
    first, end = source.rows
    available = "?" if source.available is None else human(source.available)
    rows = f"{first:,}-{end - 1:,}" if end > first else "none"
    return [f"  {name}", f"{source.share:.1%}", human(source.tokens), available, epochs, rows]


def summary(plan: RecipePlan, speed: float | None, hardware: Hardware | None) -> list[str]:
    """Return sentences with totals and warnings."""
    on_gpus = hardware is not None or smallest_memory() is not None
    tokens = sum(phase.run.tokens for phase in plan.phases)
    parts = [f"{sum(phase.run.steps for phase in plan.phases):,} steps", f"{human(tokens)} tokens"]
    operations = [phase.operations.total for phase in plan.phases if phase.operations is not None]
    if operations:
        parts.append(f"{scientific(sum(operations))} FLOPs")
    lines = [f"Total: {', '.join(parts)}."]
    lines += [*time_lines(plan, speed, hardware), *size_lines(plan, on_gpus), *matched_lines(plan)]
    if any(phase.assumed for phase in plan.phases):
        lines.append(
            "A question mark stands for a value that is known once the data is prepared (clm-detour prepare)."
        )
        if operations:
            lines[-1] += f" Operations (~) assume documents of {ASSUMED_LENGTH:,} tokens."
    repeated = {
        name: None
        for phase in plan.phases
        for name, source in phase.sources.items()
        if (source.epochs or 0) > MANY_EPOCHS
    }
    if repeated:
        lines.append(f"More than {MANY_EPOCHS} passes over: {', '.join(repeated)}.")
    return lines


def time_lines(plan: RecipePlan, speed: float | None, hardware: Hardware | None) -> list[str]:
    """Return a sentence with hours, GPU-hours and energy, if they are known."""
    seconds = [seconds_of(phase, speed, hardware) for phase in plan.phases]
    if None in seconds:
        return []
    hours = sum(second for second in seconds if second is not None) / 3600
    if hardware is None:
        return [f"{hours:,.2f} hours at {human(speed or 0)} tokens/s."]
    by = f"{human(speed)} tokens/s" if speed is not None else f"an assumed MFU of {hardware.mfu:.0%}"
    return [
        f"{hours:,.2f} hours on {hardware.gpus} x {hardware.device} at {by}: "
        f"{hours * hardware.gpus:,.1f} GPU-hours, {hours * hardware.watts / 1000:,.1f} kWh at full power."
    ]


def size_lines(plan: RecipePlan, on_gpus: bool) -> list[str]:
    """Return sentences with parameters, memory, micro-batch and disk space, if they are known."""
    if plan.sizes is None:
        return []
    sizes = plan.sizes
    parts = ", ".join(
        f"{name} {human_bytes(size)}" + (" (estimated)" if name == "activations" else "")
        for name, size in sizes.memory.items()
    )
    return [
        f"{human(sizes.parameters)} parameters. "
        f"Memory of each {'GPU' if on_gpus else 'process'}: {human_bytes(sum(sizes.memory.values()))}: "
        f"{parts}. Disk: {human_bytes(sizes.disk)} for models and optimizer state, and up to "
        f"{human_bytes(sizes.peak_disk)} for checkpoints.",
        *micro_batch_lines(sizes),
    ]


def micro_batch_lines(sizes: Sizes) -> list[str]:
    """Return a sentence with the micro-batch of each phase, unless the user has set it."""
    if sizes.chosen == "set":
        return []
    phases: dict[int, list[str]] = {}
    for phase, rows in sizes.micro_rows.items():
        phases.setdefault(rows, []).append(phase)
    counts = [f"{rows} row{'s' * (rows > 1)}" for rows in phases]
    if len(phases) > 1:
        counts = [f"{count} ({', '.join(phases[rows])})" for count, rows in zip(counts, phases, strict=True)]
    why = {
        "recipe": "which follows from the recipe",
        "estimate": f"estimated to fill at most {USED:.0%} of each GPU; training finds its own by trial",
    }[sizes.chosen]
    return [f"Micro-batch of each process: {', '.join(counts)}, {why}."]


def matched_lines(plan: RecipePlan) -> list[str]:
    """Return a sentence for each twin with the length at which it would cost as much as the detour."""
    tokens = {phase.run.id: phase.run.duration for phase in plan.phases}
    return [
        f"{detour} takes as many operations as {human(tokens[twin] * times)} tokens of {twin} (x{times:.3f})."
        for (detour, twin), times in plan.matched.items()
    ]
