"""What happens beside the steps changes nothing of them, and says what it should."""

from __future__ import annotations

import gc
import json
import os
import signal
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from clm_detour.config import load_config
from clm_detour.config.schema import Config
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.run import Scores
from clm_detour.records.run_folder import PhaseFolder
from clm_detour.train import phase
from clm_detour.train.callbacks import checkpoint
from clm_detour.train.callbacks.gradients import PATIENCE
from clm_detour.train.callbacks.held_out import HeldOutLoss
from clm_detour.train.callbacks.throughput import headline
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.train.loggers import PhaseLog
from clm_detour.train.optim import save_optimizer_state
from clm_detour.train.phase import train_phase
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json_lines
from clm_detour.utils.signals import REQUEUE, Requeue


def folder(config: Config, run: PhaseRun) -> PhaseFolder:
    return Recipe(config).folder.phase(run.id)


def trained(config: Config, arm: str = "base", phase: str = "pretrain") -> PhaseFolder:
    run = Recipe(config).phase(arm, phase)
    train_phase(Recipe(config), run)
    return folder(config, run)


@pytest.fixture
def bad_steps(monkeypatch):
    """A function that makes the losses of some steps, counted from 1, another number."""

    def plant(value: float, *steps: int) -> None:
        original, calls = PretrainingModel.loss, [0]

        def loss(self, outputs, batch):
            calls[0] += 1
            right = original(self, outputs, batch)
            return right * 0 + value if calls[0] in steps else right

        monkeypatch.setattr(PretrainingModel, "loss", loss)

    return plant


def test_watching_it_does_not_change_one_bit(prepared):
    plain = trained(prepared("plain"))
    watched = trained(
        prepared(
            "watched",
            "train.evaluate_every=1ktok",
            "train.export_at=[1ktok,3ktok]",
            "train.checkpoint_every=1ktok",
            "train.loggers={tensorboard: {}}",
            "train.log_every=3",
        )
    )
    assert (plain.model / "model.safetensors").read_bytes() == (
        watched.model / "model.safetensors"
    ).read_bytes()
    assert plain.moments.read_bytes() == watched.moments.read_bytes()


def test_held_out_losses_are_scored_in_each_mode_from_start_to_end(prepared):
    found = trained(prepared("run", "train.evaluate_every=2ktok"), "detour", "pretrain")
    lines = read_json_lines(found.held_out)
    assert [line["step"] for line in lines] == [0, 4, 8, 12]
    assert lines[-1]["mlm"]["loss"] < lines[0]["mlm"]["loss"]
    assert lines[0]["clm"]["predicted"] > 3 * lines[0]["mlm"]["predicted"]  # every token, not 15 %
    assert {"general"} == set(lines[0]["mlm"]["by_source"])


def test_a_held_out_loss_that_was_not_measured_reaches_no_logger(tmp_path):
    def judge(kind, loss, predicted):
        score = Scores(loss=loss, accuracy=None, predicted=predicted)
        return SimpleNamespace(kind=kind, score=lambda network, advance: score)

    logged = {}
    network = SimpleNamespace(device=torch.device("cpu"))
    judges = [judge("mlm", None, 0), judge("clm", 2.5, 7)]
    log = PhaseLog("pretrain", [SimpleNamespace(record=lambda values, tokens: logged.update(values))])
    watch = HeldOutLoss(tmp_path / "held_out.jsonl", network, judges, 1000, bf16=False, log=log)
    clock = SimpleNamespace(batch=SimpleNamespace(value=0), token=SimpleNamespace(value=0))
    watch.fit_start(SimpleNamespace(timestamp=clock), None)
    assert logged == {"held_out/clm/loss": 2.5}
    (line,) = read_json_lines(tmp_path / "held_out.jsonl")
    assert (line["mlm"]["loss"], line["clm"]["loss"]) == (None, 2.5)


def test_held_out_losses_have_one_line_a_step_after_a_restart_before_the_first_checkpoint(
    prepared, stop_after, monkeypatch
):
    config = prepared("run", "train.evaluate_every=2ktok")
    stop_after(1)
    with pytest.raises(KeyboardInterrupt):
        trained(config)
    monkeypatch.undo()
    assert [line["step"] for line in read_json_lines(trained(config).held_out)] == [0, 4, 8, 12]


