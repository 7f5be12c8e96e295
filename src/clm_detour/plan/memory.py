"""Bytes: on each GPU by part, and on the disk.

Activations are an estimate: what autograd keeps of a layer for its backward under bf16 autocast is, for each token, 20 E + 8 I bytes
(E hidden size, I size of the gated unit; 32 E + 16 I in fp32): inputs of two norms in fp32; inputs of the four products, queries, keys, values and
the gate's four factors in the precision of the products. Layers below the lowest trained one keep nothing; with activation checkpointing each keeps its input
(4 E) and one is whole at a time. The loss holds one chunk's logits, their softmax, and the gradient of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import ModernBertConfig

from clm_detour.config.schema import Config, Phase
from clm_detour.config.units import parse_tokens
from clm_detour.model.loss import CHUNK_BYTES
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.freezing import frozen_layers, frozen_names
from clm_detour.recipe.phases import PhaseRun

WEIGHT, MOMENTS, GRADIENT, BF16_COPY = 4, 8, 4, 2  # bytes a parameter


@dataclass(frozen=True)
class Sizes:
    """What does not depend on the length of the phases; in bytes but for `parameters`.

    Args:
        memory: of each process by part, in the phase that takes most; `activations` are left out where the micro-batch is not known.
        disk: below `run_dir` at the end, without the data.
        peak_disk: the most that the checkpoints of a phase add to that on the way.
    """

    parameters: int
    memory: dict[str, int]
    disk: int
    peak_disk: int


def sizes_of(config: Config, runs: list[PhaseRun], model: ModernBertConfig, gpus: int) -> Sizes:
    """Memory and disk."""
    network = meta_network(model)
    every, kept = parse_tokens(config.train.checkpoint_every, ""), config.train.checkpoints_kept
    size = numel(network, set())
    memories = [memory_of(config, run.phase, network, gpus) for run in runs]
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
        disk=WEIGHT * size * ((1 + ema) * (len(runs) + exports) + len(config.arms)) + MOMENTS * sum(trained),
        peak_disk=max(checkpoint),
    )


def meta_network(config: ModernBertConfig) -> ModernBertForPretraining:
    """One that has shapes only."""
    with torch.device("meta"):
        return ModernBertForPretraining(config)


def numel(network: ModernBertForPretraining, without: Iterable[str]) -> int:
    """Parameters, but for those."""
    return sum(
        parameter.numel() for name, parameter in network.named_parameters() if name not in set(without)
    )


def memory_of(config: Config, phase: Phase, network: ModernBertForPretraining, gpus: int) -> dict[str, int]:
    """One phase's parts."""
    size, trained = numel(network, set()), numel(network, frozen_names(phase.freeze, network))
    share = gpus if config.train.parallel == "fsdp" else 1  # each has a part
    parts = {"weights": WEIGHT * size, "gradients": GRADIENT * trained, "moments": MOMENTS * trained}
    parts = {name: part // share for name, part in parts.items()}
    if config.train.parallel == "ddp" and gpus > 1:
        parts["buckets"] = GRADIENT * trained  # DDP sums in copies of the gradients
    if config.train.ema_half_life is not None:
        parts["average"] = WEIGHT * trained // share
    if config.train.precision == "bf16":
        parts["bf16 copies"] = BF16_COPY * size
    rows = config.train.batch_rows // gpus if config.train.micro_rows is None else config.train.micro_rows
    if isinstance(rows, int):
        parts["activations"] = activations(config, phase, network.config, rows * config.data.sequence_length)
    return parts


def activations(config: Config, phase: Phase, model: ModernBertConfig, tokens: int) -> int:
    """The estimate that stands above, for a micro-batch of so many tokens."""
    hidden, count = model.hidden_size, model.num_hidden_layers
    frozen = frozen_layers(phase.freeze, model)
    passes_down = phase.freeze is None or not phase.freeze.embeddings
    layers = count if passes_down else count - min(set(range(count)) - frozen, default=count)
    layer = layer_bytes(model, config.train.precision)
    kept = 4 * hidden * layers + layer if config.train.activation_checkpointing else layer * layers
    logits = min(CHUNK_BYTES["cuda"], 4 * model.vocab_size * tokens)
    return tokens * kept + 2 * logits + 4 * model.vocab_size * hidden


def layer_bytes(model: ModernBertConfig, precision: str) -> int:
    """What a layer keeps of a token for its backward."""
    hidden, inner = model.hidden_size, model.intermediate_size
    return 20 * hidden + 8 * inner if precision == "bf16" else 32 * hidden + 16 * inner
