"""The processes of the checks: `python -m clm_detour.run.verify.worker PROGRAM FOLDER`.

A program makes its checks one after another and writes each to a file when it is known. So a kernel that
kills its process, or a process that hangs, takes no other program with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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


PROGRAMS: dict[str, Program] = {"kernels": kernels, "network": network}


def main() -> None:
    """Run the program that the command line names."""
    name, folder = sys.argv[1:]
    settings = load_settings(folder)
    with exit_on_user_error(), requeue_on_signals(), handlers_kept():
        write_checks(PROGRAMS[name](settings), results_file(settings.path, name))


def write_checks(checks: Iterator[Check], path: Path) -> None:
    """Write each check as a line when it is known. Every process makes the checks, and the first writes."""
    for check in checks:
        if is_first_process():
            with open(path, "a", encoding="utf-8") as file:
                file.write(as_line(check))


if __name__ == "__main__":
    main()
