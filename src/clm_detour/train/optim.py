"""Decoupled AdamW, and its moments as a safetensors file keyed by parameter name.

torch's AdamW shrinks a weight by lr * weight_decay a step; the decoupled rule by lr / peak * weight_decay. Dividing the decay by the
peak makes one the other, with torch's fused kernel.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import nn

from clm_detour.config.schema import Optimizer
from clm_detour.model.weights import read_tensors
from clm_detour.train.parallel import save_whole, share_of
from clm_detour.utils.errors import UserError

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def make_optimizer(model: nn.Module, settings: Optimizer, peak: float) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `model`; matrices decay, biases and norms do not."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay / peak},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=peak, betas=settings.betas, eps=settings.eps, fused=True)


def save_moments(optimizer: torch.optim.Optimizer, model: nn.Module, path: Path) -> None:
    """Write `exp_avg/<name>`, `exp_avg_sq/<name>` and `step/<name>` of every trained parameter; every process must call it.

    One that has not had a step, since all were left out for their loss, has those that it would start with: zeros.
    """
    held = held_by(optimizer)
    moments = {
        f"{kind}/{name}": moment
        for name, parameter in model.named_parameters()
        if id(parameter) in held
        for kind, moment in (optimizer.state.get(parameter) or first_moments(parameter)).items()
    }
    save_whole(moments, path)


def first_moments(parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """Those that AdamW starts with."""
    zeros = torch.zeros_like(parameter.detach())
    return {"exp_avg": zeros, "exp_avg_sq": zeros.clone(), "step": torch.zeros((), device=parameter.device)}


def held_by(optimizer: torch.optim.Optimizer) -> set[int]:
    """The ids of the parameters that it trains."""
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def load_moments(
    optimizer: torch.optim.Optimizer, model: nn.Module, path: Path, fresh: Collection[str] = ()
) -> None:
    """Give every parameter of `optimizer` the moments that `save_moments` wrote.

    Args:
        fresh: names of parameters that start without, whatever the file holds: their first step makes them.

    Raises:
        UserError: the file is missing or damaged, or misses a parameter.
    """
    tensors = read_tensors(
        path,
        "delete its folder, and that checkpoint or phase is made again, or set `moments: fresh` in a phase that would start with it",
    )
    held = held_by(optimizer)
    for name, parameter in model.named_parameters():
        if id(parameter) not in held or name in fresh:
            continue
        try:
            state = {kind: tensors[f"{kind}/{name}"] for kind in MOMENTS}
        except KeyError:
            raise UserError(
                f"{path} has no moments of {name}; set `moments: fresh` in a phase that would start with it, or, if it is a checkpoint, delete its folder."
            ) from None
        optimizer.state[parameter] = {
            kind: tensor.to(parameter.device) if kind == "step" else share_of(tensor, parameter)
            for kind, tensor in state.items()
        }
