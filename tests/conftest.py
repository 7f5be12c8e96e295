"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clm_detour.config.schema import Config
from clm_detour.config.shipped import CONFIGS

os.environ.setdefault("HF_HUB_OFFLINE", "1")

TINY = """
extends: {quickstart}
run_dir: {run_dir}
data: {{dir: {root}/data, sample: null, sequence_length: 64, held_out: 0.1, sources: {sources}}}
tokenizer: {{path: {root}/tokenizer, train: null}}
model:
  config: {{hidden_size: 32, intermediate_size: 48, num_hidden_layers: 3, num_attention_heads: 2,
    local_attention: 16}}
train: {{batch_rows: 8, precision: fp32, checkpoint_every: 2ktok, log_every: 1}}
phases:
  pretrain: {{duration: 6ktok, schedule: {{peak: 1.5e-3, warmup: 2ktok}}}}
  clm: {{duration: 6ktok, schedule: {{peak: 1.5e-3, warmup: 2ktok}}}}
  mlm: {{duration: 6ktok, schedule: {{peak: 1.5e-3, warmup: 2ktok}}}}
  decay: {{duration: 4ktok, schedule: {{peak: 1.5e-3}}}}
evaluate:
  rows: 4
  fill_masks: 1
  tasks: {{tasks: [SampleVerdict], jobs: 1, documents: 12, seeds: [42], precision: fp32,
    protocol: {{epochs: 1}}}}
"""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real corpora, tasks and a tokenizer. Tests that need it are skipped without it."""
    folder = Path(os.environ.get("CLM_DETOUR_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set CLM_DETOUR_DATA)")
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small sample and a tokenizer trained on it. Tests write prepared data to `data/`."""
    from clm_detour.data.sample import write_sample
    from clm_detour.data.sources import read_documents
    from clm_detour.data.tokenizer_training import train_tokenizer

    root = tmp_path_factory.mktemp("tiny")
    files = write_sample(root / "sample", documents=400)
    train_tokenizer(
        (text for path in files.values() for text in read_documents(str(path))), 800, root / "tokenizer"
    )
    return root


@pytest.fixture(scope="session")
def tiny_base(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained model of two layers and its tokenizer, to continue from."""
    from clm_detour.data.tokenizer import copy_tokenizer, load_tokenizer
    from clm_detour.model import ModernBertForPretraining
    from clm_detour.recipe.start import fresh_config

    folder, tokenizer = tmp_path_factory.mktemp("base"), f"{tiny_data}/tokenizer"
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    ModernBertForPretraining(fresh_config(sizes, load_tokenizer(tokenizer))).save_pretrained(folder)
    copy_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(tiny_data: Path):
    """A function that writes a config for a run folder, with the arms of the quickstart in a few seconds."""

    def write(run_dir: Path) -> Path:
        run_dir.mkdir(parents=True, exist_ok=True)
        quickstart = CONFIGS / "quickstart.yaml"
        names = ("general", "abstracts", "instructions", "notes")
        sources = ", ".join(f"{name}: {{path: {tiny_data}/sample/{name}.jsonl.gz}}" for name in names)
        path = run_dir.with_suffix(".yaml")
        text = TINY.format(quickstart=quickstart, run_dir=run_dir, root=tiny_data, sources=f"{{{sources}}}")
        path.write_text(text)
        return path

    return write


@pytest.fixture
def prepared(tiny_recipe, tmp_path) -> Callable[..., Config]:
    """A function that returns a tiny config, with overrides, after its data is prepared."""
    from clm_detour.config import load_config
    from clm_detour.run.pipeline import prepare_data

    def make(name: str, *overrides: str) -> Config:
        config = load_config(tiny_recipe(tmp_path / name), ["train.workers=0", *overrides])
        prepare_data(config)
        return config

    return make


@pytest.fixture
def stop_after(monkeypatch) -> Callable[[int], None]:
    """A function that interrupts the next phase, like Ctrl-C, at the end of a step."""
    from clm_detour.train.callbacks.metrics import Metrics

    def arrange(step: int) -> None:
        batch_checkpoint = Metrics.batch_checkpoint

        def stop(self, state, logger):
            batch_checkpoint(self, state, logger)
            if state.timestamp.batch.value == step:
                raise KeyboardInterrupt

        monkeypatch.setattr(Metrics, "batch_checkpoint", stop)

    return arrange
