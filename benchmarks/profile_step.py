"""Measure with torch's profiler which kinds of operators take the time of a training step.

    python benchmarks/profile_step.py --papers PAPERS.jsonl.gz --tokenizer FOLDER

Workloads and cases are those of `train_step.py`, on our network only. For kinds with useful operations the
share of the GEMM peak is given too.
"""

from __future__ import annotations

from typing import Any

import torch
import typer
from peak import gemm_peak
from record import ResultName, record
from rich.console import Console
from rich.table import Table
from train_step import DTYPES, Layers, Papers, TokenizerFolder, config_of, make_batch, make_ours

from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.model.flops import flops_per_batch
from clm_detour.utils.allocator import keep_freed_memory

KINDS = {  # parts of the names of torch's operators; the first kind that matches counts
    "attention": ("scaled_dot_product", "flash", "varlen", "flex", "_Attention"),  # the last: onednn
    "products": ("::mm", "::addmm", "::bmm", "::linear", "gemm"),
    "optimizer": ("adam",),
    "norms": ("layer_norm",),
    "activation": ("gelu",),
    "softmax and its gradient": ("softmax", "::exp", "scatter", "_ChunkedCrossEntropy"),  # the last: compiled
    "copies and casts": ("copy_", "::cat", "contiguous"),
}
OTHER = "sums, products by element, the rest"


def kind_of(operator: str) -> str:
    """Return the kind of an operator."""
    return next((kind for kind, parts in KINDS.items() if any(part in operator for part in parts)), OTHER)


def main(
    papers: Papers,
    tokenizer: TokenizerFolder = "answerdotai/ModernBERT-base",
    size: str = "base",
    layers: Layers = 0,
    workload: str = "packed",
    case: str = "mlm15",
    tokens: int = 8192,
    rows: int = 1,
    precision: str = "bf16",
    compile: bool = False,
    warm_up: int = 3,
    name: ResultName = "profile-step",
) -> None:
    """Profile one step, print the shares, and write them to benchmarks/results."""
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = make_batch(workload, case, papers, load_tokenizer(tokenizer), tokens, rows)
    config = config_of(size, layers)
    options = {"backend": "auto", "compile": compile, "checkpointing": False, "precision": precision}
    ours = make_ours(config, batch, {**options, "device": device})
    ours.warm_up(warm_up)
    peak = gemm_peak(device, DTYPES[precision])
    seconds, whole = shares(ours.step, device)
    useful = flops_per_batch(config, batch.lengths, batch.predicted, batch.causal)
    operations = {"attention": useful.attention, "products": useful.linear + useful.head}
    results: dict[str, Any] = {
        kind: {
            "seconds": spent,
            "share": spent / whole,
            **({"of_gemm_peak": operations[kind] / spent / peak} if kind in operations else {}),
        }
        for kind, spent in sorted(seconds.items(), key=lambda pair: -pair[1])
    }
    title = f"{workload}, {case}, {batch.tokens} tokens, {precision}"
    table = Table("kind", "share of time", "GEMM peak", title=title)
    for kind, found in results.items():
        of_peak = f"{found['of_gemm_peak']:.0%}" if "of_gemm_peak" in found else ""
        table.add_row(kind, f"{found['share']:.1%}", of_peak)
    Console().print(table)
    if name:
        settings = {
            "size": size, "layers": config.num_hidden_layers, "workload": workload, "case": case,
            "tokens": batch.tokens, "rows": rows, "precision": precision, "compile": compile,
            "gemm_peak": peak,
        }  # fmt: skip
        Console().print(f"Wrote {record(name, {'settings': settings, 'kinds': results})}")


def shares(step: Any, device: torch.device) -> tuple[dict[str, float], float]:
    """Return the seconds of each kind of operator in one step, and their sum."""

    on_gpu = device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as run:
        step()
    seconds: dict[str, float] = {}
    for event in run.key_averages():
        own = (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
        seconds[kind_of(event.key)] = seconds.get(kind_of(event.key), 0.0) + own
    return seconds, sum(seconds.values())


if __name__ == "__main__":
    typer.run(main)
