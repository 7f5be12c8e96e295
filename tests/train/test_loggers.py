"""Loggers have each value once, at the tokens since the start of the arm, whatever happens to a phase."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections import defaultdict
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clm_detour.config import load_config
from clm_detour.config.schema import Config
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.run import HeldOutRecord, Score, Scores
from clm_detour.records.run_folder import PhaseFolder
from clm_detour.records.store import write
from clm_detour.run.after_training import scores_step
from clm_detour.run.pipeline import prepare_data
from clm_detour.train.callbacks.metrics import Metrics
from clm_detour.train.loggers import PhaseLog, continue_log
from clm_detour.train.phase import train_phase
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json, read_json_lines

QUICK = "log_system_metrics: false, logging_buffer_seconds: 1"
Series = dict[str, dict[int, list[float]]]  # by name and tokens; more than one value is a duplicate


def trained(config: Config, phase: str = "pretrain") -> PhaseFolder:
    recipe = Recipe(config)
    run = recipe.phase("detour", phase)
    train_phase(recipe, run)
    return recipe.folder.phase(run.id)


def events_of(folder: Path) -> Series:
    """Return what TensorBoard reads from the files of a run."""
    events = EventAccumulator(str(folder))
    events.Reload()
    found: Series = defaultdict(lambda: defaultdict(list))
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            found[tag][event.step].append(event.value)
    return found


def check_series(recipe: Recipe, series: dict[str, Series]) -> None:
    """Check that the values of a phase are those of its files, each once, on the axis of the arm."""
    before = 0
    for phase in ("pretrain", "pretrain.clm"):
        found, files, run = series[phase], recipe.folder.phase(phase), recipe.phases[phase]
        lines = {before + line["tokens"]: line for line in read_json_lines(files.metrics)}
        assert list(found["train/loss"]) == list(lines)
        for name in ("loss", "learning_rate", "gradient_norm"):
            expected = [line[name] for line in lines.values()]
            assert list(found[f"train/{name}"].values()) == [[pytest.approx(value)] for value in expected]
        held_out = {before + line["tokens"]: line["clm"] for line in read_json_lines(files.held_out)}
        assert list(found["held_out/clm/loss"]) == list(held_out)
        for name in ("loss", "accuracy"):
            expected = [[pytest.approx(line[name])] for line in held_out.values()]
            assert list(found[f"held_out/clm/{name}"].values()) == expected
        sources = next(iter(held_out.values()))["by_source"]
        assert {f"held_out/mlm/loss_by_source/{source}" for source in sources} <= found.keys()
        before += run.tokens
        assert found["final/held_out/loss"] == {before: [2.5]}
        assert found["final/held_out/loss_by_source/notes"] == {before: [2.25]}
        assert {name.split("/")[0] for name in found} <= {"train", "held_out", "final"}, "Composer logs too"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """Address of MLflow's files."""
    return (tmp_path_factory.mktemp("mlflow") / "mlruns").as_uri()


@pytest.fixture(scope="module")
def recipe(tiny_recipe, tmp_path_factory, store) -> Recipe:
    """A recipe with all loggers that are installed: two phases, the second killed twice, and final scores."""
    found = {
        "tensorboard": "{}",
        "wandb": "{project: tests}",
        "mlflow": f"{{tracking_uri: '{store}', {QUICK}}}",
    }
    installed = [f"{name}: {keys}" for name, keys in found.items() if importlib.util.find_spec(name)]
    config = load_config(tiny_recipe(tmp_path_factory.mktemp("loggers") / "run"), [
        "train.workers=0", "train.checkpoint_every=2ktok", "train.log_every=1", "train.evaluate_every=3ktok",
        "evaluate.rows=4", f"train.loggers={{{', '.join(installed)}}}",
    ])  # fmt: skip
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WANDB_MODE", "offline")
        environment.setenv("WANDB_SILENT", "true")
        prepare_data(config)
        trained(config)
        for step in (7, 6):  # the second time before it has repeated all steps of the first
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Metrics, "batch_checkpoint", stop_at(step))
                with pytest.raises(KeyboardInterrupt):
                    trained(config, "clm")
        trained(config, "clm")
        recipe = Recipe(config)
        notes = Score(loss=2.25, accuracy=0.5, predicted=9)
        scores = Scores(loss=2.5, accuracy=0.5, predicted=9, by_source={"notes": notes})
        write(HeldOutRecord(0.15, {}, {"pretrain": scores, "pretrain.clm": scores}), recipe.folder.held_out)
        for _ in range(2):
            scores_step(recipe).do()
    return recipe


def stop_at(step: int):
    """Return a callback that interrupts training after a step, like Ctrl-C."""

    def stop(self, state, logger):
        if state.timestamp.batch.value == step:
            raise KeyboardInterrupt

    return stop


