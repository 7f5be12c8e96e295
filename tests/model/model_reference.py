"""What the tests of the network share: tiny models with large random weights, and plain slow references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import ModernBertConfig, ModernBertForMaskedLM

from clm_detour.model import ModernBertForPretraining

VOCABULARY = 97
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}


def tiny_config(**keys: Any) -> ModernBertConfig:
    """Four layers (two global, two local), window 4 on each side."""
    return ModernBertConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "local_attention": 8,
            **SPECIAL,
            **keys,
        }
    )


def tiny_model(seed: int = 0, **keys: Any) -> ModernBertForPretraining:
    """In evaluation mode, every parameter far from its initial value."""
    model = ModernBertForPretraining(tiny_config(**keys))
    randomise(model, seed)
    return model.eval()


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights so large that every layer matters, norms around 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if "norm.weight" in name else 0.2 * noise)


def same_masked_lm(model: ModernBertForPretraining, implementation: str) -> ModernBertForMaskedLM:
    """transformers' class with the same weights."""
    config = tiny_config(**{**model.config.to_dict(), "attn_implementation": implementation})
    config.reference_compile = False
    other = ModernBertForMaskedLM(config)
    other.load_state_dict(model.state_dict())
    return other.eval()


def tokens(total: int, seed: int = 0) -> Tensor:
    """(total,) random ids, none of them special."""
    return torch.randint(3, VOCABULARY, (total,), generator=torch.Generator().manual_seed(seed))


def some_labels(ids: Tensor, seed: int = 0) -> Tensor:
    """About a third of the ids, -100 elsewhere."""
    chosen = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    chosen.view(-1)[0] = True
    return torch.where(chosen, ids, -100)


def packed_ids(lengths: Sequence[int]) -> Tensor:
    """(1, T) document ids of one row."""
    return torch.cat([torch.full((length,), i) for i, length in enumerate(lengths)])[None]


def padded(flat: Tensor, lengths: Sequence[int], fill: int, side: str = "right") -> Tensor:
    """(T,) -> (documents, longest)."""
    out = torch.full((len(lengths), max(lengths)), fill, dtype=flat.dtype)
    for row, document in zip(out, flat.split(list(lengths)), strict=True):
        row[slice(len(document)) if side == "right" else slice(-len(document), None)] = document
    return out


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Largest difference relative to the largest value."""
    assert actual.shape == expected.shape
    scale = expected.abs().max().clamp_min(1e-30)
    error = ((actual - expected).abs().max() / scale).item()
    assert error <= tolerance, f"relative error {error:.2e}"


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    """Of every parameter, by name; fails if one has none."""
    found = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        found[name] = parameter.grad.clone()
    model.zero_grad()
    return found


def eager_attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], causal: bool, window: int | None
) -> Tensor:
    """(T, H, D): the definition, written out with one T x T mask."""
    index = packed_ids(lengths)[0]
    position = torch.arange(len(index))
    distance = position[None, :] - position[:, None]  # key - query
    seen = index[None, :] == index[:, None]
    if causal:
        seen &= distance <= 0
    if window is not None:
        seen &= distance.abs() <= window
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)
