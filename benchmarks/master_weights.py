"""bf16 two ways: autocast over fp32 weights, as a phase trains, and bf16 weights with fp32 masters in the optimizer; in turns.

    python benchmarks/master_weights.py --papers ../shared/data/corpus/pubmed.jsonl.gz --tokenizer ../shared/data/tokenizer/modernbert

Autocast turns each weight to bf16 once a forward, and its gradient to fp32; masters are turned once a step each way, and weights in bf16
are half as large. The same workloads and cases as `train_step.py`, ours alone.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
import typer
from record import record
from rich.console import Console
from rich.table import Table
from train_step import (
    Competitor,
    Layers,
    Papers,
    ResultName,
    TokenizerFolder,
    config_of,
    make_batch,
    make_ours,
)

from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.utils.allocator import give_back_freed_memory, keep_freed_memory


class WithMasters(Competitor):
    """Weights and gradients in bf16; the optimizer has fp32 copies."""

    def __post_init__(self) -> None:
        self.network.bfloat16()
        super().__post_init__()
        self.masters = [p.detach().float() for p in self.network.parameters()]
        self.optimizer = torch.optim.AdamW(self.masters, lr=1e-6, fused=True)

    def update(self) -> None:
        """Gradients to the masters, the masters' step, and back."""
        weights = list(self.network.parameters())
        for master, weight in zip(self.masters, weights, strict=True):
            assert weight.grad is not None
            master.grad = weight.grad.float()
        super().update()
        with torch.no_grad():
            torch._foreach_copy_(weights, self.masters)
        self.network.zero_grad()

    def state_tensors(self) -> list[torch.Tensor]:
        """Weights, masters and moments."""
        return [*super().state_tensors(), *self.masters]


def main(
    papers: Papers,
    tokenizer: TokenizerFolder = "answerdotai/ModernBERT-base",
    size: str = "base",
    layers: Layers = 0,
    workload: str = "packed",
    cases: str = "mlm15,clm",
    tokens: int = 8192,
    rounds: int = 3,
    name: ResultName = "master-weights",
) -> None:
    """Measure, print, and record under benchmarks/results."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_freed_memory()
    known, config = load_tokenizer(tokenizer), config_of(size, layers)
    settings = {"backend": "auto", "device": device, "compile": False, "checkpointing": False}
    table = Table("objective", "weights", "seconds a step", "loss", "weights, moments", "step")
    results: list[dict[str, Any]] = []
    for case in cases.split(","):
        batch = make_batch(workload, case, papers, known, tokens)
        autocast = make_ours(config, batch, settings | {"precision": "bf16"})
        plain = make_ours(config, batch, settings | {"precision": "none"})
        both = {
            "fp32, autocast": autocast,
            "bf16, fp32 masters": WithMasters(plain.network, plain.micro_batches, "none"),
        }
        for competitor in both.values():
            give_back_freed_memory()
            competitor.first_step()
            competitor.warm_up(1)
        for _ in range(rounds):
            for competitor in both.values():
                competitor.time(give_back=False)
        for weights, each in both.items():
            found = {
                "case": case, "weights": weights, "seconds": each.seconds, "loss": float(each.loss),
                "state_bytes": each.state_bytes, "step_bytes": each.peak_bytes,
            }  # fmt: skip
            results.append(found)
            memory = (f"{taken / 2**30:.2f} GiB" for taken in (each.state_bytes, each.peak_bytes))
            table.add_row(
                case, weights, f"{statistics.median(each.seconds):.2f}", f"{each.loss:.3f}", *memory
            )
    Console(width=140).print(table)
    if name:
        shown = {"size": size, "layers": config.num_hidden_layers, "workload": workload, "tokens": tokens}
        Console().print(f"Written: {record(name, {'settings': shown, 'results': results})}")


if __name__ == "__main__":
    typer.run(main)
