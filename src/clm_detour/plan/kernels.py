"""The kernels of one micro-batch and their bytes and operations, as compiled layers run them in bf16.

Each kernel reads each operand once and writes each result once. Bytes are elements times the size of an
element; what is smaller than a hidden state per token (statistics of norms, ids, log-sum-exp) is left out.
Sizes: 2 bytes for operands of matrix products, `stream` bytes for the residual stream (4, or 2 in bf16), 4
for weights, gradients and optimizer state.

- A norm together with the sum before it is one kernel, as is the gated unit. The sum at the end of a layer
  adds both updates to the layer's input, since the first sum is kept only as it is normalized. The backward
  of a norm reads its operands twice, since the gradient of its weight is summed over tokens. This is the code
  that Inductor of torch 2.7 generates for compute capability 9.0.
- FlashAttention keeps nothing of the size T x T. Its backward computes the scores again (10 operations where
  the count of `model.flops` has 8), reads the output and its gradient once more for their product, and sums
  the gradient of the queries in fp32.
- Queries and keys are rotated in place. Their gradients are rotated back while those of queries, keys and
  values are packed.
- Where attention stands between two graphs, the two gradients of a layer's input are added by one more
  kernel. Torch 2.11 and newer compile a layer with its attention (`fused`).
- In post-norm networks a norm follows each of the two sums of a layer.
- Embedding, final norm and prediction head are not compiled: each cast is a kernel.
- The vocabulary is computed in chunks of `model.loss.chunk_positions` positions. The product adds up its
  gradient in fp32 (`fused`), or returns it in bf16, which is then added.
- Weights are cast to bf16 for each micro-batch, and their gradients from bf16 and added up.

Communication between GPUs, and reading twice what does not stay in a cache, are not counted.

Letters: T tokens, P predicted positions, E hidden size, I size of the gated unit, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from clm_detour.model.architecture import Architecture
from clm_detour.model.families import architecture_of
from clm_detour.model.flops import NOTHING, Frozen, seen_pairs
from clm_detour.model.loss import chunk_positions

HALF, FULL = 2, 4  # bytes of bf16 and fp32
RECOMPUTED = 10 / 8  # operations of the backward of attention over those that are counted

Limit = Literal["product", "attention", "memory"]


@dataclass(frozen=True)
class Kernel:
    """One kernel, or several equal ones.

    Args:
        row: Name of its row in the table.
        backward: Whether it belongs to the backward pass or to the optimizer.
        limit: Whether it is a matrix product, attention, or limited by memory.
        bytes: Bytes that it reads and writes.
        flops: Operations as `model.flops.flops_per_batch` counts them.
        computed: Operations that run, with those that are computed again.
    """

    row: str
    backward: bool
    limit: Limit
    bytes: float
    flops: float = 0
    computed: float = 0


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch.

    Args:
        lengths: Length of each document.
        predicted: Number of predicted positions.
        causal: Whether the mask is causal.
        per_step: Number of micro-batches in a step, over which the optimizer step is spread.
        stream: Bytes of an element of the residual stream.
        fused: Whether torch is 2.11 or newer, whose graphs contain attention and whose products add in fp32.
        checkpointing: Whether layers are computed again in the backward pass.
        clips: Whether gradients are clipped.
    """

    lengths: list[int]
    predicted: int
    causal: bool
    per_step: int = 1
    stream: int = FULL
    fused: bool = False
    checkpointing: bool = False
    clips: bool = True

    @property
    def tokens(self) -> int:
        """T."""
        return sum(self.lengths)


