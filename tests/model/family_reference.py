"""Share tiny models of transformers' families between tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from model_reference import VOCABULARY, randomise

from clm_detour.model.families import FAMILIES

KINDS = [kind for kind in FAMILIES if kind != "modernbert"]
LONGEST = 32


def tiny(kind: str, **keys: Any) -> Any:
    """A config of three layers, whose documents have at most 32 tokens."""
    padding = 0 if kind == "bert" else 1
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": LONGEST if kind == "bert" else LONGEST + padding + 1,
        "pad_token_id": padding,
    }
    return transformers.AutoConfig.for_model(kind, **{**sizes, **keys})


def theirs(kind: str, which: str = "ForMaskedLM", **keys: Any) -> Any:
    """transformers' class with large random weights, in evaluation mode."""
    network = getattr(transformers, FAMILIES[kind].prefix + which)(tiny(kind, **keys))
    randomise(network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.lower().endswith(("layernorm.weight", "layer_norm.weight")):
                parameter.copy_(1 + 0.5 * parameter)
    return network.eval()


def saved(network: Any, folder: Path) -> Path:
    """Write a folder, and return it."""
    network.save_pretrained(folder)
    return folder
