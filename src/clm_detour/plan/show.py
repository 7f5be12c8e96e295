"""The plan as tables and a few sentences."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from clm_detour.plan.hardware import Hardware
from clm_detour.plan.make import PhasePlan, RecipePlan, SourcePlan
from clm_detour.plan.operations import ASSUMED_LENGTH
from clm_detour.utils.progress import console, human, human_bytes

MANY_EPOCHS = 4  # up to four passes, text seen again is worth about as much as new (arXiv 2305.16264)


def print_plan(
    plan: RecipePlan, tokens_per_second: float | None = None, hardware: Hardware | None = None
) -> None:
    """Show it.

    Args:
        tokens_per_second: the speed of training, for the hours.
        hardware: for the hours where no speed is given, and for the energy.
    """
    console.print(phase_table(plan, tokens_per_second, hardware))
    console.print()
    if plan.sizes is not None:
        console.print(operation_table(plan))
        console.print()
    console.print(source_table(plan))
    console.print()
    for line in summary(plan, tokens_per_second, hardware):
        console.print(line, soft_wrap=True)


def phase_table(plan: RecipePlan, speed: float | None, hardware: Hardware | None) -> Table:
    """A line a phase."""
    timed = speed is not None or hardware is not None
    names = ("phase", "objective", "tokens", "steps", "warm-up", "FLOPs")
    table = new_table(*names, *(["hours"] if timed else []))
    for phase in plan.phases:
        run, rate = phase.run, phase.run.phase.mask_rate
        seconds = seconds_of(phase, speed, hardware)
        table.add_row(
            run.id,
            run.phase.objective + (f" {rate:.0%}" if rate else ""),
            human(run.tokens),
            f"{run.steps:,}",
            f"{run.warmup_steps:,}",
            operation_cells(phase)[0],
            *(["?" if seconds is None else f"{seconds / 3600:,.2f}"] if timed else []),
        )
    return table


def operation_table(plan: RecipePlan) -> Table:
    """A line a phase: what its operations are spent on."""
    table = new_table("operations of", "in all", "body", "attention", "head")
    for phase in plan.phases:
        table.add_row(phase.run.id, *operation_cells(phase))
    return table


def powers(number: float) -> str:
    """5000000000000 -> '5.00e12'."""
    return f"{number:.2e}".replace("e+", "e")


def operation_cells(phase: PhasePlan) -> list[str]:
    """The sum and the shares of its parts."""
    of = phase.operations
    if of is None:
        return ["?"] * 4
    parts = (of.body, of.attention, of.head)
    about = "~" if phase.assumed else ""
    return [f"{about}{powers(of.total)}", *(f"{part / of.total:.0%}" for part in parts)]


def seconds_of(phase: PhasePlan, speed: float | None, hardware: Hardware | None) -> float | None:
    """How long a phase takes, by the speed if there is one."""
    if speed is not None:
        return phase.run.tokens / speed
    known = hardware is not None and phase.operations is not None
    return hardware.seconds(phase.operations.total) if known else None  # type: ignore[union-attr]


def source_table(plan: RecipePlan) -> Table:
    """What is drawn from each mixture, and below it from each of its sources; phases that draw the same share their lines."""
    table = new_table("mixture, source", "share", "tokens", "available", "epochs", "rows")
    drawn: dict[tuple[str, int, int], list[PhasePlan]] = {}
    for phase in plan.phases:
        run = phase.run
        drawn.setdefault((run.phase.mixture, run.first_row, run.next_row), []).append(phase)
    for (mixture, first, end), phases in drawn.items():
        total = human(phases[0].run.tokens)
        table.add_row(Text(mixture, "bold"), "", Text(total, "bold"), "", "", f"{first:,}-{end - 1:,}")
        for name, source in phases[0].sources.items():
            table.add_row(*source_cells(name, source))
    return table


def new_table(*names: str) -> Table:
    """Text on the left, numbers on the right."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, name in enumerate(names):
        table.add_column(name, justify="right" if number and name != "objective" else "left", no_wrap=True)
    return table


