"""Composer is optional: only training needs it, and says so in one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clm_detour.config.shipped import CONFIGS

QUICKSTART = CONFIGS / "quickstart.yaml"
HIDDEN = "import sys; sys.modules['composer'] = None  # as if it were not installed\n"
IMPORT_ALL = """
import importlib, importlib.util, pkgutil
import clm_detour, clm_detour.train.launch, clm_detour.train.main

names = [module.name for module in pkgutil.walk_packages(clm_detour.__path__, "clm_detour.")]
training = ("clm_detour.train.", *(f"clm_detour.run.verify.{name}" for name in ("memory", "ranks", "speed")))
ray = () if importlib.util.find_spec("ray") else ("clm_detour.utils.parallel.ray_",)
names = [name for name in names if not name.startswith((*training, *ray))]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
COMMAND = """
from clm_detour.__main__ import main
main()
"""


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HIDDEN + code, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_everything_but_training_is_imported_without_it():
    done = run(IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


@pytest.mark.parametrize("verb", ["train", "bench"])
def test_commands_that_train_name_the_command_that_installs_it(verb):
    done = run(COMMAND, verb, str(QUICKSTART), "arm=detour", "phase=clm")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Training needs MosaicML Composer, which is not installed; ")
    assert done.stderr.endswith("run pip install 'clm-detour[train]'.\n")
