"""The plan says what training will do, and refuses what training may not do, before any of it is done."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from clm_detour.check import existing_tokenizer
from clm_detour.cli import main
from clm_detour.config import load_config
from clm_detour.data.loader import StepBatches
from clm_detour.errors import UserError
from clm_detour.model.flops import flops_per_batch
from clm_detour.pipeline import prepare_data, run_recipe
from clm_detour.plan import GRADIENT, MOMENTS, WEIGHT, RecipePlan, make_plan, model_config
from clm_detour.train.recipe import choose_phase, plan_arm
from clm_detour.train.start import starting_network
from clm_detour.train.stream import open_stream


@pytest.fixture(scope="module")
def recipe(tiny_recipe, tmp_path_factory) -> Path:
    """A recipe whose data is prepared."""
    path = tiny_recipe(tmp_path_factory.mktemp("plan") / "run")
    prepare_data(load_config(path))
    return path


def plan_of(recipe: Path, *overrides: str) -> RecipePlan:
    config = load_config(recipe, overrides)
    return make_plan(config, existing_tokenizer(config))


def test_tokens_and_epochs_are_those_of_the_rows_that_training_draws(recipe):
    config = load_config(recipe, ["phases.decay.duration=40ktok"])
    tokenizer = existing_tokenizer(config)
    for phase in make_plan(config, tokenizer).phases:
        run = phase.run
        stream = open_stream(config, run, tokenizer)
        batches = StepBatches(stream, run.first_row, run.step_rows)
        drawn = Counter(
            stream.mixture.locate(position).source
            for step in range(run.steps)
            for position in batches.positions(step)
        )
        for name, source in phase.sources.items():
            assert source.tokens == drawn[name] * config.data.sequence_length
            assert source.rows[1] - source.rows[0] == drawn[name]
            assert source.epochs == source.rows[1] / len(stream.sources[name])
            assert source.available == stream.sources[name].num_tokens
        assert sum(source.tokens for source in phase.sources.values()) == run.tokens


def test_a_source_goes_on_in_the_next_phase_on_the_same_mixture(recipe):
    phases = {phase.run.id: phase for phase in plan_of(recipe).phases}
    before, after = phases["pretrain.clm"], phases["pretrain.clm.decay"]
    for name, source in after.sources.items():
        assert source.rows[0] == before.sources[name].rows[1]
        assert source.epochs > before.sources[name].epochs


@pytest.mark.parametrize("name", ["clm", "decay"])
def test_the_operations_are_those_of_all_batches(recipe, name):
    config = load_config(recipe, ["phases.clm.duration=30ktok", "phases.decay.duration=30ktok"])
    tokenizer = existing_tokenizer(config)
    run = choose_phase(config, "detour", name)
    batches = StepBatches(open_stream(config, run, tokenizer), run.first_row, run.step_rows)
    model, exact = model_config(config, tokenizer), 0
    for step in range(run.steps):
        batch = batches.step(step)
        lengths = [length for row in batch["document_lengths"] for length in row]
        exact += flops_per_batch(model, lengths, sum(batch["predicted"]), run.phase.objective == "clm").total
    planned = next(phase.flops for phase in make_plan(config, tokenizer).phases if phase.run.id == run.id)
    assert planned == pytest.approx(exact, rel=0.03)


def test_sizes_are_those_of_the_network(recipe):
    config = load_config(recipe)
    tokenizer = existing_tokenizer(config)
    sizes = make_plan(config, tokenizer).sizes
    network = starting_network(config, plan_arm(config, "base")[0], tokenizer)
    assert sizes.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert sizes.memory == sizes.parameters * (WEIGHT + GRADIENT + MOMENTS)  # the quickstart trains in fp32


def test_a_finished_run_takes_the_disk_that_was_planned(tiny_recipe, tmp_path):
    config = load_config(
        tiny_recipe(tmp_path / "run"), ["phases.decay.duration=2ktok", "arms={base: [pretrain]}"]
    )
    prepare_data(config)
    planned = make_plan(config, existing_tokenizer(config)).sizes.disk
    run_recipe(config)
    taken = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*.safetensors"))
    assert taken == pytest.approx(planned, rel=0.02)


def test_before_the_data_is_prepared_the_plan_says_what_it_can(tiny_recipe, tmp_path):
    plan = plan_of(tiny_recipe(tmp_path / "run"), f"data.dir={tmp_path}/nothing")
    assert all(phase.flops is None for phase in plan.phases)
    for phase in plan.phases:
        assert {source.available for source in phase.sources.values()} == {None}
        assert sum(source.tokens for source in phase.sources.values()) == phase.run.tokens


def test_a_source_may_say_how_often_it_is_gone_through(recipe):
    long = "phases.decay.duration=200ktok"
    epochs = max(
        phase.sources["notes"].epochs for phase in plan_of(recipe, long).phases if "notes" in phase.sources
    )
    plan_of(recipe, long, f"data.sources.notes.max_epochs={epochs + 1e-6:.9f}")
    with pytest.raises(
        UserError, match=r"notes would be gone through .* tokens wanted of .* max_epochs is 1"
    ):
        plan_of(recipe, long, "data.sources.notes.max_epochs=1")


@pytest.mark.parametrize("verb", ["run", "check", "plan"])
def test_too_many_epochs_are_refused_before_training(recipe, monkeypatch, capsys, tmp_path, verb):
    words = [f"run_dir={tmp_path}/run", "phases.decay.duration=200ktok", "data.sources.notes.max_epochs=1"]
    monkeypatch.setattr(sys, "argv", ["clm-detour", verb, str(recipe), *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "Error: Source notes would be gone through" in capsys.readouterr().err
    assert not (tmp_path / "run" / "phases").exists()


def test_the_printed_plan_names_phases_sources_hours_and_what_is_seen_too_often(recipe, monkeypatch, capsys):
    words = ["plan", str(recipe), "phases.decay.duration=900ktok", "--tokens-per-second", "1000"]
    monkeypatch.setattr(sys, "argv", ["clm-detour", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    said = capsys.readouterr().err
    for words in (
        "pretrain.clm.decay",
        "abstracts",
        "0.25",
        "hours at 1k tokens/s",
        "Gone through more than 4 times",
    ):
        assert words in said


def test_layers_that_the_model_does_not_have_are_refused_before_training(recipe):
    with pytest.raises(
        UserError, match=r"phases\.decay\.freeze\.layers: 2-3 goes beyond the model's 3 layers"
    ):
        plan_of(recipe, "phases.decay.freeze={layers: 2-3}")
