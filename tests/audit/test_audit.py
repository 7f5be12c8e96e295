"""An audit finds what a run has memorized, and nothing where there is nothing."""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from clm_detour.__main__ import main
from clm_detour.audit import command
from clm_detour.audit.command import audit_run
from clm_detour.audit.inputs import Inputs
from clm_detour.audit.tables import exposure_table, membership_table, name_of
from clm_detour.cli.audit import plain_table
from clm_detour.config.loading import load_config
from clm_detour.data.canaries import make_canaries
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.audit import MASKS, AuditRecord, AuditSettings
from clm_detour.records.store import read
from clm_detour.run.pipeline import prepare_data
from clm_detour.utils.errors import UserError

from .conftest import train, write_recipe

SETTINGS = {"rows": 60, "alternatives": 127}
CHANCE = 1.4
BASE, DETOUR, TWIN = "pretrain", "pretrain.clm", "pretrain.mlm"
ENDS = [BASE, DETOUR, f"{DETOUR}.decay", TWIN, f"{TWIN}.decay"]


@pytest.fixture(scope="module")
def record(trained) -> AuditRecord:
    return audit_run(trained, **SETTINGS)


def test_the_base_and_every_later_phase_are_measured_once(record):
    assert [model.id for model in record.models] == ENDS
    assert record.base == BASE
    assert record.final("detour").id == f"{DETOUR}.decay"
    assert record.before_last("detour").id == DETOUR
    assert record.before_last("base") is None
    assert [model.reference for model in record.models] == [None, TWIN, f"{TWIN}.decay", None, None]


def test_exposure_is_at_chance_without_copies_and_rises_with_them(record):
    causal = record.exposures(record.before_last("detour"), "causal")
    assert [each.copies for each in causal] == [0, 1, 8, 64]
    means = [each.mean for each in causal]
    assert means[0] < 3.5
    assert means[3] > means[0] + 2
    assert means[3] > 4
    for mask in MASKS:  # the base has read none of the sentences
        found = [each.mean for each in record.exposures(record.models[0], mask)]
        assert abs(statistics.fmean(found) - CHANCE) < 1.6


def test_copies_are_counted_as_they_were_read(record):
    assert record.models[0].copies_read == [0] * 16
    for model in record.models[1:]:
        by_copies = [each.read for each in record.exposures(model, "causal")]
        assert by_copies[0] == 0
        assert by_copies[3] > 4 * by_copies[2] > 16 * by_copies[1] > 0


def test_members_are_told_from_non_members_and_by_the_base_they_are_not(record):
    for model in record.models[1:]:
        found = model.masks["causal"].membership
        assert set(found) == ({"none", "base", "twin"} if model.reference else {"none", "base"})
        assert found["base"].auc > 0.55
        assert found["base"].tpr is None  # it takes 1,000 held-out rows
    found = record.before_last("detour").masks["causal"].membership
    assert found["base"].interval[0] > 0.6
    assert found["twin"].interval[0] > 0.5  # it remembers more than the twin, which read the same rows
    for mask in MASKS:
        low, high = record.models[0].masks[mask].membership["none"].interval
        assert low - 0.1 < 0.5 < high + 0.1


def test_members_are_rows_that_were_read_and_hold_no_canary(trained, record):
    inputs = Inputs(trained, record.settings)
    subject = inputs.models[1][-1]
    sample = inputs.sample(subject)
    read_rows = inputs.readings.of(subject.own)["notes"]
    assert {row.source for row in sample.rows} == {"notes"}
    assert {row.split for row in sample.non_members} == {"held_out"}
    assert len({*sample.members}) == len(sample.members) > 20
    secrets = {ids.tobytes() for ids in canary_ids(trained)}
    for row in sample.members:
        assert read_rows[row.number] > 0
        tokens, lengths = inputs.rows.sources["train"]["notes"].row(row.number)
        pieces = np.split(tokens.astype(np.uint32), np.cumsum(lengths)[:-1])
        assert not any(piece.tobytes() in secrets for piece in pieces)


