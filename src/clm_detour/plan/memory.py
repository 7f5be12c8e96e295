"""Memory of each GPU by part, the micro-batch that fits into it, and disk space, in bytes.

Activations are an estimate. For its backward pass under bf16 autocast, autograd keeps 20 E + 8 I bytes per
token and layer, where E is the hidden size and I the size of the gated unit (in fp32: 32 E + 16 I): the
inputs of two norms in fp32; the inputs of the four matrix products, queries, keys, values and the four
factors of the gate in the precision of the products. Layers below the lowest trained layer keep nothing. With
activation checkpointing each layer keeps its input (4 E), and one layer at a time keeps everything. The loss
holds the logits of one chunk, their softmax, and the gradient of the vocabulary.

For `train.micro_rows: auto` the plan takes the most rows that fit into the GPU by this estimate. Where
training does not search (on a CPU, and with `train.deterministic`), it takes the number that training takes,
which depends on the recipe alone, so that the bits of the weights do not depend on free memory.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any, Literal

import torch

from clm_detour.config.schema import Phase, Train
from clm_detour.config.units import parse_tokens
from clm_detour.model.families import architecture_of
from clm_detour.model.loss import CHUNK_BYTES
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.freezing import frozen_layers, frozen_names
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe

WEIGHT, MOMENTS, GRADIENT, BF16_COPY = 4, 8, 4, 2  # bytes per parameter
# Share of a GPU's memory that a plan fills: CUDA's context and gaps take some, and the plan may be wrong.
USED = 0.9
BY_RECIPE = 8 << 30  # bytes of activations that a micro-batch may have where training does not search
OF_A_NODE = 8  # GPUs of a machine that a plan assumes for `hsdp`


@dataclass(frozen=True)
class Sizes:
    """Sizes that do not depend on the length of the phases, in bytes.

    Args:
        parameters: Number of parameters of the network.
        memory: Memory of each process by part, in the phase that takes most.
        micro_rows: Rows of a micro-batch in each phase, by its id.
        chosen: How `micro_rows` is chosen: `set` by the user, by the `recipe` alone, or by this `estimate`.
        disk: Disk space below `run_dir` at the end, without the data.
        peak_disk: The most that the checkpoints of a phase take in addition while it runs.
    """

    parameters: int
    memory: dict[str, int]
    micro_rows: dict[str, int]
    chosen: Literal["set", "recipe", "estimate"]
    disk: int
    peak_disk: int


def sizes_of(recipe: Recipe, model: Any, gpus: int, gpu_memory: int | None) -> Sizes:
    """Return the memory and disk space that a recipe takes.

    Args:
        gpu_memory: Memory of each GPU in bytes; None if it runs on a CPU.
    """
    network, config, runs = meta_network(model), recipe.config, recipe.phases.values()
    every, kept = parse_tokens(config.train.checkpoint_every, ""), config.train.checkpoints_kept
    size = numel(network, set())
    micro_rows = {run.id: planned_rows(config.train, run, network, gpus, gpu_memory) for run in runs}
    memories = [
        memory_of(config.train, run.phase, micro_rows[run.id] * run.row_tokens, network, gpus) for run in runs
    ]
    trained = [numel(network, frozen_names(run.phase.freeze, network)) for run in runs]
    ema = config.train.ema_half_life is not None
    at = {parse_tokens(text, "") for text in config.train.export_at}
    exports = sum(tokens <= run.tokens for run in runs for tokens in at)
    checkpoint = [
        (WEIGHT * size + (MOMENTS + WEIGHT * ema) * part) * min((run.tokens - 1) // every, kept + 1)
        for run, part in zip(runs, trained, strict=True)
    ]
    return Sizes(
        parameters=size,
        memory=max(memories, key=lambda parts: sum(parts.values())),
        micro_rows=micro_rows,
        chosen=how_chosen(config.train, gpu_memory),
        disk=WEIGHT * size * ((1 + ema) * (len(runs) + exports) + len(config.arms)) + MOMENTS * sum(trained),
        peak_disk=max(checkpoint),
    )


def meta_network(config: Any) -> ModernBertForPretraining:
    """Return a network without data, on the meta device."""
    with torch.device("meta"):
        return ModernBertForPretraining(config)


def numel(network: ModernBertForPretraining, without: Set[str]) -> int:
    """Return the number of elements of all parameters except those named in `without`."""
    return sum(parameter.numel() for name, parameter in network.named_parameters() if name not in without)


def how_chosen(train: Train, gpu_memory: int | None) -> Literal["set", "recipe", "estimate"]:
    """Return how the plan chooses the micro-batch."""
    if train.micro_rows != "auto":
        return "set"
    return "recipe" if gpu_memory is None or train.deterministic else "estimate"


def planned_rows(
    train: Train, run: PhaseRun, network: ModernBertForPretraining, gpus: int, gpu_memory: int | None
) -> int:
    """Return the rows of a micro-batch of each process.

    Args:
        gpu_memory: Memory of each GPU in bytes; None if the recipe runs on a CPU.

    Returns:
        The setting `train.micro_rows` if it is a number. For `auto` a divisor of the rows of the process, at
        least 1 even where that does not fit.
    """
    rows = max(run.step_rows.full // gpus, 1)
    if isinstance(train.micro_rows, int):
        return min(train.micro_rows, rows)
    if train.micro_rows is None:
        return rows
    if gpu_memory is None or train.deterministic:
        return rows_by_recipe(train, run.phase, network.config, run.row_tokens, rows)

    def fits(size: int) -> bool:
        parts = memory_of(train, run.phase, size * run.row_tokens, network, gpus)
        return sum(parts.values()) <= USED * gpu_memory

    return next(filter(fits, divisors(rows)), 1)


def rows_by_recipe(train: Train, phase: Phase, model: Any, row_tokens: int, rows: int) -> int:
    """Return the largest divisor of a process's rows with at most `BY_RECIPE` bytes of activations, or 1."""
    sizes = divisors(rows)
    return next((n for n in sizes if activations(train, phase, model, n * row_tokens) <= BY_RECIPE), 1)


