"""A phase that was started by an older version resumes, and under other settings it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from clm_detour.recipe.settings import check_unchanged
from clm_detour.records.run_folder import RunFolder
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import write_json


def test_a_folder_that_names_no_residual_stream_was_made_with_fp32(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path).phase("pretrain")
    folder.settings.parent.mkdir(parents=True)
    write_json(folder.settings, {"precision": "bf16"})
    check_unchanged(folder, "data", {"precision": "bf16", "residual": "fp32"})
    with pytest.raises(UserError, match=r"train\.residual was fp32, is now bf16"):
        check_unchanged(folder, "data", {"precision": "bf16", "residual": "bf16"})
