"""A benchmark runs the phase's own steps, and leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from clm_detour.__main__ import main
from clm_detour.config import load_config
from clm_detour.run.pipeline import prepare_data
from clm_detour.train import bench as bench_module
from clm_detour.train import launch
from clm_detour.train.bench import bench, numbers
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.utils.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tiny_recipe, tmp_path_factory) -> Path:
    """A recipe whose data is prepared, and nothing else."""
    path = tiny_recipe(tmp_path_factory.mktemp("bench") / "run")
    prepare_data(load_config(path))
    return path


def test_each_size_is_measured_in_a_phase_whose_parent_is_not_trained(recipe, capsys):
    before = set(recipe.with_suffix("").rglob("*"))
    found = bench(str(recipe), ["arm=detour", "phase=clm", "steps=2"])
    assert [one.rows for one in found] == [1, 2, 4, 8]
    for one in found:
        assert one.tokens_per_second == pytest.approx(8 * 64 / one.seconds)
    said = capsys.readouterr().err
    assert "pretrain.clm on 1 process" in said
    assert set(recipe.with_suffix("").rglob("*")) == before


def test_two_processes_through_the_launcher(recipe, monkeypatch, capfd):
    words = [
        "bench",
        str(recipe),
        "arm=detour",
        "phase=decay",
        "--gpus",
        "2",
        "--micro-rows",
        "4",
        "--steps",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["clm-detour", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    assert "pretrain.clm.decay on 2 processes" in capfd.readouterr().err


def test_of_several_numbers_each_is_measured_in_processes_of_its_own(monkeypatch):
    started = []
    monkeypatch.setattr(launch, "run_launcher", lambda processes, *_: started.append(processes))
    monkeypatch.setattr("clm_detour.train.bench.bench", lambda *_: pytest.fail("this process took part"))
    launch.launch_bench("mine.yaml", ["arm=detour"], "1,2")
    assert started == [1, 2]


def test_each_size_lets_go_of_the_one_before(recipe, monkeypatch):
    alive, made = [], []
    make_network = bench_module.make_network

    def make(setup):
        alive.append(sum(network() is not None for network in made))
        network = make_network(setup)
        made.append(weakref.ref(network))
        return network

    monkeypatch.setattr(bench_module, "make_network", make)
    bench(str(recipe), ["arm=detour", "phase=clm", "steps=1", "sizes=1,2,4"])
    assert alive == [0, 0, 0]


OUT_OF_MEMORY = """
import sys, torch
from clm_detour.train import bench
from clm_detour.train.bench import main
from clm_detour.train.composer_model import PretrainingModel
from clm_detour.train.parallel import is_main_process

forward = PretrainingModel.forward

def short_of_memory(self, batch):
    if not is_main_process() and len(batch["input_ids"]) > {most}:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return forward(self, batch)

PretrainingModel.forward = short_of_memory
bench.memory_can_run_out = lambda: {tried}
main()
"""


@pytest.mark.parametrize(
    ("parallel", "most", "tried", "last"),
    [
        ("ddp", 1, True, "2 does not fit"),
        ("ddp", 0, True, "1 does not fit"),
        ("fsdp", 1, True, "2 does not fit"),
        ("fsdp", 1, False, "ran out of memory with 2 rows"),
    ],
)
def test_one_process_short_of_memory_ends_it_for_all_after_what_was_measured(
    recipe, tmp_path, parallel, most, tried, last
):
    script = tmp_path / "bench.py"
    script.write_text(OUT_OF_MEMORY.format(most=most, tried=tried))
    words = [str(recipe), "arm=detour", "phase=clm", "steps=1", "sizes=1,2,4", f"train.parallel={parallel}"]
    launched = [sys.executable, "-m", "clm_detour.train.launcher", "-n", "2", str(script), *words]
    done = subprocess.run(launched, capture_output=True, text=True, timeout=300, check=False)
    said = " ".join((done.stdout + done.stderr).split())
    assert last in said
    assert (done.returncode == 0) == tried
    assert "4 does not fit" not in said
    assert re.search(r"memory 1 [\d.e-]+ ", said) or not most


def test_gradients_are_looked_at_as_in_training_and_nothing_is_written_when_they_stay_bad(
    recipe, monkeypatch
):
    before = set(recipe.with_suffix("").rglob("*"))
    monkeypatch.setattr(PretrainingModel, "loss", lambda self, outputs, batch: outputs.loss * float("nan"))
    with pytest.raises(UserError, match="not finite in too many steps"):
        bench(str(recipe), ["arm=detour", "phase=clm", "steps=12", "sizes=8"])
    assert set(recipe.with_suffix("").rglob("*")) == before


def test_a_wrong_call_is_one_sentence(recipe, tmp_path):
    words = [
        "arm=detour",
        "phase=clm",
        f"run_dir={tmp_path}",
        "tokenizer={path: null, train: {vocab_size: 800}}",
    ]
    with pytest.raises(UserError, match="has no tokenizer yet; run clm-detour prepare first"):
        bench(str(recipe), words)
    with pytest.raises(UserError, match="arm=ARM phase=PHASE"):
        bench(str(recipe), [])
    with pytest.raises(UserError, match="whole numbers above 0"):
        numbers("4,x")
