"""Several processes: each with the whole model (DDP), or each with a part of it (FSDP, HSDP).

Composer wraps a model that is not sharded in DDP. Sharding is torch's `fully_shard` (FSDP2), applied here and
not by Composer: the optimizer is then made once, over the shards, and sharding also works on a CPU. The
weights are equal to rounding (tests/train/test_parallel.py).

There are two groups of all processes. The default group (NCCL on GPUs) is for steps, in which all processes
arrive together: a collective that takes longer than `timeout()` is an error. A process that works alone would
exceed it, and NCCL would end the processes that wait. They wait on the second group instead (gloo, with the
time limit `PATIENCE`). So nothing may be pending on the default group while one process works alone: its work
ends with `wait_for_main_process` or is done by `run_on_main_process`.
"""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from composer.utils import dist, get_device
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from clm_detour.model import hf
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.model.precision import best_device
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import atomic_write

Value = TypeVar("Value")

TIMEOUT_VARIABLE = "CLM_DETOUR_TIMEOUT"
TIMEOUT = 600.0  # seconds for a collective in which all processes take part at the same time
PATIENCE = datetime.timedelta(days=7)  # for the main process, which may wait for another run to end
KEPT_WHOLE = 0.25  # share of a GPU's memory that gathered weights and whole gradients may take


