"""Decoupled AdamW, and its state as a safetensors file keyed by parameter name.

A step of torch's AdamW shrinks a weight by lr * weight_decay, a step of the decoupled rule by lr / peak *
weight_decay. Dividing the weight decay by the peak makes them equal, with torch's fused kernel.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import nn

from clm_detour.config.schema import Optimizer
from clm_detour.model.weights import read_tensors
from clm_detour.train.parallel import save_gathered, shard_like
from clm_detour.utils.errors import UserError

STATE = ("exp_avg", "exp_avg_sq", "step")


def make_optimizer(model: nn.Module, settings: Optimizer, peak: float) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters of a model. Biases and norms have no weight decay.

    Args:
        peak: Peak of the learning rate.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay / peak},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=peak, betas=settings.betas, eps=settings.eps, fused=True)


def save_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module, path: Path) -> None:
    """Write `exp_avg/<name>`, `exp_avg_sq/<name>` and `step/<name>` of every trained parameter.

    Every process must call it. If all steps so far were skipped for their loss, the optimizer has no state
    yet; then its initial state is written.
    """
    trained = parameter_ids(optimizer)
    tensors = {
        f"{kind}/{name}": tensor
        for name, parameter in model.named_parameters()
        if id(parameter) in trained
        for kind, tensor in (optimizer.state.get(parameter) or initial_state(parameter)).items()
    }
    save_gathered(tensors, path)


def initial_state(parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the state with which AdamW starts: zeros."""
    zeros = torch.zeros_like(parameter.detach())
    return {"exp_avg": zeros, "exp_avg_sq": zeros.clone(), "step": torch.zeros((), device=parameter.device)}


def parameter_ids(optimizer: torch.optim.Optimizer) -> set[int]:
    """Return the `id` of each parameter that an optimizer trains."""
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, model: nn.Module, path: Path, new: Collection[str] = ()
) -> None:
    """Load the state that `save_optimizer_state` wrote.

    Args:
        new: Names of parameters that start without state, whatever the file holds. Their first step creates
            it.

    Raises:
        UserError: If the file is missing or damaged, or lacks a parameter.
    """
    tensors = read_tensors(
        path,
        "delete the folder of that checkpoint or phase, or set `moments: fresh` in the phase "
        "that starts with it",
    )
    trained = parameter_ids(optimizer)
    for name, parameter in model.named_parameters():
        if id(parameter) not in trained or name in new:
            continue
        try:
            state = {kind: tensors[f"{kind}/{name}"] for kind in STATE}
        except KeyError:
            raise UserError(
                f"{path} has no optimizer state of {name}; set `moments: fresh` in the phase that starts "
                "with it, or, if it is a checkpoint, delete its folder."
            ) from None
        optimizer.state[parameter] = {
            kind: tensor.to(parameter.device) if kind == "step" else shard_like(parameter, tensor)
            for kind, tensor in state.items()
        }
