"""Measure everything worth knowing about a GPU in one command of at most nine minutes.

    python benchmarks/gpu.py               # on one H100 or H200
    python benchmarks/gpu.py --dry-run     # tiny sizes, also on a CPU, to see that every part works

The parts: `clm-detour doctor --verify`; speed and MFU of a training step of base and large in CLM and MLM 30
%, over packed rows of 8,192 tokens, compiled, with each attention back end; transformers' ModernBERT beside
ours; a profile of one step; and the losses of 200 steps of the mini recipe on the GPU and on the CPU. Each
part is a process with a time limit of its own, so that none can keep the others from running, and all results
are one JSON in benchmarks/results. What did not run has a reason in place of a number.

It needs no network. To carry Composer and its pure-Python requirements to a machine without one, beside its
own torch and transformers, see "Check your GPUs first" in docs/training.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from gpu_parts import read_result
from record import ResultName, record
from rich.console import Console
from rich.table import Table

from clm_detour.model.attention import BACKENDS

MINUTES = 9.0
SPARE = 15.0  # seconds kept at the end to write the record
SHORTEST = 10.0  # seconds; with less time left a part is not started
PATIENCE = 10.0  # factor of all limits in a dry run, which measures nothing and may share its cores
KEPT_LINES = 60  # of the output of a part with a problem
PARTS = str(Path(__file__).with_name("gpu_parts.py"))
console = Console(width=110)


@dataclass(frozen=True)
class Part:
    """A part of the measurement.

    Args:
        name: Key of its results.
        command: Program and arguments, which end with the file of results where `writes` is set.
        seconds: Time limit.
    """

    name: str
    command: list[str]
    seconds: float
    accepted: tuple[int, ...] = (0,)  # exit codes after which the results are whole


@dataclass
class Running:
    """A part that runs."""

    part: Part
    out: Path
    process: subprocess.Popen[bytes]
    start: float = field(default_factory=time.monotonic)


def make_parts(folder: Path, scale: str, backends: list[str], sizes: list[str]) -> list[Part]:
    """Return the parts in the order of their worth."""

    def of(name: str, kind: str, seconds: float, **arguments: Any) -> Part:
        settings = json.dumps({"folder": str(folder), "scale": scale, **arguments})
        return Part(name, [sys.executable, PARTS, kind, str(folder / f"{name}.json"), settings], seconds)

    doctor = [sys.executable, "-m", "clm_detour", "doctor", "--verify", "--json", str(folder / "verify.json")]
    small, large = sizes[0], sizes[-1]
    parts = [of("data", "data", 60), of("losses-gpu", "losses", 75, device="gpu")]
    parts += [Part("verify", doctor, 180, accepted=(0, 1))] if scale == "full" else []
    parts += [of(f"steps-{small}-{name}", "steps", 75, size=small, backend=name) for name in backends]
    parts += [of(f"steps-{large}", "steps", 90, size=large)] if large != small else []
    parts += [of(f"peers-{kind}", "steps", 75, size=small, peer=kind) for kind in peer_kernels()]
    profiled = ("clm", "mlm30") if scale == "full" else ("clm",)
    parts += [of(f"profile-{case}", "profile", 50, size=small, case=case) for case in profiled]
    return parts


def peer_kernels() -> list[str]:
    """Return the attention with which transformers is measured."""
    return ["sdpa", "flash_attention_2"] if find_spec("flash_attn") is not None else ["sdpa"]


def start(part: Part, folder: Path) -> Running:
    """Start a part, with its output in a file."""
    with open(folder / f"{part.name}.log", "wb") as log:
        process = subprocess.Popen(part.command, stdout=log, stderr=log, cwd=Path(__file__).parents[1])
    return Running(part, folder / f"{part.name}.json", process)


def outcome(running: Running, seconds: float, folder: Path) -> dict[str, Any]:
    """Wait for a part, end it at its limit, and return its results with the time it took.

    Args:
        seconds: Time from now after which it is ended.
    """
    why = None
    try:
        code = running.process.wait(max(seconds, 0.1))
        if code not in running.part.accepted:
            why = f"exit code {code}: {last_lines(folder / f'{running.part.name}.log', 1)[0]}"
    except subprocess.TimeoutExpired:
        end(running.process)
        why = f"ended at its limit of {seconds:.0f} s"
    taken = round(time.monotonic() - running.start, 1)
    found: dict[str, Any] = {"seconds": taken, "result": read_result(running.out)}
    if why is None:
        return found
    return {**found, "problem": why, "log": last_lines(folder / f"{running.part.name}.log", KEPT_LINES)}


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and everything that it has started."""
    import psutil

    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.wait()


