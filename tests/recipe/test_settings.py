"""A phase that was started by an older version resumes, and under other settings it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from clm_detour.config import load_config
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.settings import check_unchanged, recipe_settings
from clm_detour.records.run_folder import RunFolder
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import write_json

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def test_a_folder_that_names_no_position_went_on_in_its_data(tmp_path: Path) -> None:
    """The settings of a phase that continues are those that 0.2.0 wrote."""
    words = [
        "phases.again=${phases.decay}",
        "phases.again.position=restart",
        "arms.again=[pretrain, clm, again]",
    ]
    recipe = Recipe(load_config(QUICKSTART, words))
    phases = recipe_settings(recipe.config, recipe.phase("again", "again"))["phases"]
    assert "position" not in phases["clm"]
    assert phases["again"]["position"] == "restart"


def test_a_folder_that_names_no_residual_stream_was_made_with_fp32(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path).phase("pretrain")
    folder.settings.parent.mkdir(parents=True)
    write_json(folder.settings, {"precision": "bf16"})
    check_unchanged(folder, "data", {"precision": "bf16", "residual": "fp32"})
    with pytest.raises(UserError, match=r"train\.residual was fp32, is now bf16"):
        check_unchanged(folder, "data", {"precision": "bf16", "residual": "bf16"})


def test_a_folder_that_names_no_mask_unit_masked_tokens() -> None:
    recipe = Recipe(load_config(QUICKSTART, ["phases.decay.mask_unit=word"]))
    phases = recipe_settings(recipe.config, recipe.phase("detour", "decay"))["phases"]
    assert phases["decay"]["mask_unit"] == "word"
    assert "mask_unit" not in phases["pretrain"]
