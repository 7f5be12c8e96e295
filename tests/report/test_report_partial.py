"""The report of a run that is not all there."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from html import unescape
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_report_page import Parsed, page_and_sheets, table_rows

from clm_detour.config.loading import load_config, save_config
from clm_detour.report.card import write_cards
from clm_detour.report.load import load_run
from clm_detour.report.numbers import numbers
from clm_detour.report.page import page_text, write_page
from clm_detour.utils.errors import UserError

OPTIONAL = ("analysis/trajectory.json", "analysis/weights.json", "analysis/gradients.json", "plan.json")
GARBAGE = (b"", b"{", b"[]", b"3", b"null", b'{"a": [1]}', b'[{"a": null}]', b"\xff\x00")
DAMAGES = ("delete", "cut", *GARBAGE)


def missing(page: str) -> str:
    """The list of what is missing."""
    aside = re.search(r'<aside class="missing".*?</aside>', page, re.DOTALL)
    return unescape(aside[0]) if aside else ""


def page_of(run) -> str:
    return page_text(load_run(run.path))


def test_a_whole_run_misses_nothing(fake_run):
    assert missing(page_of(fake_run)) == ""


def records(folder: Path) -> list[str]:
    """Every file that the page is made from, by its path in the run."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file())


def damage(path: Path, how: str | bytes, share: float = 0.6) -> None:
    """Delete it, cut it off, or put something else into it."""
    if how == "delete":
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))] if how == "cut" else how)


def test_each_file_that_is_absent_is_listed(original, tmp_path):
    for number, name in enumerate(records(original)):
        run = shutil.copytree(original, tmp_path / str(number))
        damage(run / name, "delete")
        listed = " ".join(load_run(run).missing)
        if name in OPTIONAL:
            assert listed == "", name
        else:
            folder = name.rpartition("/")[0]
            assert (folder if folder.startswith("models/") else name) in listed


def test_a_comparison_that_was_left_out_is_told_with_its_reason_and_not_promised(original, tmp_path):
    run = shutil.copytree(original, tmp_path / "run")
    damage(run / "analysis/compare.json", "delete")
    steps = json.loads((run / "steps.json").read_text())
    reason = "There are 9 distinct held-out texts, and a comparison of networks takes 20."
    left_out = {"step": "analysis", "title": "Compare detour and twin", "left_out": reason}
    (run / "steps.json").write_text(json.dumps([*steps, left_out]))
    page = page_text(load_run(run))
    assert f"Comparison of the networks: left out. {reason}" in missing(page)
    assert "has not been written" not in missing(page)
    assert "continues where it stopped" not in page


def test_each_record_that_is_cut_off_is_listed(original, tmp_path):
    for number, name in enumerate(records(original)):
        if name.endswith(".json") and not name.startswith("models/"):
            run = shutil.copytree(original, tmp_path / str(number))
            damage(run / name, "cut")
            (sentence,) = (text for text in load_run(run).missing if name in text)
            assert "not valid JSON" in sentence


@given(data=st.data())
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.slow
def test_a_run_damaged_in_any_way_has_a_page_and_a_list_of_what_is_missing(original, tmp_path, data):
    names = data.draw(st.lists(st.sampled_from(records(original)), min_size=1, max_size=6, unique=True))
    run = shutil.copytree(original, Path(tempfile.mkdtemp(dir=tmp_path)) / "run")
    for name in names:
        damage(run / name, data.draw(st.sampled_from(DAMAGES)), data.draw(st.floats(0, 1)))
    loaded = load_run(run)
    page = page_text(loaded)
    Parsed(page)  # well-formed
    assert page.count("<section") >= 2
    assert not re.search(r"\bnan\b", without_script(page))
    for sentence in loaded.missing:
        assert sentence in missing(page)


@given(how=st.sampled_from(GARBAGE), data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_record_of_any_other_form_is_read_as_far_as_it_can_be(original, tmp_path, how, data):
    name = data.draw(st.sampled_from([name for name in records(original) if not name.startswith("models/")]))
    run = shutil.copytree(original, Path(tempfile.mkdtemp(dir=tmp_path)) / "run")
    damage(run / name, how)
    found = load_run(run)
    assert any(name in sentence for sentence in found.missing) or page_text(found).count("<section") >= 5


def test_only_the_recipe_is_a_page_already(fake_run):
    for path in fake_run.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "config.yaml":
            path.unlink()
    page = page_of(fake_run)
    assert "trains for 600k tokens as a causal language model" in page
    assert "Phase pretrain.mlm.decay: it has not begun." in missing(page)
    assert "No result yet" in page


def test_a_phase_under_way_is_drawn_as_far_as_it_has_come(fake_run):
    folder = fake_run.path / "phases" / "pretrain.clm"
    shutil.rmtree(fake_run.path / "phases" / "pretrain.clm.decay")
    (folder / "phase.json").unlink()
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:40]) + lines[40][:30], encoding="utf-8")
    phase = load_run(fake_run.path).phases["pretrain.clm"]
    assert phase.objective == "clm"
    assert len(phase.curve.loss) == 40
    assert phase.tokens == 40 * 4096
    page = page_of(fake_run)
    assert "phases/pretrain.clm/phase.json has not been written" in missing(page)
    assert "Not every phase of the two arms has ended." in page
    assert re.search(r"Loss over tokens: [^:]*; pretrain\.clm from", page)


