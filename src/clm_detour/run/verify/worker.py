"""The processes of the checks: `python -m clm_detour.run.verify.worker PROGRAM FOLDER`.

A program makes its checks one after another and writes each to a file when it is known. So a kernel that
kills its process, or a process that hangs, takes no other program with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path

from clm_detour.records.store import as_line
from clm_detour.records.verify import Check
from clm_detour.run.verify.settings import Settings, is_first_process, load_settings, results_file
from clm_detour.utils.errors import exit_on_user_error
from clm_detour.utils.signals import handlers_kept, requeue_on_signals

Program = Callable[[Settings], Iterator[Check]]


def kernels(settings: Settings) -> Iterator[Check]:
    """Check the attention back ends."""
    from clm_detour.run.verify.kernels import check_kernels

    yield from check_kernels(settings.device)


def network(settings: Settings) -> Iterator[Check]:
    """Check the network."""
    from clm_detour.run.verify.network import check_network

    yield from check_network(settings.device, settings.compiles)


def alone(settings: Settings) -> Iterator[Check]:
    """Prepare the small recipe, and train it in one process."""
    from clm_detour.run.verify.ranks import train_alone

    yield from train_alone(settings)


def ranks(settings: Settings) -> Iterator[Check]:
    """Check several processes, memory and speed, and train until asked to leave."""
    from clm_detour.run.verify.memory import check_memory
    from clm_detour.run.verify.ranks import check_ranks
    from clm_detour.run.verify.recovery import train_until_asked
    from clm_detour.run.verify.speed import check_speed

    yield from check_ranks(settings)
    yield from check_memory(settings)
    yield from check_speed(settings)
    train_until_asked(settings)


def repeated(settings: Settings) -> Iterator[Check]:
    """Train twice under `train.deterministic`."""
    from clm_detour.run.verify.ranks import check_repeated

    yield from check_repeated(settings)


PROGRAMS: dict[str, Program] = {
    "kernels": kernels,
    "network": network,
    "alone": alone,
    "ranks": ranks,
    "repeated": repeated,
}


def main() -> None:
    """Run the programs that the command line names, like `kernels+network`."""
    names, folder = sys.argv[1:]
    settings = load_settings(folder)
    with exit_on_user_error(), delayed_errors(names), requeue_on_signals(), handlers_kept():
        checks = chain.from_iterable(PROGRAMS[name](settings) for name in names.split("+"))
        write_checks(checks, results_file(settings.path, names))


def delayed_errors(names: str) -> AbstractContextManager[object]:
    """Return the context in which a process lets another one that can explain an error speak first."""
    if names not in ("ranks", "repeated"):
        return nullcontext()
    from clm_detour.train.main import delay_errors

    return delay_errors()


def write_checks(checks: Iterator[Check], path: Path) -> None:
    """Write each check as a line when it is known. Every process makes the checks, and the first writes."""
    for check in checks:
        if is_first_process():
            with open(path, "a", encoding="utf-8") as file:
                file.write(as_line(check))


if __name__ == "__main__":
    main()
