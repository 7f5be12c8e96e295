"""`clm-detour doctor --verify` on two CPU processes passes, and a planted fault fails the right line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from clm_detour.cli.main import app
from clm_detour.config import load_config
from clm_detour.records.store import as_line
from clm_detour.records.verify import Check, Remembered
from clm_detour.run.verify import command, remembered
from clm_detour.run.verify.checks import WIDTH, Group, lines_of
from clm_detour.run.verify.command import DEADLINE
from clm_detour.run.verify.programs import Program, launched, single
from clm_detour.run.verify.recovery import AskToLeave
from clm_detour.run.verify.settings import Settings, results_file
from clm_detour.run.verify.small_recipe import (
    BASE_VOCABULARY,
    ROWS_OF_SHAPE,
    shape_of,
    shaped_recipe,
    write_recipe,
)
from clm_detour.utils.errors import UserError
from clm_detour.utils.signals import REQUEUE

# A file that Python runs in every process of the checks when it starts. The faults wait for the module that
# they change to be imported.
PLANTED = """
import importlib.abc, importlib.machinery, os, sys

FAULT, MODULE = os.environ.get("PLANTED_FAULT"), os.environ.get("PLANTED_MODULE")

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            exec(FAULT, vars(module))

        spec.loader.exec_module = exec_module
        return spec

if FAULT:
    sys.meta_path.insert(0, Finder())
"""
FAULTS = {
    "a wrong window": (
        "clm_detour.model.attention.portable",
        "_right = attend\ndef attend(q, k, v, documents, causal, window):\n"
        "    wrong = 1 if window and q.element_size() == 4 else 0\n"
        "    return _right(q, k, v, documents, causal, window and window + wrong)",
        "kernels: portable fp32: output",
    ),
    "a loss of its own": (
        "clm_detour.model.loss",
        "_right = _add_product\ndef _add_product(total, left, right):\n    _right(total, left, 1.1 * right)",
        "network: fused loss: loss and gradients",
    ),
    "gradients that are not averaged over shards": (
        "clm_detour.train.callbacks.gradients",
        "def sharded_gradient_scale(group=None):\n    return 1.0",
        "ranks: FSDP2: gradient norm",
    ),
    "a step that hears no signal": (
        "clm_detour.train.callbacks.preemption",
        "Preemption.handle = lambda self, number, frame: None",
        "recovery: asked to leave: exit code",
    ),
    "processes that do not agree on memory": (
        "clm_detour.train.micro_rows",
        "is_true_on_any_process = lambda flag: flag",
        "memory: no memory in forward, one process",
    ),
    "too few cores": (
        "clm_detour.utils.environment",
        "def usable_cores():\n    return 1",
        "figures: cores for each process",
    ),
}


@pytest.fixture
def plant(tmp_path, monkeypatch) -> Callable[[str, str], None]:
    """A function that plants a fault in a module, in every process that is started from now on."""
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "sitecustomize.py").write_text(PLANTED)

    def arrange(module: str, fault: str) -> None:
        paths = [str(tmp_path / "planted"), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        monkeypatch.setenv("PLANTED_MODULE", module)
        monkeypatch.setenv("PLANTED_FAULT", fault)

    return arrange


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A folder in which one process has trained the small recipe."""
    folder = tmp_path_factory.mktemp("verify")
    with single(settings(folder), "alone") as program:
        assert not [c for c in program.checks(Group("ranks"), DEADLINE["cpu"]) if c.status == "FAILED"]
    return folder


def moved(trained: Path, folder: Path) -> Path:
    """Return a copy of the folder of the checks, whose files name the new place."""
    shutil.copytree(trained, folder)
    for file in (folder / "recipe.yaml", *folder.rglob("*.json")):
        file.write_text(file.read_text().replace(str(trained), str(folder)))
    return folder