def test_tensorboard_has_each_value_once_on_the_axis_of_the_arm(recipe):
    names = {phase: read_json(recipe.folder.phase(phase).logged_as)["name"] for phase in recipe.phases if
             recipe.folder.phase(phase).logged_as.exists()}  # fmt: skip
    folders = {phase: recipe.folder.tensorboard / name for phase, name in names.items()}
    assert sorted(path.name for path in recipe.folder.tensorboard.iterdir()) == sorted(names.values())
    check_series(recipe, {phase: events_of(folder) for phase, folder in folders.items()})
    texts = EventAccumulator(str(folders["pretrain.clm"]))
    texts.Reload()
    (text,) = texts.Tensors("recipe/text_summary")
    written = text.tensor_proto.string_val[0].decode()
    assert "recipe: run\nphase: pretrain.clm\nin_arms:\n- detour\n" in written
    assert str(recipe.folder.root) not in written


def test_a_name_that_a_logger_does_not_take_is_changed_and_no_number_is_left_out():
    logged = {}

    class Remembers:
        def record(self, values, tokens):
            logged[tokens] = values

    log = PhaseLog("clm", [Remembers()], before=100, until=2)
    log.log({"train/loss": 1.0}, step=2, tokens=20)
    log.log({"held_out/mlm/loss_by_source/a*b": 1.0, "train/loss": float("nan")}, step=3, tokens=30)
    assert logged == {130: {"held_out/mlm/loss_by_source/a_b": 1.0}}


def test_a_phase_that_0_2_0_began_to_log_keeps_its_name(tmp_path):
    folder = PhaseFolder(tmp_path)
    folder.logged_as.write_text('{"name": "clm-0a1b"}')
    folder.metrics.write_text('{"step": 5}\n{"step": 10}\n')
    logged = continue_log(folder, "clm")
    assert (logged.name, logged.until) == ("clm-0a1b", 10)


def test_weights_and_biases_has_each_value_once_on_the_axis_of_the_arm(recipe):
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    series: dict[str, Series] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    runs, axes = {}, set()
    for path in sorted(recipe.folder.root.glob("wandb/offline-run-*/*.wandb")):
        store = DataStore()
        store.open_for_scan(str(path))
        phase = None
        while (data := store.scan_data()) is not None:
            record = Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                phase = phase or next(tag for tag in [record.run.display_name.split()[-1]])
                config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                runs.setdefault(phase, []).append((record.run, config))
            elif kind == "config":
                runs[phase][-1][1].update(
                    {item.key: json.loads(item.value_json) for item in record.config.update}
                )
            elif kind == "metric":
                axes.add((record.metric.glob_name or record.metric.name, record.metric.step_metric))
            elif kind == "history":
                row = {item.key or "/".join(item.nested_key): json.loads(item.value_json)
                       for item in record.history.item}  # fmt: skip
                for name, value in row.items():
                    if not name.startswith("_") and name != "tokens":
                        series[phase][name][row["tokens"]].append(value)
    assert ("*", "tokens") in axes
    check_series(recipe, series)
    for phase, found in runs.items():
        assert len({run.run_id for run, _ in found}) == 1, "a resumed phase is another run"
        run, config = found[0]
        assert (run.run_group, run.job_type) == ("run", phase.split(".")[-1])
        assert set(run.tags) >= {"detour", recipe.phases[phase].phase.objective}
        assert (config["recipe"], config["phase"]) == ("run", phase)
        assert config["train"]["batch_rows"] == recipe.config.train.batch_rows


def test_mlflow_has_each_value_once_on_the_axis_of_the_arm(recipe, store):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    client = mlflow.MlflowClient(store)
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    series: dict[str, Series] = {}
    for run in client.search_runs([experiment.experiment_id]):
        phase = run.data.tags["phase"]
        assert phase not in series, "a resumed phase is another run"
        assert run.data.tags["mlflow.runName"] == f"run {phase}"
        assert "detour" in run.data.tags["arms"]
        assert run.data.params["train.batch_rows"] == str(recipe.config.train.batch_rows)
        series[phase] = defaultdict(dict)
        for name in run.data.metrics:
            points: dict[int, list[float]] = defaultdict(list)
            for point in client.get_metric_history(run.info.run_id, name):
                points[point.step].append(point.value)
            series[phase][name] = dict(sorted(points.items()))
    check_series(recipe, series)


def test_changed_scores_are_logged_again_and_others_are_not(recipe):
    """It comes after the tests that read all scores."""
    record = recipe.folder.held_out
    scores = Scores(loss=2.0, accuracy=0.5, predicted=9)
    config = dataclasses.replace(recipe.config)
    config.train = dataclasses.replace(config.train, loggers={"tensorboard": {}})
    write(HeldOutRecord(0.15, {}, {"pretrain": scores}), record)
    scores_step(Recipe(config)).do()
    found = events_of(next(recipe.folder.tensorboard.glob("pretrain-*")))
    assert list(found["final/held_out/loss"].values()) == [[2.5, 2.0]]
    assert list(found["final/held_out/accuracy"].values()) == [[0.5]]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.loggers={wandb: {project: x}}", r"wandb is not installed; pip install 'clm-detour\[wandb\]'"),
        ("train.loggers={tensorboard: {log_dri: x}}",
         r"train\.loggers\.tensorboard: 'log_dri' .* did you mean log_dir"),
    ],
)  # fmt: skip
def test_a_logger_that_cannot_be_is_refused_before_the_first_step(prepared, override, message):
    if "wandb" in override and importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed here")
    with pytest.raises(UserError, match=message):
        trained(prepared("run", override))
