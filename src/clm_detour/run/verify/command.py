"""`clm-detour doctor --verify`: start the programs of the checks, print their lines, remember a pass."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import torch
import typer

from clm_detour.config.schema import Config
from clm_detour.records.store import write
from clm_detour.records.verify import Check, Verification
from clm_detour.run.verify.checks import TITLES, Group, lines_of
from clm_detour.run.verify.programs import single
from clm_detour.run.verify.settings import Settings
from clm_detour.train import require_composer
from clm_detour.utils.environment import describe_environment
from clm_detour.utils.errors import UserError

CPU_PROCESSES = 2
# Seconds after which a program is ended; each takes a fraction of it, even where it compiles.
DEADLINE = 240.0
LATER = ("memory", "figures")  # groups whose lines come from several programs, printed at the end


def verify(config: Config | None, processes: int | None, json: Path | None) -> bool:
    """Make all checks, print a line for each, and write them to a file.

    Args:
        config: A recipe whose shape of a step is used for checks of memory and speed.
        processes: Number of GPUs; on a CPU, number of processes.
        json: File to write.

    Returns:
        Whether no check failed.

    Raises:
        UserError: If there are fewer GPUs, or Composer is not installed.
    """
    require_composer()
    start = time.monotonic()
    found = torch.cuda.device_count()
    if processes is not None and found and processes > found:
        raise UserError(f"--gpus {processes}, but this machine shows {found}; ask for at most that many.")
    with tempfile.TemporaryDirectory(prefix="clm-detour-verify-") as folder:
        settings = Settings(
            folder=folder,
            device="cuda" if found else "cpu",
            processes=processes or found or CPU_PROCESSES,
            compiles=bool(found) or (config is not None and config.train.compile is True),
            shape={},
        )
        settings.save()
        checks = print_checks(run_programs(settings))
    result = Verification(
        environment=describe_environment(),
        device=settings.device,
        processes=settings.processes,
        seconds=round(time.monotonic() - start, 1),
        checks=checks,
    )
    print_summary(result)
    if json is not None:
        write(result, json)
    return not result.failed


def run_programs(settings: Settings) -> Iterator[Check]:
    """Run the programs one after another, and yield their checks."""
    with single(settings, "kernels", CUBLAS_WORKSPACE_CONFIG=":4096:8") as program:
        yield from program.checks(Group("kernels"), DEADLINE)
    with single(settings, "network") as program:
        yield from program.checks(Group("network"), DEADLINE)


def print_checks(checks: Iterator[Check]) -> list[Check]:
    """Print each check when it is known, under the title of its group, and return all in printed order."""
    printed: list[Check] = []
    later: dict[str, list[Check]] = {name: [] for name in LATER}
    for check in checks:
        if check.group in later:
            later[check.group].append(check)
        else:
            print_check(check, printed)
    for check in chain.from_iterable(later.values()):
        print_check(check, printed)
    return printed


def print_check(check: Check, printed: list[Check]) -> None:
    """Print a check, after the title of its group if it is the first one of it, and append it to a list."""
    if not printed or printed[-1].group != check.group:
        typer.echo(TITLES[check.group])
    for line in lines_of(check):
        typer.echo(line)
    printed.append(check)


def print_summary(result: Verification) -> None:
    """Print how many checks were passed, failed and left out."""
    number = {status: sum(check.status == status for check in result.checks) for status in ("ok", "left out")}
    text = f"{number['ok']} checks ok, {len(result.failed)} failed, {number['left out']} left out"
    typer.echo(f"{text}, in {result.seconds:.0f} s with {result.processes} on {result.device}.")
    for check in result.failed:
        typer.echo(f"FAILED: {check.group}: {check.name}")
