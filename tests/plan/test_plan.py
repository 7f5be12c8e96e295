"""The plan says what training will do, and refuses what training may not do, before any of it is done."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, ModernBertConfig

from clm_detour.__main__ import main
from clm_detour.config import load_config
from clm_detour.config.schema import Config
from clm_detour.config.shipped import CONFIGS
from clm_detour.data.loader import StepBatches
from clm_detour.model.families import architecture_of
from clm_detour.model.flops import flops_per_batch
from clm_detour.model.layers import Layer
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.model.rope import rotation
from clm_detour.plan import RecipePlan, make_plan, print_plan
from clm_detour.plan.hardware import DEVICES, Hardware
from clm_detour.plan.make import model_config
from clm_detour.plan.memory import GRADIENT, MOMENTS, WEIGHT, layer_bytes
from clm_detour.recipe.boundary import cross_boundary, starting_network
from clm_detour.recipe.recipe import Recipe
from clm_detour.run.check import check_before_run, plan_with_warnings
from clm_detour.run.check.folders import room_warnings
from clm_detour.run.pipeline import prepare_data, run_recipe, show_plan
from clm_detour.utils.errors import UserError


@pytest.fixture(scope="module")
def recipe(tiny_recipe, tmp_path_factory) -> Path:
    """A recipe whose data is prepared."""
    path = tiny_recipe(tmp_path_factory.mktemp("plan") / "run")
    prepare_data(load_config(path))
    return path


def plan_of(recipe: Path, *overrides: str) -> RecipePlan:
    config = load_config(recipe, overrides)
    return make_plan(Recipe(config))


def first_network(config: Config) -> ModernBertForPretraining:
    recipe = Recipe(config)
    return starting_network(cross_boundary(recipe, recipe.arm("base")[0]), config.model, recipe.tokenizer)


def test_tokens_and_epochs_are_those_of_the_rows_that_training_draws(recipe):
    config = load_config(recipe, ["phases.decay.duration=40ktok"])
    for phase in make_plan(Recipe(config)).phases:
        run = phase.run
        stream = Recipe(config).stream(run)
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
    tokenizer = Recipe(config).tokenizer
    run = Recipe(config).phase("detour", name)
    batches = StepBatches(Recipe(config).stream(run), run.first_row, run.step_rows)
    model, exact = model_config(config.model, config.tokenizer.train, tokenizer), 0
    for step in range(run.steps):
        batch = batches.step(step)
        lengths = [length for row in batch["document_lengths"] for length in row]
        exact += flops_per_batch(model, lengths, sum(batch["predicted"]), run.phase.objective == "clm").total
    plan = next(phase for phase in make_plan(Recipe(config)).phases if phase.run.id == run.id)
    assert plan.operations.total == pytest.approx(exact, rel=0.03)
    assert not plan.assumed


def test_sizes_are_those_of_the_network(recipe):
    config = load_config(recipe)
    sizes = make_plan(Recipe(config)).sizes
    network = first_network(config)
    assert sizes.parameters == sum(parameter.numel() for parameter in network.parameters())
    bytes_each = {
        "weights": WEIGHT,
        "gradients": GRADIENT,
        "moments": MOMENTS,
    }  # the quickstart trains in fp32
    assert {part: sizes.memory[part] for part in bytes_each} == {
        part: sizes.parameters * each for part, each in bytes_each.items()
    }


def test_a_finished_run_takes_the_disk_that_was_planned_and_no_more(tiny_recipe, tmp_path, monkeypatch):
    config = load_config(
        tiny_recipe(tmp_path / "run"),
        [
            "phases.decay.duration=2ktok",
            "arms={base: [pretrain, clm]}",
            "phases.clm.duration=3ktok",
            "train.ema_half_life=1ktok",
            "train.export_at=[1ktok,1000tok,4ktok]",  # clm does not get to the last
        ],
    )
    prepare_data(config)
    plan = make_plan(Recipe(config))
    planned = plan.sizes.disk
    run_recipe(config)
    taken = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*.safetensors"))
    assert taken == pytest.approx(planned, rel=0.02)
    free = plan.sizes.peak_disk + 0.02 * planned
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    assert not list(room_warnings(plan, Recipe(config).folder, config.arms))


def test_only_several_processes_under_ddp_hold_buckets_of_gradients(recipe):
    def memory(gpus: int, parallel: str) -> dict[str, int]:
        config = load_config(recipe, [f"train.parallel={parallel}"])
        return make_plan(Recipe(config), gpus).sizes.memory

    several, one = memory(4, "ddp"), memory(1, "ddp")
    assert several["buckets"] == several["gradients"]
    assert "buckets" not in one
    assert "buckets" not in memory(4, "fsdp")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "with one row in a forward pass; a trial at the start of each phase will show whether it fits"),
        (["train.micro_rows=4"], "lower train.micro_rows, or set it to auto"),
        (["train.deterministic=true"], "set train.micro_rows"),
    ],
)
def test_a_plan_beyond_the_memory_of_the_gpu_is_a_warning(recipe, monkeypatch, words, expected):
    for module in ("clm_detour.run.check.recipe", "clm_detour.run.check.folders"):
        monkeypatch.setattr(f"{module}.smallest_memory", lambda: 10**6)
    plan, warnings = plan_with_warnings(Recipe(load_config(recipe, words)))
    (warning,) = [each for each in warnings if "on each GPU" in each]
    assert expected in warning
    if not words:
        assert set(plan.sizes.micro_rows.values()) == {1}


def test_the_micro_batch_of_auto_is_the_largest_divisor_that_fits(recipe):
    found = Recipe(load_config(recipe))

    def planned(gpu_memory: int | None, gpus: int = 1) -> set[int]:
        return set(make_plan(found, gpus, gpu_memory=gpu_memory).sizes.micro_rows.values())

    assert planned(80 * 10**9) == planned(None) == {8}
    assert planned(80 * 10**9, gpus=4) == {2}
    one, two = (
        sum(make_plan(Recipe(load_config(recipe, [f"train.micro_rows={rows}"]))).sizes.memory.values())
        for rows in (1, 2)
    )
    assert planned(int(two / 0.9) + 2) == {2}
    assert planned(int(two / 0.9) - 2) == planned(int(one / 0.9) - 2) == {1}


@pytest.mark.parametrize("parallel", ["fsdp", "hsdp"])
def test_sharded_processes_hold_whole_weights_and_gradients_during_a_step(recipe, parallel):
    def memory(precision: str) -> dict[str, int]:
        config = load_config(recipe, [f"train.parallel={parallel}", f"train.precision={precision}"])
        return make_plan(Recipe(config), gpus=4).sizes.memory

    exact, half = memory("fp32"), memory("bf16")
    assert exact["gathered weights"] == pytest.approx(4 * exact["weights"], abs=4)
    assert exact["gathered gradients"] == pytest.approx(4 * exact["gradients"], abs=4)
    saved = exact["gathered weights"] - half["gathered weights"]  # two bytes of each element of a matrix
    assert 0 < saved < exact["gathered weights"] / 2
    assert half["bf16 copies"] == exact["gathered weights"] / 2 - saved


def test_a_run_shows_the_plan_for_its_own_number_of_processes(recipe, tmp_path, monkeypatch, capsys):
    config = load_config(recipe)
    config.run_dir = str(tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    show_plan(*plan_with_warnings(Recipe(config)), tmp_path / "plan.json")
    said = capsys.readouterr().err
    print_plan(make_plan(Recipe(config), 4))
    assert said == capsys.readouterr().err
    print_plan(make_plan(Recipe(config), 1))
    assert said != capsys.readouterr().err


def test_before_a_run_only_sources_that_are_not_prepared_are_read(recipe, tmp_path, monkeypatch):
    def out_of_reach(*_: object) -> None:
        raise UserError("The hub cannot be asked.")

    monkeypatch.setattr("clm_detour.run.check.sources.check_first_record", out_of_reach)
    check_before_run(Recipe(load_config(recipe)), read_prepared=False)
    with pytest.raises(UserError, match="The hub cannot be asked"):
        check_before_run(Recipe(load_config(recipe, [f"data.dir={tmp_path}/data"])), read_prepared=False)


def test_before_the_data_is_prepared_the_plan_says_what_it_can(tiny_recipe, tmp_path):
    plan = plan_of(tiny_recipe(tmp_path / "run"), f"data.dir={tmp_path}/nothing")
    assert all(phase.assumed for phase in plan.phases)
    assert all(phase.operations.total > 0 for phase in plan.phases)
    for phase in plan.phases:
        assert {source.available for source in phase.sources.values()} == {None}
        assert sum(source.tokens for source in phase.sources.values()) == phase.run.tokens


def test_a_source_may_say_how_often_it_is_gone_through(recipe):
    long = "phases.decay.duration=200ktok"
    epochs = max(
        phase.sources["notes"].epochs for phase in plan_of(recipe, long).phases if "notes" in phase.sources
    )
    plan_of(recipe, long, f"data.sources.notes.max_epochs={epochs + 1e-6:.9f}")
    with pytest.raises(UserError, match=r"notes would be repeated .* tokens wanted of .* max_epochs is 1"):
        plan_of(recipe, long, "data.sources.notes.max_epochs=1")


@pytest.mark.parametrize("verb", ["run", "check", "plan"])
def test_too_many_epochs_are_refused_before_training(recipe, monkeypatch, capsys, tmp_path, verb):
    words = [f"run_dir={tmp_path}/run", "phases.decay.duration=200ktok", "data.sources.notes.max_epochs=1"]
    monkeypatch.setattr(sys, "argv", ["clm-detour", verb, str(recipe), *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "Error: Source notes would be repeated" in capsys.readouterr().err
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
        "attention",
        "of pretrain.mlm (x",
        "More than 4 passes",
    ):
        assert words in said


def test_layers_that_the_model_does_not_have_are_refused_before_training(recipe):
    with pytest.raises(
        UserError, match=r"phases\.decay\.freeze\.layers: 2-3 goes beyond the model's 3 layers"
    ):
        plan_of(recipe, "phases.decay.freeze={layers: 2-3}")


def test_memory_and_operations_count_what_is_frozen(recipe):
    whole = plan_of(recipe)
    names = load_config(recipe).phases
    words = [f"phases.{name}.freeze={{layers: 0-1, embeddings: true}}" for name in names]
    frozen = plan_of(recipe, *words)
    network = first_network(load_config(recipe, words))
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert frozen.sizes.memory["gradients"] == GRADIENT * trained
    assert frozen.sizes.memory["moments"] == MOMENTS * trained
    assert frozen.sizes.memory["weights"] == whole.sizes.memory["weights"]
    assert frozen.sizes.memory["activations"] < whole.sizes.memory["activations"]
    for one, other in zip(frozen.phases, whole.phases, strict=True):
        assert one.operations.total < other.operations.total


@pytest.mark.parametrize("family", ["modernbert", "bert"])
@pytest.mark.parametrize(("bf16", "size"), [(True, 2), (False, 4)])
def test_activations_of_a_layer_are_what_autograd_keeps_of_it(family, bf16, size):
    tokens, hidden, inner = 16, 64, 96
    model = AutoConfig.for_model(family, hidden_size=hidden, intermediate_size=inner, num_attention_heads=4)
    architecture = architecture_of(model)
    rotary = architecture.thetas is not None
    layer, by = Layer(architecture, 1), rotation(torch.arange(tokens), 4, 16, 10_000.0) if rotary else None
    shared = {table.data_ptr() for table in by or ()}
    kept = {}

    def keep(tensor):
        of_tokens = tensor.ndim > 1 and len(tensor) == tokens and tensor.shape[-1] > 1  # no weights, no means
        if of_tokens and tensor.data_ptr() not in shared:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # alive, so that nothing takes its place
        return tensor

    rows = torch.randn(tokens, hidden, requires_grad=True)
    watched = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16), watched:
        _, _, values = layer.before(rows, by)
        layer.after(rows, values.clone())  # in the place of attention
    attention_keeps = 3 * hidden * size  # queries, keys, values
    of_layer = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) // tokens + attention_keeps
    assert of_layer == layer_bytes(model, "bf16" if bf16 else "fp32")


def plan_words(monkeypatch, capsys, *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["clm-detour", "plan", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0), capsys.readouterr().err


def test_hardware_gives_hours_gpu_hours_and_energy(recipe, monkeypatch, capsys):
    code, said = plan_words(monkeypatch, capsys, recipe, "--gpus", 4, "--device", "H100", "--mfu", 0.4)
    assert code == 0
    assert "on 4 x H100 at an assumed MFU of 40%" in said
    peak, watts = DEVICES["H100"].bf16, DEVICES["H100"].watts
    hardware = Hardware(4, "H100", 0.4)
    assert hardware.seconds(4 * peak * 0.4) == pytest.approx(1)
    assert hardware.watts == 4 * watts


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--device", "H10"], "did you mean H100?"),
        (["--device", "H100", "--mfu", "40"], "share of the peak"),
        (["--mfu", "0.4"], "needs --device"),
    ],
)
def test_wrong_hardware_is_one_clear_sentence(recipe, monkeypatch, capsys, words, expected):
    code, said = plan_words(monkeypatch, capsys, recipe, *words)
    assert code == 2
    assert expected in said


@pytest.fixture(scope="module")
def paper_plan(tiny_data, tmp_path_factory):
    """Return the plan of en-base-10b without data and weights: only ModernBERT-base's config is there."""
    folder = tmp_path_factory.mktemp("base") / "ModernBERT-base"
    ModernBertConfig(vocab_size=50368, global_attn_every_n_layers=3).save_pretrained(folder)
    path = CONFIGS / "paper" / "en-base-10b.yaml"
    config = load_config(path, [f"model.base={folder}", f"data.dir={folder}/nothing"])
    return make_plan(Recipe(config), read_data=False, gpus=4)


