"""What the documents say is what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clm_detour.cli.main import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_config_reference_is_up_to_date():
    script = runpy.run_path(str(ROOT / "scripts" / "config_reference.py"))
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == script["reference"]()


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
