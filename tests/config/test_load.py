"""A recipe is read, merged and checked; what is wrong with it is said in one sentence."""

from __future__ import annotations

import pytest

from clm_detour.config import load_config, parse_selection
from clm_detour.config.loading import save_config
from clm_detour.config.shipped import CONFIGS
from clm_detour.utils.errors import UserError

QUICKSTART = CONFIGS / "quickstart.yaml"
SHIPPED = [
    path
    for path in sorted(CONFIGS.rglob("*.yaml"))
    if not {"base", "cloud", "eval", "ledgers"} & set(path.relative_to(CONFIGS).parts)
]


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


def test_a_value_can_refer_to_a_key_that_the_file_leaves_out():
    overrides = [
        "train.log_every=${train.checkpoints_kept}",
        "evaluate.mask_rate=${phases.clm.schedule.floor}",
    ]
    config = load_config(QUICKSTART, overrides)
    assert (config.train.log_every, config.evaluate.mask_rate) == (2, 0.1)


def test_a_saved_config_loads_with_the_same_values(tmp_path):
    config = load_config(
        QUICKSTART, ["phases.clm.freeze={layers: 1}", "evaluate.tasks={tasks: [HoC], seeds: [1]}"]
    )
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_selection_is_taken_out_of_the_overrides():
    assert parse_selection(["arm=a", "seed=1", "phase=p"], ("arm", "phase")) == (
        {"arm": "a", "phase": "p"},
        ["seed=1"],
    )


def test_a_value_left_to_the_user_is_asked_for():
    with pytest.raises(UserError, match=r"data\.root is not set; add data\.root="):
        load_config(CONFIGS / "mini.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "not valid YAML"),
        ("a: ${b\n", "not valid YAML"),
        ("extends: 3\n", "extends names configs"),
        ("extends: [[x]]\n", "extends names configs"),
        ("- 1\n- 2\n", "top level"),
        ("extends: me.yaml\n", "extends itself"),
    ],
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
