"""Measure with torch's profiler which kinds of operators take the time of a training step.

    python benchmarks/profile_step.py --papers PAPERS.jsonl.gz --tokenizer FOLDER

Workloads and cases are those of `train_step.py`, on our network only. For kinds with useful operations the
share of the GEMM peak is given too.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
import typer
from peak import gemm_peak
from peers import Batch
from record import ResultName, record
from rich.console import Console
from rich.table import Table
from train_step import DTYPES, Layers, Papers, TokenizerFolder, config_for, make_batch, make_ours
from transformers import PreTrainedConfig

from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.model.flops import flops_per_batch
from clm_detour.utils.allocator import keep_freed_memory

KINDS = {  # parts of the names of torch's operators; the first kind that matches counts
    "attention": ("scaled_dot_product", "flash", "varlen", "flex", "_Attention"),  # the last: onednn
    "products": ("::mm", "::addmm", "::bmm", "::linear", "gemm", "nvjet", "cutlass"),
    "optimizer": ("adam",),
    "norms": ("layer_norm",),
    "activation": ("gelu",),
    "softmax and its gradient": ("softmax", "::exp", "scatter", "_ChunkedCrossEntropy"),  # the last: compiled
    "copies and casts": ("copy_", "::cat", "contiguous"),
}
OTHER = "sums, products by element, the rest"
OPERATORS = 30  # the longest ones are listed


def kind_of(operator: str) -> str:
    """Return the kind of an operator."""
    return next((kind for kind, parts in KINDS.items() if any(part in operator for part in parts)), OTHER)


def profile(
    batch: Batch,
    config: PreTrainedConfig,
    precision: str = "bf16",
    compile: bool = False,
    warm_up: int = 3,
) -> dict[str, Any]:
    """Profile one step of our network.

    Returns:
        `gemm_peak`, and `kinds` and `operators`: seconds and share of each, the longest first.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = {
        "backend": "auto", "compile": compile, "checkpointing": False, "precision": precision,
        "residual": precision,
    }  # fmt: skip
    ours = make_ours(config, batch, {**options, "device": device})
    ours.warm_up(warm_up)
    peak = gemm_peak(device, DTYPES[precision])
    seconds = operator_seconds(ours.step, device)
    whole = sum(seconds.values())
    by_kind: dict[str, float] = {}
    for operator, spent in seconds.items():
        by_kind[kind_of(operator)] = by_kind.get(kind_of(operator), 0.0) + spent
    useful = flops_per_batch(config, batch.lengths, batch.predicted, batch.causal)
    operations = {"attention": useful.attention, "products": useful.linear + useful.head}
    kinds: dict[str, Any] = longest_first(by_kind, whole)
    for kind in operations.keys() & kinds.keys():
        kinds[kind]["of_gemm_peak"] = operations[kind] / kinds[kind]["seconds"] / peak
    return {
        "gemm_peak": peak,
        "kinds": kinds,
        "operators": dict(list(longest_first(seconds, whole).items())[:OPERATORS]),
    }


def longest_first(seconds: dict[str, float], whole: float) -> dict[str, dict[str, float]]:
    """Return seconds and share of each, the longest first."""
    ordered = sorted(seconds.items(), key=lambda pair: -pair[1])
    return {name: {"seconds": spent, "share": spent / whole} for name, spent in ordered}


def main(
    papers: Papers,
    tokenizer: TokenizerFolder = "answerdotai/ModernBERT-base",
    size: str = "base",
    family: Annotated[str, typer.Option(help="modernbert, bert or roberta.")] = "modernbert",
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
    known = load_tokenizer(tokenizer)
    config = config_for(known, size, layers, family)
    batch = make_batch(workload, case, papers, known, tokens, rows, config)
    results = profile(batch, config, precision, compile, warm_up)
    title = f"{family}, {workload}, {case}, {batch.tokens} tokens, {precision}"
    table = Table("kind", "share of time", "GEMM peak", title=title)
    for kind, found in results["kinds"].items():
        of_peak = f"{found['of_gemm_peak']:.0%}" if "of_gemm_peak" in found else ""
        table.add_row(kind, f"{found['share']:.1%}", of_peak)
    Console().print(table)
    if name:
        settings = {
            "size": size, "family": family, "layers": config.num_hidden_layers, "workload": workload,
            "case": case, "tokens": batch.tokens, "rows": rows, "precision": precision, "compile": compile,
        }  # fmt: skip
        Console().print(f"Wrote {record(name, {'settings': settings, **results})}")


def operator_seconds(step: Any, device: torch.device) -> dict[str, float]:
    """Return the seconds of each operator of one step; on a GPU those of each kernel."""
    on_gpu = device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as run:
        step()
    return {
        event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
        for event in run.key_averages()
    }


if __name__ == "__main__":
    typer.run(main)
