"""The section on general text shows what each arm forgot."""

from __future__ import annotations

from clm_detour.report.card import write_cards
from clm_detour.report.page import write_page

LOSSES = {"base": 4.5, "detour": 5.0, "twin": 4.75}


def with_general(run, predicted: int = 100) -> None:
    """Add scores on general text to a run."""

    def change(record):
        scores = {
            name: {"loss": loss, "accuracy": 0.2, "predicted": predicted} for name, loss in LOSSES.items()
        }
        phases = dict.fromkeys(record["phases"], scores["detour"])
        return {**record, "general": {"source": "general", "models": scores, "phases": phases}}

    run.edit("evaluation/held_out.json", change)


def test_the_page_and_the_card_show_the_change_from_the_base(fake_run):
    with_general(fake_run)
    page = write_page(fake_run.path).read_text(encoding="utf-8")
    assert "Its change from the base is +0.500 for detour and +0.250 for twin." in page
    assert "Loss on general text at the ends of the phases" in page
    numbers = fake_run.json("report/numbers.json")["held_out"]["general"]
    assert numbers["models"]["twin"]["loss"] == LOSSES["twin"]
    write_cards(fake_run.path)
    card = (fake_run.path / "models" / "detour" / "README.md").read_text(encoding="utf-8")
    assert "5.000, against 4.500 of the model it started from (+0.500)." in card


def test_a_source_without_held_out_text_shows_no_number(fake_run):
    with_general(fake_run, predicted=0)
    page = write_page(fake_run.path).read_text(encoding="utf-8")
    assert "There is no held-out text of general, so nothing was measured." in page
    assert "Its change from the base" not in page


def test_a_run_without_general_text_has_no_such_section(whole_page):
    assert "General text" not in whole_page
