"""Data at a URL is read through the cache, is never prepared again, and trains the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from clm_detour.config import load_config
from clm_detour.recipe.recipe import Recipe
from clm_detour.run.check import check_recipe
from clm_detour.run.pipeline import prepare_data, run_recipe
from clm_detour.train.phase import train_phase
from clm_detour.utils.errors import UserError


@pytest.fixture
def prepared(tiny_recipe, tmp_path) -> Path:
    """A recipe whose data is prepared in a folder of its own."""
    path = tiny_recipe(tmp_path / "local")
    prepare_data(load_config(path, [f"data.dir={tmp_path}/data"]))
    return path


def trained(recipe: Path, *overrides: str) -> bytes:
    config = load_config(recipe, overrides)
    train_phase(Recipe(config), Recipe(config).phase("detour", "pretrain"))
    return (Path(config.run_dir) / "phases/pretrain/model/model.safetensors").read_bytes()


def test_a_url_trains_the_weights_that_the_folder_trains(prepared, tmp_path):
    remote = [
        f"run_dir={tmp_path}/remote",
        f"data.dir=file://{tmp_path}/data",
        f"data.cache_dir={tmp_path}/cache",
    ]
    config = load_config(prepared, remote)
    check_recipe(Recipe(config), deep=True)
    assert prepare_data(config) == 0
    assert trained(prepared, *remote) == trained(prepared, f"data.dir={tmp_path}/data")
    assert any((tmp_path / "cache").iterdir())


def test_one_source_may_lie_elsewhere(prepared, tmp_path):
    (tmp_path / "data" / "general").rename(tmp_path / "moved")
    config = load_config(prepared, [f"data.dir={tmp_path}/data", f"data.prepared.general={tmp_path}/moved"])
    check_recipe(Recipe(config), deep=False)
    assert prepare_data(config) == 0
    assert not (tmp_path / "data" / "general").exists()
    trained(prepared, f"data.dir={tmp_path}/data", f"data.prepared.general={tmp_path}/moved")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.dir=file:///nowhere"], r"file:///nowhere/general/train is remote: set data\.cache_dir"),
        (["data.dir=file:///nowhere", "data.cache_dir={}/cache"],
         "nowhere/general/train holds no finished shards"),
        (["data.prepared.general={}/nowhere"], "nowhere/train holds no finished shards"),
        (["data.prepared.genral=x"], "did you mean general"),
        (["data.dir=file://{}/data", "data.cache_dir={}/cache", "data.cache_limit=0.001MB"],
         "are in use at one time; raise it"),
        (["data.cache_limit=5"], r"data\.cache_limit: '5' is not a size"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_before_training(prepared, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        check_recipe(Recipe(load_config(prepared, [text.format(tmp_path) for text in overrides])), deep=False)


def test_held_out_rows_that_are_not_there_are_missed_before_training(prepared, tmp_path):
    (tmp_path / "data" / "general" / "held_out").rename(tmp_path / "elsewhere")
    words = [
        f"data.dir=file://{tmp_path}/data",
        f"data.cache_dir={tmp_path}/cache",
        f"run_dir={tmp_path}/run",
    ]
    config = load_config(prepared, words)
    for refuses in (lambda: check_recipe(Recipe(config), deep=False), lambda: run_recipe(config)):
        with pytest.raises(UserError, match="general/held_out holds no finished shards"):
            refuses()
    assert not (tmp_path / "run" / "phases").exists()
