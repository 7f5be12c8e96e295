"""Measure how far weights have moved, by layer and kind: `weights.json`.

The form of the result is `clm_detour.records.analysis.WeightChange`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.table import Table
from torch import Tensor

from clm_detour.model import hf
from clm_detour.model.named_weights import read_named
from clm_detour.model.weights import DECODER, EMBEDDING, as_with_head
from clm_detour.utils.errors import UserError

KINDS = ("attention", "mlp", "norms", "embeddings", "head")
LARGEST = 10


def layer_and_kind(name: str) -> tuple[str, str]:
    """Return the layer and the kind of a weight; a norm belongs to the layer that contains it."""
    layer = re.match(r"model\.layers\.(\d+)\.", name)
    where = (
        layer[1]
        if layer
        else "embeddings"
        if "embeddings" in name
        else "final_norm"
        if "final_norm" in name
        else "head"
    )
    if "norm" in name:
        return where, "norms"
    if layer:
        return where, "attention" if ".attn." in name else "mlp"
    return where, "embeddings" if where == "embeddings" else "head"


def layer_order(layers: Iterable[str]) -> list[str]:
    """Return layers in order, from the embeddings to the head."""
    ends = {"embeddings": -1, "final_norm": 10**6, "head": 10**6 + 1}
    return sorted(set(layers), key=lambda layer: ends[layer] if layer in ends else int(layer))


def sum_by_place(names: Iterable[str], square: Callable[[str], float]) -> dict[str, dict[str, float]]:
    """Return the sum of `square(name)` over the weights of each layer and kind: layer -> kind -> sum."""
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for name in names:
        layer, kind = layer_and_kind(name)
        sums[layer][kind] += square(name)
    return {layer: dict(sums[layer]) for layer in layer_order(sums)}


def weight_change(before: str, after: str) -> dict[str, Any]:
    """Compare two checkpoints. For the result see the docstring of the module.

    Raises:
        UserError: If one is not a folder of a known family, or they do not have the same weights.
    """
    old, new = (_weights(path) for path in (before, after))
    if {name: w.shape for name, w in old.items()} != {name: w.shape for name, w in new.items()}:
        raise UserError(
            f"{before} and {after} do not have the same weights; compare checkpoints of one model."
        )
    moved = {name: float((new[name] - old[name]).norm()) for name in old}
    size = {name: float(old[name].norm()) for name in old}
    moved_at = sum_by_place(old, lambda name: moved[name] ** 2)
    size_at = sum_by_place(old, lambda name: size[name] ** 2)
    whole = {
        kind: _root(
            sum(kinds.get(kind, 0.0) for kinds in moved_at.values()),
            sum(kinds.get(kind, 0.0) for kinds in size_at.values()),
        )
        for kind in KINDS
    }
    whole["all"] = _root(sum(m**2 for m in moved.values()), sum(s**2 for s in size.values()))
    largest = sorted(((_root(moved[n] ** 2, size[n] ** 2) or 0.0, n) for n in old), reverse=True)[:LARGEST]
    return {
        "from": before,
        "to": after,
        "layers": list(moved_at),
        "kinds": list(KINDS),
        "change": {
            layer: {kind: _root(value, size_at[layer][kind]) for kind, value in kinds.items()}
            for layer, kinds in moved_at.items()
        },
        "whole": whole,
        "largest": [{"name": name, "change": change} for change, name in largest],
    }


def _weights(path: str) -> Mapping[str, Tensor]:
    folder = hf.fetch(path)
    named = as_with_head(read_named(folder, hf.read_config(folder), "ForMaskedLM", path))
    weights = {name: weight.double() for name, weight in named.items()}
    if EMBEDDING in weights and DECODER in weights and weights[DECODER].equal(weights[EMBEDDING]):
        del weights[DECODER]  # it is the embedding
    return weights


def _root(moved: float, size: float) -> float | None:
    return (moved / size) ** 0.5 if size else None


def weights_table(change: Mapping[str, Any]) -> Table:
    """Return a table of relative changes with a row for each layer."""
    table = Table(title="Relative weight change (%)")
    for column in ("layer", *KINDS):
        table.add_column(column, justify="right")
    for layer in [*change["layers"], "whole"]:
        kinds = change["whole"] if layer == "whole" else change["change"][layer]
        table.add_row(layer, *("" if kinds.get(k) is None else f"{100 * kinds[k]:.2f}" for k in KINDS))
    return table
