"""Ctrl-C ends a preparation in several processes, and the same command ends the work."""

from __future__ import annotations

import json
import sys

import pytest
from reading import write

from clm_detour.config import load_config
from clm_detour.data.packing import PackedSource
from clm_detour.run.pipeline import prepare_data
from clm_detour.utils.files import HALF_WRITTEN
from commands import Command

pytestmark = pytest.mark.slow

PREPARE = """
from clm_detour.__main__ import main
from clm_detour.data import groups, prepare

prepare.SMALL_BYTES, groups.LARGE_BYTES = 0, 0  # a small corpus is prepared in several processes
if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("moment", ["processes start", "a part is done"])
def test_ctrl_c_in_a_preparation(tiny_recipe, tmp_path, moment):
    (tmp_path / "program.py").write_text(PREPARE)
    (tmp_path / "corpus").mkdir()
    for file in range(8):
        texts = (f"Patient {number} of hospital {file} was given aspirin. " * 9 for number in range(300))
        write(tmp_path / "corpus" / f"{file}.jsonl", "\n".join(json.dumps({"text": text}) for text in texts))
    recipe, data = str(tiny_recipe(tmp_path / "run")), tmp_path / "data"
    words = [f"data.dir={data}", "data.processes=2", f"data.sources.general.path={tmp_path}/corpus"]
    command = Command(
        [sys.executable, str(tmp_path / "program.py"), "prepare", recipe, *words], tmp_path / "log"
    )
    if moment == "processes start":
        command.wait_until(lambda: command.children() >= 2)
    else:
        command.wait_until(lambda: bool(list(data.glob("general/parts/*/group.json"))))
    command.assert_leaves_at_ctrl_c()
    assert not list(data.rglob(HALF_WRITTEN))
    prepare_data(load_config(recipe, words))
    PackedSource.open(data / "general" / "train", 64).verify()