def failed_in_ranks(folder: Path) -> list[str]:
    """Return the checks of several processes that fail, up to the first request to leave."""
    made = settings(folder)
    asking = AskToLeave(made)
    with launched(made, "ranks") as program:
        checks = list(program.checks(Group("ranks"), DEADLINE["cpu"], accepted=REQUEUE, watch=asking.watch))
        checks += asking.checks(program)
    return [f"{check.group}: {check.name}" for check in checks if check.status == "FAILED"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_planted_fault_fails_its_line(request, tmp_path, plant, fault):
    module, code, line = FAULTS[fault]
    group = line.partition(":")[0]
    if group in ("kernels", "network"):
        plant(module, code)
        with single(settings(tmp_path), group) as program:
            checks = list(program.checks(Group(group), DEADLINE["cpu"]))
        assert line in [f"{check.group}: {check.name}" for check in checks if check.status == "FAILED"]
        return
    folder = moved(request.getfixturevalue("trained"), tmp_path / "folder")
    plant(module, code)
    failed = failed_in_ranks(folder)
    assert line in failed
    assert {name.partition(":")[0] for name in failed} == {group}


NOISE = """
import os
_right = MLP.forward
def forward(self, states):
    return _right(self, states) + 1e-3 * (os.urandom(1)[0] / 256)
MLP.forward = forward
"""


@pytest.mark.slow
@pytest.mark.parametrize("noise", [False, True])
def test_two_runs_that_should_be_equal_are_compared(trained, tmp_path, plant, noise):
    folder = moved(trained, tmp_path / "folder")
    if noise:
        plant("clm_detour.model.layers", NOISE)
    with single(settings(folder), "repeated") as program:
        checks = list(program.checks(Group("ranks"), DEADLINE["cpu"]))
    assert [check.status for check in checks] == ["FAILED" if noise else "ok"]


@pytest.mark.slow
def test_two_processes_on_a_cpu_pass_and_what_is_left_out_has_a_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["doctor", "--verify", "--gpus", "2", "--json", str(tmp_path / "verify.json")]
    command = [sys.executable, "-m", "clm_detour", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "verify.json").read_text())
    groups = {"kernels", "network", "ranks", "recovery", "memory", "figures"}
    assert {check["group"] for check in found["checks"]} == groups
    assert all(check["why"] for check in found["checks"] if check["status"] == "left out")
    assert max(map(len, done.stdout.splitlines())) <= WIDTH
    kept = json.loads((tmp_path / "cache" / "clm-detour" / "verified.json").read_text())
    assert len(kept["passed"]) == 1


def test_a_recipe_and_changes_to_it_are_taken(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shapes = []
    monkeypatch.setattr(command, "run_programs", lambda settings: iter(shapes.append(settings.shape) or []))
    path = tiny_recipe(tmp_path / "mine")
    done = CliRunner().invoke(app, ["doctor", "--verify", str(path), "train.batch_rows=32"])
    assert done.exit_code == 0, done.output
    assert (shapes[0]["row_tokens"], shapes[0]["batch_rows"]) == (64, 32)


def test_a_recipe_without_verify_is_a_mistake():
    done = CliRunner().invoke(app, ["doctor", "--gpus", "2"])
    assert isinstance(done.exception, UserError)


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("FAILED", 1), ("left out", 0)])
def test_the_exit_code_says_whether_a_check_failed(tmp_path, monkeypatch, status, code):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = Check("ranks", "all_reduce", status, "7", "<= 0", "it is wrong")
    monkeypatch.setattr(command, "run_programs", lambda settings: iter([made]))
    done = CliRunner().invoke(app, ["doctor", "--verify"])
    assert done.exit_code == code
    assert ("FAILED: ranks: all_reduce" in done.output) == (code == 1)
    assert remembered.file().exists() == (code == 0)


def settings(folder: Path) -> Settings:
    made = Settings(str(folder), "cpu", 2, False, {})
    made.save()
    return made


CHECK = Check("ranks", "all_reduce", "ok", "0", "<= 0")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise SystemExit(0)", None),
        ("import sys; print('CUDA error: an illegal memory access', file=sys.stderr); sys.exit(1)",
         "exit code 1 after 'all_reduce': CUDA error: an illegal memory access"),
        ("import os; os.kill(os.getpid(), 11)", "exit code -11 after 'all_reduce'"),
        ("import time; time.sleep(600)", "no end after 3 s; last done: all_reduce"),
    ],
)  # fmt: skip
def test_a_process_that_dies_or_hangs_is_a_failed_line_after_what_it_found(tmp_path, code, why):
    results_file(tmp_path, "ranks").write_text(as_line(CHECK))
    with Program(settings(tmp_path), "ranks", ["-c", code]) as program:
        first, *rest = program.checks(Group("ranks"), 3)
    assert first == CHECK
    assert [check.status for check in rest] == ([] if why is None else ["FAILED"])
    assert why is None or why in rest[0].why


