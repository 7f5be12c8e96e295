"""The file for SkyPilot is one that SkyPilot takes, and its commands exist."""

from __future__ import annotations

import re

import pytest
import yaml
from typer.testing import CliRunner

from clm_detour.cli.main import app
from clm_detour.config.shipped import shipped_config, shipped_configs

FILE = shipped_config("cloud/skypilot")


def test_it_is_printed_and_is_no_recipe():
    printed = CliRunner().invoke(app, ["configs", "cloud/skypilot"])
    assert printed.stdout == FILE.read_text()
    assert "cloud/skypilot" not in shipped_configs()


def test_the_verbs_that_it_runs_exist():
    task = yaml.safe_load(FILE.read_text())
    verbs = re.findall(r"clm-detour (\w+)", task["setup"] + task["run"])
    assert verbs == ["doctor", "run"]
    for verb in verbs:
        assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0


def test_skypilot_takes_it():
    sky = pytest.importorskip("sky", reason="SkyPilot is not installed")
    task = sky.Task.from_yaml_config(yaml.safe_load(FILE.read_text()))
    assert task.envs == {"RECIPE": "quickstart"}
