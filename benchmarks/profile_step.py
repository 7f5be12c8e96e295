"""Where the time of a training step goes: shares of products, attention, the optimizer and everything else, by torch's profiler.

    python benchmarks/profile_step.py --papers ../shared/data/corpus/pubmed.jsonl.gz --tokenizer ../shared/data/tokenizer/modernbert

The same workloads and cases as `train_step.py`, ours alone. The kinds with useful operations are also given as operations a second.
"""

from __future__ import annotations

from typing import Any

import torch
import typer
from peak import gemm_peak
from record import record
from rich.console import Console
from rich.table import Table
from train_step import DTYPES, Layers, Papers, ResultName, TokenizerFolder, config_of, make_batch, make_ours

from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.model.flops import flops_per_batch
from clm_detour.utils.allocator import keep_freed_memory

KINDS = {  # of torch's operators, by what their names contain; the first that fits
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
    """Which of KINDS an operator is."""
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
    """Profile one step, print and record the shares."""
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = make_batch(workload, case, papers, load_tokenizer(tokenizer), tokens, rows)
    config = config_of(size, layers)
    ours = make_ours(
        config,
        batch,
        {
            "backend": "auto",
            "device": device,
            "compile": compile,
            "checkpointing": False,
            "precision": precision,
        },
    )
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
    table = Table(
        "kind", "share", "of GEMM peak", title=f"{workload}, {case}, {batch.tokens} tokens, {precision}"
    )
    for kind, found in results.items():
        of_peak = f"{found['of_gemm_peak']:.0%}" if "of_gemm_peak" in found else ""
        table.add_row(kind, f"{found['share']:.1%}", of_peak)
    Console().print(table)
    if name:
        settings = {"size": size, "layers": config.num_hidden_layers, "workload": workload, "case": case}
        settings |= {
            "tokens": batch.tokens,
            "rows": rows,
            "precision": precision,
            "compile": compile,
            "gemm_peak": peak,
        }
        Console().print(f"Written: {record(name, {'settings': settings, 'kinds': results})}")


def shares(step: Any, device: torch.device) -> tuple[dict[str, float], float]:
    """Seconds of each kind in one step, operators' own time, and their sum."""
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
