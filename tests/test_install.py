"""The wheel holds all that it needs, and leaves an installed torch as it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
WATCH = """
import os, sys


def watch(event, words):
    name = os.fspath(words[0]) if event == "open" and isinstance(words[0], (str, os.PathLike)) else ""
    if str(name).startswith({checkout!r}) and not str(name).startswith({libraries!r}):
        with open({log!r}, "a") as file:
            print(name, file=file)


sys.addaudithook(watch)
"""
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


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of the commands of a fresh environment with the wheel, and with the libraries of this one.

    The environment writes the names of files of the checkout that it opens to `opened`, beside the folder.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    libraries = sysconfig.get_path("purelib")
    (site / "libraries.pth").write_text(f"{libraries}\n")
    hook = WATCH.format(checkout=f"{ROOT}/", libraries=libraries, log=str(folder / "venv" / "opened"))
    (site / "sitecustomize.py").write_text(hook)
    return python.parent


def test_everything_a_user_starts_with_works_without_the_checkout(installed, tiny_base, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    options = {"cwd": tmp_path, "env": {**environment, "HF_HUB_OFFLINE": "1", "COLUMNS": "80"}}

    def command(*words: object) -> str:
        return run(installed / "clm-detour", *words, **options)

    where = run(installed / "python", "-c", "import clm_detour; print(clm_detour.__file__)", **options)
    assert where.startswith(str(installed.parent))
    small = ("model.config.num_hidden_layers=2", "evaluate.tasks.tasks=[SampleVerdict]")
    assert "paper/cpt-en-large" in command("configs")
    assert "Nothing wrong found" in command("check", "quickstart")
    assert "clm.decay" in command("plan", "paper/cpt-en-large", "+debug")
    assert "runs/quickstart-debug/report.html" in command("run", "quickstart", "+debug", *small)
    texts = [f"Patient {number} was treated with drug {number * 7 % 101}." * 5 for number in range(600)]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps({"note": text}) + "\n" for text in texts))
    assert "clm-detour check mine.yaml" in command("init", "mine.yaml", "docs.jsonl", "--base", tiny_base)
    assert "Nothing wrong found" in command("check", "mine.yaml")
    assert "NCBI-disease" in command("tasks")
    assert not (installed.parent / "opened").exists(), (installed.parent / "opened").read_text()


def test_the_wheel_holds_code_templates_tasks_and_kernels(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    kinds = (".py", ".pyi", ".yaml", ".jinja", ".html", ".css", ".md", ".csv", ".cpp", ".h", ".zst", ".gz")
    expected = {str(p.relative_to(source)) for p in (source / "clm_detour").rglob("*") if p.suffix in kinds}
    assert expected <= names