def kernels(config: Any, batch: MicroBatch, frozen: Frozen = NOTHING) -> Iterator[Kernel]:
    """Yield the kernels of forward, backward and the share of an optimizer step.

    Args:
        config: The config of a model of any family.
        batch: The micro-batch.
        frozen: The parts without gradients.
    """
    model = architecture_of(config)
    layers, hidden = model.layers, model.hidden
    lowest = min(set(range(layers)) - frozen.layers, default=layers) if frozen.embeddings else 0
    weights = model.layer_weights
    trained = 0
    yield from _embedding(model, batch, not frozen.embeddings)
    for number in range(layers):
        through, trains = number >= lowest, number not in frozen.layers
        first = number == lowest and (number == 0 or not model.pre_norm)
        to_input = through and not (first and frozen.embeddings)
        yield from _layer(model, batch, number, through, trains, to_input)
        yield from _weights(weights, trains, batch)
        trained += weights if trains else 0
    decoder_trains = not (frozen.embeddings if model.tied else frozen.head)
    yield from _head(model, batch, not frozen.head)
    yield from _vocabulary(model, batch, decoder_trains)
    vocabulary = hidden * model.vocabulary
    trained += hidden * hidden * (not frozen.head) + vocabulary * decoder_trains
    if not model.tied and not frozen.embeddings:
        trained += vocabulary
    step = (7 + (3 if batch.clips else 1)) * FULL  # weight, gradient, moments; the norm and the scaling
    yield Kernel("optimizer step", True, "memory", step * trained / batch.per_step)


def _product(row: str, tokens: float, inner: int, outer: int, backward: int) -> Iterator[Kernel]:
    """Yield the product (tokens, inner) x (inner, outer) and `backward` products of its gradients."""
    operands = HALF * (tokens * (inner + outer) + inner * outer)
    flops = 2 * tokens * inner * outer
    for number in range(1 + backward):
        yield Kernel(row, number > 0, "product", operands, flops, flops)


def _again(kernel: Kernel) -> Kernel:
    """Return a forward kernel as it runs again in the backward pass under activation checkpointing."""
    return Kernel(kernel.row, True, kernel.limit, kernel.bytes, 0, kernel.computed)


def _layer(
    model: Architecture, batch: MicroBatch, number: int, through: bool, trains: bool, to_input: bool
) -> Iterator[Kernel]:
    hidden, inner, tokens = model.hidden, model.inner, batch.tokens
    kind = "local" if model.is_local(number) else "global"
    pairs = sum(
        seen_pairs(length, batch.causal, model.window if kind == "local" else None)
        for length in batch.lengths
    )
    wide, stream = tokens * hidden, batch.stream
    cast = FULL - HALF if stream == FULL else 0  # an fp32 gradient is also written in bf16
    backward = through + trains
    wi, unit = (2 * inner, "GeGLU") if model.gated else (inner, "MLP activation")
    last_sum = "residual sum" if model.pre_norm else "residual sum and norm"

    forward = [
        *([Kernel("norms", False, "memory", wide * (stream + HALF))] if number and model.pre_norm else []),
        *_product("QKV product", tokens, hidden, 3 * hidden, 0),
        *_rotary(model, tokens, False),
        Kernel(
            f"attention, {kind}", False, "attention", 4 * HALF * wide, 4 * hidden * pairs, 4 * hidden * pairs
        ),
        *_product("output product", tokens, hidden, hidden, 0),
        Kernel("residual sum and norm", False, "memory", wide * (2 * stream + 2 * HALF)),
        *_product("MLP products", tokens, hidden, wi, 0),
        Kernel(unit, False, "memory", HALF * tokens * (wi + inner)),
        *_product("MLP products", tokens, inner, hidden, 0),
        Kernel(last_sum, False, "memory", wide * (2 * stream + 2 * HALF)),
    ]
    yield from forward
    if not through:
        return
    if batch.checkpointing:
        yield from map(_again, forward)
    yield from _gradients("MLP products", tokens, inner, hidden, backward)
    yield from _gradients("MLP products", tokens, hidden, wi, backward)
    yield from _gradients("output product", tokens, hidden, hidden, backward)
    yield from _gradients("QKV product", tokens, hidden, 3 * hidden, to_input + trains)
    yield Kernel(unit, True, "memory", HALF * tokens * (2 * wi + inner))
    norm = wide * (HALF + stream)  # the gradient and the input, read once more for the norm's weight
    sum_and_norm = wide * (3 * stream + HALF + cast) + norm * trains
    yield Kernel("residual sum and norm", True, "memory", sum_and_norm)
    if not model.pre_norm:
        yield Kernel(last_sum, True, "memory", sum_and_norm)
    elif cast:
        yield Kernel(last_sum, True, "memory", wide * (FULL + HALF))
    yield Kernel(
        f"attention, {kind}",
        True,
        "attention",
        wide * (9 * HALF + 4 * FULL),
        8 * hidden * pairs,
        8 * RECOMPUTED * hidden * pairs,
    )
    yield from _rotary(model, tokens, True)
    if to_input:
        if number and model.pre_norm:
            yield Kernel("norms", True, "memory", wide * (2 * stream + HALF) + norm * trains)
        if not batch.fused:
            yield Kernel("residual sum", True, "memory", 3 * stream * wide)


