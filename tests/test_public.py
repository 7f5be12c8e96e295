"""The public names of the package, how quickly it is imported, and the commands that start it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import clm_detour

HEAVY = ("torch", "transformers", "composer", "numpy", "omegaconf")


def test_every_public_name_is_there_and_listed() -> None:
    for name in clm_detour.__all__:
        assert getattr(clm_detour, name) is not None
        assert name in dir(clm_detour)
    from clm_detour.model.modernbert import ModernBertForPretraining

    assert clm_detour.ModernBertForPretraining is ModernBertForPretraining


def test_type_checkers_see_every_public_name() -> None:
    """They read the stub, not `__getattr__`."""
    tree = ast.parse(Path(clm_detour.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    declared = {
        alias.asname: f"clm_detour.{clm_detour._MODULES[alias.name]}"
        for node in imports
        for alias in node.names
    }
    assert set(clm_detour.__all__) - {"__version__"} == declared.keys()
    assert declared == {alias.name: node.module for node in imports for alias in node.names}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ModernBert'"):
        clm_detour.ModernBert  # noqa: B018
    with pytest.raises(ImportError):
        exec("from clm_detour import ModernBert")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, clm_detour; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "way", [["-m", "clm_detour"], ["-c", "from clm_detour.__main__ import main; main()"]]
)
def test_the_version_is_printed(way: list[str]) -> None:
    done = subprocess.run([sys.executable, *way, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, f"clm-detour {clm_detour.__version__}")


def test_python_m_takes_verbs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clm_detour", "tasks", "nowhere"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: There is no folder nowhere")
