"""Compare the gradients of CLM and MLM in a model on the same texts: `gradients.json`.

The form of the result is `clm_detour.records.analysis.GradientsRecord`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.table import Table

from clm_detour.analyze.weights import layer_order, sum_by_place
from clm_detour.data.loader import Batch
from clm_detour.data.objectives import IGNORED, Objective
from clm_detour.measure.scorer import open_masked, readable, text_batches
from clm_detour.model import ModernBertForPretraining
from clm_detour.model.loss import predicted_places, summed_cross_entropy
from clm_detour.model.precision import best_device, fp32_products
from clm_detour.utils.errors import UserError
from clm_detour.utils.progress import progress

CLM = "clm"
RATES = (0.3, 0.15)  # mask rates of the paper's MLM phases


@fp32_products(tf32=False)
def gradients(
    path: str, texts: Sequence[str], max_tokens: int = 512, seed: int = 0, tokenizer: str | None = None
) -> dict[str, Any]:
    """Compute the gradients of one model. For the result see the docstring of the module.

    Args:
        path: Folder or hub id of the model.
        texts: Texts.
        max_tokens: Length at which texts are cut.
        seed: Seed of the masks.
        tokenizer: Folder or hub id of the tokenizer. None means the model's own.

    Raises:
        UserError: If its family is unknown, or no token of the texts is predicted.
    """
    network, opened = open_masked(path, tokenizer)
    torch.nn.Module.to(network, best_device())
    max_tokens = readable(network, max_tokens)
    objectives = {CLM: Objective("clm"), **{f"mlm {100 * r:.0f} %": Objective("mlm", r) for r in RATES}}
    found = {}
    with progress("Gradients", len(objectives) * len(texts), "texts") as advance:
        for name, objective in objectives.items():
            network.zero_grad()
            sums = _Sums()
            for batch in text_batches(opened, texts, max_tokens, objective, seed):
                sums.add(network, batch, objective.causal)
                advance(len(batch["document_lengths"][0]))
            if not sums.predicted:
                raise UserError(
                    f"The texts are too few: under {name} no token of them is predicted; give more texts."
                )
            found[name] = sums.result(network)
    tokens = found[CLM].pop("tokens")
    for values in found.values():
        values.pop("tokens", None)
    layers = layer_order(layer for values in found.values() for layer in values["norms"])
    return {"model": path, "texts": len(texts), "tokens": tokens, "layers": layers, "objectives": found}


class _Sums:
    """Sums over the batches of one objective. The gradients of the weights are summed in the network."""

    def __init__(self) -> None:
        self.loss, self.predicted, self.tokens = 0.0, 0, 0
        self.reached: torch.Tensor | float = 0.0
        self.sum: torch.Tensor | float = 0.0
        self.square: torch.Tensor | float = 0.0

    def add(self, network: ModernBertForPretraining, batch: Batch, causal: bool) -> None:
        each: list[torch.Tensor] = []
        inputs, labels = (batch[name].to(best_device()) for name in ("input_ids", "labels"))
        hidden, rows = network.encode(
            inputs, document_lengths=batch["document_lengths"], each=each, causal=causal
        )
        for state in each:
            state.retain_grad()
        labels = rows.take(labels)
        places = predicted_places(labels)
        loss, _ = summed_cross_entropy(
            network.head(hidden.index_select(0, places)),
            network.decoder.weight,
            network.decoder.bias,
            labels[places],
        )
        loss.backward()
        norms = torch.stack([state.grad.double().norm(dim=1) for state in each if state.grad is not None])
        self.reached = self.reached + (norms > 0).sum(1)
        self.sum, self.square = self.sum + norms.sum(1), self.square + norms.square().sum(1)
        self.loss += float(loss.detach())
        self.predicted += int((labels != IGNORED).sum())
        self.tokens += inputs.numel()

    def result(self, network: ModernBertForPretraining) -> dict[str, Any]:
        squares = {
            name: float(p.grad.double().square().sum()) / self.predicted**2
            for name, p in network.named_parameters()
            if p.grad is not None
        }
        assert isinstance(self.sum, torch.Tensor)
        assert isinstance(self.square, torch.Tensor)
        assert isinstance(self.reached, torch.Tensor)
        outputs = ("embeddings", *map(str, range(len(self.sum) - 1)))
        spread = self.sum.square() / (self.tokens * self.square)
        return {
            "loss": self.loss / self.predicted,
            "predicted": self.predicted,
            "density": self.predicted / self.tokens,
            "norm": sum(squares.values()) ** 0.5,
            "norms": {
                layer: {kind: square**0.5 for kind, square in kinds.items()}
                for layer, kinds in sum_by_place(squares, squares.__getitem__).items()
            },
            "reached": dict(zip(outputs, (self.reached / self.tokens).tolist(), strict=True)),
            "spread": dict(zip(outputs, spread.tolist(), strict=True)),
            "tokens": self.tokens,
        }


def gradients_table(result: Mapping[str, Any]) -> Table:
    """Return a table with the norm of each layer's gradient by objective."""
    names = list(result["objectives"])
    table = Table(title="Gradient norm by layer, and supervised positions")
    for column in ("layer", *names):
        table.add_column(column, justify="right")
    for layer in result["layers"]:
        norms = (result["objectives"][name]["norms"].get(layer, {}) for name in names)
        table.add_row(layer, *(f"{sum(v * v for v in kinds.values()) ** 0.5:.3g}" for kinds in norms))
    table.add_row("density", *(f"{100 * result['objectives'][name]['density']:.1f} %" for name in names))
    return table
