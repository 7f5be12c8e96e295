"""The wheel holds all that it needs, and leaves an installed torch as it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
NEWEST = "2.9.9"  # newer than the one that Composer asks for


def run(*words: object, **options) -> str:
    done = subprocess.run([*map(str, words)], check=True, capture_output=True, text=True, **options)
    return done.stdout or done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder, copy = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "src" / "clm_detour", copy / "src" / "clm_detour")  # builds write into the tree
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, copy)
    return next(folder.glob("clm_detour-*.whl"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """The Python of a fresh environment with a torch that Composer does not allow."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=True)
    file, record = folder / f"torch-{NEWEST}-py3-none-any.whl", f"torch-{NEWEST}.dist-info"
    with zipfile.ZipFile(file, "w") as torch:
        torch.writestr("torch/__init__.py", f"__version__ = '{NEWEST}'\n")
        torch.writestr(f"{record}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {NEWEST}\n")
        torch.writestr(f"{record}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        torch.writestr(f"{record}/RECORD", "")
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-index", file)
    return python


def test_installing_keeps_the_torch_that_is_there(wheel, environment):
    words = ("-m", "pip", "install", "--quiet", "--dry-run", "--report", "-", wheel)
    names = {item["metadata"]["name"].lower() for item in json.loads(run(environment, *words))["install"]}
    assert {"clm-detour", "transformers", "pydantic"} <= names
    assert not names & {"torch", "mosaicml"}


def test_the_installed_wheel_needs_no_checkout(wheel, tmp_path):
    target = tmp_path / "installed"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel)
    code = (
        "import clm_detour; from clm_detour.data.sample import write_sample\n"
        "write_sample('sample', 40); print(clm_detour.__file__)"
    )
    options = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(target)}}
    assert str(target) in run(sys.executable, "-c", code, **options)
    assert len(list((tmp_path / "sample").glob("*.jsonl.gz"))) == 4
    assert "NCBI-disease" in run(sys.executable, "-m", "clm_detour", "tasks", **options)


def test_the_wheel_holds_code_templates_tasks_and_kernels(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    kinds = (".py", ".pyi", ".yaml", ".html", ".css", ".md", ".csv", ".cpp", ".h", ".zst", ".gz")
    expected = {str(p.relative_to(source)) for p in (source / "clm_detour").rglob("*") if p.suffix in kinds}
    assert expected <= names
