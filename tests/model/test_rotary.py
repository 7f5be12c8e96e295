"""Rotation in place is the definition: as torch operators, as an interpreted kernel, and inside a model.

The kernels need a GPU to run. Here they are interpreted, and compiled for compute capability 9.0.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from model_reference import assert_close, gradients, some_labels, tiny_model, tokens
from torch import Tensor

from clm_detour.model import compiling
from clm_detour.model.gpu import rotary
from clm_detour.model.rope import Rotation, _rotate_plainly, rotate, rotation

triton_only = pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")


def projections(tokens: int, heads: int, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(tokens, 3, heads, size, generator=generator).to(dtype)


def tables(tokens: int, heads: int, size: int) -> tuple[Rotation, Tensor, Tensor]:
    by = rotation(torch.arange(tokens) * 7, heads, size, 10_000.0)
    half = size // 2
    return by, by.cos[:, 0, :half], by.right[:, 0, half:size]


@pytest.mark.parametrize("dtype", rotary.DTYPES)
def test_queries_and_keys_turn_in_place_and_values_stay(dtype: torch.dtype) -> None:
    qkv = projections(9, 3, 16, dtype)
    by, cos, sin = tables(9, 3, 16)
    expected = _rotate_plainly(qkv, by)
    in_place = qkv.clone()
    found = rotary.rotate_in_place(in_place, cos, sin)
    for part, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert torch.equal(one, other)
        assert one.data_ptr() == in_place[:, part].data_ptr()
    assert torch.equal(in_place[:, 2], qkv[:, 2])


@pytest.mark.parametrize("dense", [True, False])
def test_gradients_are_those_of_the_definition(dense: bool) -> None:
    inputs = projections(9, 3, 16)
    by, cos, sin = tables(9, 3, 16)
    upstream = [torch.randn(9, 3, 16) if dense else torch.randn(3, 9, 16).transpose(0, 1) for _ in "qkv"]
    grads = []
    for run in (lambda x: rotary.rotate_in_place(x, cos, sin), lambda x: _rotate_plainly(x, by)):
        leaf = inputs.clone().requires_grad_()
        torch.autograd.backward(run(leaf * 1), upstream)
        grads.append(leaf.grad)
    assert_close(grads[0], grads[1], 1e-6)


def test_other_types_and_strides_are_left_to_torch(in_place: list[str]) -> None:
    by, _, _ = tables(9, 3, 16)
    assert not rotary.takes(projections(9, 3, 16, torch.float64))
    strided = projections(9, 3, 32)[..., ::2]
    expected = _rotate_plainly(strided, by)
    for one, other in zip(rotate(strided, by), expected, strict=True):
        assert_close(one, other, 1e-6)
    assert not in_place


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rotate in place on a CPU too, by the operators' definition; the list tells how often."""
    calls: list[str] = []
    original = rotary.rotate_in_place

    def counted(*arguments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not torch.compiler.is_compiling():
            calls.append("call")
        return original(*arguments)

    monkeypatch.setattr(rotary, "takes", lambda heads: heads.dtype in rotary.DTYPES)
    monkeypatch.setattr(rotary, "rotate_in_place", counted)
    return calls


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_model_computes_the_same_in_place(
    in_place: list[str], compiled: bool, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for here in (False, True):
        if not here:
            monkeypatch.setattr(rotary, "takes", lambda heads: False)
        else:
            monkeypatch.setattr(rotary, "takes", lambda heads: True)
        found.append(losses_and_gradients(compiled and here, checkpointing))
    assert in_place, "nothing was rotated in place"
    assert_close(found[1][0], found[0][0])
    for name, grad in found[0][1].items():
        assert_close(found[1][1][name], grad)


def losses_and_gradients(compiled: bool, checkpointing: bool) -> tuple[Tensor, dict[str, Tensor]]:
    model = tiny_model().train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    if compiled:
        model.compile_layers()
    ids = tokens(40)[None]
    loss = model(ids, document_lengths=[[11, 9, 20]], labels=some_labels(ids)).loss
    loss.backward()
    return loss.detach(), gradients(model)


@pytest.fixture(autouse=True)
def traced_only(monkeypatch: pytest.MonkeyPatch):
    """torch traces and differentiates graphs, but does not spend seconds on making code of them."""
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda part, **_: compile_(part, fullgraph=True, backend="aot_eager")
    )
    compiling.compiled.cache_clear()
    torch._dynamo.reset()
    yield
    compiling.compiled.cache_clear()
    torch._dynamo.reset()


@triton_only
def test_the_interpreted_kernels_are_the_definition(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    program = tmp_path / "interpret.py"
    program.write_text(INTERPRETED)
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


INTERPRETED = """
import torch
from clm_detour.model.gpu import rotary

for dtype, tolerance in ((torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)):
    for tokens, heads, size in ((37, 3, 16), (5, 12, 64), (1, 2, 12)):
        angles = torch.rand(tokens, size)
        cos, sin = angles.cos()[:, : size // 2], angles.sin()[:, : size // 2]  # rows of another stride
        assert cos.stride(0) == size
        qkv = torch.randn(tokens, 3, heads, size).to(dtype)
        kernel, definition = qkv.clone(), qkv.clone()
        rotary.launch_rotate_packed(kernel, cos, sin)
        rotary.rotate_packed(definition, cos, sin)
        torch.testing.assert_close(kernel, definition, rtol=tolerance, atol=tolerance)
        assert torch.equal(kernel[:, 2], qkv[:, 2])
        grads = [torch.randn(heads, tokens, size).to(dtype).transpose(0, 1) for _ in range(3)]
        packed = rotary.launch_pack_rotated_back(*grads, cos, sin)
        torch.testing.assert_close(
            packed, rotary.pack_rotated_back(*grads, cos, sin), rtol=tolerance, atol=tolerance
        )
        assert torch.equal(packed[:, 2], grads[2])
"""


@triton_only
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_kernels_compile_for_hopper(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from clm_detour.model.gpu import rotary_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    pointer, table = f"*{dtype}", "*fp32"
    rows = dict.fromkeys(("tokens", "row", "table_row"), "i32")
    strides = [f"{name}_{kind}" for name in "qkv" for kind in ("row", "head")]
    forward = {"qkv": pointer, "cos": table, "sin": table, **rows}
    backward = {
        **dict.fromkeys(("grad_q", "grad_k", "grad_v", "packed"), pointer),
        "cos": table,
        "sin": table,
        **dict.fromkeys(("tokens", *strides, "table_row"), "i32"),
    }
    for kernel, arguments, parts in (
        (rotary_kernels.rotate_packed, forward, 2),
        (rotary_kernels.pack_rotated_back, backward, 1),
    ):
        constants = rotary.block(12, 64, parts)
        signature = {**arguments, **dict.fromkeys(constants, "constexpr")}
        aligned = {
            (place,): [["tt.divisibility", 16]] for place, name in enumerate(arguments) if name != "tokens"
        }
        source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        assert made.asm["cubin"]
        assert "ld.global.v4" in made.asm["ptx"], "loads are not 16 bytes wide"
