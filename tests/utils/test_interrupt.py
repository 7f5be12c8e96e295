"""Ctrl-C is one sentence and exit code 130, whatever the program does; a second one leaves at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from clm_detour.utils.interrupt import LAUNCHED, SAME_PRESS, SENTENCE
from commands import Command

PROGRAM = """
import hashlib, os, signal, time
from clm_detour.utils.errors import UserError, exit_on_user_error
from clm_detour.utils.signals import requeue_on_signals

with exit_on_user_error(), requeue_on_signals():
    print("ready", flush=True)
    {body}
"""


def program(tmp_path, body: str, **environment: str) -> Command:
    """A program in the frame of a command, once it has printed that it is ready."""
    command = Command([sys.executable, "-c", PROGRAM.format(body=body)], tmp_path / "log", **environment)
    command.wait_until(lambda: "ready\n" in command.said())
    return command


@pytest.mark.parametrize(
    ("verb", "module"), [("run", " typer.core"), ("run", " torch.nn.modules"), ("evaluate", " numpy.linalg")]
)
def test_while_libraries_are_imported(tiny_recipe, tmp_path, verb, module):
    path = tiny_recipe(tmp_path / "run")
    if verb == "evaluate":
        path.write_text(f"run_dir: {tmp_path}/run\ntasks: [SampleVerdict]\nmodels: {{nobody: nowhere}}\n")
    words = [sys.executable, "-X", "importtime", "-c", "from clm_detour.__main__ import main; main()", verb]
    command = Command([*words, str(path)], tmp_path / "log")
    command.wait_until(lambda: module in command.said())
    command.press_ctrl_c()
    code = command.end()
    said = [line for line in command.said().splitlines() if not line.startswith("import time:")]
    assert (code, said) == (130, [SENTENCE])


def test_an_error_that_a_library_makes_of_it_is_no_error(tmp_path):
    body = """
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        raise RuntimeError("DataLoader worker is killed")
    """
    program(tmp_path, body).assert_leaves_at_ctrl_c()


def test_neither_is_an_exit_with_another_code(tmp_path):
    body = """
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        raise SystemExit(1)  # as click does
    """
    program(tmp_path, body).assert_leaves_at_ctrl_c()


def test_a_step_that_a_run_can_do_without_is_not_left_out_for_it(tmp_path):
    body = """
    from pathlib import Path
    from clm_detour.run.engine import Step, StepRunner

    def work():
        print("in the step", flush=True)
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            raise RuntimeError("DataLoader worker is killed")

    StepRunner(Path("nowhere")).run_optional(Step("score", "Score", work))
    print("goes on as if nothing had been")
    """
    command = program(tmp_path, body)
    command.wait_until(lambda: "in the step\n" in command.said())
    command.assert_leaves_at_ctrl_c()
    assert command.said() == f"ready\nin the step\n{SENTENCE}\n"


def test_where_python_cannot_raise_it_the_program_leaves_too(tmp_path):
    body = """
    class Loader:
        def __del__(self):
            time.sleep(60)

    Loader()
    print("goes on as if nothing had been")
    """
    command = program(tmp_path, body)
    command.assert_leaves_at_ctrl_c()
    assert command.said() == f"ready\n{SENTENCE}\n"


def test_signals_that_a_launcher_sends_after_it_change_nothing(tmp_path):
    body = """
    try:
        time.sleep(60)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
    """
    program(tmp_path, body).assert_leaves_at_ctrl_c()


def test_the_second_leaves_at_once_even_from_a_long_computation_in_native_code(tmp_path):
    command = program(tmp_path, "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)")
    command.press_ctrl_c()
    time.sleep(SAME_PRESS + 0.5)
    assert command.process.poll() is None
    command.press_ctrl_c()
    assert command.end() == 130


def test_a_command_in_the_background_of_a_script_goes_on(tmp_path):
    body = "os.kill(os.getpid(), signal.SIGINT); print('goes on')"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as a shell does for `command &`
    )
    assert done.stdout == "ready\ngoes on\n"


@pytest.mark.parametrize("environment", [{LAUNCHED: "1"}, {"RANK": "1"}])
def test_of_several_processes_one_says_it(tmp_path, environment):
    command = program(tmp_path, "time.sleep(60)", **environment)
    command.press_ctrl_c()
    assert (command.end(), command.said()) == (130, "ready\n")


def test_output_that_nobody_reads_is_no_traceback():
    words = [sys.executable, "-c", "from clm_detour.__main__ import main; main()", "--help"]
    command = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    command.stdout.close()
    assert command.stderr.read() == ""
    assert command.wait() == 1
