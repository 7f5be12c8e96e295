"""Filled masks: sentences that the pipeline reads as they were prepared, and one tokenizer for all models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from clm_detour.config import load_config
from clm_detour.data.packing import PackedSource
from clm_detour.data.prepare import prepare_source
from clm_detour.data.tokenizer import Tokenizer, load_tokenizer
from clm_detour.evaluate.fill_mask import fill, masked_sentences
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.run import FilledMask
from clm_detour.run.after_training import fill_masks_step
from clm_detour.run.check import check_recipe
from clm_detour.run.pipeline import prepare_data
from clm_detour.utils.errors import UserError

PLAIN = (
    "In adults with the disease the primary benefit of placebo in patients with cancer was standard; "
    "participants"
)
SPELLED = ["[MASK]", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[mask]"]
RECIPE = """
run_dir: {run}
data:
  sequence_length: 64
  held_out: 0.2
  sources: {{notes: {{path: {texts}}}}}
  mixtures: {{domain: {{notes: 1.0}}}}
tokenizer: {{path: {tokenizer}}}
model: {{base: {base}}}
train: {{batch_rows: 4, precision: fp32, workers: 0}}
evaluate: {{rows: 4, fill_masks: 2}}
phases:
  decay:
    objective: mlm
    mask_rate: 0.15
    mixture: domain
    duration: 512tok
    schedule: {{name: one_minus_sqrt, peak: 1e-3}}
arms: {{twin: [decay]}}
"""


@pytest.fixture
def tokenizer(tiny_data) -> Tokenizer:
    return load_tokenizer(str(tiny_data / "tokenizer"))


def write_texts(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def sentences_of(folder: Path, tokenizer: Tokenizer, texts: list[str]) -> list[dict[str, Any]]:
    path = write_texts(folder / "a.jsonl", texts)
    prepare_source("a", str(path), folder / "a", tokenizer, 64, 0, 0.0)
    rows = PackedSource.open(folder / "a" / "train", 64, tokenizer.fingerprint)
    return masked_sentences(rows, tokenizer, len(texts), seed=0)


@pytest.mark.parametrize("spelled", SPELLED)
def test_a_text_that_spells_a_special_token_is_not_chosen(tmp_path, tokenizer, spelled):
    texts = [f"The word {spelled} is explained: {PLAIN} {number}." for number in range(6)]
    assert sentences_of(tmp_path, tokenizer, texts) == []
    later = [f"{PLAIN} {number}, {PLAIN}, {PLAIN}, and the token {spelled}." for number in range(6)]
    (tmp_path / "later").mkdir()
    assert sentences_of(tmp_path / "later", tokenizer, later)


def test_each_sentence_has_one_mask_and_no_other_special_token_inside(tmp_path, tokenizer, tiny_data):
    found = sentences_of(tmp_path, tokenizer, [f"{PLAIN} {number}." for number in range(6)])
    theirs = AutoTokenizer.from_pretrained(tiny_data / "tokenizer")
    assert found
    for sentence in found:
        ids = theirs(sentence["text"])["input_ids"]
        assert [id for id in ids[1:-1] if id in tokenizer.special_ids] == [tokenizer.mask]


def test_a_model_without_a_tokenizer_fills_masks_with_the_one_that_is_given(encoders, tmp_path, tiny_data):
    base = tmp_path / "base"
    shutil.copytree(encoders["modernbert"], base)
    (base / "tokenizer.json").unlink()
    (base / "tokenizer_config.json").unlink()
    sentence = FilledMask("notes", "The patient was treated with [MASK].", " aspirin")
    models = {"base": str(base), "detour": encoders["modernbert"]}
    (filled,) = fill([sentence], models, str(tiny_data / "tokenizer"), lambda _: None)
    assert filled.models["base"] == filled.models["detour"]
    assert len(filled.models["base"]) == 5


def test_a_run_on_texts_about_masks_from_a_base_without_a_tokenizer_fills_masks(
    encoders, tmp_path, tiny_data
):
    base = tmp_path / "base"
    shutil.copytree(encoders["modernbert"], base)
    for file in base.glob("*token*"):
        file.unlink()
    texts = [f"{'The [MASK] token. ' * (number % 2)}{PLAIN} {number}." for number in range(80)]
    recipe = RECIPE.format(
        run=tmp_path / "run",
        texts=write_texts(tmp_path / "notes.jsonl", texts),
        tokenizer=tiny_data / "tokenizer",
        base=base,
    )
    (tmp_path / "recipe.yaml").write_text(recipe)
    config = load_config(tmp_path / "recipe.yaml")
    prepare_data(config)
    shutil.copytree(encoders["modernbert"], tmp_path / "run" / "models" / "twin")  # as if it had been trained
    step = fill_masks_step(Recipe(config))
    assert step.is_stale()
    step.do()
    filled = json.loads((tmp_path / "run" / "evaluation" / "fill_mask.json").read_text())
    assert filled
    assert all(
        item["text"].count("[MASK]") == 1 and list(item["models"]) == ["base", "twin"] for item in filled
    )


def test_check_refuses_a_tokenizer_with_which_transformers_could_fill_no_mask(encoders, tmp_path, tiny_data):
    shutil.copytree(tiny_data / "tokenizer", tmp_path / "tokenizer")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / "tokenizer" / name).write_text("{}")
    recipe = RECIPE.format(
        run=tmp_path / "run",
        texts=write_texts(tmp_path / "notes.jsonl", [PLAIN]),
        tokenizer=tmp_path / "tokenizer",
        base=encoders["modernbert"],
    )
    (tmp_path / "recipe.yaml").write_text(recipe)
    with pytest.raises(UserError, match=r"name it as mask_token in its tokenizer_config\.json"):
        check_recipe(Recipe(load_config(tmp_path / "recipe.yaml")), deep=False)
