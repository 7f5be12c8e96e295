"""Check 2: a network of two layers (one global, one local), eager, compiled and checkpointed, against fp64.

The loss is a mean over hundreds of positions, so it agrees to the precision itself (1 eps; 100 eps in fp32,
as for the kernels). A gradient is compared as a whole tensor, relative to its length: it has passed through
about a dozen roundings of half an eps on its way through two layers, hence 8 eps in half precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.utils import counters
from transformers import ModernBertConfig

from clm_detour.model import ModernBertForPretraining
from clm_detour.model.compiling import cannot_compile
from clm_detour.model.documents import IGNORED
from clm_detour.model.loss import summed_cross_entropy
from clm_detour.model.precision import computed_precision
from clm_detour.records.verify import Check
from clm_detour.run.verify.checks import Group

TOKENS, VOCABULARY, HIDDEN = 1024, 1024, 128
LIMITS = {"loss": (1, 100), "gradients": (8, 1000)}  # eps in half precision, eps in fp32
LENGTHS = [1, 2, 63, 64, 65, 129, 700]
BATCHES = 10  # with other documents each, in the check of recompilation
WAYS = {"eager": (False, False), "compiled": (True, False), "checkpointed": (False, True),
        "both": (True, True)}  # compiled, checkpointed  # fmt: skip
NOT_COMPILED = "compiling takes minutes on a CPU; a recipe with train.compile: true includes it"

group = Group("network")


def check_network(device: str, compiles: bool) -> Iterator[Check]:
    """Check losses and gradients, waits for the device and recompilation, on one type of device.

    Args:
        compiles: Whether to compile. On a CPU that takes minutes, and training does not do it by itself.
    """
    precision, _ = computed_precision("bf16", torch.device(device))
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    reason = cannot_compile(device) if compiles else NOT_COMPILED
    expected = {causal: Step(device, causal).gradients(torch.float64) for causal in (False, True)}
    for way, (compiled, checkpointed) in WAYS.items():
        if compiled and reason is not None:
            yield group.left_out(way, reason)
            continue
        yield from _guarded(way, check_way, way, device, dtype, expected, compiled, checkpointed)
    yield from _guarded("fused loss", check_fused_loss, device, dtype)
    if reason is not None:
        yield group.left_out("recompiled in ten batches", reason)
    else:
        yield from _guarded("recompiled in ten batches", check_recompilation, device, dtype)
    if device == "cpu":
        yield group.left_out("waits for the device", "a CPU is its own host")
    else:
        yield from _guarded("waits for the device", check_waits, device, dtype, reason is None)


def _guarded(name: str, check: Any, *arguments: Any) -> Iterator[Check]:
    """Yield the checks, and a failed one in place of an error of the compiler or of a kernel."""
    try:
        yield from check(*arguments)
    except Exception as error:
        yield group.failed(name, error)


@dataclass(frozen=True)
class Gradients:
    """The loss of a step and its gradients by name."""

    loss: Tensor
    by_name: dict[str, Tensor]


class Step:
    """A small network with one batch.

    Args:
        causal: Whether it predicts the next token, or else three of ten tokens from both sides.
    """

    def __init__(self, device: str, causal: bool, compiled: bool = False, checkpointed: bool = False):
        torch.manual_seed(0)
        keys: dict[str, Any] = {
            "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": 192,
            "num_hidden_layers": 2, "num_attention_heads": 2, "global_attn_every_n_layers": 2,
            "local_attention": 128, "pad_token_id": 0, "cls_token_id": 1, "bos_token_id": 1,
            "sep_token_id": 2, "eos_token_id": 2,
        }  # fmt: skip
        self.network = ModernBertForPretraining(ModernBertConfig(**keys)).train()
        torch.nn.Module.to(self.network, device)
        self.network.causal = causal
        if compiled:
            self.network.compile_layers()
        if checkpointed:
            self.network.gradient_checkpointing_enable()
        random = torch.Generator().manual_seed(1)
        ids = torch.randint(5, VOCABULARY, (1, TOKENS), generator=random)
        labels = torch.randint(5, VOCABULARY, (1, TOKENS), generator=random)
        if not causal:
            labels[torch.rand(labels.shape, generator=random) > 0.3] = IGNORED
        self.predicted = int((labels != IGNORED).sum())
        self.ids, self.labels = ids.to(device), labels.to(device)
        self.device = device

    def loss(self, dtype: torch.dtype, lengths: list[int] = LENGTHS) -> Tensor:
        """Return the loss; bf16 is autocast, fp64 is computed with fp64 weights."""
        if dtype == torch.float64:
            self.network.double()
        with torch.autocast(self.device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            output = self.network(
                self.ids, labels=self.labels, document_lengths=[lengths], predicted=self.predicted
            )
        assert output.loss is not None
        return output.loss

    def gradients(self, dtype: torch.dtype) -> Gradients:
        """Return loss and gradients."""
        loss = self.loss(dtype)
        loss.backward()
        grads = {name: p.grad for name, p in self.network.named_parameters() if p.grad is not None}
        return Gradients(loss.detach(), grads)


def check_way(
    way: str,
    device: str,
    dtype: torch.dtype,
    expected: dict[bool, Gradients],
    compiled: bool,
    checkpointed: bool,
) -> Iterator[Check]:
    """Compare one way of computing, under both masks, with fp64."""
    losses, gradients = [], []
    for causal, exact in expected.items():
        found = Step(device, causal, compiled, checkpointed).gradients(dtype)
        mask = "causal" if causal else "bidirectional"
        losses.append((distance(found.loss, exact.loss), mask))
        assert found.by_name.keys() == exact.by_name.keys()
        for name, grad in found.by_name.items():
            gradients.append((distance(grad, exact.by_name[name]), f"{mask}, {name}"))
    yield group.at_most(f"{way}: loss", *_worst(losses, "loss", dtype))
    yield group.at_most(f"{way}: gradients", *_worst(gradients, "gradients", dtype))


def _worst(found: list[tuple[float, str]], kind: str, dtype: torch.dtype) -> tuple[float, float, str, str]:
    """Return the arguments of `at_most`: the largest value (NaN is the largest), its limit, and its place."""
    value, where = max(found, key=lambda pair: (pair[0] != pair[0], pair[0]))
    half, full = LIMITS[kind]
    limit = torch.finfo(dtype).eps * (full if dtype == torch.float32 else half)
    return value, limit, "", where


def distance(found: Tensor, exact: Tensor) -> float:
    """Return the length of the difference, relative to that of the exact tensor."""
    return ((found.double() - exact).norm() / exact.norm()).item()


def check_fused_loss(device: str, dtype: torch.dtype) -> Iterator[Check]:
    """Compare the loss over chunks of positions, and its gradients, with torch's of all logits in fp64."""
    random = torch.Generator().manual_seed(2)
    sizes = {"hidden states": (700, HIDDEN), "vocabulary": (VOCABULARY, HIDDEN), "bias": (VOCABULARY,)}
    tensors = [torch.randn(size, generator=random).to(dtype).to(device) for size in sizes.values()]
    labels = torch.randint(0, VOCABULARY, (700,), generator=random).to(device)
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    hidden, weight, bias = leaves
    total, _ = summed_cross_entropy(hidden, weight, bias, labels, chunk=256)
    total.backward()
    exact = [tensor.double().requires_grad_() for tensor in tensors]
    expected = F.cross_entropy(exact[0] @ exact[1].T + exact[2], labels, reduction="sum")
    expected.backward()
    pairs = {name: (leaf.grad, full.grad) for name, leaf, full in zip(sizes, leaves, exact, strict=True)}
    errors = [(distance(total.detach(), expected.detach()), "loss")]
    for name, (found, right) in pairs.items():
        assert found is not None
        assert right is not None
        errors.append((distance(found, right), f"gradient of the {name}"))
    yield group.at_most("fused loss: loss and gradients", *_worst(errors, "gradients", dtype))


