"""The page in a browser: nothing is wider than the screen, nothing is fetched, and the charts answer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Tab, browser, chromium

from clm_detour.report.load import load_run
from clm_detour.report.page import page_text

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="there is no Chromium on this machine"),
]
WIDTHS = (1280, 390)
SEE_ALL = """(async () => {
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
  for (const chart of document.querySelectorAll(".chart")) {
    chart.scrollIntoView();
    for (let i = 0; i < 600 && !chart.matches(".embedded"); i++) await new Promise((r) => setTimeout(r, 50));
  }
  return [...document.querySelectorAll(".chart")].filter((each) => !each.querySelector(".live svg")).length;
})()"""
TOO_WIDE = """[...document.body.querySelectorAll("*")]
  .filter((each) => !each.parentElement.closest(".scroll, nav, .chips, pre, svg, .unseen"))
  .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
  .map((each) => each.outerHTML.slice(0, 120))"""
LIVE = """document.querySelector('.chart[data-name="tasks"] .live')"""
DOTS = f"{LIVE}.querySelectorAll('.mark-symbol.role-mark path').length"
FIRST_COLUMN = """[...document.querySelectorAll('table[aria-label="Loss"] tbody th')]
  .map((each) => each.textContent)"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A browser for all tests of this file."""
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(original: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a whole run, of one that has pretrained only, and of one that was not evaluated."""
    folder, pages = tmp_path_factory.mktemp("pages"), {}
    left_out = {
        "whole": (),
        "pretrained": ("models", "evaluation", "analysis", *(f"phases/pretrain.{n}" for n in REST)),
        "not evaluated": ("evaluation", "analysis"),
    }
    for name, parts in left_out.items():
        run = shutil.copytree(original, folder / name / "made-up")
        for part in parts:
            shutil.rmtree(run / part)
        pages[name] = run / "report.html"
        pages[name].write_text(page_text(load_run(run)), encoding="utf-8")
    return pages


REST = ("clm", "clm.decay", "mlm", "mlm.decay")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["whole", "pretrained", "not evaluated"])
def test_nothing_is_wider_than_the_screen_or_fetched_or_an_error(tab, pages, name, width):
    tab.open(pages[name], width)
    assert tab.run(SEE_ALL) == 0, "charts that are not interactive"
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run(TOO_WIDE) == []
    assert tab.problems == []
    assert tab.fetched == [pages[name].as_uri()]


def test_the_verdict_of_a_whole_run_is_on_the_first_screen(tab, pages):
    tab.open(pages["whole"], 1280, 800)
    for place in (".facts", "h1", ".chips", ".cards", ".caveat", '.chart[data-name="tasks"]'):
        assert tab.run(f"document.querySelector('{place}').getBoundingClientRect().bottom") <= 800, place


def test_a_chip_hides_its_arm_and_shows_it_again(tab, pages):
    tab.open(pages["whole"], 1280)
    tab.run(SEE_ALL)
    press = """(async () => {
      const chip = document.querySelector('button[data-arm="twin"]');
      chip.click();
      await new Promise((r) => setTimeout(r, 1500));
      return chip.getAttribute("aria-pressed");
    })()"""
    before = tab.run(DOTS)
    assert before > 0
    assert tab.run(press) == "false"
    assert 0 < tab.run(DOTS) < before
    assert tab.run(press) == "true"
    assert tab.run(DOTS) == before


def test_a_click_on_a_heading_sorts_its_table(tab, pages):
    tab.open(pages["whole"], 1280)
    click = """(() => {
      const heading = document.querySelectorAll('table[aria-label="Loss"] thead th')[1];
      heading.querySelector("button").click();
      return heading.getAttribute("aria-sort");
    })()"""
    assert tab.run(click) == "descending"
    assert tab.run(FIRST_COLUMN) == ["base", "detour", "twin", "detour − twin", "masked tokens"]
    assert tab.run(click) == "ascending"
    assert tab.run(FIRST_COLUMN) == ["twin", "detour", "base", "detour − twin", "masked tokens"]


def test_folds_are_open_in_print_and_where_a_link_leads(tab, pages, tmp_path):
    tab.open(pages["whole"], 1280)
    closed = "document.querySelectorAll('details:not([open])').length"
    folded = tab.run(closed)
    assert folded > 5
    tab.run(f"addEventListener('beforeprint', () => {{ window.left = {closed}; }})")
    tab.pdf(tmp_path / "page.pdf")
    assert tab.run("window.left") == 0
    assert tab.run(closed) == folded
    tab.run("document.querySelector('nav a[href=\"#costs\"]').click()")
    tab.run("new Promise((r) => setTimeout(r, 300))")
    assert tab.run("document.getElementById('costs').closest('details').open") is True


def test_without_javascript_the_drawings_stay(tab, pages):
    tab.open(pages["whole"], 1280, javascript=False)
    shown = """[...document.querySelectorAll(".chart")]
      .map((each) => each.querySelector("svg.static").getBoundingClientRect().height > 50)"""
    assert set(tab.run(shown)) == {True}
