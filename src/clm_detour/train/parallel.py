"""Several processes: every one with the whole model (DDP), or each with a share of it (FSDP).

Composer wraps in DDP what is not sharded. Sharding is torch's `fully_shard` (FSDP2), applied here and not by Composer: the optimizer is then
made once, over the shards, and it runs on a CPU too. The weights are the same to rounding (tests/train/test_parallel.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from composer.utils import dist, get_device
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from clm_detour.model import hf
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.model.precision import best_device
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_write

Value = TypeVar("Value")

TIMEOUT = 3600.0  # seconds: the others wait while the first writes a checkpoint and reads it back, on a slow disk too


def start_processes() -> None:
    """Let the processes that a launcher started know each other; nothing to do for one alone."""
    if dist.get_world_size() > 1:
        dist.initialize_dist(get_device(None), timeout=TIMEOUT)


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return dist.get_global_rank() == 0


def from_first(value: Value) -> Value:
    """What the first process has, on all of them."""
    values = [value]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


class StillWaiting:
    """Told in place of a decision that takes long."""


def decided_by_first(decide: Callable[[], Value]) -> Value:
    """What `decide` gives on the first process, on all of them: each for itself might see another state of a shared folder.

    It may call `still_waiting` at times.

    Raises:
        UserError: `decide` raised it; then every process does, so that none waits for the others.
    """
    outcome: Value | UserError | StillWaiting = StillWaiting()
    if is_first():
        try:
            outcome = decide()
        except UserError as error:
            outcome = error
    while isinstance(told := from_first(outcome), StillWaiting):
        pass
    if isinstance(told, UserError):
        raise told
    return told


def still_waiting() -> None:
    """Ask the others, who wait for what the first process decides, for another `TIMEOUT`."""
    from_first(StillWaiting())


def on_any(flag: bool) -> bool:
    """Whether `flag` holds on any process."""
    if dist.get_world_size() == 1:
        return flag
    held = get_device(None).tensor_to_device(torch.tensor([int(flag)]))
    dist.all_reduce(held, reduce_operation="MAX")
    return bool(held.item())


def shard(network: ModernBertForPretraining) -> None:
    """Leave each process a share of every layer and of what is outside the layers. All must hold the same weights."""
    get_device(None).module_to_device(network)
    mesh = init_device_mesh(best_device().type, (dist.get_world_size(),))
    for layer in network.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)


def sharded_gradient_scale() -> float:
    """By what a sharded gradient must be multiplied to be the mean over processes: 1 where the back end can average.

    FSDP asks for the average, and gloo, the back end for CPUs, gives the sum without a word (torch 2.7). So it is tried out.
    """
    ones, share = (
        torch.ones(dist.get_world_size(), device=best_device()),
        torch.empty(1, device=best_device()),
    )
    torch.distributed.reduce_scatter_tensor(share, ones, op=torch.distributed.ReduceOp.AVG)
    return 1 / share.item()


def on_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the first process tensors on the CPU, put together where they are sharded; on the others nothing. Every process must call it."""
    first = is_first()
    gathered = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
        if first:
            gathered[name] = tensor.cpu()
    return gathered


def save_whole(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors, put together where they are sharded, as safetensors; every process must call it."""
    gathered = {name: tensor.contiguous() for name, tensor in on_first(tensors).items()}
    if is_first():
        with atomic_write(path) as file:
            save_file(gathered, file.name)


def share_of(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as `parameter` lies: on its device, and this process' share if that is sharded."""
    if not isinstance(parameter, DTensor):
        return tensor.to(parameter)
    tensor = tensor.to(device=parameter.device, dtype=parameter.dtype)
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)


def whole_network(network: ModernBertForPretraining) -> ModernBertForPretraining:
    """The network with all its weights: itself, or a copy on the CPU if it is sharded; every process must call it."""
    if not isinstance(network, FSDPModule):
        return network
    weights = on_first(network.state_dict())
    copy = hf.without_weights(ModernBertForPretraining, network.config, None)
    copy.causal = network.causal
    if is_first():
        hf.fill(copy, weights, "the trained network", None)
    return copy
