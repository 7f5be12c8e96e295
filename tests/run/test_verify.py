"""`clm-detour doctor --verify` on two CPU processes passes, and a planted fault fails the right line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clm_detour.config import load_config
from clm_detour.records.store import as_line
from clm_detour.records.verify import Check, Remembered
from clm_detour.run.verify import command, remembered
from clm_detour.run.verify.checks import WIDTH, Group, lines_of
from clm_detour.run.verify.programs import Program
from clm_detour.run.verify.settings import Settings, results_file
from clm_detour.run.verify.small_recipe import (
    BASE_VOCABULARY,
    ROWS_OF_SHAPE,
    shape_of,
    shaped_recipe,
    write_recipe,
)

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
        "def sharded_gradient_scale():\n    return 1.0",
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
        "memory: out of memory in forward, one process",
    ),
    "too few cores": (
        "clm_detour.utils.environment",
        "def usable_cores():\n    return 1",
        "figures: cores for each process",
    ),
}


def verify(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command on two CPU processes, with the file of planted faults on the path of its processes."""
    (tmp_path / "sitecustomize.py").write_text(PLANTED)
    variables = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "CUDA_VISIBLE_DEVICES": "",
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        **environment,
    }
    done = [sys.executable, "-m", "clm_detour", "doctor", "--verify", *words]
    return subprocess.run(done, capture_output=True, text=True, env=variables, timeout=1800, check=False)


@pytest.mark.slow
def test_two_processes_on_a_cpu_pass_and_what_is_left_out_has_a_reason(tmp_path):
    done = verify(tmp_path, "--gpus", "2", "--json", str(tmp_path / "verify.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "verify.json").read_text())
    assert {check["group"] for check in found["checks"]} == {
        "kernels", "network", "ranks", "recovery", "memory", "figures",
    }  # fmt: skip
    assert all(check["why"] for check in found["checks"] if check["status"] == "left out")
    assert max(map(len, done.stdout.splitlines())) <= WIDTH
    kept = json.loads((tmp_path / "cache" / "clm-detour" / "verified.json").read_text())
    assert len(kept["passed"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("module", "fault", "line"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_fails_its_line(tmp_path, module, fault, line):
    done = verify(tmp_path, PLANTED_FAULT=fault, PLANTED_MODULE=module)
    assert done.returncode == 1, done.stdout + done.stderr
    failed = [text.removeprefix("FAILED: ") for text in done.stdout.splitlines() if text.startswith("FAILED")]
    assert line in failed, done.stdout
    assert failed[0].partition(":")[0] == line.partition(":")[0], done.stdout  # and none before it
    assert not (tmp_path / "cache" / "clm-detour" / "verified.json").exists()


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
    assert [check.status for check in checks] == ["FAILED", *["left out"] * 4]


def test_lines_fit_into_eighty_columns_and_name_the_place_of_a_failure():
    group = Group("kernels")
    check = group.at_most("portable bf16: changed by a neighbor", 12, 0, where="causal, window none " * 9)
    lines = list(lines_of(check))
    assert "FAILED" in lines[0]
    assert "causal, window none" in lines[1]
    for made in (check, group.left_out("flash", "there is no CUDA device " * 9), group.failed("x", "y" * 40)):
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
    assert shaped.train.batch_rows == 2 * ROWS_OF_SHAPE


def test_without_a_recipe_a_gpu_takes_a_step_of_base(tmp_path):
    made = replace(settings(tmp_path), shape=shape_of(None, "cuda"))
    write_recipe(made)
    shaped = shaped_recipe(made).config
    assert shaped.model.config == {"vocab_size": BASE_VOCABULARY}  # all else is ModernBERT-base's
    assert shaped.data.sequence_length == 8192
    assert shape_of(None, "cpu") == {}