def canary_ids(recipe: Recipe) -> list[np.ndarray]:
    canaries = make_canaries(recipe.config.data.canaries, recipe.config.data.held_out)
    return recipe.tokenizer.encode_batch([canary.text for canary in canaries])


def test_a_second_audit_measures_nothing(trained, record, monkeypatch):
    monkeypatch.setattr(command, "measure", None)
    assert audit_run(trained, **SETTINGS) == record
    assert read(AuditRecord, trained.folder.audit) == record


def test_the_canaries_are_those_of_the_data_if_the_recipe_was_changed_after_the_run(
    trained, record, monkeypatch
):
    monkeypatch.setattr(command, "measure", None)
    for change in ("data.canaries.each=3", "data.canaries=null", "data.held_out=0.9"):
        changed = Recipe(load_config(trained.folder.config, [change]))
        assert audit_run(changed, **SETTINGS) == record


def test_the_tables_fit_80_columns_with_the_default_canaries_and_cut_no_word(record):
    copies = [number for number in (0, 1, 2, 4, 8, 16, 32, 64) for _ in range(2)]
    wide = replace(record, canaries=replace(record.canaries, copies=copies))
    table, membership = (
        make(wide, partial(name_of, wide), narrow=True) for make in (exposure_table, membership_table)
    )
    for made in (table, membership):
        console = Console(width=80, file=StringIO())
        console.print(plain_table(made))
        said = console.file.getvalue()
        assert max(map(len, said.splitlines())) <= 80
        assert "\u2026" not in said
        assert "bidirectional" in said
        assert "pretrain" in said
    assert "Chance is 1.4" in table.notes[0]


