"""What is taken for a name of the hub."""

from __future__ import annotations

import pytest

from clm_detour.config import load_config
from clm_detour.recipe.recipe import Recipe
from clm_detour.utils.hub import is_hub_id


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("answerdotai/ModernBERT-base", True),
        ("imdb", True),
        ("models_in/hospital-base", False),  # a folder here
        ("~/model", False),
        ("/data/model", False),
        ("a/b/c", False),
    ],
)
def test_a_name_is_the_hubs_unless_it_is_a_path(tmp_path, monkeypatch, name, found):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models_in" / "hospital-base").mkdir(parents=True)
    assert is_hub_id(name) == found


def test_base_and_data_sets_of_a_recipe_are_the_hubs_where_the_process_runs(tmp_path, monkeypatch):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        """
run_dir: run
data:
  sources:
    one: {path: me/texts, format: hub}
    copy: {path: me/copy, format: hub}
    file: {path: me/file.jsonl}
  mixtures: {all: {one: 0.4, copy: 0.4, file: 0.2}}
tokenizer: {path: me/model}
model: {base: me/model}
phases:
  mlm: {objective: mlm, mask_rate: 0.3, mixture: all, duration: 1Mtok, schedule: {name: warmup_constant, peak: 1e-4}}
arms: {twin: [mlm]}
""",
        encoding="utf-8",
    )
    config = load_config(str(recipe))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me" / "copy").mkdir(parents=True)
    assert Recipe(config).hub_names == ["me/model", "me/texts"]
    (tmp_path / "me" / "model").mkdir()
    assert Recipe(config).hub_names == ["me/texts"]
