"""Copied records prove a result without weights, texts and places of the machine."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from made_up_study import ARMS, SEEDS, make_study, run_dir

from clm_detour.records.analysis import NetworkComparison
from clm_detour.records.ledger import LedgerRecord
from clm_detour.records.needles import NeedlesRecord
from clm_detour.records.run_folder import RunFolder
from clm_detour.records.store import read

SCRIPT = Path(__file__).parents[2] / "scripts" / "study_records.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def runs(tmp_path) -> Path:
    return make_study(tmp_path / "runs")


def copy(script, runs: Path) -> Path:
    """Copy the records, and return their folder."""
    folder = runs.parent / "records"
    script["write_records"](script["records_of"](runs), folder)
    return folder


def change(path: Path, **values: object) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_same_programs_read_the_copies(script, runs):
    folder = copy(script, runs)
    assert read(LedgerRecord, folder / "ledger.json").runs[0].folder == "main/seed-17"
    for seed in SEEDS:
        run = RunFolder(folder / "main" / f"seed-{seed}")
        assert read(NetworkComparison, run.comparison).models["a"].path == "models/detour"
        assert read(NeedlesRecord, run.analysis / "needles.json").models == [f"models/{arm}" for arm in ARMS]
        assert {path.name for path in (run.root / "phases").iterdir()} == {
            id for ids in ARMS.values() for id in ids
        }
        assert json.loads((run.tasks / "twin" / "GAD" / "42.json").read_text())["path"] == "models/twin"


def test_weights_texts_and_configs_stay_behind(script, runs):
    folder = copy(script, runs)
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "ledger.json", "ledger.started.json", "arms.json", "environment.json", "steps.json", "phase.json",
        "metrics.jsonl", "held_out.json", "summary.json", "42.json", "compare.json", "needles.json",
        "audit.json",
    }  # fmt: skip
    texts = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert not any("words of a document" in text or "/a/place" in text for text in texts)
    assert not any(run_dir(17) in text or str(runs) in text for text in texts)


def test_metrics_are_thinned_and_keep_the_last_whole_line(script, runs):
    path = RunFolder(copy(script, runs) / "main" / "seed-17").phase("clm").metrics
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert 50 <= len(steps) <= 100
    assert steps[-1] == 250
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    "place", ["/home/me/model", "see ../data", "data.root=/mnt/x", "~/model", "C:\\model", "/abs"]
)
def test_a_place_of_the_machine_is_refused_by_name_and_nothing_is_written(script, runs, place):
    change(runs / "main" / "seed-42" / "analysis" / "needles.json", models=[place])
    with pytest.raises(
        SystemExit, match=r"main/seed-42/analysis/needles\.json holds .* a place of this machine"
    ):
        copy(script, runs)
    assert not (runs.parent / "records").exists()


@pytest.mark.parametrize(
    "text", ["https://huggingface.co/x/y", "nats / token", "1/2", "dev/study/base", "a: b"]
)
def test_addresses_fractions_and_paths_in_the_project_are_no_places(script, text):
    script["check_places"]("x.json", json.dumps({"text": text}))


def test_absolute_paths_into_the_run_become_relative(script, runs):
    run = runs / "main" / "seed-17"
    change(run / "environment.json", made=f"{run.resolve()}/models/twin", here=str(run))
    found = json.loads((copy(script, runs) / "main" / "seed-17" / "environment.json").read_text())
    assert (found["made"], found["here"]) == ("models/twin", ".")


def test_a_second_call_renews_and_leaves_what_it_did_not_write(script, runs):
    folder = copy(script, runs)
    (folder / "base").mkdir()
    (runs / "main" / "seed-43" / "analysis" / "audit.json").unlink()
    (runs / "ledger.json").unlink()  # verdicts of an earlier call are not those of these records
    change(runs / "main" / "seed-43" / "environment.json", cores=4)
    copy(script, runs)
    run = folder / "main" / "seed-43"
    assert json.loads((run / "environment.json").read_text())["cores"] == 4
    assert not (run / "analysis" / "audit.json").exists()
    assert sorted(path.name for path in folder.iterdir()) == [
        "base",
        "ledger.started.json",
        "main",
    ]


def test_too_many_records_are_refused(script, runs):
    change(runs / "main" / "seed-17" / "environment.json", much="x" * 2_000_000)
    with pytest.raises(SystemExit, match="more than 2"):
        copy(script, runs)


def test_a_folder_without_runs_is_refused(script, tmp_path):
    with pytest.raises(SystemExit, match="has no run VARIANT/seed-N"):
        script["records_of"](tmp_path)