def test_a_step_logged_again_after_a_resume_counts_once(fake_run):
    path = fake_run.path / "phases" / "pretrain" / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    again = [line.replace('"loss": ', '"loss": 1') for line in lines[90:]]
    path.write_text("".join(lines[:100] + again), encoding="utf-8")
    curve = load_run(fake_run.path).phases["pretrain"].curve
    assert len(curve.loss) == len(lines)
    assert all(curve.tokens[1:] > curve.tokens[:-1])
    assert curve.loss[89] < 10 <= curve.loss[90]


def test_an_external_base_needs_no_model_folder_and_no_phase(fake_run):
    def strip(id):
        return id.removeprefix("pretrain.")

    def own(ids):
        return [strip(id) for id in ids if id != "pretrain"]

    shutil.rmtree(fake_run.path / "models" / "base")
    for folder in (fake_run.path / "phases").iterdir():
        folder.rename(folder.with_name(strip(folder.name)))
    shutil.rmtree(fake_run.path / "phases" / "pretrain")
    fake_run.edit(
        "arms.json",
        lambda arms: {arm: own(ids) for arm, ids in arms.items() if arm != "base"},
    )
    fake_run.edit(
        "evaluation/held_out.json",
        lambda record: record.update(
            phases={strip(id): scores for id, scores in record["phases"].items() if id != "pretrain"}
        ),
    )
    page = page_of(fake_run)
    assert missing(page) == ""
    assert "Against the base model" in page
    assert "on the same rows in the same order" in page


def test_losses_that_are_not_finite_are_said_so(fake_run):
    fake_run.edit(
        "evaluation/held_out.json",
        lambda record: record["models"]["detour"]["by_source"]["notes"].update(loss=None),
    )
    path = fake_run.path / "phases" / "pretrain.clm" / "metrics.jsonl"
    spoilt = re.sub(r'"loss": [^,]*', '"loss": NaN', path.read_text(encoding="utf-8"))
    path.write_text(spoilt, encoding="utf-8")
    assert "not finite" in page_of(fake_run)


def without_text(score) -> None:
    """As the score of no text is written: null, or 0 by version 0.1.0."""
    score.update(loss=None, accuracy=None, predicted=0)


def without_text_in_0_1_0(score) -> None:
    score.update(loss=0.0, accuracy=0.0, predicted=0)


FORMS = pytest.mark.parametrize("unmeasured", [without_text, without_text_in_0_1_0])


def all_scores(record):
    """The scores of every model and of every phase's end."""
    return [*record["models"].values(), *record["phases"].values()]


@FORMS
def test_a_source_without_held_out_text_has_a_dash_and_an_empty_cell_for_a_score(fake_run, unmeasured):
    def change(record):
        for scores in all_scores(record):
            unmeasured(scores["by_source"]["notes"])

    fake_run.edit("evaluation/held_out.json", change)
    page, sheets = page_and_sheets(fake_run)
    for title in ("Loss", "Accuracy"):
        head, *rows = table_rows(page, title)
        shown = {row[0]: row[head.index("notes")] for row in rows}
        assert {name: shown[name] for name in ("base", "detour", "twin", "detour − twin")} == dict.fromkeys(
            ("base", "detour", "twin", "detour − twin"), "–"
        )
        assert shown.get("masked tokens", "0") == "0"
        written = {row["notes"] for row in sheets[title.lower()] if row["Model"] != "masked tokens"}
        assert written == {""}
    assert "There is no held-out text of notes." in page
    assert "No text of notes was held out of training" in page
    assert "lower loss on general and notes" not in page
    (drawing,) = re.findall(r'<svg[^>]*aria-label="Held-out loss of .*?</svg>', page, re.DOTALL)
    assert ">instructions<" in drawing
    assert ">notes<" not in drawing
    assert numbers(load_run(fake_run.path))["held_out"]["models"]["detour"]["by_source"]["notes"] is None


