"""The architecture of an exported model, from its config and the headers of its weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from clm_detour.figures import wording
from clm_detour.model.pretrained import AFTER_PADDING
from clm_detour.model.weights import DECODER, read_shapes
from clm_detour.report.run import Run
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json


def architecture(run: Run, folder: Path | None) -> list[list[str]]:
    """Return names and values for a table; what the config of the exported model does not say is left out."""
    config = read_config(folder / "config.json") if folder else {}
    count = parameters(folder, config) if folder else None
    row = run.config.data.sequence_length if run.config else None
    gated = config.get("model_type", "modernbert") == "modernbert"
    found = {
        "class": next(iter(config.get("architectures") or []), None),
        "parameters": count and f"{wording.count(count)}",
        "layers": config.get("num_hidden_layers"),
        "width (hidden size)": config.get("hidden_size"),
        f"width of the {'gated ' * gated}MLP": config.get("intermediate_size"),
        "attention heads": config.get("num_attention_heads"),
        "attention": attention(config),
        "positions": positions(config),
        "longest input": in_tokens(longest(config)),
        "rows in training": in_tokens(row),
        "vocabulary": in_tokens(config.get("vocab_size")),
        "stored as": config.get("dtype") or config.get("torch_dtype"),
    }
    return [[name, str(value)] for name, value in found.items() if value is not None]


def read_config(path: Path) -> dict[str, Any]:
    """Return a model's config; empty if it cannot be read."""
    try:
        content = read_json(path)
    except UserError:
        return {}
    return content if isinstance(content, dict) else {}


def parameters(folder: Path, config: dict[str, Any]) -> int | None:
    """Return the number of parameters, shared ones once; None if the weights cannot be read."""
    try:
        shapes = read_shapes(folder)
    except UserError:
        return None
    if config.get("tie_word_embeddings"):
        shapes.pop(DECODER, None)
    return sum(math.prod(shape) for shape in shapes.values())


def attention(config: dict[str, Any]) -> str | None:
    """Return which layers see the whole text, and how far the others see."""
    layers, window = config.get("num_hidden_layers"), config.get("local_attention")
    every = config.get("global_attn_every_n_layers")
    kinds = config.get("layer_types")
    if kinds is None and layers and every:
        kinds = ["full_attention" if layer % every == 0 else "" for layer in range(layers)]
    if config.get("model_type", "modernbert") != "modernbert":
        return "every layer sees the whole text"
    if not kinds or not window:
        return None
    seeing = [str(layer) for layer, kind in enumerate(kinds) if kind == "full_attention"]
    if len(seeing) == len(kinds):
        return "every layer sees the whole text"
    return (
        f"layers {wording.listing(seeing)} see the whole text, the others {window // 2} tokens on each side"
    )


def positions(config: dict[str, Any]) -> str | None:
    """Return the kind of the positions, with the bases of their rotation."""
    if config.get("model_type", "modernbert") != "modernbert":
        return "learned, absolute"
    parts = config.get("rope_parameters") or {}
    bases = [parts.get(kind, {}).get("rope_theta") for kind in ("full_attention", "sliding_attention")]
    bases = [
        base or config.get(key)
        for base, key in zip(bases, ("global_rope_theta", "local_rope_theta"), strict=True)
    ]
    if None in bases:
        return None
    whole, local = (wording.count(round(base)) for base in bases)
    return f"rotary, base {whole} in layers that see the whole text and {local} in the others"


def longest(config: dict[str, Any]) -> int | None:
    """Return the number of positions; those of a RoBERTa begin after the padding id."""
    positions = config.get("max_position_embeddings")
    if positions is None or config.get("model_type") not in AFTER_PADDING:
        return positions
    return positions - (config.get("pad_token_id") or 0) - 1


def in_tokens(number: int | None) -> str | None:
    """Return a number of tokens in words."""
    return None if number is None else f"{wording.count(number)} tokens"