def source_cells(name: str, source: SourcePlan) -> list[str | Text]:
    """One source's line."""
    epochs = Text("?" if source.epochs is None else f"x{source.epochs:.2f}")
    if source.epochs is not None and source.epochs > MANY_EPOCHS:
        epochs.stylize("bold yellow")
    first, end = source.rows
    available = "?" if source.available is None else human(source.available)
    rows = f"{first:,}-{end - 1:,}" if end > first else "none"
    return [f"  {name}", f"{source.share:.1%}", human(source.tokens), available, epochs, rows]


def summary(plan: RecipePlan, speed: float | None, hardware: Hardware | None) -> list[str]:
    """Totals, and what stands out."""
    tokens = sum(phase.run.tokens for phase in plan.phases)
    parts = [f"{sum(phase.run.steps for phase in plan.phases):,} steps", f"{human(tokens)} tokens"]
    operations = [phase.operations.total for phase in plan.phases if phase.operations is not None]
    if operations:
        parts.append(f"{powers(sum(operations))} FLOPs")
    lines = [f"In all {', '.join(parts)}."]
    lines += [*time_lines(plan, speed, hardware), *size_lines(plan), *matched_lines(plan)]
    if any(phase.assumed for phase in plan.phases):
        said = f" Operations (~) assume documents of {ASSUMED_LENGTH:,} tokens." if operations else ""
        lines.append(
            f"A question mark stands for what is known once the data is prepared (clm-detour prepare).{said}"
        )
    often = {
        name: None
        for phase in plan.phases
        for name, source in phase.sources.items()
        if (source.epochs or 0) > MANY_EPOCHS
    }
    if often:
        lines.append(f"Gone through more than {MANY_EPOCHS} times: {', '.join(often)}.")
    return lines


def time_lines(plan: RecipePlan, speed: float | None, hardware: Hardware | None) -> list[str]:
    """Hours, GPU-hours, energy."""
    seconds = [seconds_of(phase, speed, hardware) for phase in plan.phases]
    if None in seconds:
        return []
    hours = sum(second for second in seconds if second is not None) / 3600
    if hardware is None:
        return [f"{hours:,.2f} hours at {human(speed or 0)} tokens/s."]
    by = f"{human(speed)} tokens/s" if speed is not None else f"an assumed MFU of {hardware.mfu:.0%}"
    return [
        f"{hours:,.2f} hours on {hardware.gpus} x {hardware.device} at {by}: {hours * hardware.gpus:,.1f} GPU-hours, "
        f"{hours * hardware.watts / 1000:,.1f} kWh at the boards' full power."
    ]


def size_lines(plan: RecipePlan) -> list[str]:
    """Parameters, memory, disk."""
    if plan.sizes is None:
        return []
    sizes = plan.sizes
    known = "activations" in sizes.memory
    parts = ", ".join(
        f"{name} {human_bytes(size)}" + (" (estimated)" if name == "activations" else "")
        for name, size in sizes.memory.items()
    )
    rest = "" if known else ", and activations as the micro-batch asks"
    return [
        f"{human(sizes.parameters)} parameters. Memory of each GPU: {human_bytes(sum(sizes.memory.values()))}: {parts}{rest}. "
        f"Disk: {human_bytes(sizes.disk)} for models and moments, up to {human_bytes(sizes.peak_disk)} for checkpoints on the way."
    ]


def matched_lines(plan: RecipePlan) -> list[str]:
    """How long a twin of the same cost would be."""
    tokens = {phase.run.id: phase.run.duration for phase in plan.phases}
    return [
        f"The operations of {detour} are those of {human(tokens[twin] * times)} tokens of {twin} (x{times:.3f})."
        for (detour, twin), times in plan.matched.items()
    ]
