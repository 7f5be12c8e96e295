"""Whether torch can compile here is known before it tries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from kernel_standins import Machine, forget
from model_reference import tiny_model

from clm_detour.model.compiling import cannot_compile, compile_choice
from clm_detour.utils.errors import UserError


@pytest.fixture(autouse=True)
def looked_at_anew() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.fixture
def no_compilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty PATH."""
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(folder: Path, name: str) -> Path:
    path = folder / name
    path.touch(0o755)
    return path


@pytest.mark.parametrize(("device", "name", "language"), [("cpu", "g++", "C++"), ("cuda", "gcc", "C")])
def test_a_compiler_is_needed(
    device: str, name: str, language: str, machine: Machine, no_compilers: Path
) -> None:
    reason = cannot_compile(device)
    assert reason is not None
    assert reason.startswith(f"there is no {language} compiler")
    program(no_compilers, name)
    forget()
    assert cannot_compile(device) is None


@pytest.mark.parametrize(("device", "variable"), [("cpu", "CXX"), ("cuda", "CC")])
def test_it_may_be_named(
    device: str, variable: str, machine: Machine, no_compilers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(program(no_compilers, "mine")))
    assert cannot_compile(device) is None
    monkeypatch.setenv(variable, "not-there")
    forget()
    assert f"({variable}=not-there)" in (cannot_compile(device) or "")


def test_compiled_layers_are_refused_before_the_first_step(no_compilers: Path) -> None:
    with pytest.raises(
        UserError, match=r"cannot be compiled here: there is no .* compiler .*train\.compile: false"
    ):
        tiny_model().compile_layers()


def test_a_gpu_needs_triton_and_must_not_be_too_old(machine: Machine) -> None:
    machine.has_triton(False)
    assert "Triton" in (cannot_compile("cuda") or "")
    machine.has_triton(True)
    machine.has_gpu(6, 1)
    assert cannot_compile("cuda") == "Triton needs compute capability 7.0 and this GPU has 6.1"


def test_a_gpu_needs_pythons_headers(machine: Machine) -> None:
    machine.has_headers(False)
    assert "python3-dev" in (cannot_compile("cuda") or "")
    machine.has_headers(True)
    assert cannot_compile("cuda") is None


def test_without_a_gpu_none_is_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cannot_compile("cuda") == "there is no CUDA device"


def test_auto_compiles_on_a_gpu_where_torch_can(machine: Machine) -> None:
    assert compile_choice("auto", "cpu") == (False, "on a CPU only if asked for")
    assert compile_choice("auto", "cuda") == (True, "torch can compile for this GPU")
    machine.has_triton(False)
    compiled, reason = compile_choice("auto", "cuda")
    assert not compiled
    assert "Triton" in reason
    for asked in (True, False):
        assert compile_choice(asked, "cuda") == (asked, "asked for")