def divisors(rows: int) -> list[int]:
    """Return the divisors of a number, the largest first: micro-batches of these sizes are all equal."""
    return [size for size in range(rows, 0, -1) if rows % size == 0]


def memory_of(
    train: Train, phase: Phase, tokens: int, network: ModernBertForPretraining, gpus: int
) -> dict[str, int]:
    """Return the memory of each GPU in one phase, by part.

    Args:
        tokens: Tokens of a micro-batch.
    """
    parts = fixed_memory(train, phase, network, gpus)
    return {**parts, "activations": activations(train, phase, network.config, tokens)}


def fixed_memory(train: Train, phase: Phase, network: ModernBertForPretraining, gpus: int) -> dict[str, int]:
    """Return the parts of the memory that do not depend on the micro-batch."""
    size, trained = numel(network, set()), numel(network, frozen_names(phase.freeze, network))
    share = {"ddp": 1, "fsdp": gpus, "hsdp": min(gpus, OF_A_NODE)}[train.parallel]
    parts = {"weights": WEIGHT * size, "gradients": GRADIENT * trained, "moments": MOMENTS * trained}
    parts = {name: part // share for name, part in parts.items()}
    if train.parallel == "ddp" and gpus > 1:
        parts["buckets"] = GRADIENT * trained  # DDP sums in copies of the gradients
    if train.ema_half_life is not None:
        parts["average"] = WEIGHT * trained // share
    if share > 1:  # kept whole for a step, if that is not much of the memory
        matrices = sum(each.numel() for each in network.model.layers.parameters() if each.ndim > 1)
        parts["gathered weights"] = WEIGHT * size
        parts["gathered gradients"] = GRADIENT * trained
        if train.precision == "bf16":
            parts["gathered weights"] -= (WEIGHT - BF16_COPY) * matrices
            parts["bf16 copies"] = BF16_COPY * (size - matrices)
    elif train.precision == "bf16":
        parts["bf16 copies"] = BF16_COPY * size
    return parts


def activations(train: Train, phase: Phase, model: Any, tokens: int) -> int:
    """Return the estimate that the top of this file describes, for a micro-batch of `tokens` tokens."""
    hidden, count = model.hidden_size, model.num_hidden_layers
    frozen = frozen_layers(phase.freeze, model)
    reaches_embeddings = phase.freeze is None or not phase.freeze.embeddings
    layers = count if reaches_embeddings else count - min(set(range(count)) - frozen, default=count)
    layer, stream = layer_bytes(model, train.precision), 4
    if train.precision == "bf16" and train.residual == "bf16":
        stream = 2
        # Layers that are not compiled keep fp32 copies of the inputs of norms. `auto` compiles on a GPU.
        layer -= 4 * hidden if train.compile else 0
    kept = stream * hidden * layers + layer if train.activation_checkpointing else layer * layers
    logits = min(CHUNK_BYTES["cuda"], 4 * model.vocab_size * tokens)
    return tokens * kept + 2 * logits + 4 * model.vocab_size * hidden


def layer_bytes(model: Any, precision: str) -> int:
    """Return the bytes that a layer keeps per token for its backward pass."""
    architecture = architecture_of(model)
    hidden, inner = architecture.hidden, architecture.inner * (2 if architecture.gated else 1)
    return 20 * hidden + 4 * inner if precision == "bf16" else 32 * hidden + 8 * inner
