"""What the documents say is what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clm_detour.cli import app
from clm_detour.config import load_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_config_reference_is_up_to_date():
    script = runpy.run_path(str(ROOT / "scripts" / "config_reference.py"))
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == script["reference"]()


def test_the_readmes_recipe_is_valid(tmp_path):
    (recipe,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "mine.yaml").write_text(recipe)
    config = load_config(tmp_path / "mine.yaml", ["train.micro_rows=4"])
    assert list(config.arms) == ["detour", "twin"]


def test_every_verb_that_the_readme_uses_exists():
    verbs = set(re.findall(r"clm-detour (\w+) ", README))
    assert {"run", "check", "export", "prepare"} <= verbs
    for verb in verbs:
        assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name
)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert link.startswith("http") or (page.parent / link).exists(), link
