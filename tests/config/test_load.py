"""A recipe is read, merged and checked; what is wrong with it is said in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from clm_detour.config import load_config, parse_selection
from clm_detour.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
QUICKSTART = CONFIGS / "quickstart.yaml"
SHIPPED = [path for path in sorted(CONFIGS.rglob("*.yaml")) if "base" not in path.relative_to(CONFIGS).parts]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_shipped_config_loads(path):
    assert load_config(path, ["data.root=somewhere"]).arms


def test_a_file_wins_over_what_it_extends_and_the_command_line_over_both(tmp_path):
    (tmp_path / "base.yaml").write_text(
        f"extends: {QUICKSTART}\nseed: 1\ntrain: {{batch_rows: 8, micro_rows: 2}}\n"
    )
    (tmp_path / "top.yaml").write_text("extends: [base.yaml]\nseed: 2\ntrain: {batch_rows: 4}\n")
    config = load_config(tmp_path / "top.yaml", ["train.batch_rows=32"])
    assert (config.seed, config.train.batch_rows, config.train.micro_rows) == (2, 32, 2)


def test_selection_is_taken_out_of_the_overrides():
    assert parse_selection(["arm=a", "seed=1", "phase=p"], ("arm", "phase")) == (
        {"arm": "a", "phase": "p"},
        ["seed=1"],
    )


WRONG = {
    "unknown key": ("phases.clm.duraton=3tok", "did you mean phases.clm.duration?"),
    "unknown section": ("modle.base=x", "did you mean model?"),
    "no unit": ("phases.clm.duration=3000", "has no unit; write 3000tok"),
    "another unit": ("phases.clm.duration=3ep", "not a duration in tokens"),
    "nothing to do": ("phases.clm.duration=0tok", "must be positive"),
    "not a number": ("data.sequence_length=long", "data.sequence_length"),
    "a value for a section": ("train=3", "train"),
    "no key": ("phases.clm", "key=value"),
    "unknown objective": ("phases.clm.objective=clmm", "did you mean clm?"),
    "unknown schedule": ("phases.clm.schedule.name=warmup_const", "did you mean warmup_constant?"),
    "unknown mixture": ("phases.clm.mixture=domian", "did you mean domain?"),
    "unknown source": ("data.mixtures.domain.abstract=1", "did you mean abstracts?"),
    "unknown phase": ("arms.detour=[pretrain, clm, deca]", "did you mean decay?"),
    "a phase twice": ("arms.detour=[clm, clm]", "twice"),
    "an empty arm": ("arms.detour=[]", "no phases"),
    "mask rate of clm": ("phases.clm.mask_rate=0.3", "no effect"),
    "no mask rate": ("phases.mlm.mask_rate=null", "is not set"),
    "mask rate over 1": ("phases.mlm.mask_rate=30", "between 0 and 1"),
    "warm-up too long": ("phases.clm.schedule.warmup=9Btok", "longer than the phase"),
    "warm-up of a decay": ("phases.decay.schedule.warmup=1tok", "no effect"),
    "peak": ("phases.clm.schedule.peak=0", "not positive"),
    "floor": ("phases.decay.schedule.floor=10", "between 0 and 1"),
    "share": ("data.mixtures.domain.notes=-1", "not positive"),
    "held out": ("data.held_out=3", "fraction"),
    "two tokenizers": ("tokenizer.path=x", "not both"),
    "two models": ("model.base=x", "not both"),
    "interpolation": ("data.dir=${nowhere}/x", "nowhere"),
    "betas": ("optimizer.betas=[0.9, 1.5]", "optimizer.betas"),
    "batch": ("train.batch_rows=0", "not positive"),
    "precision": ("train.precision=bf61", "did you mean bf16?"),
    "moments": ("phases.decay.moments=kept", "did you mean keep?"),
    "on_error": ("data.on_error=skipp", "did you mean skip?"),
    "a source's name": ("data.sources.a/b={path: x}", "letters"),
}


@pytest.mark.parametrize(("override", "expected"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_one_clear_sentence(override, expected):
    with pytest.raises(UserError) as caught:
        load_config(QUICKSTART, [override])
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message


def test_a_value_left_to_the_user_is_asked_for():
    with pytest.raises(UserError, match=r"data\.root is not set; add data\.root="):
        load_config(CONFIGS / "mini.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a: [", "not valid YAML"), ("- 1\n- 2\n", "top level"), ("extends: me.yaml\n", "extends itself")],
)
def test_a_broken_file_is_named(tmp_path, text, expected):
    path = tmp_path / "me.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        load_config(path)
    assert "me.yaml" in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"no config nowhere\.yaml"):
        load_config("nowhere.yaml")