def _gradients(row: str, tokens: float, inner: int, outer: int, number: int) -> Iterator[Kernel]:
    """Yield the products of the gradients of a product."""
    return (kernel for kernel in _product(row, tokens, inner, outer, number) if kernel.backward)


def _rotary(model: Architecture, tokens: int, backward: bool) -> Iterator[Kernel]:
    """Yield the rotation, if there is one, which also reads the sines and cosines of one head."""
    if model.thetas is not None:
        units = (6 if backward else 4) * model.hidden
        yield Kernel("rotary", backward, "memory", tokens * (units * HALF + FULL * model.head_dim))


def _weights(number: int, trains: bool, batch: MicroBatch) -> Iterator[Kernel]:
    """Yield the casts of weights, and of their gradients, which are added up from the second one on."""
    yield Kernel("weights and their gradients", False, "memory", (FULL + HALF) * number)
    if trains:
        sums = 3 * FULL * (batch.per_step - 1) / batch.per_step
        yield Kernel("weights and their gradients", True, "memory", (HALF + FULL + sums) * number)


def _embedding(model: Architecture, batch: MicroBatch, trains: bool) -> Iterator[Kernel]:
    wide = batch.tokens * model.hidden
    positions = model.positions is not None
    yield Kernel("embedding", False, "memory", (5 if positions else 2) * FULL * wide)
    yield Kernel("norms", False, "memory", 2 * FULL * wide)
    if model.pre_norm:  # the final norm
        yield Kernel("norms", False, "memory", 2 * FULL * wide)
        yield Kernel("norms", True, "memory", 5 * FULL * wide)
    if trains:
        table = model.vocabulary * model.hidden
        yield Kernel("norms", True, "memory", 5 * FULL * wide)
        yield Kernel("embedding", True, "memory", FULL * ((3 if positions else 2) * wide + 4 * table))


def _head(model: Architecture, batch: MicroBatch, trains: bool) -> Iterator[Kernel]:
    """Yield the head over predicted positions, whose every step is a kernel of its own."""
    hidden, positions = model.hidden, batch.predicted
    wide = positions * hidden
    yield from _product("head product", positions, hidden, hidden, 1 + trains)
    gather, cast, act, norm = 2 * FULL, FULL + HALF, 2 * HALF, 2 * FULL
    yield Kernel("head, other", False, "memory", wide * (gather + cast + act + cast + norm + cast))
    of_norm, of_act = 5 * FULL, 3 * HALF
    yield Kernel("head, other", True, "memory", wide * (3 * cast + of_norm + of_act + gather + 2 * FULL))
    yield from _weights(hidden * hidden, trains, batch)


def _vocabulary(model: Architecture, batch: MicroBatch, trains: bool) -> Iterator[Kernel]:
    """Yield the products with the vocabulary and the softmax, chunk by chunk, and the sum of its gradient."""
    hidden, entries, positions = model.hidden, model.vocabulary, batch.predicted
    chunks, row = -(-positions // chunk_positions(entries, "cuda")), "vocabulary products"
    weight = hidden * entries
    operands = HALF * (positions * (hidden + entries) + chunks * weight)
    flops = 2 * positions * hidden * entries
    for number in range(2 + trains):
        adds = batch.fused and number == 2
        sums = (2 * FULL - HALF) * chunks * weight if adds else 0
        yield Kernel(row, number > 0, "product", operands + sums, flops, flops)
    yield Kernel("softmax", False, "memory", 2 * HALF * positions * entries)
    yield Kernel("weights and their gradients", False, "memory", (FULL + HALF) * weight)
    if trains:
        if not batch.fused:
            yield Kernel("vocabulary gradient", True, "memory", (HALF + 2 * FULL) * weight * chunks)
        yield Kernel("vocabulary gradient", True, "memory", 5 * FULL * weight)  # scaled, and added up
