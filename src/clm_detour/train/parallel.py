"""Several processes: each with the whole model (DDP), or each with a part of it (FSDP).

Composer wraps a model that is not sharded in DDP. Sharding is torch's `fully_shard` (FSDP2), applied here and
not by Composer: the optimizer is then made once, over the shards, and sharding also works on a CPU. The
weights are equal to rounding (tests/train/test_parallel.py).
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

TIMEOUT = 3600.0  # seconds in which the main process must write and verify a checkpoint, even on a slow disk


def start_processes() -> None:
    """Connect the processes that a launcher started. A single process needs no connection."""
    if dist.get_world_size() > 1:
        dist.initialize_dist(get_device(None), timeout=TIMEOUT)


def is_main_process() -> bool:
    """Return whether this process is the one that writes files and prints."""
    return dist.get_global_rank() == 0


def broadcast(value: Value) -> Value:
    """Return the value of the main process, on every process."""
    values = [value]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


class NotDoneYet:
    """Broadcast by the main process in place of a result that takes long."""


def run_on_main_process(function: Callable[[], Value]) -> Value:
    """Call a function on the main process only, and return its result on every process.

    Each process on its own might see another state of a shared folder. A function that takes long calls
    `extend_timeout` from time to time.

    Raises:
        UserError: If the function raises it. Every process then raises it, so that none waits for the others.
    """
    outcome: Value | UserError | NotDoneYet = NotDoneYet()
    if is_main_process():
        try:
            outcome = function()
        except UserError as error:
            outcome = error
    while isinstance(result := broadcast(outcome), NotDoneYet):
        pass
    if isinstance(result, UserError):
        raise result
    return result


def extend_timeout() -> None:
    """Let the processes that wait for `run_on_main_process` wait for another `TIMEOUT`."""
    broadcast(NotDoneYet())


def is_true_on_any_process(flag: bool) -> bool:
    """Return whether `flag` is true on at least one process."""
    if dist.get_world_size() == 1:
        return flag
    held = torch.tensor([int(flag)], device=best_device())  # `get_device` would switch TF32 on
    dist.all_reduce(held, reduce_operation="MAX")
    return bool(held.item())


def shard(network: ModernBertForPretraining) -> None:
    """Shard layers and other parameters over the processes, which must all hold the same weights."""
    get_device(None).module_to_device(network)
    mesh = init_device_mesh(best_device().type, (dist.get_world_size(),))
    for layer in network.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)


def sharded_gradient_scale() -> float:
    """Return the factor that turns a sharded gradient into the mean over processes.

    It is 1 if the communication back end can average. FSDP asks for the average, but gloo, the back end for
    CPUs, silently returns the sum (torch 2.7), so this function measures it.
    """
    ones, share = (
        torch.ones(dist.get_world_size(), device=best_device()),
        torch.empty(1, device=best_device()),
    )
    torch.distributed.reduce_scatter_tensor(share, ones, op=torch.distributed.ReduceOp.AVG)
    return 1 / share.item()


def gather(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return whole tensors on the main process's CPU, none on other processes. Every process must call it."""
    main_process = is_main_process()
    gathered = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
        if main_process:
            gathered[name] = tensor.cpu()
    return gathered


def save_gathered(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, gathered if they are sharded. Every process must call it."""
    gathered = {name: tensor.contiguous() for name, tensor in gather(tensors).items()}
    if is_main_process():
        with atomic_write(path) as file:
            save_file(gathered, file.name)


def shard_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Return a whole tensor with type, device and sharding of `parameter`."""
    if not isinstance(parameter, DTensor):
        return tensor.to(parameter)
    tensor = tensor.to(device=parameter.device, dtype=parameter.dtype)
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)


def gather_network(network: ModernBertForPretraining) -> ModernBertForPretraining:
    """Return the network, or a whole copy on the CPU if it is sharded. Every process must call it."""
    if not isinstance(network, FSDPModule):
        return network
    weights = gather(network.state_dict())
    copy = hf.without_weights(ModernBertForPretraining, network.config, None)
    copy.causal = network.causal
    if is_main_process():
        hf.fill(copy, weights, "the trained network", None)
    return copy
