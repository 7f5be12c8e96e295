"""`benchmarks/gpu.py` runs every part on a CPU at tiny sizes, and survives parts that fail or hang."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gpu")


def part(gpu: ModuleType, name: str, code: str, seconds: float = 60, **more: object):
    return gpu.Part(name, [sys.executable, "-c", code], seconds, **more)


def test_a_part_that_fails_or_hangs_keeps_what_it_measured_and_stops_no_other(gpu, tmp_path):
    write = f"open({str(tmp_path)!r} + '/%s.json', 'w').write('{{\"x\": 1}}')"
    parts = [
        part(gpu, "raises", f"{write % 'raises'}; raise ValueError('no kernel image')"),
        part(gpu, "dies", "import os; os.kill(os.getpid(), 11)"),
        part(gpu, "hangs", f"import time; {write % 'hangs'}; time.sleep(600)", 3),
        part(gpu, "whole", write % "whole"),
        part(gpu, "found a failure", f"{write % 'found a failure'}; raise SystemExit(1)", accepted=(0, 1)),
    ]
    results = gpu.measure(parts, part(gpu, "beside", write % "beside"), tmp_path, minutes=2)
    assert results["raises"]["problem"] == "exit code 1: ValueError: no kernel image"
    assert results["raises"]["result"] == {"x": 1}
    assert results["dies"]["problem"].startswith("exit code -11")
    assert results["hangs"]["problem"] == "ended at its limit of 3 s"
    assert results["hangs"]["result"] == {"x": 1}
    for name in ("whole", "found a failure", "beside"):
        assert "problem" not in results[name]


def test_a_part_for_which_no_time_is_left_has_no_result(gpu, tmp_path):
    made = part(gpu, "late", "raise SystemExit(0)")
    results = gpu.measure([made], made, tmp_path, minutes=0.1)
    assert results == {"late": {"seconds": 0.0, "result": None, "problem": "no time was left"}}


def test_the_whole_measurement_asks_for_every_part_of_the_plan(gpu, tmp_path):
    parts = {
        made.name: made for made in gpu.make_parts(tmp_path, "full", ["flash", "flex"], ["base", "large"])
    }
    assert {
        "verify",
        "steps-base-flash",
        "steps-base-flex",
        "steps-large",
        "peers-sdpa",
        "losses-gpu",
    } < parts.keys()
    assert "--verify" in parts["verify"].command
    assert parts["verify"].accepted == (0, 1)


def test_losses_are_compared_over_the_steps_that_both_have_done(gpu):
    results = {
        "losses-gpu": {"result": {"losses": [3.0, 2.0, 1.0]}},
        "losses-cpu": {"result": {"losses": [3.0, 2.5]}},
    }
    found = gpu.compare_losses(results)
    assert (found["steps"], found["largest_difference"], found["mean_difference"]) == (2, 0.5, -0.25)
    assert gpu.compare_losses({**results, "losses-cpu": {"result": None}}) is None


@pytest.mark.slow
def test_a_dry_run_measures_every_part(tmp_path):
    script = "import sys; sys.path.insert(0, sys.argv[1]); import gpu, record, pathlib\n"
    script += "record.RESULTS = pathlib.Path(sys.argv[2]); gpu.main(dry_run=True, minutes=9.0, name='gpu')"
    command = [sys.executable, "-c", script, str(BENCHMARKS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (written,) = tmp_path.glob("gpu-*.json")
    results = json.loads(written.read_text())["results"]
    assert not {name: found for name, found in results["parts"].items() if "problem" in found}
    speeds = results["parts"]["steps-mini-portable"]["result"]["cases"]
    assert [case["case"] for case in speeds] == ["clm", "mlm30"]
    assert "theirs" in results["parts"]["peers-sdpa"]["result"]["cases"][0]
    assert results["parts"]["profile-clm"]["result"]["operators"]
    assert torch.cuda.is_available() or results["losses"]["largest_difference"] == 0  # both on the CPU
    assert results["losses"]["steps"] == 3