def test_a_killed_audit_goes_on_with_the_models_that_are_missing(trained, record, monkeypatch):
    for id in ENDS[3:]:
        trained.folder.audited(id).unlink()
    measure, done = command.measure, []

    def killed(inputs, subject, *arguments):
        if done:
            raise KeyboardInterrupt
        done.append(subject.id)
        return measure(inputs, subject, *arguments)

    monkeypatch.setattr(command, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        audit_run(trained, **SETTINGS)
    del done[:]
    assert audit_run(trained, **SETTINGS) == record
    assert done == ENDS[4:]


def test_one_arm_is_measured_with_its_references(trained, record, monkeypatch):
    measured = []

    def noted(inputs, subjects, keys):
        measured.extend(each.id for each in subjects)

    monkeypatch.setattr(command, "measure_all", noted)
    audit_run(trained, **{**SETTINGS, "alternatives": 3}, arms=["detour"])
    assert measured == ENDS
    del measured[:]
    audit_run(trained, **{**SETTINGS, "alternatives": 3}, arms=["twin"])
    assert measured == [BASE, *ENDS[3:]]
    monkeypatch.undo()
    assert audit_run(trained, **SETTINGS) == record


def test_secrets_are_in_no_file_but_the_tokens_and_not_on_the_console(trained, record, monkeypatch, capfd):
    folder = trained.folder.root
    words = ["clm-detour", "audit", str(folder), "--rows", "60", "--alternatives", "127"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    output = "".join(capfd.readouterr())
    assert "Exposure of secrets" in output
    files = [path for path in folder.rglob("*") if path.is_file() and not path.match("tokens-*.bin")]
    assert folder / "report.html" in files
    everything = output + "".join(path.read_bytes().decode("latin-1") for path in files)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "What the models remember" in page
    assert "Exposure at the end" in page
    for canary in make_canaries(trained.config.data.canaries, trained.config.data.held_out):
        for text in (canary.secret, canary.secret.replace(" ", ", "), canary.before):
            assert text not in everything


def test_deduplication_leaves_one_copy_to_read_and_exposure_does_not_rise(tiny_data, tmp_path):
    path = write_recipe(tmp_path / "run", tiny_data)
    arms = "  detour: [pretrain, clm, decay]\n  twin: [pretrain, mlm, decay]\n"
    path.write_text(path.read_text().replace(arms, "  detour: [pretrain, clm]\n"))
    recipe = Recipe(load_config(path, ["data.sources.notes.deduplicate=true", "data.canaries.each=16"]))
    prepare_data(recipe)
    train(recipe)
    record = audit_run(recipe, **SETTINGS)
    detour = record.final("detour")

    inserted = [
        canary.copies for canary in make_canaries(recipe.config.data.canaries, recipe.config.data.held_out)
    ]
    there = [n for n, copies in zip(detour.copies_read, inserted, strict=True) if copies and n]
    assert len(there) >= 30  # of 48; packing cuts some sentences in two
    assert max(there) - min(there) <= 1  # each is read once in a pass, whatever the number of its copies
    assert not any(n for n, copies in zip(detour.copies_read, inserted, strict=True) if not copies)

    none, once, _, often = (each.mean for each in record.exposures(detour, "causal"))
    assert once > none + 0.5
    assert often < once + 1.5  # without deduplication the difference is more than 4


def test_data_without_canaries_gives_membership_alone(trained, record):
    config = load_config(trained.folder.config, read_instead("general"))
    inputs = Inputs(Recipe(config), record.settings)
    assert inputs.canaries == inputs.sentences == []
    assert inputs.copies_read(inputs.models[1][-1]) == []


def read_instead(mixture: str) -> list[str]:
    return [f"phases.{phase}.mixture={mixture}" for phase in ("clm", "mlm", "decay")]


def test_canaries_of_data_that_another_recipe_prepared_are_found(trained, record, tmp_path):
    folder = trained.folder.root
    changes = ["data.canaries=null", f"data.prepared={{letters: {folder}/data/notes}}", f"run_dir={tmp_path}"]
    changes += [
        "data.sources.letters={path: none}",
        "data.mixtures.other={letters: 1.0}",
        "data.held_out=0.5",
    ]
    changes += read_instead("other")
    inputs = Inputs(Recipe(load_config(trained.folder.config, changes)), record.settings)
    assert inputs.canary_settings.source == "letters"
    assert inputs.canaries == Inputs(trained, record.settings).canaries
    copies = inputs.copies_read(inputs.models[1][-1])
    assert [sum(copies[first : first + 4]) > 0 for first in (0, 4, 8, 12)] == [False, True, True, True]


def settings_of(recipe: Recipe) -> AuditSettings:
    return AuditSettings(
        rows=10,
        tokens=64,
        alternatives=3,
        mask_rate=0.15,
        passes=1,
        precision="fp32",
        seed=recipe.config.seed,
    )


def test_mistakes_are_told_in_a_sentence(trained, tiny_data, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="arm"):
        audit_run(trained, arms=["detuor"])
    (tmp_path / "empty").mkdir()
    assert refusal(monkeypatch, capsys, tmp_path / "empty") == (
        f"{tmp_path}/empty holds no config.yaml; give the run_dir of a recipe, or the recipe."
    )
    assert refusal(monkeypatch, capsys, tmp_path / "nowhere").startswith(
        f"There is neither a run nor a recipe {tmp_path}/nowhere;"
    )
    untrained = write_recipe(tmp_path / "run", tiny_data)
    assert refusal(monkeypatch, capsys, untrained) == (
        f"{tmp_path}/run holds no trained model; run the recipe first: clm-detour run."
    )
    record = trained.folder.phase("pretrain.mlm.decay").record
    kept = record.read_bytes()
    record.unlink()
    try:
        with pytest.raises(UserError, match=r"pretrain\.mlm\.decay has not finished"):
            audit_run(trained, **SETTINGS)
        alone = audit_run(trained, **SETTINGS, arms=["detour"])
        assert [model.id for model in alone.models] == ENDS[:4]
        assert alone.final("detour").reference is None
        missing = f"{TWIN}.decay was not measured"
        assert f"{DETOUR}.decay was not compared with its twin: {missing}." in alone.notes
    finally:
        record.write_bytes(kept)


def refusal(monkeypatch, capsys, run: Path) -> str:
    monkeypatch.setattr(sys, "argv", ["clm-detour", "audit", str(run)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    return capsys.readouterr().err.replace("\n", " ").strip().removeprefix("Error: ")