def test_what_follows_training_that_failed_is_left_out(tmp_path, monkeypatch):
    made = settings(tmp_path)

    class Dying(Program):
        def __init__(self, *_: object, **__: object):
            super().__init__(made, "kernels", ["-c", "raise SystemExit(1)"])

    monkeypatch.setattr(command, "single", Dying)
    checks = list(command.run_programs(made))
    assert [check.status for check in checks] == [*["FAILED"] * 2, *["left out"] * 4]  # two run at once


def test_lines_fit_into_eighty_columns_and_name_the_place_of_a_failure():
    group = Group("kernels")
    check = group.at_most("portable bf16: changed by a neighbor", 12, 0, where="causal, window none " * 9)
    lines = list(lines_of(check))
    assert "FAILED" in lines[0]
    assert "causal, window none" in lines[1]
    figure = group.figure("memory beside the plan", "31.2GB, plan 33.0GB")
    exact = group.equal("no memory in backward, all processes", "2, 4 rows", "2 rows")
    left_out = group.left_out("flash", "there is no CUDA device " * 9)
    for made in (check, left_out, group.failed("x", "y" * 40), figure, exact):
        assert max(map(len, lines_of(made))) <= WIDTH


@pytest.mark.parametrize("value", [float("nan"), 2.0])
def test_a_value_over_its_limit_or_none_at_all_fails(value):
    assert Group("ranks").at_most("loss", value, 1.0).status == "FAILED"
    assert Group("ranks").at_least("cores", -value, 1.0).status == "FAILED"


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """Two pretended GPUs that may not be started, and a cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def started() -> None:
        raise AssertionError("CUDA is started in the process that launches others")

    monkeypatch.setattr(torch.cuda, "_lazy_init", started)


def test_a_run_on_gpus_points_to_the_checks_once(gpus, capsys, monkeypatch):
    monkeypatch.setattr(remembered.console, "width", 300)
    for _ in range(2):
        remembered.point_to_verify()
    assert capsys.readouterr().err.count("doctor --verify") == 1
    monkeypatch.setattr(remembered, "VERSION", "9.9")
    remembered.point_to_verify()  # another version
    assert capsys.readouterr().err.count("doctor --verify") == 1


def test_a_machine_that_has_passed_is_not_pointed_to_them(gpus, capsys):
    remembered.remember_pass()
    remembered.point_to_verify()
    assert capsys.readouterr().err == ""


def test_a_cpu_is_not_pointed_to_them(gpus, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    remembered.point_to_verify()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", ["{", '{"passed": 3}', None])
def test_a_cache_that_cannot_be_read_or_written_is_no_error(gpus, capsys, content):
    if content is None:
        remembered.file().parent.parent.joinpath("clm-detour").write_text("a file where the folder should be")
    else:
        remembered.save(Remembered())
        remembered.file().write_text(content)
    remembered.point_to_verify()
    assert "doctor --verify" in capsys.readouterr().err.replace("\n", " ")


def test_the_shape_of_a_recipe_is_kept_and_its_step_is_cut(tiny_recipe, tmp_path):
    path = tiny_recipe(tmp_path / "mine")
    config = load_config(path, ["train.batch_rows=96", "train.precision=fp32", "train.compile=false"])
    made = replace(settings(tmp_path), shape=shape_of(config, "cuda"))
    write_recipe(made)
    shaped = shaped_recipe(made).config
    assert shaped.model.config == {**config.model.config, "vocab_size": BASE_VOCABULARY}
    assert shaped.data.sequence_length == config.data.sequence_length
    assert (shaped.train.precision, shaped.train.compile) == ("fp32", False)
    assert shaped.train.batch_rows == 2 * ROWS_OF_SHAPE[made.device]


def test_without_a_recipe_a_gpu_takes_a_step_of_base(tmp_path):
    made = replace(settings(tmp_path), shape=shape_of(None, "cuda"))
    write_recipe(made)
    shaped = shaped_recipe(made).config
    assert shaped.model.config == {"vocab_size": BASE_VOCABULARY}  # all else is ModernBERT-base's
    assert shaped.data.sequence_length == 8192
    assert shape_of(None, "cpu") == {}
