"""Measure each attention back end that runs here, in turns: speed of both passes and error against fp32.

    python benchmarks/attention.py

The inputs are random, in bf16, with the 12 heads of 64 of ModernBERT-base. Only useful operations count, as
in `flops_per_batch`: those of pairs of tokens that see each other, twice as many backward as forward. They
are compared with the GEMM peak of the same minutes. A flash kernel computes the scores twice, so it cannot
reach more than 6 / 7 of the peak over both passes.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
import typer
from peak import gemm_peak, timed
from record import ResultName, record
from rich.console import Console
from rich.table import Table

from clm_detour.model.attention import BACKENDS, attention
from clm_detour.model.documents import Documents
from clm_detour.model.flops import seen_pairs
from clm_detour.utils.allocator import keep_freed_memory

HEADS, SIZE = 12, 64
LENGTHS = {
    "abstracts": [250, 310, 190, 520, 400, 333, 280, 600, 1185, 170],
    "papers": [2048, 2048, 4096],
    "one document": [8192],
}
LAYERS = {  # causal, window
    "global": (False, None),
    "global causal": (True, None),
    "local": (False, 64),
    "local causal": (True, 64),
}


def passes(
    qkv: torch.Tensor, out_grad: torch.Tensor, lengths: list[int], mask: Any, name: str
) -> dict[str, Any]:
    """Return the seconds of both passes, and the gradient."""
    documents, found = Documents(lengths, qkv.device), {}

    def forward() -> None:
        found["out"] = attention(*qkv.unbind(1), documents, *mask, name)

    def backward() -> None:
        (found["grad"],) = torch.autograd.grad(found["out"], qkv, out_grad)

    return {"forward": timed(forward, qkv.device), "backward": timed(backward, qkv.device), **found}


def measure(lengths: list[int], mask: Any, rounds: int, device: torch.device) -> dict[str, dict[str, float]]:
    """Return the speed, the share of the GEMM peak and the error of each back end."""
    shape = (sum(lengths), 3, HEADS, SIZE)
    qkv = torch.randn(shape, device=device).bfloat16().requires_grad_()
    out_grad = torch.randn(shape[0], HEADS, SIZE, device=device).bfloat16()
    exact = qkv.detach().float().requires_grad_()
    reference = passes(exact, out_grad.float(), lengths, mask, "portable")["grad"]
    names = [
        name for name, b in BACKENDS.items() if b.suits(device.type, torch.bfloat16) and not b.unavailable()
    ]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    peaks = []
    for number in range(rounds + 1):
        peaks.append(gemm_peak(device, [torch.bfloat16]))
        for name in names:
            run = passes(qkv, out_grad, lengths, mask, name)
            run["error"] = ((run.pop("grad") - reference).norm() / reference.norm()).item()
            runs[name] += [run] if number else []  # the first round is a warm-up
    operations = 4 * HEADS * SIZE * sum(seen_pairs(length, *mask) for length in lengths)
    peak = statistics.median(peaks[1:])
    return {name: figures(run, operations, peak) for name, run in runs.items()}


def figures(runs: list[dict[str, Any]], operations: int, peak: float) -> dict[str, float]:
    """Return medians over the rounds."""
    forward, backward = (statistics.median(run[way] for run in runs) for way in ("forward", "backward"))
    return {
        "forward_gflops": operations / forward / 1e9,
        "backward_gflops": 2 * operations / backward / 1e9,
        "of_gemm_peak": 3 * operations / (forward + backward) / peak,
        "gradient_error": runs[0]["error"],
        "gemm_peak": peak,
    }


def main(rounds: int = 3, name: ResultName = "attention") -> None:
    """Measure, print the table, and write it to benchmarks/results."""
    keep_freed_memory()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    table = Table("documents", "layer", "back end", "forward (GFLOP/s)", "backward (GFLOP/s)")
    table.add_column("GEMM peak")
    table.add_column("error of gradient")
    results = []
    for documents, lengths in LENGTHS.items():
        for layer, mask in LAYERS.items():
            for backend, found in measure(lengths, mask, rounds, device).items():
                results.append({"documents": lengths, "layer": layer, "backend": backend, **found})
                table.add_row(
                    documents,
                    layer,
                    backend,
                    f"{found['forward_gflops']:.0f}",
                    f"{found['backward_gflops']:.0f}",
                    f"{found['of_gemm_peak']:.0%}",
                    f"{found['gradient_error']:.1e}",
                )
    console = Console(width=120)
    console.print(table)
    if name:
        console.print(f"Wrote {record(name, {'threads': torch.get_num_threads(), 'cases': results})}")


if __name__ == "__main__":
    typer.run(main)