def test_exports_are_the_weights_of_their_step_and_say_where_they_come_from(prepared):
    config = prepared("run", "train.export_at=[1500tok,6ktok]", "train.checkpoint_every=2ktok")
    found = trained(config)
    assert sorted(path.name for path in found.exports.iterdir()) == ["tokens-1500", "tokens-6000"]
    about = json.loads((found.exports / "tokens-1500" / "clm_detour.json").read_text())
    assert (about["phase"], about["step"], about["tokens"]) == ("pretrain", 3, 1536)
    assert about["config"]["train"]["export_at"] == ["1500tok", "6ktok"]
    assert about["config"]["run_dir"] == Path(config.run_dir).name, "a model that is handed on names folders"
    last = found.exports / "tokens-6000"
    ModernBertForPretraining.from_pretrained(last)
    assert (last / "model.safetensors").read_bytes() == (found.model / "model.safetensors").read_bytes()
    assert json.loads((found.model / "clm_detour.json").read_text())["step"] == 12


@pytest.mark.parametrize(
    ("value", "overrides"), [(float("nan"), []), (float("inf"), []), (99.0, ["train.bad_loss_above=50"])]
)
def test_a_bad_loss_stops_before_the_weights_change_and_names_the_rows(prepared, bad_steps, value, overrides):
    config = prepared("run", *overrides)
    run = Recipe(config).phase("base", "pretrain")
    bad_steps(value, 6)
    with pytest.raises(UserError, match=r"Step 6 \(rows 40\.\.47 of the stream\) has loss .*step-00000005"):
        train_phase(Recipe(config), run)
    kept = folder(config, run).checkpoints / "step-00000005" / "model.safetensors"
    assert all(torch.isfinite(tensor).all() for tensor in load_file(kept).values())


def test_a_bad_step_can_be_left_out_and_is_counted(prepared, bad_steps):
    config = prepared("run", "train.on_bad_loss=skip")
    bad_steps(float("nan"), 3, 6)
    found = trained(config)
    lines = read_json_lines(found.metrics)
    assert [line["loss"] is None for line in lines] == [line["step"] in (3, 6) for line in lines]
    assert [line["skipped_steps"] for line in lines] == [0, 0, 1, 1, 1] + [2] * 7
    record = json.loads(found.record.read_text())
    assert record["skipped_steps"] == 2
    assert record["hub"] == []  # nothing of the recipe is the hub's
    assert (record["on_bad_loss"], record["bad_loss_above"]) == ("skip", None)
    assert {float(step) for name, step in load_file(found.moments).items() if name.startswith("step/")} == {
        10.0
    }


