"""The picture of a ledger shows each claim that has a value, on one axis."""

from __future__ import annotations

import csv
import io

import pytest

from clm_detour.figures.figure import Figure
from clm_detour.ledger.figure import claims_plot, csv_of, label_of
from clm_detour.ledger.page import write_ledger_page
from clm_detour.records.ledger import ClaimResult, LedgerRecord, SeedEffect


def claim(
    effects: list[float | None], expect: str = "more", interval=None, verdict="undecided"
) -> ClaimResult:
    known = [effect for effect in effects if effect is not None]
    return ClaimResult(
        claim="It helps.", source="Made up.", statistic="task_score", title="score", unit="points",
        better="higher", of=["detour"], against=["twin"], expect=expect, smallest=0.5, equivalence=0.25,
        refuted_if="it does not.", verdict=verdict, reason="Made up." if known else "No seed has records.",
        seeds={str(seed): SeedEffect(values={"detour": effect}, effect=effect)
               for seed, effect in enumerate(effects)},
        effect=sum(known) / len(known) if known else None, interval=interval,
        deviation=0.1 if len(known) > 1 else None, more_seeds=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def result() -> LedgerRecord:
    return LedgerRecord(
        name="A test", scale="small", hash="0" * 12, hash_at_start="0" * 12, date="2026-11-30", not_tried={},
        claims={
            "it-helps": claim([1.0, 2.0], "more", (0.5, 2.5), "supported"),
            "less-loss": claim([-1.0, -2.0], "less", (-2.5, -0.5), "refuted"),
            "one_seed": claim([1.0, None]),
            "no-seed": claim([None, None]),
        },
        runs=[], commit=None, versions={},
    )  # fmt: skip


def test_effects_are_in_units_of_the_smallest_and_point_right_where_they_are_as_expected(result):
    more, less, *_ = claims_plot(result).effects
    for effect in (more, less):
        assert (effect.value, effect.interval, effect.bound) == (3.0, (1.0, 5.0), 0.5)
        assert [*effect.singles.values()] == [2.0, 4.0]
    assert (more.words, less.words) == ("supported", "refuted")
    assert less.detail == "−1.500 [−2.500, −0.500] points"


def test_a_claim_without_an_interval_has_dots_only_and_one_without_a_value_is_not_drawn(result):
    plot = claims_plot(result)
    assert [effect.name for effect in plot.effects] == ["it helps", "less loss", "one seed"]
    (data,) = Figure("x", plot.draw()).spec["datasets"].values()
    rows = [row for row in csv.DictReader(io.StringIO(data)) if row["name"] == "one seed"]
    assert [(row["single"], row["value"], row["low"]) for row in rows] == [("", "", ""), ("0", "2", "")]
    assert claims_plot(LedgerRecord(**{**vars(result), "claims": {"no": claim([None])}})) is None


def test_the_label_says_what_the_picture_shows(result):
    assert "it helps: +1.500 [+0.500, +2.500] points, smallest effect 0.5, supported" in label_of(result)
    assert "no seed" not in label_of(result)


def test_the_csv_has_every_claim_in_its_own_unit_and_nothing_where_nothing_was_measured(result):
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(csv_of(result)))}
    assert (rows["less-loss"]["effect"], rows["less-loss"]["low"]) == ("-1.5", "-2.5")
    assert rows["less-loss"]["effect of seed 1"] == "-2.0"
    assert (rows["no-seed"]["effect"], rows["no-seed"]["verdict"]) == ("", "undecided")


def test_the_page_has_the_picture_and_lists_what_is_not_in_it(result, tmp_path):
    page = write_ledger_page(result, tmp_path).read_text()
    assert 'aria-label="Effects of the claims' in page
    assert all(f">{name}<" in page for name in ("it helps", "less loss", "one seed"))
    assert '<li><a href="#no-seed">It helps.</a> No seed has records.</li>' in page
    assert (tmp_path / "ledger.csv").read_text() == csv_of(result)
