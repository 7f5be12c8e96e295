"""A phase computes in the precision and with the algorithms of the recipe, whatever Composer sets."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from composer.core import Engine

from clm_detour.config.schema import Config, Train
from clm_detour.model import precision
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.recipe import Recipe
from clm_detour.train import launch
from clm_detour.train.callbacks import throughput
from clm_detour.train.callbacks.throughput import peak_flops
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.train.deterministic import VARIABLES, prepare_environment
from clm_detour.train.numerics import numerics
from clm_detour.train.phase import train_phase
from clm_detour.utils.errors import UserError


def tf32_flags() -> frozenset[bool]:
    """Every setting of torch that says whether products of fp32 run in TF32, as booleans."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    flags = {matmul.allow_tf32, cudnn.allow_tf32, torch.get_float32_matmul_precision() != "highest"}
    if hasattr(matmul, "fp32_precision"):
        flags |= {matmul.fp32_precision == "tf32", cudnn.fp32_precision == "tf32"}
    return frozenset(flags)


@pytest.fixture
def composers_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set before every event what `DeviceGPU` of Composer sets."""
    run_event = Engine.run_event

    def run_after_device(self: Engine, event: Any) -> Any:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        return run_event(self, event)

    monkeypatch.setattr(Engine, "run_event", run_after_device)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], dict[str, set[Any]]]:
    """A function that records values in the forward and backward passes of training, and in held-out ones."""

    def watch(value: Callable[[], Any]) -> dict[str, set[Any]]:
        values: dict[str, set[Any]] = {"held out": set(), "forward": set(), "backward": set()}
        forward, loss = ModernBertForPretraining.forward, PretrainingModel.loss

        def watched(self: ModernBertForPretraining, *args: Any, **kwargs: Any) -> Any:
            values["forward" if torch.is_grad_enabled() else "held out"].add(value())
            return forward(self, *args, **kwargs)

        def watched_loss(self: PretrainingModel, outputs: Any, batch: Any) -> torch.Tensor:
            found = loss(self, outputs, batch)
            found.register_hook(lambda grad: values["backward"].add(value()))
            return found

        monkeypatch.setattr(ModernBertForPretraining, "forward", watched)
        monkeypatch.setattr(PretrainingModel, "loss", watched_loss)
        return values

    return watch


def train(config: Config) -> bytes:
    recipe = Recipe(config)
    run = recipe.phase("base", "pretrain")
    train_phase(recipe, run)
    return (recipe.folder.phase(run.id).model / "model.safetensors").read_bytes()


@pytest.mark.parametrize("asked", ["fp32", "tf32", "bf16"])
def test_fp32_is_exact_and_tf32_is_tf32_in_every_step(prepared, composers_gpu, seen, asked):
    config = prepared(asked, f"train.precision={asked}")
    flags = seen(tf32_flags)
    train(config)
    wanted = {frozenset({asked == "tf32"})}
    assert flags == {"held out": set(), "forward": wanted, "backward": wanted}
    assert torch.backends.cuda.matmul.allow_tf32 is False  # as before the phase


def test_held_out_losses_are_exact_while_a_phase_trains_in_tf32(prepared, composers_gpu, seen):
    config = prepared("run", "train.precision=tf32", "train.evaluate_every=2ktok")
    flags = seen(tf32_flags)
    train(config)
    on, off = {frozenset({True})}, {frozenset({False})}
    assert flags == {"held out": off, "forward": on, "backward": on}


def test_deterministic_algorithms_are_used_in_every_step_and_not_afterwards(prepared, seen, monkeypatch):
    for variable in VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    plain = train(prepared("plain"))
    config = prepared("deterministic", "train.deterministic=true")
    flags = seen(
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            os.environ["CUBLAS_WORKSPACE_CONFIG"],
            os.environ["NCCL_ALGO"],
        )
    )
    same = train(config)
    wanted = {(True, False, False, True, ":4096:8", "Ring")}
    assert flags["forward"] == flags["backward"] == wanted
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
    assert same == plain  # a CPU is deterministic anyway


def test_a_phase_trains_with_the_residual_stream_of_the_recipe(prepared, monkeypatch):
    monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: True)
    half, full = "train.residual=bf16", "train.residual=fp32"
    exact, rounded, fp32 = (
        train(prepared(name, *words))
        for name, words in {
            "exact": ["train.precision=bf16", full],
            "rounded": ["train.precision=bf16", half],
            "fp32": [half],  # without autocast
        }.items()
    )
    assert exact != rounded
    assert fp32 == train(prepared("plain"))


def test_launched_processes_inherit_the_variables(prepared, monkeypatch):
    for variable in VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    inherited: list[dict[str, str]] = []
    monkeypatch.setattr(launch, "launch_processes", lambda *args: inherited.append(dict(os.environ)))
    for deterministic in ("false", "true"):
        recipe = Recipe(prepared("run", f"train.deterministic={deterministic}"))
        launch.launch_phase(recipe, recipe.phase("base", "pretrain"))
    assert [each.get("CUBLAS_WORKSPACE_CONFIG") for each in inherited] == [None, ":4096:8"]
    assert [each.get("NCCL_ALGO") for each in inherited] == [None, "Ring"]


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [("CUBLAS_WORKSPACE_CONFIG", ":16:8", ":0:0"), ("NCCL_ALGO", "Tree", "NVLS")],
)
def test_a_variable_that_contradicts_it_is_refused(name: str, right: str, wrong: str) -> None:
    environment = {name: right}
    prepare_environment(Train(deterministic=True), environment)
    assert environment[name] == right
    prepare_environment(Train(), {name: wrong})
    with pytest.raises(UserError, match=rf"{name}={wrong} is not deterministic; unset it, or set it to"):
        prepare_environment(Train(deterministic=True), {name: wrong})


def test_what_was_set_before_a_phase_is_set_after_it() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with numerics(Train(deterministic=True)):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("gpu", "bf16", "tf32", "fp32"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12, 495e12, 67e12),
        ("NVIDIA H100 PCIe", 756e12, 378e12, 51e12),
        ("NVIDIA A100-SXM4-40GB", 312e12, 156e12, 19.5e12),
        ("NVIDIA GeForce RTX 4090", 165e12, 82.6e12, 82.6e12),
        ("AMD Instinct MI300X", 1307e12, None, 163.4e12),
        ("NVIDIA H100 NVL", None, None, None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None, None, None),
        ("Another GPU", None, None, None),
    ],
)
def test_mfu_divides_by_the_peak_of_the_precision(monkeypatch, gpu, bf16, tf32, fp32):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: gpu)
    assert [peak_flops(each) for each in ("bf16", "tf32", "fp32")] == [bf16, tf32, fp32]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert peak_flops("bf16") is None


def test_no_mfu_is_shown_without_a_peak() -> None:
    values = throughput.Throughput(model=None, pad=0, peak=None).values()
    assert "mfu" not in values