def test_bad_steps_without_end_stop_it(prepared, bad_steps):
    bad_steps(float("nan"), *range(2, 99))
    with pytest.raises(UserError, match=f"{PATIENCE} steps in a row were skipped"):
        trained(prepared("run", "train.on_bad_loss=skip", "phases.pretrain.duration=12ktok"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_asked_to_leave_it_finishes_the_step_and_goes_on_later_with_the_same_bits(
    prepared, monkeypatch, number
):
    config, whole = prepared("asked"), prepared("whole")
    step = torch.optim.AdamW.step
    steps = []

    def signalled(self, *args, **kwargs):
        steps.append(1)
        if len(steps) == 5:
            os.kill(os.getpid(), number)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", signalled)
    before = signal.getsignal(number)
    with pytest.raises(Requeue) as left:
        trained(config)
    monkeypatch.undo()
    assert signal.getsignal(number) == before
    assert left.value.code == REQUEUE == 75
    checkpoints = folder(config, Recipe(config).phase("base", "pretrain")).checkpoints
    assert (checkpoints / "step-00000005" / "seal.json").exists()
    assert (trained(config).model / "model.safetensors").read_bytes() == (
        trained(whole).model / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("written", [4, 5])
def test_asked_to_leave_it_writes_no_checkpoint_twice(prepared, monkeypatch, written):
    config = prepared("asked")  # has checkpoints after steps 4 and 8
    step, saved, steps = torch.optim.AdamW.step, [], []

    def signalled(self, *args, **kwargs):
        steps.append(1)
        if len(steps) == written:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    def save(optimizer, network, path):
        saved.append(path.parent.name)
        save_optimizer_state(optimizer, network, path)

    monkeypatch.setattr(torch.optim.AdamW, "step", signalled)
    monkeypatch.setattr(checkpoint, "save_optimizer_state", save)
    with pytest.raises(Requeue, match=f"step-0000000{written} is written"):
        trained(config)
    assert len(saved) == written - 3
    assert len({name.partition(".tmp")[0] for name in saved}) == len(saved)


def test_a_checkpoint_that_a_phase_went_on_from_is_not_written_again(
    prepared, bad_steps, stop_after, monkeypatch
):
    config = prepared("run")
    checkpoints = folder(config, Recipe(config).phase("base", "pretrain")).checkpoints
    with monkeypatch.context():
        stop_after(5)
        with pytest.raises(KeyboardInterrupt):
            trained(config)
    monkeypatch.undo()
    before = (checkpoints / "step-00000004" / "seal.json").stat()
    bad_steps(float("nan"), 1)
    with pytest.raises(UserError, match="step-00000004"):
        trained(config)
    assert (checkpoints / "step-00000004" / "seal.json").stat().st_ino == before.st_ino


def test_a_finished_phase_and_a_failed_one_leave_no_model_in_memory(prepared, monkeypatch, bad_steps):
    config, made = prepared("run"), []
    make_network = phase.make_network

    def make(setup):
        network = make_network(setup)
        made.append(weakref.ref(network))
        return network

    monkeypatch.setattr(phase, "make_network", make)
    trained(config, "detour", "pretrain")
    trained(config, "detour", "clm")
    bad_steps(float("nan"), 1)
    with pytest.raises(UserError):
        trained(config, "detour", "decay")
    gc.collect()
    assert [network() for network in made] == [None, None, None]


def test_moments_and_weights_are_bit_equal_across_the_boundary(prepared, capsys):
    config = prepared("run", "phases.clm.moments=keep")
    before = trained(config, "detour", "pretrain")
    seen = {}
    make = phase.make_trainer

    def look(setup, model, optimizer, *rest):
        for name, parameter in model.network.named_parameters():
            seen[f"weight/{name}"] = parameter.detach().clone()
            for kind, tensor in optimizer.state[parameter].items():
                seen[f"{kind}/{name}"] = tensor.clone()
        return make(setup, model, optimizer, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phase, "make_trainer", look)
        trained(config, "detour", "clm")
    ended = {
        f"weight/{name}": tensor for name, tensor in load_file(before.model / "model.safetensors").items()
    }
    ended |= load_file(before.moments)
    assert ended.keys() <= seen.keys()
    assert sum(name.startswith("exp_avg") for name in ended) > 20
    assert all(torch.equal(tensor, seen[name]) for name, tensor in ended.items())
    table = " ".join(capsys.readouterr().err.split())
    for line in (
        "weights kept, end of pretrain",
        "optimizer state kept, end of pretrain",
        "clock and schedule new: warmup_constant, peak 0.0015, 12 steps",
        "position in the data row 0 of domain, its start",
        "attention and objective causal, next token (before: mlm)",
    ):
        assert line in table


def test_the_metrics_tell_speed_packing_and_gradient_norm(prepared):
    config = prepared("run")
    lines = read_json_lines(trained(config).metrics)
    for line in lines:
        assert 0 < line["gradient_norm"] < 100
        assert 0 < line["packing"] <= 1
        assert 0 <= line["data_wait"] < 1
        assert 0 < line["real_tokens_per_second_per_device"] <= line["tokens_per_second"] * 1.5


def test_the_headline_has_the_utilisation_where_the_peak_is_known():
    values = {"real_tokens_per_second_per_device": 312_000.0, "packing": 0.999, "data_wait": 0.001}
    assert headline(values) == "rows 99.9% full, data wait 0.1%"
    assert "MFU 41.5%" in headline({**values, "mfu": 0.415})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.parallel=fsdp2", r"train\.parallel: 'fsdp2' is not known; did you mean fsdp"),
        ("train.micro_rows=atuo", r"train\.micro_rows: 'atuo' is not valid; use an integer of 1 or more"),
        ("train.micro_rows=0", r"train\.micro_rows: 0 is not valid; use an integer of 1 or more"),
        ("train.on_bad_loss=ignore", r"train\.on_bad_loss: 'ignore' is not known"),
        ("train.bad_loss_above=-1", r"train\.bad_loss_above: -1 is too small; use a number above 0"),
        ("train.evaluate_every=0tok", r"train\.evaluate_every: 0tok is not positive"),
        ("train.export_at=[7ktok]", r"train\.export_at: 7ktok is reached in no phase"),
        ("train.loggers={tensorbord: {}}",
         r"train\.loggers: 'tensorbord' is not known; did you mean tensorboard"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_refused_at_once(tiny_recipe, tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        load_config(tiny_recipe(tmp_path / "run"), [override])


def test_auto_takes_all_rows_on_a_cpu(prepared):
    one, other = trained(prepared("one")), trained(prepared("auto", "train.micro_rows=auto"))
    assert (one.model / "model.safetensors").read_bytes() == (other.model / "model.safetensors").read_bytes()
