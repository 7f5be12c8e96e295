"""The detour on real weights: MiniLM-L6 of the package index, whose prediction head is restored.

It takes a few minutes and needs the package index and the real corpora:

    python -m pytest tests/test_minilm_study.py -m study
"""

from __future__ import annotations

import gzip
import math
import runpy
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertForMaskedLM, BertModel

from clm_detour import ModernBertForPretraining, ModernBertModel, load_config, run_recipe
from clm_detour.records.run import HeldOutRecord
from clm_detour.records.store import read

pytestmark = [pytest.mark.study, pytest.mark.shared]

SCRIPT = Path(__file__).parents[1] / "scripts" / "minilm.py"
TEXTS = ["The patient was treated with aspirin.", "Fever.", "A trial of pain relief in two hospitals. " * 30]
LITTLE = ["evaluate.rows=16", "analysis.texts=40", "analysis.samples=1"]  # held-out rows and texts
SHORT = {"head": "120ktok", "pretrain": "240ktok", "clm": "80ktok", "mlm": "80ktok", "decay": "40ktok"}


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the script writes."""
    folder = tmp_path_factory.mktemp("minilm") / "MiniLM-L6"
    runpy.run_path(str(SCRIPT))["fetch_minilm"](folder)
    return folder


@pytest.fixture(scope="module")
def finished(minilm: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run of the recipe, on the first texts of each corpus."""
    root = tmp_path_factory.mktemp("short")
    (root / "corpus").mkdir()
    for name in ("general", "pubmed", "instructions", "notes"):
        file = f"corpus/{name}.jsonl.gz"
        with gzip.open(shared_data / file, "rb") as whole, gzip.open(root / file, "wb") as part:
            part.writelines(islice(whole, 600))
    changes = [f"model.base={minilm}", f"data.root={root}", f"run_dir={root}/run", "evaluate.tasks=null"]
    changes += [f"phases.{name}.duration={duration}" for name, duration in SHORT.items()]
    changes += [f"phases.{name}.schedule.warmup=16ktok" for name in SHORT if name != "decay"]
    run_recipe(load_config("minilm", [*changes, "data.held_out=0.1", *LITTLE]))
    return root / "run"


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference relative to the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def test_the_hidden_states_are_those_of_transformers(minilm):
    batch = AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="pt")
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    expected, found = (
        kind.from_pretrained(minilm).eval()(**inputs).last_hidden_state
        for kind in (BertModel, ModernBertModel)
    )
    real = batch["attention_mask"].bool()
    assert difference(found[real], expected[real]) < 1e-5


def test_two_phases_on_general_text_restore_the_head(finished):
    """A uniform guess has a loss of ln 30,522 = 10.3."""
    scores = read(HeldOutRecord, finished / "evaluation" / "held_out.json")
    head, restored = (scores.phases[id].loss for id in ("head", "head.pretrain"))
    assert restored < head - 0.5 < head < math.log(30_522) - 2
    assert all(scores.models[arm].loss < restored for arm in ("twin", "control"))
    assert scores.models["detour"].loss < scores.phases["head.pretrain.clm"].loss - 0.2  # it returns to MLM


@torch.no_grad()
@pytest.mark.parametrize("arm", ["base", "detour", "twin"])
def test_transformers_opens_the_models_and_gives_their_logits(finished, arm):
    folder = finished / "models" / arm
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    expected, found = (
        kind.from_pretrained(folder, torch_dtype=torch.float32).eval()(**inputs).logits
        for kind in (BertForMaskedLM, ModernBertForPretraining)
    )
    real = batch["attention_mask"].bool()
    assert difference(found[real], expected[real]) < 1e-5
