"""The page and the cards show what an audit found, and name canaries also without one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clm_detour.config.loading import load_config, save_config
from clm_detour.records.audit import (
    AuditedCanaries,
    AuditedModel,
    AuditRecord,
    AuditSettings,
    MaskResult,
    Membership,
)
from clm_detour.records.data import CARD
from clm_detour.records.store import write
from clm_detour.report.card import write_cards
from clm_detour.report.page import write_page

COPIES = [0, 0, 1, 1, 64, 64]
EXPOSURES = {"pretrain": 1.5, "pretrain.clm": 8.0, "pretrain.clm.decay": 6.25, "pretrain.mlm": 3.0}
CANARIES = "data.canaries={source: notes, each: 2, copies: [1, 64]}"


def audited(id: str, arms: list[str], last_of: list[str]) -> AuditedModel:
    exposure = EXPOSURES.get(id, 2.0)
    result = MaskResult(
        ranks=[1.0] * 6,
        exposures=[1.0, 2.0, 1.0, 2.0, exposure - 0.25, exposure + 0.25],
        member_loss=2.0,
        non_member_loss=2.1,
        membership={
            "none": Membership(auc=0.55, interval=(0.5, 0.6)),
            "base": Membership(auc=0.623, interval=(0.6, 0.65), tpr=0.012, tpr_interval=(0.006, 0.02)),
        },
    )
    read = [0] * 6 if id == "pretrain" else COPIES
    masks: dict[Any, MaskResult] = {"bidirectional": result, "causal": result}
    return AuditedModel(id=id, arms=arms, last_of=last_of, copies_read=read, masks=masks)


def record(canaries: bool = True) -> AuditRecord:
    detour, twin = "pretrain.clm", "pretrain.mlm"
    settings = AuditSettings(
        rows=1000, tokens=256, alternatives=1023, mask_rate=0.15, passes=4, precision="fp32", seed=1
    )
    made = AuditedCanaries(source="notes", copies=COPIES, chance=1.44) if canaries else None
    models = [
        audited("pretrain", ["base", "detour", "twin"], ["base"]),
        audited(detour, ["detour"], []),
        audited(f"{detour}.decay", ["detour"], ["detour"]),
        audited(twin, ["twin"], []),
        audited(f"{twin}.decay", ["twin"], ["twin"]),
    ]
    notes = [] if canaries else ["Exposure was not measured: no canaries."]
    return AuditRecord(settings=settings, canaries=made, base="pretrain", models=models, notes=notes)


@pytest.fixture
def with_canaries(fake_run):
    """A run whose data had canaries."""
    path = fake_run.path / "config.yaml"
    save_config(load_config(path, [CANARIES]), path)
    return fake_run


def page_of(run) -> str:
    return write_page(run.path).read_text(encoding="utf-8")


def card_of(run, arm: str) -> str:
    write_cards(run.path)
    return (run.path / "models" / arm / "README.md").read_text(encoding="utf-8")


def test_the_page_and_the_card_show_exposure_and_membership(with_canaries):
    write(record(), with_canaries.path / "analysis" / "audit.json")
    page = page_of(with_canaries)
    assert "What the models remember" in page
    assert "hold 4 canaries" in page
    assert "detour 100\u202f%" in page
    assert "Exposure before the last phase" in page
    assert "0.623 [0.600, 0.650]" in page
    assert "1.2\u202f% [0.6, 2.0]" in page
    assert (with_canaries.path / "report" / "exposure-of-secrets.csv").is_file()
    assert with_canaries.json("report/numbers.json")["audit"]["canaries"]["source"] == "notes"
    card = card_of(with_canaries, "detour")
    assert "exposure of 6.2 bits (chance 1.4, at most 10.0)" in card
    assert "AUC of 0.62 [0.60, 0.65] against the base" in card


def test_the_card_names_canaries_without_an_audit_where_the_model_read_them(with_canaries):
    card = card_of(with_canaries, "detour")
    assert "Among the documents of notes are 4 made-up sentences" in card
    assert "in 130 copies" in card
    assert "Audit:" not in card
    assert "Canaries" not in card_of(with_canaries, "base")


def test_the_card_names_canaries_of_data_that_another_recipe_prepared(fake_run):
    path = fake_run.path / "data" / "notes" / CARD
    card = json.loads(path.read_text())
    card["made_from"] = {"canaries": {"source": "letters", "each": 2, "copies": [1, 64], "seed": 3}}
    path.write_text(json.dumps(card))
    assert "Among the documents of notes are 4 made-up sentences" in card_of(fake_run, "detour")


def test_an_audit_without_canaries_shows_membership_and_says_what_is_missing(fake_run):
    write(record(canaries=False), fake_run.path / "analysis" / "audit.json")
    page = page_of(fake_run)
    assert "Exposure was not measured: no canaries." in page
    assert "0.623 [0.600, 0.650]" in page
    assert "Exposure at the end" not in page


def test_a_run_without_an_audit_has_no_such_section(whole_page):
    assert "What the models remember" not in whole_page
