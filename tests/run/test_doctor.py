"""The doctor says what stands in the way."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement

from clm_detour.model.attention import BACKENDS
from clm_detour.run import doctor


def test_every_back_end_runs_or_says_why_not():
    said = dict(doctor.back_ends())
    assert {f"  {name}" for name in BACKENDS} < said.keys()
    assert said["  portable"] == "runs here"
    assert all(said.values())


def test_the_extras_are_those_of_the_package():
    said = dict(doctor.extras())
    assert "flash-attn" in said["extra flash"]
    assert "wandb" in said["extra wandb"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("torch<1", r"asks for torch <1, and .* is installed"),
        ("no-such-package-at-all", "which is not installed"),
        ("torch>1", None),
        ("no-such-package-at-all; extra == 'dev'", None),
    ],
)
def test_a_version_that_does_not_meet_a_pin_is_named(monkeypatch, wanted, expected):
    monkeypatch.setattr(doctor, "requirements", lambda package: [Requirement(wanted)])
    said = list(doctor.broken_pins())
    assert bool(said) == (expected is not None)
    assert expected is None or re.search(expected, said[0])


def test_low_limits_come_with_a_remedy(monkeypatch):
    monkeypatch.setattr(doctor, "shared_memory", lambda: 64 << 20)
    monkeypatch.setattr(doctor, "FEWEST_FILES", 1 << 62)
    said = " ".join(doctor.low_limits())
    assert "--shm-size" in said
    assert "ulimit -n" in said