def last_lines(log: Path, number: int) -> list[str]:
    """Return the last lines of a log; the very last one names the error."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return [line.rstrip() for line in lines[-number:]] or ["it printed nothing"]


def measure(parts: list[Part], beside: Part, folder: Path, minutes: float) -> dict[str, Any]:
    """Run all parts one after another, and one beside them on the CPU once there is data.

    Returns:
        Name of each part -> `seconds`, `result` (None if there is none) and `problem`, if there was one.
    """
    deadline = time.monotonic() + 60 * minutes - SPARE
    results: dict[str, Any] = {}
    on_cpu: Running | None = None
    for part in parts:
        left = deadline - time.monotonic()
        if left < SHORTEST:
            results[part.name] = {"seconds": 0.0, "result": None, "problem": "no time was left"}
            continue
        results[part.name] = outcome(start(part, folder), min(part.seconds, left), folder)
        print_outcome(part.name, results[part.name])
        on_cpu = start(beside, folder) if on_cpu is None else on_cpu
    if on_cpu is not None:
        results[beside.name] = outcome(on_cpu, deadline - time.monotonic(), folder)
        print_outcome(beside.name, results[beside.name])
    return results


def print_outcome(name: str, found: dict[str, Any]) -> None:
    """Print how a part ended."""
    console.print(f"{name}: {found.get('problem', 'done')}, {found['seconds']:.0f} s", markup=False)


def compare_losses(results: dict[str, Any]) -> dict[str, Any] | None:
    """Return the difference of the losses of GPU and CPU over the steps that both have done."""
    pair = [results.get(name, {}).get("result") for name in ("losses-gpu", "losses-cpu")]
    if None in pair:
        return None
    gpu, cpu = (found["losses"] for found in pair if found is not None)
    differences = [one - other for one, other in zip(gpu, cpu, strict=False)]
    return {
        "steps": len(differences),
        "largest_difference": max(map(abs, differences)),
        "mean_difference": sum(differences) / len(differences),
        "last_ten_gpu": sum(gpu[-10:]) / len(gpu[-10:]),
        "last_ten_cpu": sum(cpu[-10:]) / len(cpu[-10:]),
    }


def show(results: dict[str, Any]) -> None:
    """Print the speeds as a table; what was not measured has no number."""
    table = Table("part", "case", "network", "tokens/s", "MFU", "memory", title="Training steps")
    for name, found in results.items():
        for case in (found["result"] or {}).get("cases", []):
            for whose in ("ours", "theirs"):
                if whose in case:
                    table.add_row(name, case["case"], whose, *speed_cells(case[whose]))
    console.print(table)
    for name, found in results.items():
        kinds = (found["result"] or {}).get("kinds", {})
        if kinds:
            shares = ", ".join(f"{kind} {of['share']:.0%}" for kind, of in kinds.items())
            console.print(f"{name}: {shares}", markup=False)


def speed_cells(found: dict[str, Any]) -> tuple[str, str, str]:
    """Return tokens per second, MFU and memory in words."""
    mfu = "" if found["mfu"] is None else f"{found['mfu']:.1%}"
    memory = (found["state_bytes"] + found["step_bytes"]) / 2**30
    return f"{found['tokens_per_second']:.0f}", mfu, f"{memory:.1f} GiB"


def backends_here(found: Callable[[], bool] | None = None) -> list[str]:
    """Return the attention back ends of a GPU; a part says why one does not run."""
    import torch

    on_gpu = torch.cuda.device_count() > 0 if found is None else found()
    return ["flash", "varlen", "flex"] if on_gpu else [name for name in BACKENDS if name == "portable"]


def main(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tiny sizes, and no doctor --verify.")] = False,
    minutes: Annotated[float, typer.Option(help="Time limit of everything.")] = MINUTES,
    name: ResultName = "gpu",
) -> None:
    """Measure, print the table, and write everything to benchmarks/results."""
    scale, sizes = ("tiny", ["mini"]) if dry_run else ("full", ["base", "large"])
    with tempfile.TemporaryDirectory(prefix="clm-detour-gpu-") as work:
        folder = Path(work)
        parts = make_parts(folder, scale, backends_here(), sizes)
        settings = json.dumps({"folder": work, "scale": scale, "device": "cpu"})
        on_cpu = [sys.executable, PARTS, "losses", str(folder / "losses-cpu.json"), settings]
        if dry_run:
            parts = [replace(part, seconds=PATIENCE * part.seconds) for part in parts]
            minutes = PATIENCE * minutes
        results = measure(parts, Part("losses-cpu", on_cpu, 60 * minutes), folder, minutes)
    content = {"dry_run": dry_run, "parts": results, "losses": compare_losses(results)}
    show(results)
    console.print(f"losses: {content['losses'] or 'not measured on both'}", markup=False)
    if name:
        console.print(f"Wrote {record(name, content, PACKAGES)}", soft_wrap=True)


PACKAGES = ("torch", "transformers", "mosaicml", "triton", "flash-attn", "flash-attn-4", "numpy")

if __name__ == "__main__":
    typer.run(main)
