"""Checkpoints: sealed, pickle-free, and a resumed phase is the undisturbed one, at any position."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from clm_detour.config.schema import Config
from clm_detour.data.loader import RowStream
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.recipe import Recipe
from clm_detour.train.checkpoints import SEAL, checksums, clear_leftovers, newest_undamaged
from clm_detour.train.phase import train_phase


def phase_folder(config: Config) -> Path:
    return Recipe(config).folder.phase("pretrain").root


def model_file(config: Config) -> Path:
    return phase_folder(config) / "model" / "model.safetensors"


def weights_of(config: Config) -> bytes:
    return model_file(config).read_bytes()


@pytest.fixture
def stopped(prepared, stop_after, monkeypatch):
    """A phase of twelve steps, stopped in the tenth: checkpoints after steps 4 and 8."""
    config = prepared("stopped")
    run = Recipe(config).phase("base", "pretrain")
    stop_after(10)
    with pytest.raises(KeyboardInterrupt):
        train_phase(Recipe(config), run)
    monkeypatch.undo()
    return config, run


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_a_model_that_opens(stopped):
    config, _ = stopped
    folder = phase_folder(config) / "checkpoints" / "step-00000008"
    ModernBertForPretraining.from_pretrained(folder)
    assert {"exp_avg", "exp_avg_sq", "step"} == {
        name.split("/")[0] for name in load_file(folder / "optimizer.safetensors")
    }
    assert checksums(folder) == json.loads((folder / SEAL).read_text())


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", SEAL])
def test_a_flipped_byte_makes_the_run_go_on_at_the_one_before_with_the_same_bits(
    stopped, prepared, file, capsys
):
    config, run = stopped
    whole = prepared("whole")
    train_phase(Recipe(whole), run)
    damaged = phase_folder(config) / "checkpoints" / "step-00000008" / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    capsys.readouterr()
    train_phase(Recipe(config), run)
    said = capsys.readouterr().err
    assert "step-00000008: it is damaged" in said.replace("\n", "")
    assert "step 4 of 12" in said
    assert weights_of(config) == weights_of(whole)


def test_what_a_killed_process_left_half_written_does_not_count_and_is_cleared(stopped):
    folder = phase_folder(stopped[0]) / "checkpoints"
    shutil.copytree(folder / "step-00000008", folder / ".step-00000010.tmp77")
    shutil.copytree(folder / "step-00000008", folder / "step-00000011")
    (folder / "step-00000011" / SEAL).unlink()
    assert newest_undamaged(folder).folder == folder / "step-00000008"
    clear_leftovers(folder.parent)
    assert names(folder) == ["step-00000004", "step-00000008"]


def test_what_a_killed_process_was_about_to_replace_is_there_again(stopped):
    folder = phase_folder(stopped[0]) / "checkpoints"
    whole = checksums(folder / "step-00000008")
    (folder / "step-00000008").rename(folder / ".step-00000008.old")
    shutil.copytree(folder / "step-00000004", folder / ".step-00000004.old")
    (folder / ".step-00000008.tmp77").mkdir()
    clear_leftovers(folder.parent)
    assert names(folder) == ["step-00000004", "step-00000008"]
    assert newest_undamaged(folder).folder == folder / "step-00000008"
    assert checksums(folder / "step-00000008") == whole


def test_a_damaged_later_one_does_not_push_out_a_good_one(stopped, stop_after):
    config, run = stopped
    config.train.checkpoint_every, config.train.checkpoints_kept = "1ktok", 1
    folder = phase_folder(config) / "checkpoints"
    (folder / "step-00000008" / "state.json").write_text("{}")
    stop_after(7)
    with pytest.raises(KeyboardInterrupt):
        train_phase(Recipe(config), run)
    assert newest_undamaged(folder).folder == folder / "step-00000006"


def test_only_the_last_are_kept(prepared, stop_after):
    config = prepared("kept", "train.checkpoint_every=1ktok", "train.checkpoints_kept=3")
    stop_after(11)
    with pytest.raises(KeyboardInterrupt):
        train_phase(Recipe(config), Recipe(config).phase("base", "pretrain"))
    kept = names(phase_folder(config) / "checkpoints")
    assert kept == ["step-00000006", "step-00000008", "step-00000010"]


def test_resuming_at_ten_billion_tokens_reads_no_row_that_is_not_trained_on(
    stopped, prepared, stop_after, monkeypatch
):
    config = prepared("long", "phases.pretrain.duration=20Btok")
    long = Recipe(config).phase("base", "pretrain")
    checkpoint = phase_folder(config) / "checkpoints" / "step-19531250"
    shutil.copytree(phase_folder(stopped[0]) / "checkpoints" / "step-00000008", checkpoint)
    rows = 19_531_250 * 8
    state = {"step": 19_531_250, "rows": rows, "tokens": rows * 64, "seconds": 1e6, "skipped": 0}
    assert state["tokens"] == 10_000_000_000
    (checkpoint / "state.json").write_text(json.dumps(state))
    (checkpoint / SEAL).write_text(json.dumps(checksums(checkpoint)))
    read = []
    example = RowStream.example
    monkeypatch.setattr(
        RowStream, "example", lambda self, position: read.append(position) or example(self, position)
    )
    stop_after(19_531_250 + 2)
    with pytest.raises(KeyboardInterrupt):
        train_phase(Recipe(config), long)
    assert read == list(range(rows, rows + 2 * 8))


def test_dropout_after_attention_is_the_same_after_a_resume_and_with_other_micro_batches(
    prepared, stop_after, monkeypatch
):
    dropout = "model.attention_output_dropout=0.1"
    whole, parts = prepared("whole", dropout), prepared("parts", dropout)
    run = Recipe(whole).phase("base", "pretrain")
    train_phase(Recipe(whole), run)
    stop_after(7)
    with pytest.raises(KeyboardInterrupt):
        train_phase(Recipe(parts), run)
    monkeypatch.undo()
    train_phase(Recipe(parts), run)
    assert weights_of(parts) == weights_of(whole)
    others = prepared("others", dropout, "train.micro_rows=1"), prepared("without")
    for config in others:
        train_phase(Recipe(config), run)
    (small, without), found = (
        (load_file(model_file(config)) for config in others),
        load_file(model_file(whole)),
    )
    largest = max(float((small[name] - found[name]).abs().max()) for name in found)
    assert largest < 1e-4, "rounding alone"
    assert max(float((without[name] - found[name]).abs().max()) for name in found) > 10 * largest
