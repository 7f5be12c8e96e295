"""`clm-detour doctor` describes the installation and names its problems."""

from __future__ import annotations

import importlib.metadata
import re

import pytest
import torch

from clm_detour.model.attention import BACKENDS
from clm_detour.run import doctor


def test_every_back_end_runs_or_says_why_not():
    printed = dict(doctor.back_ends())
    here = set(BACKENDS) if torch.cuda.is_available() else set(BACKENDS) - {"flash", "varlen"}
    assert {name for name in BACKENDS if f"  {name}" in printed} == here, "back ends for GPUs, without one"
    assert printed["  portable"] == "runs here"
    assert all(printed.values())


def test_the_extras_are_those_of_the_package():
    printed = dict(doctor.extras())
    assert ("extra flash" in printed) == torch.cuda.is_available()
    assert "wandb" in printed["extra wandb"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("torch<1", r"requires torch <1, but .* is installed"),
        ("no-such-package-at-all", "which is not installed"),
        ("torch>1", None),
        ("no-such-package-at-all; extra == 'dev'", None),
    ],
)
def test_a_version_that_does_not_meet_a_pin_is_named(monkeypatch, wanted, expected):
    monkeypatch.setattr(importlib.metadata, "requires", lambda package: [wanted])
    problems = list(doctor.unmet_requirements())
    assert bool(problems) == (expected is not None)
    assert expected is None or re.search(expected, problems[0])


def test_without_composer_the_command_that_adds_it_is_shown(monkeypatch, capsys):
    found = {**doctor.describe_environment(), "composer": None}
    monkeypatch.setattr(doctor, "describe_environment", lambda: found)
    monkeypatch.setattr(doctor.console, "width", 200)
    doctor.print_environment()
    assert "not installed (needed to train: pip install 'clm-detour[train]')" in capsys.readouterr().err


def test_low_limits_come_with_a_remedy(monkeypatch):
    monkeypatch.setattr(doctor, "shared_memory", lambda: 64 << 20)
    monkeypatch.setattr(doctor, "MIN_OPEN_FILES", 1 << 62)
    warnings = " ".join(doctor.low_limits())
    assert "--shm-size" in warnings
    assert "ulimit -n" in warnings


@pytest.mark.parametrize(
    ("back_end", "has_varlen", "capability", "expected"),
    [
        ("flex", False, 9, "torch 2.11 or newer has varlen_attn"),
        ("varlen", True, 9, "FlashAttention 3 or 4"),
        ("varlen", True, 8, None),
        ("flash", True, 9, None),
    ],
)
def test_a_change_that_makes_attention_faster_is_named(
    monkeypatch, back_end, has_varlen, capability, expected
):
    monkeypatch.setattr(doctor.varlen, "find", lambda: print if has_varlen else None)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (capability, 0))
    said = doctor.faster_attention(back_end, "cuda")
    assert said is None if expected is None else expected in said
    assert doctor.faster_attention(back_end, "cpu") is None
