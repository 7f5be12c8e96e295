"""The examples run without errors, and print what they promise."""

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

TWO_MASKS = str(Path(__file__).parents[1] / "examples" / "two_masks.py")


@pytest.fixture(scope="module")
def finished_run(tiny_data, tmp_path_factory):
    """A run folder with all that the example reads: the phases of the detour, and two of its models."""
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


def test_two_masks_prints_every_part_for_both_models(finished_run, monkeypatch, capsys):
    monkeypatch.setenv("RUN", str(finished_run))
    runpy.run_path(TWO_MASKS)
    printed = capsys.readouterr().out
    for part in ("perplexity", "[MASK]", "Cosine", "embeddings   1.00", "layer 3"):
        assert part in printed
    assert printed.count("after CLM") == 2
    assert len(re.findall(r" \d+%", printed)) == 10  # five guesses of each


def test_two_masks_packs_texts_without_changing_their_perplexity(finished_run, monkeypatch):
    monkeypatch.setenv("RUN", str(finished_run))
    names = runpy.run_path(TWO_MASKS)
    model, texts, perplexities = names["model"], names["texts"], names["perplexities"]
    alone = [perplexities(model, [text])[0] for text in texts]
    assert perplexities(model, texts) == pytest.approx(alone, rel=1e-5)


def test_two_masks_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("RUN", str(tmp_path))
    with pytest.raises(SystemExit, match="make quickstart"):
        runpy.run_path(TWO_MASKS)
