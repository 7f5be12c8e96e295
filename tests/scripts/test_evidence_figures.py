"""The figures and tables of docs/evidence.md show what the records hold, and leave out what they do not."""

from __future__ import annotations

import csv
import io
import json
import re
import runpy
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from made_up_study import make_study

from clm_detour.figures.renderers import markdown

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAMES = ("evidence-claims", "evidence-networks", "evidence-secrets")


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPTS / "evidence_figures.py"))


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    """The copied records of a made-up study."""
    copying = runpy.run_path(str(SCRIPTS / "study_records.py"))
    folder = tmp_path_factory.mktemp("study")
    copying["write_records"](copying["records_of"](make_study(folder / "runs")), folder / "records")
    return folder / "records"


@pytest.fixture(scope="module")
def study(script, records):
    return script["read_study"](records)


@pytest.fixture(scope="module")
def drawn(script, study, tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder of all figures, and what is said about them."""
    folder = tmp_path_factory.mktemp("images")
    return folder, script["write_figures"](study, folder)


def rows_of(part) -> list[dict[str, str]]:
    """Return all rows of the data of a part of a figure."""
    data = part.figure.spec["datasets"].values()
    return [row for text in data if isinstance(text, str) for row in csv.DictReader(io.StringIO(text))]


def test_each_figure_is_written_for_light_and_for_dark_paper(drawn):
    folder, said = drawn
    names = [f"{name}{paper}.svg" for name in NAMES for paper in ("", "-dark")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert [line.partition(":")[0] for line in said] == [*NAMES]
    for name in NAMES:
        light, dark = ((folder / f"{name}{paper}.svg").read_text() for paper in ("", "-dark"))
        assert light != dark
        assert re.sub("#[0-9a-f]{6}", "", light) == re.sub("#[0-9a-f]{6}", "", dark)


def test_parts_of_a_figure_stand_below_each_other_with_ids_of_their_own(drawn):
    drawing = (drawn[0] / "evidence-networks.svg").read_text()
    root = ET.fromstring(drawing)
    first, second = root.findall("{http://www.w3.org/2000/svg}svg")
    end = float(second.get("y")) + float(second.get("height"))
    assert float(second.get("y")) > float(first.get("height"))
    assert end == pytest.approx(float(root.get("height")))
    ids = re.findall(r'\bid="([^"]+)"', drawing)
    assert len(ids) == len({*ids})


def test_lines_are_means_over_seeds_and_bands_their_range(script, study):
    (part,) = script["layers"](study)
    (found,) = (row for row in rows_of(part) if row["name"] == "detour against twin" and row["x"] == "1")
    assert [float(found[key]) for key in ("low", "y", "high")] == pytest.approx(
        [0.21, 0.231, 0.252], rel=1e-4
    )
    assert "detour against twin 0.194 and twin against twin 0.043" in part.label


def test_losses_go_from_the_base_over_the_first_phase_to_the_decay(script, study):
    (part,) = script["losses"](study)
    found = [float(row["y"]) for row in rows_of(part) if row["name"] == "detour"]
    assert found == pytest.approx([3.41, 6.41, 2.87])


def test_the_losses_of_unfinished_runs_are_not_called_those_of_the_decay(script, records, tmp_path):
    shutil.copytree(records / "main", tmp_path / "main")
    for path in tmp_path.glob("main/seed-*/evaluation/held_out.json"):
        content = json.loads(path.read_text())
        content["phases"] = {id: found for id, found in content["phases"].items() if "decay" not in id}
        path.write_text(json.dumps(content))
    (part,) = script["losses"](script["read_study"](tmp_path))
    assert part.label == "Loss on held-out text."
    assert {row["x"] for row in rows_of(part)} == {"0", "1"}
    assert '["base", "phase 1", "decay"]' in json.dumps(part.figure.spec).replace('\\"', '"')


def test_exposure_is_drawn_for_each_arm_and_mask_beside_chance(script, study):
    parts = script["secrets"](study)
    for part, at_64 in zip(parts, (1.44 + 0.1 + 1.1 * 8, 1.44 + 0.1 + 1.1 * 4), strict=True):
        found = [float(row["y"]) for row in rows_of(part) if row.get("name") == "detour"]
        assert found[0] < found[-1] == pytest.approx(at_64, rel=1e-4)
        assert {row["name"] for row in rows_of(part) if "x" in row} == {*study.arms}
        assert {row["y"] for row in rows_of(part) if "x" not in row} == {"1.44"}


def test_what_has_no_record_is_left_out_with_a_message(script, records, tmp_path):
    shutil.copytree(records / "main", tmp_path / "some" / "main")
    for name in ("analysis/compare.json", "analysis/audit.json", "evaluation/held_out.json"):
        for path in tmp_path.glob(f"some/main/seed-*/{name}"):
            path.unlink()
    said = script["write_figures"](script["read_study"](tmp_path / "some"), tmp_path / "images")
    assert said == [
        "evidence-claims: claims left out, as no run has ledger.json.",
        "evidence-networks: layers left out, as no run has analysis/compare.json.",
        "evidence-networks: losses left out, as no run has evaluation/held_out.json.",
        "evidence-secrets: secrets left out, as no run has analysis/audit.json with canaries.",
    ]
    assert not (tmp_path / "images").exists()


def test_tables_have_each_verdict_and_each_seed(script, study):
    verdicts = markdown(script["verdict_table"](study.result))
    assert (
        "| The claim better-on-tasks. | undecided (about 24 more seeds) | +0.37 [−0.63, +1.37] |" in verdicts
    )
    assert "| The claim gives-rows-away. | undecided (not measured) | – |" in verdicts
    scores = markdown(script["score_table"](study))
    assert "| Measure | Arm | seed 17 | seed 42 | seed 43 | mean |" in scores
    assert "| masked loss on held-out text (nats) | twin | 2.650 | 2.660 | 2.670 | 2.660 |" in scores
    assert "| GAD (points) | detour | 71.0 | 71.1 | 71.2 | 71.1 |" in scores
    assert "retention" not in scores
    assert "AUC" not in scores


def test_a_folder_without_records_is_refused(script, tmp_path):
    with pytest.raises(SystemExit, match="has no run main/seed-N"):
        script["read_study"](tmp_path)
