"""The notebooks run from start to end, and print what they promise."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from transformers import ModernBertConfig

from clm_detour.model import ModernBertForPretraining
from clm_detour.recipe.export import write_model

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "notebooks.py"))


def printed(notebook) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(
        output.get("text") or "".join(output["data"].get("text/markdown", output["data"]["text/plain"]))
        for output in outputs
    )


@pytest.fixture(scope="module")
def finished_run(tiny_data, tmp_path_factory):
    """A run folder with all that a notebook reads: the phases of the detour, and two of its models."""
    run = tmp_path_factory.mktemp("run")
    (run / "arms.json").write_text(json.dumps({"detour": ["pretrain", "pretrain.clm", "pretrain.clm.decay"]}))
    config = ModernBertConfig(
        vocab_size=800, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
        local_attention=8, initializer_range=0.2,
        **dict.fromkeys((f"{kind}_token_id" for kind in ("pad", "bos", "eos", "cls", "sep")), 0),
    )  # fmt: skip
    torch.manual_seed(0)
    for folder in ("phases/pretrain.clm/model", "models/detour"):
        write_model(ModernBertForPretraining(config), str(tiny_data / "tokenizer"), run / folder)
    return run


def test_every_example_is_a_notebook_that_is_tested():
    assert {path.name for path in EXAMPLES.iterdir()} == {"adapt_your_text.ipynb", "two_masks.ipynb"}


@pytest.mark.parametrize("name", ["adapt_your_text", "two_masks"])
def test_committed_outputs_are_whole_small_and_without_errors(name):
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert SCRIPT["problems"](notebook) == []
    assert all(cell.outputs for cell in notebook.cells if "print(" in cell.source)


def test_problems_of_a_committed_notebook_are_seen():
    notebook = nbformat.read(EXAMPLES / "two_masks.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells[0].execution_count = 7
    cells[1].outputs = [nbformat.v4.new_output("error", ename="OSError", evalue="/tmp/x", traceback=[])]
    cells[2].outputs = [nbformat.v4.new_output("stream", text="a" * 60_000)]
    found = "; ".join(SCRIPT["problems"](notebook))
    for part in ("not run once each", "contains /tmp", "ended with an error", "bytes"):
        assert part in found


@pytest.mark.slow
def test_two_masks_prints_every_part_for_both_models(finished_run, monkeypatch, tmp_path):
    monkeypatch.setenv("RUN", str(finished_run))
    notebook = SCRIPT["run_notebook"](EXAMPLES / "two_masks.ipynb", tmp_path)
    text = printed(notebook)
    for part in ("bidirectional", "embeddings   1.00", "layer 3"):
        assert part in text
    assert text.count("after the CLM phase") == 3  # perplexity, and one guess under each mask
    assert len(re.findall(r" \d+%", text)) == 20  # five guesses of each model and mask


@pytest.mark.slow
def test_the_way_from_a_folder_of_text_to_scores_runs(tmp_path):
    notebook = SCRIPT["run_notebook"](EXAMPLES / "adapt_your_text.ipynb", tmp_path)
    assert SCRIPT["problems"](notebook) == []
    text = printed(notebook)
    assert (tmp_path / "run" / "report.html").is_file()
    for arm in ("base", "detour", "twin"):
        assert arm in text
    assert "SampleVerdict" in text or "sample" in text.lower()
