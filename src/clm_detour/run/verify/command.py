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
from clm_detour.run.verify.programs import launched, single
from clm_detour.run.verify.recovery import AskToLeave, check_resuming
from clm_detour.run.verify.remembered import remember_pass
from clm_detour.run.verify.settings import Settings
from clm_detour.run.verify.small_recipe import folder_of, recipe_file, shape_of
from clm_detour.train import require_composer
from clm_detour.utils.environment import describe_environment, usable_cores
from clm_detour.utils.errors import UserError
from clm_detour.utils.signals import REQUEUE

CPU_PROCESSES = 2
# Seconds after which a program is ended, so that one that hangs is found. Each takes a fraction of it; the
# cores of a CPU may be shared with other work.
DEADLINE = {"cuda": 300.0, "cpu": 900.0}
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
            shape=shape_of(config, "cuda" if found else "cpu"),
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
    if not result.failed:
        remember_pass()
    return not result.failed


def run_programs(settings: Settings) -> Iterator[Check]:
    """Run the programs, and yield their checks."""
    deadline = DEADLINE[settings.device]
    yield from run_first(settings, deadline)
    if not is_trained(settings):
        why = "the small recipe could not be trained alone"
        yield from (Group(name).left_out("all", why) for name in ("ranks", "recovery", *LATER))
        return
    if settings.device == "cuda":
        with launched(settings, "repeated") as program:
            yield from program.checks(Group("ranks"), deadline)
    else:
        yield Group("ranks").left_out("deterministic", "a CPU repeats itself without train.deterministic")
    asking = AskToLeave(settings)
    with launched(settings, "ranks") as program:
        yield from program.checks(Group("ranks"), deadline, accepted=REQUEUE, watch=asking.watch)
        yield from asking.checks(program)
    if asking.asked:
        yield from check_resuming(settings, deadline)


def run_first(settings: Settings, deadline: float) -> Iterator[Check]:
    """Check the back ends and the network, and train the small recipe in one process.

    On a GPU each has a process of its own, one after another, since a kernel may leave a GPU process broken.
    On a CPU two processes share the cores, since each uses one core only while it imports.
    """
    if settings.device == "cuda":
        for name, group in (("kernels", "kernels"), ("network", "network"), ("alone", "ranks")):
            with single(settings, name, CUBLAS_WORKSPACE_CONFIG=":4096:8") as program:
                yield from program.checks(Group(group), deadline)
        return
    threads = str(max(1, usable_cores() // 2))
    with (
        single(settings, "alone", OMP_NUM_THREADS=threads) as alone,
        single(settings, "kernels+network", OMP_NUM_THREADS=threads) as program,
    ):
        yield from program.checks(Group("kernels"), deadline)
        yield from alone.checks(Group("ranks"), deadline)


def is_trained(settings: Settings) -> bool:
    """Return whether one process has trained the small recipe, with which the others are compared."""
    return recipe_file(settings).exists() and folder_of(settings, "alone").finished


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