def timeout() -> float:
    """Return the time limit of a step's collectives in seconds; the environment may set another one.

    Raises:
        UserError: If the environment variable is not a number above 0.
    """
    text = os.environ.get(TIMEOUT_VARIABLE, str(TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < PATIENCE.total_seconds():
        raise UserError(f"{TIMEOUT_VARIABLE} is {text}; set it to a number of seconds, or unset it.")
    return seconds


def start_processes() -> None:
    """Connect the processes that a launcher started. A single process needs no connection.

    Raises:
        UserError: If the processes cannot connect by gloo.
    """
    if dist.get_world_size() == 1:
        return
    os.environ.setdefault("NODE_RANK", os.environ.get("GROUP_RANK", "0"))  # its name under torchrun
    dist.initialize_dist(get_device(None), timeout=timeout())
    try:
        waiting_group()
    except RuntimeError as error:
        raise UserError(
            f"The processes cannot connect by gloo ({str(error).splitlines()[0]}). If several machines take "
            "part, set GLOO_SOCKET_IFNAME to the network interface that connects them."
        ) from error


@functools.cache
def waiting_group() -> ProcessGroup:
    """Return the group on which processes wait for the main one. Every process must make the first call."""
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


def is_main_process() -> bool:
    """Return whether this process is the one that writes files and prints."""
    return dist.get_global_rank() == 0


def broadcast(value: Value) -> Value:
    """Return the value of the main process, on every process, however long that takes."""
    values = [value]
    if dist.get_world_size() > 1:
        torch.distributed.broadcast_object_list(values, src=0, group=waiting_group())
    return values[0]


def wait_for_main_process() -> None:
    """Return when the main process calls this function. Every process must call it."""
    broadcast(None)


def run_on_main_process(function: Callable[[], Value]) -> Value:
    """Call a function on the main process only, and return its result on every process.

    Each process on its own might see another state of a shared folder.

    Raises:
        UserError: If the function raises it. Every process then raises it, so that none waits for the others.
    """
    outcome: Value | UserError | None = None
    if is_main_process():
        try:
            outcome = function()
        except UserError as error:
            outcome = error
    result = broadcast(outcome)
    if isinstance(result, UserError):
        raise result
    return result  # type: ignore[return-value]


def is_true_on_any_process(flag: bool) -> bool:
    """Return whether `flag` is true on at least one process, however late another one arrives.

    It needs no memory of a GPU and does not wait for one.
    """
    if dist.get_world_size() == 1:
        return flag
    held = torch.tensor(int(flag))
    torch.distributed.all_reduce(held, op=torch.distributed.ReduceOp.MAX, group=waiting_group())
    return bool(held.item())


def shard(network: ModernBertForPretraining, by_node: bool = False, bf16: bool = False) -> None:
    """Shard the parameters over the processes, which must all hold the same weights.

    Each layer is gathered as a whole. Norms inside the layers belong to the group of the other parameters,
    which stays in fp32: under autocast products round their weights to bf16 anyway, so gathering these in
    bf16 changes no bit and halves the communication, but norms do not.

    Args:
        by_node: Shard within each node and average gradients between the nodes (HSDP). On one node this is
            the same as FSDP.
        bf16: Gather the matrices of the layers in bf16; only for training under bf16 autocast.

    Raises:
        UserError: If `by_node`, and the nodes have different numbers of processes.
    """
    get_device(None).module_to_device(network)
    mesh = make_mesh(by_node)
    within = mesh["shard"]
    reshard = not keeps_whole(network, bf16)
    dtype = torch.bfloat16 if bf16 else None
    policy = MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    layers = network.model.layers
    matrices = {parameter for parameter in layers.parameters() if parameter.ndim > 1}
    fully_shard(network, mesh=within, ignored_params=matrices)
    for layer in layers:
        fully_shard(
            layer,
            mesh=within,
            reshard_after_forward=reshard,
            mp_policy=policy,
            ignored_params=set(layer.parameters()) - matrices,
        )
    if mesh.size(0) > 1:
        hook = average_over(mesh.get_group("replicate"))
        for module in network.modules():
            if isinstance(module, FSDPModule):
                module.set_all_reduce_hook(hook)


def make_mesh(by_node: bool) -> DeviceMesh:
    """Return the processes as a mesh with the dimensions `replicate` and `shard`."""
    world = dist.get_world_size()
    shards = dist.get_local_world_size() if by_node else world
    found = [0] * world
    torch.distributed.all_gather_object(found, shards, group=waiting_group())
    if set(found) != {shards} or world % shards:
        raise UserError(
            "train.parallel: hsdp needs the same number of processes on each machine; use fsdp, or machines "
            "with as many GPUs as each other."
        )
    return init_device_mesh(
        best_device().type, (world // shards, shards), mesh_dim_names=("replicate", "shard")
    )


def average_over(group: ProcessGroup) -> Callable[[Tensor], None]:
    """Return a function that averages a tensor over a group of processes, in place.

    FSDP2 would do this itself over a mesh of two dimensions, but not with gloo, which cannot average.
    """

    def average(gradient: Tensor) -> None:
        torch.distributed.all_reduce(gradient, group=group)
        gradient.div_(group.size())

    return average


def keeps_whole(network: ModernBertForPretraining, bf16: bool) -> bool:
    """Return whether sharded processes keep whole weights and gradients from the start to the end of a step.

    Weights are then gathered once a step and gradients reduced once, instead of once for each micro-batch.
    On a CPU, which has no figure of its own, they are kept. Every process must call it.
    """
    parameters = list(network.parameters())
    held = sum(each.numel() * ((2 if bf16 else 4) + 4 * each.requires_grad) for each in parameters)
    device = best_device()
    fits = device.type == "cpu" or held <= KEPT_WHOLE * torch.cuda.get_device_properties(device).total_memory
    return not is_true_on_any_process(not fits)


def sharded_gradient_scale(group: ProcessGroup | None = None) -> float:
    """Return the factor that turns a sharded gradient into the mean over processes.

    It is 1 if the communication back end can average. FSDP asks for the average, but gloo, the back end for
    CPUs, silently returns the sum (torch 2.7), so this function measures it.

    Args:
        group: The processes over which the network is sharded; None: all.
    """
    processes = torch.distributed.get_world_size(group)
    ones, share = torch.ones(processes, device=best_device()), torch.empty(1, device=best_device())
    torch.distributed.reduce_scatter_tensor(share, ones, op=torch.distributed.ReduceOp.AVG, group=group)
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

    def write() -> None:
        with atomic_write(path) as file:
            save_file(gathered, file.name)

    run_on_main_process(write)


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