def check_recompilation(device: str, dtype: torch.dtype) -> Iterator[Check]:
    """Count the graphs that torch compiles after the first of ten batches with other documents each."""
    step = Step(device, causal=False, compiled=True)
    step.loss(dtype).backward()
    before = counters["stats"]["unique_graphs"]
    for number in range(1, BATCHES):
        size = TOKENS // (number + 1)
        step.loss(dtype, [size] * number + [TOKENS - number * size]).backward()
    yield group.at_most("recompiled in ten batches", counters["stats"]["unique_graphs"] - before, 0)


def check_waits(device: str, dtype: torch.dtype, compiled: bool) -> Iterator[Check]:
    """Run a step in which torch raises an error where the host would wait for the device."""
    step = Step(device, causal=False, compiled=compiled)
    optimizer = torch.optim.AdamW(step.network.parameters(), fused=True)

    def train() -> None:
        step.loss(dtype).backward()
        optimizer.step()
        optimizer.zero_grad()

    train()  # compiles, and makes the optimizer state
    torch.cuda.set_sync_debug_mode("error")
    try:
        train()
    except RuntimeError as error:
        if "synchronizing" not in str(error).lower():
            raise
        yield group.failed("waits for the device", "the host waits: " + str(error))
        return
    finally:
        torch.cuda.set_sync_debug_mode("default")
    yield group.equal("waits for the device", "none", "none")
