"""Compare autocast over fp32 weights with bf16 weights and fp32 master weights in the optimizer, in turns.

    python benchmarks/master_weights.py --papers PAPERS.jsonl.gz --tokenizer FOLDER

A phase trains with autocast, which converts each weight to bf16 once per forward, and its gradient to fp32.
Master weights are converted once per step in each direction, and bf16 weights are half as large. Workloads
and cases are those of `train_step.py`, on our network only.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
import typer
from record import ResultName, record
from rich.console import Console
from rich.table import Table
from train_step import (
    Competitor,
    Layers,
    Papers,
    TokenizerFolder,
    config_of,
    make_batch,
    make_ours,
)

from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.utils.allocator import give_back_freed_memory, keep_freed_memory


class WithMasters(Competitor):
    """A network with weights and gradients in bf16, and an optimizer with fp32 copies of the weights."""

    def __post_init__(self) -> None:
        self.network.bfloat16()
        super().__post_init__()
        self.masters = [p.detach().float() for p in self.network.parameters()]
        self.optimizer = torch.optim.AdamW(self.masters, lr=1e-6, fused=True)

    def update(self) -> None:
        """Copy the gradients to the master weights, update these, and copy them back."""
        weights = list(self.network.parameters())
        for master, weight in zip(self.masters, weights, strict=True):
            assert weight.grad is not None
            master.grad = weight.grad.float()
        super().update()
        with torch.no_grad():
            torch._foreach_copy_(weights, self.masters)
        self.network.zero_grad()

    def state_tensors(self) -> list[torch.Tensor]:
        """Return weights, master weights and optimizer state."""
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
    """Measure, print the table, and write it to benchmarks/results."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_freed_memory()
    known, config = load_tokenizer(tokenizer), config_of(size, layers)
    settings = {
        "backend": "auto", "device": device, "compile": False, "checkpointing": False, "residual": "fp32",
    }  # fmt: skip
    table = Table("objective", "weights", "seconds per step", "loss", "memory of weights and optimizer state")
    table.add_column("memory of the step")
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
        Console().print(f"Wrote {record(name, {'settings': shown, 'results': results})}")


if __name__ == "__main__":
    typer.run(main)
