"""The process that launches the ranks of a phase opens no CUDA context of its own."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace

import pytest
import torch

from clm_detour.config import load_config
from clm_detour.recipe.recipe import Recipe
from clm_detour.run import check
from clm_detour.run.check.attention import check_attention
from clm_detour.run.pipeline import run_recipe
from clm_detour.train import launch, phase
from clm_detour.utils import gpus
from clm_detour.utils.allocator import let_gpu_memory_grow
from clm_detour.utils.environment import describe_environment
from clm_detour.utils.errors import UserError
from clm_detour.utils.gpus import Gpu, smallest_memory, visible_gpus

TWO = (Gpu("NVIDIA H100 80GB HBM3", 85 * 10**9), Gpu("NVIDIA H100 80GB HBM3", 84 * 10**9))


class LaunchedError(Exception):
    """The ranks would be launched now."""


@pytest.fixture
def two_gpus(monkeypatch):
    """Two GPUs that can be counted, and that this process must not open."""

    def opened(*_: object) -> None:
        raise AssertionError("this process opened a CUDA context")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda._lazy_init", opened)
    monkeypatch.setattr(gpus, "ask_another_process", lambda: TWO)
    visible_gpus.cache_clear()
    yield
    visible_gpus.cache_clear()


def test_until_the_ranks_are_launched_no_context_is_opened(
    two_gpus, tiny_recipe, tmp_path, monkeypatch, capsys
):
    def launched(recipe, run, processes):
        raise LaunchedError(processes)

    with pytest.raises(AssertionError):
        torch.cuda.get_device_name()
    monkeypatch.setattr(launch, "launch_processes", launched)
    path = tiny_recipe(tmp_path / "run")
    with pytest.raises(LaunchedError, match="2"):
        run_recipe(Recipe(load_config(path)))
    check.check_recipe(Recipe(load_config(path)), deep=False)
    assert "estimated to fill at most 90% of each GPU" in " ".join(capsys.readouterr().err.split())
    assert describe_environment()["gpus"] == [gpu.name for gpu in TWO]
    assert smallest_memory() == 84 * 10**9


@pytest.mark.slow
def test_a_back_end_that_is_named_is_tried_in_another_process(two_gpus, monkeypatch):
    check_attention("auto")
    check_attention("portable")
    with pytest.raises(UserError, match=r"back end 'flash' does not run here: .*; use 'auto'"):
        check_attention("flash")


def test_without_a_gpu_no_other_process_is_asked(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("another process was started"))
    visible_gpus.cache_clear()
    assert visible_gpus() == ()
    check_attention("portable")
    with pytest.raises(UserError, match="does not run here"):
        check_attention("flash")


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ('print("a notice"); print(\'[["A10", 24000000000]]\')', (Gpu("A10", 24 * 10**9),)),
        ("raise RuntimeError('no driver')", ()),
        ("print('nothing that can be read')", ()),
        ("", ()),
    ],
)
def test_what_the_other_process_says_is_read_and_its_failure_is_no_gpu(monkeypatch, program, found):
    monkeypatch.setattr(gpus, "QUESTION", program)
    assert gpus.ask_another_process() == found


def test_a_process_that_has_a_context_asks_torch(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    properties = SimpleNamespace(name="A10", total_memory=24 * 10**9)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda number: properties)
    visible_gpus.cache_clear()
    assert visible_gpus() == (Gpu("A10", 24 * 10**9),)
    visible_gpus.cache_clear()


def test_every_rank_sets_its_allocator_before_it_connects(tiny_recipe, tmp_path, monkeypatch):
    def connects() -> None:
        raise LaunchedError(os.environ.get("PYTORCH_CUDA_ALLOC_CONF"))

    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "")
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
    monkeypatch.setattr(phase, "start_processes", connects)
    recipe = Recipe(load_config(tiny_recipe(tmp_path / "run")))
    with pytest.raises(LaunchedError, match="expandable_segments:True"):
        phase.train_phase(recipe, recipe.phase("base", "pretrain"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, "expandable_segments:True"),
        ("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64"),
        ("PYTORCH_ALLOC_CONF", None),
    ],
)
def test_segments_may_grow_unless_the_user_set_the_allocator(monkeypatch, name, expected):
    for each in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        monkeypatch.setenv(each, "")
        monkeypatch.delenv(each)
    if name is not None:
        monkeypatch.setenv(name, "max_split_size_mb:64")
    let_gpu_memory_grow()
    assert os.environ.get("PYTORCH_CUDA_ALLOC_CONF") == expected
