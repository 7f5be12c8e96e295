"""A recipe from a BERT or a RoBERTa ends in models of its class, and its documents keep to its positions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from clm_detour.config import load_config
from clm_detour.data.tokenizer import copy_tokenizer, load_tokenizer
from clm_detour.model.families import FAMILIES
from clm_detour.recipe.recipe import Recipe
from clm_detour.run.check import check_before_run
from clm_detour.run.pipeline import prepare_data, run_recipe
from clm_detour.utils.errors import UserError

POSITIONS = 48  # fewer than the 64 tokens of a row


def base(kind: str, tiny_data: Path, folder: Path, which: str = "ForMaskedLM") -> Path:
    """Write a tiny base with the tokenizer of the tests."""
    tokenizer = load_tokenizer(str(tiny_data / "tokenizer"))
    offset = 0 if kind == "bert" else tokenizer.pad + 1
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=832, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=POSITIONS + offset, pad_token_id=tokenizer.pad,
    )  # fmt: skip
    torch.manual_seed(0)
    getattr(transformers, FAMILIES[kind].prefix + which)(config).save_pretrained(folder)
    copy_tokenizer(str(tiny_data / "tokenizer"), folder)
    return folder


RECIPE = """
extends: base/two-arms
run_dir: {root}/run
data:
  sequence_length: 64
  held_out: 0.4
  sources: {{abstracts: {{path: {data}/sample/abstracts.jsonl.gz}}}}
  mixtures: {{domain: {{abstracts: 1.0}}}}
tokenizer: {{path: {data}/tokenizer}}
model: {{base: {base}}}
train: {{batch_rows: 8, precision: fp32, workers: 0, checkpoint_every: 10ktok}}
phases:
  clm: {{duration: 2ktok, schedule: {{warmup: 1ktok}}}}
  mlm: {{duration: 2ktok}}
  decay: {{duration: 1ktok}}
evaluate: {{rows: 4, fill_masks: 1}}
analysis: {{texts: 20, samples: 2}}
"""


def recipe_from(folder: Path, tiny_data: Path, root: Path, *words: str) -> Recipe:
    """Return a recipe of detour and twin from a base, in `root/run`."""
    path = root / "recipe.yaml"
    path.write_text(RECIPE.format(root=root, data=tiny_data, base=folder))
    return Recipe(load_config(path, list(words)))


@pytest.mark.parametrize("kind", ["bert", pytest.param("roberta", marks=pytest.mark.slow)])
def test_a_recipe_runs_from_end_to_end(kind: str, tiny_data: Path, tmp_path: Path) -> None:
    recipe = recipe_from(base(kind, tiny_data, tmp_path / "base"), tiny_data, tmp_path)
    run_recipe(recipe)
    run = tmp_path / "run"
    assert recipe.longest_document == POSITIONS
    for phase in recipe.phases.values():
        lengths = recipe.stream(phase).example(0).document_lengths
        assert max(lengths) <= POSITIONS
        assert sum(lengths) == 64
    for arm in ("detour", "twin"):
        opened, info = transformers.AutoModelForMaskedLM.from_pretrained(
            run / "models" / arm, output_loading_info=True
        )
        assert type(opened).__name__ == FAMILIES[kind].prefix + "ForMaskedLM"
        assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert opened.config.max_position_embeddings == POSITIONS + (
            0 if kind == "bert" else opened.config.pad_token_id + 1
        )
    held_out = json.loads(recipe.folder.held_out.read_text())
    assert held_out["models"].keys() == {"base", "detour", "twin"}
    assert json.loads(recipe.folder.comparison.read_text())
    assert (run / "report.html").exists()


@pytest.mark.slow
def test_a_body_alone_is_a_base_and_gets_a_new_head(tiny_data: Path, tmp_path: Path) -> None:
    recipe = recipe_from(base("bert", tiny_data, tmp_path / "base", "Model"), tiny_data, tmp_path)
    assert any("no masked-LM head" in warning for warning in check_before_run(recipe))
    run_recipe(recipe)
    held_out = json.loads(recipe.folder.held_out.read_text())
    assert held_out["models"].keys() == {"detour", "twin"}


def test_data_that_is_cut_at_other_positions_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    folder = base("bert", tiny_data, tmp_path / "base")
    prepare_data(recipe_from(folder, tiny_data, tmp_path, "model={base: null, config: {}}").config)
    recipe = recipe_from(folder, tiny_data, tmp_path)
    said = r"documents of up to 64 tokens, but model\.base has positions for 48"
    with pytest.raises(UserError, match=said):
        recipe.stream(next(iter(recipe.phases.values())))
    prepare_data(recipe.config)
    assert recipe.stream(next(iter(recipe.phases.values())))


def test_the_check_says_that_dropout_is_off(tiny_data: Path, tmp_path: Path) -> None:
    recipe = recipe_from(base("bert", tiny_data, tmp_path / "base"), tiny_data, tmp_path)
    said = "hidden_dropout_prob 0.1 and attention_probs_dropout_prob 0.1"
    assert any(said in text for text in check_before_run(recipe))


def test_another_family_is_refused_by_name(tiny_data: Path, tmp_path: Path) -> None:
    transformers.DebertaV2Config(vocab_size=832).save_pretrained(tmp_path / "base")
    with pytest.raises(UserError, match=r"^model.base: .* is of a 'deberta-v2' model, .* relative positions"):
        check_before_run(recipe_from(tmp_path / "base", tiny_data, tmp_path))