def test_the_papers_run_is_planned_before_there_is_any_data(paper_plan):
    phases = {phase.run.id: phase for phase in paper_plan.phases}
    assert paper_plan.sizes.parameters == pytest.approx(149.7e6, rel=0.01)
    assert sum(paper_plan.sizes.memory.values()) < 80e9
    clm, mlm = phases["clm"].operations, phases["mlm"].operations
    assert clm.head / clm.total == pytest.approx(
        0.24, abs=0.03
    )  # of CLM's operations 23 %, of MLM's at 15 % 4 %
    decay = phases["clm.decay"].operations
    assert decay.head / decay.total == pytest.approx(0.045, abs=0.01)
    assert paper_plan.matched == {("clm", "mlm"): clm.total / mlm.total}
    hours = Hardware(4, "H100").seconds(clm.total) / 3600
    assert hours == pytest.approx(3 + 25 / 60, rel=0.2)  # as the paper took


QUICKSTART = CONFIGS / "quickstart.yaml"


def test_a_model_whose_tokenizer_is_yet_to_be_trained_is_planned(tmp_path):
    config = load_config(QUICKSTART, [f"run_dir={tmp_path}/run"])
    plan = make_plan(Recipe(config), read_data=False)
    network_config = model_config(config.model, config.tokenizer.train, None)
    assert network_config.vocab_size == 4096
    assert plan.sizes.parameters > 4096 * 128
    assert all(phase.operations.head > 0 for phase in plan.phases)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("model.config.hiden_size=64", "did you mean model.config.hidden_size?"),
        ("phases.clm.freeze={layers: 0-4}", "phases.clm.freeze.layers: 0-4 goes beyond the model's 4 layers"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "check", "plan"])
def test_a_wrong_model_is_refused_before_the_data_is_prepared(
    tmp_path, monkeypatch, capsys, verb, word, expected
):
    monkeypatch.setattr(sys, "argv", ["clm-detour", verb, str(QUICKSTART), f"run_dir={tmp_path}/run", word])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