@FORMS
def test_a_run_without_any_held_out_text_has_no_held_out_score_anywhere(fake_run, unmeasured):
    def change(record):
        for scores in all_scores(record):
            unmeasured(scores)
            for score in scores["by_source"].values():
                unmeasured(score)

    fake_run.edit("evaluation/held_out.json", change)
    page = page_of(fake_run)
    Parsed(page)
    assert "<h1>Held-out loss: not measured, since there is no held-out text. Tasks: " in page
    assert "There is no held-out text, so nothing was measured." in page
    assert missing(page) == ""
    for title in ("Loss", "Accuracy", "Ends of the phases", "Held-out masked language modeling"):
        assert f'<table aria-label="{title}">' not in page
    models = numbers(load_run(fake_run.path))["held_out"]["models"]
    assert {scores["total"] for scores in models.values()} == {None}
    for path in write_cards(fake_run.path):
        card = ModelCard.load(path)
        assert "held-out-text" not in {result.dataset_type for result in card.data.eval_results}
        assert "loss (nats)" not in str(card)
        assert "No text was held out of training, so no held-out loss was measured" in str(card)


def test_a_loss_that_is_not_finite_is_no_missing_text(fake_run):
    fake_run.edit("evaluation/held_out.json", lambda record: record["models"]["detour"].update(loss=None))
    page = page_of(fake_run)
    assert "<h1>Held-out loss: not finite." in page
    assert "no held-out text" not in page.lower()


def watch(run, *losses) -> None:
    """Held-out losses on the way of a phase: (loss, predicted) of both kinds."""
    lines = [
        {
            "step": i,
            "tokens": 4096 * i,
            **{kind: {"loss": loss, "predicted": predicted} for kind in ("mlm", "clm")},
        }
        for i, (loss, predicted) in enumerate(losses)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.path / "phases" / "pretrain.clm" / "held_out.jsonl").write_text(text, encoding="utf-8")


def test_a_held_out_curve_has_no_point_where_nothing_was_predicted(fake_run):
    watch(fake_run, (0.0, 0), (None, 0))
    assert load_run(fake_run.path).phases["pretrain.clm"].watched is None
    watch(fake_run, (5.0, 9), (0.0, 0), (None, 9), (4.0, 9))
    watched = load_run(fake_run.path).phases["pretrain.clm"].watched
    assert watched.tokens == [0, 2 * 4096, 3 * 4096]
    assert (watched.masked[0], watched.masked[2]) == (5.0, 4.0)
    assert math.isnan(watched.masked[1])
    page = page_of(fake_run)
    assert "pretrain.clm from 5 to 4." in page
    assert not re.search(r"\bnan\b", without_script(page))


def test_what_a_split_without_rows_and_a_model_without_guesses_would_show_is_left_out(fake_run):
    fake_run.edit(
        "data/notes/card.json",
        lambda record: record["splits"]["held_out"].update(documents=0, tokens=0, rows=0, fullness=0.0),
    )

    def forget(items):
        for item in items:
            item["models"]["twin"] = []

    fake_run.edit("evaluation/fill_mask.json", forget)
    page = page_of(fake_run)
    assert ["notes", "held out", "0", "0", "0", "–"] in table_rows(page, "Sources")
    assert [row[0] for row in table_rows(page, "Answers found")[1:]] == ["base", "detour"]


def test_an_arm_that_was_not_measured_is_listed(fake_run):
    fake_run.edit("evaluation/held_out.json", lambda record: record["models"].pop("twin") and None)
    page = page_of(fake_run)
    assert "arm twin has not been measured" in missing(page)
    assert "<h1>Held-out loss: not measured. Tasks: " in page


def test_other_arms_than_the_three_have_a_place(fake_run):
    fake_run.edit("arms.json", lambda arms: arms.update(short=["pretrain", "pretrain.clm"]))
    shutil.copytree(fake_run.path / "models" / "twin", fake_run.path / "models" / "short")
    fake_run.edit(
        "evaluation/held_out.json",
        lambda record: record["models"].update(short=record["phases"]["pretrain.clm"]),
    )
    page = page_of(fake_run)
    assert missing(page) == ""
    assert 'class="key other-1"' in page


def test_data_prepared_elsewhere_is_read_there_and_not_missed_at_a_url(fake_run, tmp_path):
    elsewhere = (fake_run.path / "data" / "notes").rename(tmp_path / "kept")
    shutil.rmtree(fake_run.path / "data" / "general")
    prepared = {"notes": str(elsewhere), "general": "s3://bucket/general"}
    config = fake_run.path / "config.yaml"
    save_config(
        load_config(config, [f"data.prepared.{name}={where}" for name, where in prepared.items()]), config
    )
    run = load_run(fake_run.path)
    assert run.missing == []
    assert sorted(run.sources) == ["abstracts", "instructions", "notes"]


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_is_no_run_is_refused_in_one_sentence(tmp_path, there):
    folder = tmp_path / "elsewhere"
    if there:
        folder.mkdir()
        (folder / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="run_dir"):
        write_page(folder)
    assert not (folder / "report.html").exists()


def without_script(page: str) -> str:
    """Return a page without the program that draws its charts."""
    return re.sub(r'<script type="module">.*?</script>', "", page, flags=re.DOTALL)
