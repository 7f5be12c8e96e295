"""Composer's launcher, with its own handling of signals and errors.

    python -m clm_detour.train.launcher -n 4 -m clm_detour.train CONFIG ...

It forwards Ctrl-C and the signals of a cluster, and prints once why a process failed. The `composer` command
dies of SIGTERM and leaves its processes running, and it prints the output of every process among its own
messages.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType

import psutil

from clm_detour.utils.environment import usable_cores
from clm_detour.utils.errors import USER_ERROR, UserError, exit_on_user_error
from clm_detour.utils.interrupt import LAUNCHED, interrupts_held
from clm_detour.utils.signals import REQUEUE, handlers_kept, on_signals

POLL = 0.1  # seconds
GRACE = 30.0  # seconds until a process that was asked to stop is killed

Processes = dict[int, "subprocess.Popen[str]"]  # by rank


def main() -> None:
    """Launch processes, and exit with the code of the one that failed, or `REQUEUE` if asked to stop."""
    with exit_on_user_error():
        code = launch(parse_arguments())
        sys.exit(code if code >= 0 else 128 - code)  # as a shell reports a signal


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of Composer's launcher.

    Raises:
        UserError: If they do not fit together.
    """
    with handlers_kept():
        from composer.cli import launcher  # takes seconds

    try:
        return launcher._parse_args()
    except ValueError as error:
        raise UserError(f"The launcher cannot start: {error}") from error


def launch(arguments: argparse.Namespace) -> int:
    """Run the processes to their end.

    Returns:
        The exit code, negative for a signal.
    """
    processes: Processes = {}
    signals: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        signal_processes(processes, signal.Signals(number))

    with tempfile.TemporaryDirectory() as logs, on_signals(forward):
        stop = signal.SIGINT
        try:
            start(arguments, logs, processes)
            for number in set(signals):  # a process that was just being started has missed them
                signal_processes(processes, signal.Signals(number))
            failed = wait_for_failure(processes)
            if signals or REQUEUE in failed.values():
                stop = signal.SIGTERM  # the others may be writing a checkpoint
        finally:
            end(processes, stop)
        print_reasons(processes, failed)
    lowest = next((process.returncode for process in processes.values() if process.returncode), 0)
    return exit_code(lowest, list(failed.values()), bool(signals))


def start(arguments: argparse.Namespace, logs: str, processes: Processes) -> None:
    """Start the processes and add them to `processes`. All but the first of this machine print to files.

    They share the cores of this machine, unless OMP_NUM_THREADS says how many each of them uses.
    """
    from composer.cli import launcher

    threads = str(max(usable_cores() // arguments.nproc, 1))
    environment = {LAUNCHED: "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    with interrupts_held(), launcher._patch_env(**environment):
        launcher._launch_processes(
            nproc=arguments.nproc,
            world_size=arguments.world_size,
            base_rank=arguments.base_rank,
            node_rank=arguments.node_rank,
            master_addr=arguments.master_addr,
            master_port=arguments.master_port,
            module_mode=arguments.module_mode,
            command_mode=arguments.command_mode,
            stdout_file_format=arguments.stdout or os.path.join(logs, "{rank}.stdout"),
            stderr_file_format=arguments.stderr or os.path.join(logs, "{rank}.stderr"),
            training_script=arguments.training_script,
            training_script_args=arguments.training_script_args,
            processes=processes,
        )


def wait_for_failure(processes: Processes) -> dict[int, int]:
    """Wait until a process fails or all have ended.

    Returns:
        The exit codes of the processes that failed, by rank.
    """
    while True:
        codes = {rank: process.poll() for rank, process in processes.items()}
        if any(codes.values()) or None not in codes.values():
            return {rank: code for rank, code in codes.items() if code}
        time.sleep(POLL)


def signal_processes(processes: Processes, number: signal.Signals) -> None:
    """Send a signal to each process that is still running, but not to processes that it has started."""
    for process in list(processes.values()):
        process.send_signal(number)  # nothing happens if it has ended


def end(processes: Processes, number: signal.Signals) -> None:
    """Send the processes a signal, and after `GRACE` kill those that are left and their child processes."""
    signal_processes(processes, number)
    deadline = time.monotonic() + GRACE
    while any(process.poll() is None for process in processes.values()) and time.monotonic() < deadline:
        time.sleep(POLL)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for process in processes.values():
        process.wait()


def print_reasons(processes: Processes, failed: Mapping[int, int]) -> None:
    """Print why processes failed, unless the first one of this machine has printed it to the terminal."""
    first = min(processes)
    if processes[first].returncode == USER_ERROR:
        return
    for rank, code in failed.items():
        if code < 0:
            cause = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
            print(f"Process {rank} was ended by {signal.Signals(-code).name}{cause}.", file=sys.stderr)
        elif rank != first and code != REQUEUE:
            print(reason(code, error_output(processes[rank])), file=sys.stderr)
            return


def error_output(process: subprocess.Popen[str]) -> str:
    """Return the error output of a process that prints to files."""
    assert process.stderr is not None
    process.stderr.seek(0)
    return process.stderr.read()


def reason(code: int, printed: str) -> str:
    """Return the sentence of a user's mistake, or the whole error output of the process."""
    sentences = [line for line in printed.splitlines() if line.startswith("Error: ")]
    return sentences[-1] if code == USER_ERROR and sentences else printed


def exit_code(code: int, failed: list[int], asked: bool) -> int:
    """Return the exit code of the launcher.

    Args:
        code: Exit code of the process of lowest rank that failed. It may be `REQUEUE` because the launcher
            ended the process.
        failed: Exit codes of the processes that failed by themselves.
        asked: Whether the launcher was asked to stop.
    """
    if asked:
        return REQUEUE if code else 0
    if failed:
        return next((one for one in failed if one != REQUEUE), REQUEUE)
    return 1 if code == REQUEUE else code


if __name__ == "__main__":
    main()
