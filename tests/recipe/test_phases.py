"""Phases of arms: the paper's step counts, shared beginnings, and one stream that continues across phases."""

from __future__ import annotations

import pytest

from clm_detour.config import load_config
from clm_detour.config.shipped import CONFIGS
from clm_detour.recipe.recipe import Recipe
from clm_detour.utils.errors import UserError

QUICKSTART = CONFIGS / "quickstart.yaml"
PAPER = [
    "data.sequence_length=8192", "train.batch_rows=384", "phases.clm.duration=10Btok",
    "phases.mlm.duration=10Btok", "phases.decay.duration=1Btok", "phases.clm.schedule.warmup=100Mtok",
]  # fmt: skip


def test_steps_are_the_papers():
    config = load_config(QUICKSTART, PAPER)
    clm, decay = Recipe(config).phase("detour", "clm"), Recipe(config).phase("detour", "decay")
    assert (clm.batch_tokens, clm.steps, clm.warmup_steps, decay.steps) == (3_145_728, 3179, 32, 318)


def test_arms_share_what_they_begin_with():
    assert list(Recipe(load_config(QUICKSTART)).phases) == [
        "pretrain", "pretrain.clm", "pretrain.clm.decay", "pretrain.mlm", "pretrain.mlm.decay",
        "pretrain.mlm_control", "pretrain.mlm_control.decay_control",
    ]  # fmt: skip


def test_a_phase_goes_on_in_its_mixture_where_the_one_before_stopped():
    config = load_config(QUICKSTART)
    pretrain, clm, decay = Recipe(config).arm("detour")
    assert (pretrain.first_row, clm.first_row) == (0, 0)  # different mixtures
    assert decay.first_row == clm.next_row == clm.steps * config.train.batch_rows


def test_a_phase_may_read_its_mixture_from_the_start_again():
    words = [
        "phases.again=${phases.decay}",
        "phases.again.position=restart",
        "arms.again=[pretrain, clm, again]",
    ]
    config = load_config(QUICKSTART, words)
    clm, restarted = (Recipe(config).phase("again", name) for name in ("clm", "again"))
    assert clm.next_row > 0
    assert (restarted.first_row, restarted.next_row) == (0, restarted.steps * config.train.batch_rows)


def test_both_arms_see_the_same_rows():
    config = load_config(QUICKSTART)
    for ours, twins in zip(Recipe(config).arm("detour"), Recipe(config).arm("twin"), strict=True):
        assert (ours.first_row, ours.next_row, ours.phase.mixture) == (
            twins.first_row,
            twins.next_row,
            twins.phase.mixture,
        )


@pytest.mark.parametrize(("arm", "phase"), [("detuor", "clm"), ("detour", "mlm")])
def test_an_unknown_arm_or_phase_is_named(arm, phase):
    with pytest.raises(UserError, match="is not known"):
        Recipe(load_config(QUICKSTART)).phase(arm, phase)


def test_rows_that_do_not_divide_are_refused_with_numbers_that_do():
    config = load_config(QUICKSTART, ["train.batch_rows=10"])
    Recipe(config).check_world_size(5)
    with pytest.raises(UserError, match=r"do not divide over 4 processes; use for example 8 or 12"):
        Recipe(config).check_world_size(4)


def test_a_seed_replicate_is_a_phase_with_another_seed_on_the_same_rows():
    words = ["phases.again=${phases.clm}", "phases.again.seed=18", "arms.again=[pretrain, again, decay]"]
    config = load_config(QUICKSTART, words)
    first, again = Recipe(config).phase("detour", "clm"), Recipe(config).phase("again", "again")
    assert (first.seed, again.seed) == (config.seed, 18)
    assert (first.first_row, first.next_row) == (again.first_row, again.next_row)
