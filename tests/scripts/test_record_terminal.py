"""The recorded picture is what the terminal showed, and loads nothing from elsewhere."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_picture_has_the_text_and_the_colors_of_the_screen():
    pyte = pytest.importorskip("pyte", reason="pyte is not installed")
    picture = runpy.run_path(str(ROOT / "scripts" / "record_terminal.py"))["picture"]
    screen = pyte.Screen(80, 44)
    pyte.ByteStream(screen).feed(
        b"what is written over\r\x1b[33mStep 9 of 22\x1b[0m \x1b[1m81.0\x1b[0m\x1b[K\r\n"
    )
    svg = picture(screen, "clm-detour run")
    assert "Step\u00a09\u00a0of\u00a022" in svg
    assert "81.0" in svg
    assert "over" not in svg
    assert "font-weight: bold }" in svg
    assert "url(http" not in svg
    assert "@font-face" not in svg


def test_the_committed_picture_is_small_and_ends_where_a_run_ends():
    svg = (ROOT / "docs" / "images" / "terminal.svg").read_text(encoding="utf-8")
    assert len(svg) < 150_000
    assert "Step\u00a022\u00a0of\u00a022" in svg
    assert "report.html" in svg
    assert "100%" in svg
