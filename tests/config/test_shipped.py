"""A config is found by its path or by the name of a shipped one."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from clm_detour.cli.configs import GROUPS
from clm_detour.cli.main import app
from clm_detour.config import load_config
from clm_detour.config.shipped import find_config, opening, shipped_configs, shipped_files
from clm_detour.utils.errors import UserError

RECIPES = [name for name in shipped_configs() if not name.startswith(("base/", "eval/", "ledgers/"))]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["paper/cpt-en-large", "paper/cpt-en-large.yaml"])
def test_a_shipped_config_is_found_by_name(name, capfd):
    assert load_config(name, ["data.root=x"]).run_dir == "runs/cpt-en-large"
    assert not capfd.readouterr().err


@pytest.mark.parametrize("name", RECIPES)
def test_a_copy_in_another_folder_loads_like_the_original(name, tmp_path, capfd):
    copy = CliRunner().invoke(app, ["configs", name]).stdout
    (tmp_path / "mine.yaml").write_text(copy)
    assert load_config("mine.yaml", ["data.root=x"]) == load_config(name, ["data.root=x"])
    assert not capfd.readouterr().err


def test_a_config_of_the_user_extends_files_beside_it_and_shipped_ones(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/more.yaml").write_text("seed: 3\n")
    (tmp_path / "elsewhere/mine.yaml").write_text("extends: [quickstart, more.yaml]\nrun_dir: runs/mine\n")
    config = load_config("elsewhere/mine.yaml")
    assert (config.seed, config.run_dir, len(config.arms)) == (3, "runs/mine", 4)


def test_an_existing_file_comes_first_and_a_warning_says_so(tmp_path, capfd):
    (tmp_path / "quickstart.yaml").write_text("extends: quickstart\nseed: 5\n")
    assert load_config("quickstart.yaml").seed == 5
    said = capfd.readouterr().err
    assert "Using the file quickstart.yaml; there is also a shipped config quickstart." in said
    assert load_config("quickstart").seed == 17
    assert "Using the shipped config quickstart; write quickstart.yaml" in capfd.readouterr().err


def test_a_folder_named_like_a_shipped_config_is_no_config(tmp_path, capfd):
    (tmp_path / "quickstart").mkdir()
    assert find_config("quickstart") == shipped_configs()["quickstart"]
    assert not capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("quikstart", "quickstart"),
        ("cpt-en-large", "paper/cpt-en-large"),
        ("configs/paper/en-base-10b.yaml", "paper/en-base-10b"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_ones(name, near):
    said = rf"There is no config {re.escape(name)}; did you mean {near}.*`clm-detour configs`"
    with pytest.raises(UserError, match=said):
        load_config(name)
    with pytest.raises(UserError, match=r"There is no config nowhere; `clm-detour configs` lists"):
        load_config("nowhere")


def test_a_wrong_name_in_extends_is_answered_with_the_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: quikstart\n")
    with pytest.raises(UserError, match=r"no config quikstart, which mine\.yaml extends; did you mean quick"):
        load_config("mine.yaml")


def test_the_list_shows_every_config_at_80_columns_in_its_group(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, ["configs"]).stdout
    assert max(map(len, shown.splitlines())) <= 80
    names = {line.split()[0] for line in shown.splitlines() if line.startswith("  ") and line[2] != " "}
    assert names == set(shipped_files())
    for heading in GROUPS.values():
        assert heading in shown
    for file in shipped_files().values():
        assert opening(file), file
