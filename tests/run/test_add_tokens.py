"""A recipe with `tokenizer.add`: the run's own tokens, from the first step to the page."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from clm_detour.config import load_config
from clm_detour.config.schema import Config
from clm_detour.data.shards import TokenShards
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.measure.before_addition import divide
from clm_detour.model.modernbert import ModernBertForPretraining
from clm_detour.recipe.boundary import cross_boundary, starting_network
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.data import CARD
from clm_detour.run.pipeline import prepare_data, run_recipe
from clm_detour.train.phase import train_phase
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import read_json

pytestmark = pytest.mark.slow

EMBEDDING = "model.embeddings.tok_embeddings.weight"
SOURCES = ("general", "abstracts", "instructions", "notes")


@pytest.fixture(scope="module")
def config(tiny_recipe, tiny_base: Path, tmp_path_factory) -> Config:
    """A recipe that adds 40 tokens to the tokenizer and the vocabulary of 800 of a base, after its run."""
    root = tmp_path_factory.mktemp("added")
    words = [
        f"model={{base: {tiny_base}, config: null}}",
        "tokenizer.add={tokens: 40, documents: 100}",
        f"data.dir={root}/data",
        "arms={detour: [clm, decay], twin: [mlm, decay]}",
        "analysis={texts: 20, samples: 1}",
        "evaluate.general=general",
    ]
    config = load_config(tiny_recipe(root / "run"), words)
    run_recipe(config, size_warnings=False)
    return config


@pytest.fixture(scope="module")
def recipe(config: Config) -> Recipe:
    return Recipe(config)


def test_the_base_gets_the_mean_of_the_pieces_and_a_multiple_of_64_rows(recipe, tiny_base):
    tokenizer = recipe.tokenizer
    old, new = (load_file(Path(folder) / "model.safetensors") for folder in (tiny_base, recipe.start))
    assert len(tokenizer.added.pieces) == 40
    assert len(old[EMBEDDING]) == 832  # 800, padded
    assert len(new[EMBEDDING]) == 896
    for id, pieces in tokenizer.added.pieces.items():
        torch.testing.assert_close(new[EMBEDDING][id], old[EMBEDDING][list(pieces)].mean(0))
    run = recipe.arms["detour"][0]
    network = starting_network(cross_boundary(recipe, run), recipe.config.model, tokenizer)
    assert torch.equal(network.state_dict()[EMBEDDING], new[EMBEDDING])


def test_every_exported_model_opens_in_transformers_with_its_tokenizer_and_equal_logits(recipe):
    folder = recipe.folder.model("detour")
    theirs, info = transformers.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    id = next(iter(recipe.tokenizer.added.pieces))
    text = f"The{tokenizer.decode([id])} and"
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert ids.tolist() == [recipe.tokenizer.encode_batch([text])[0].tolist()]
    ours = ModernBertForPretraining.from_pretrained(folder, causal=False)
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(ids).logits, ours(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("source", SOURCES)
def test_the_data_card_has_tokens_per_word_with_and_without_the_added_tokens(recipe, source):
    folder = Path(recipe.prepared.folder(source))
    card = read_json(folder / CARD)["splits"]["train"]
    before, after = load_tokenizer(recipe.original_tokenizer_path), recipe.tokenizer
    shards = TokenShards.open(folder / "train", after.fingerprint)
    ids, lengths = (
        np.concatenate([read(i) for i in range(len(shards))]) for read in (shards.tokens, shards.lengths)
    )
    texts = [
        after.tokenizer.decode(document[1:-1].tolist())
        for document in np.split(np.asarray(ids), np.cumsum(lengths)[:-1])
    ]
    words = sum(len(text.split()) for text in texts)
    counts = [sum(len(ids) - 2 for ids in each.encode_batch(texts)) for each in (before, after)]
    assert card["words"] == words
    assert card["tokens_per_word_before"] == pytest.approx(counts[0] / words, rel=1e-3)
    assert card["tokens_per_word"] == pytest.approx(counts[1] / words, rel=1e-3)
    assert card["tokens_per_word"] < card["tokens_per_word_before"]


def test_losses_are_per_character_on_the_page_where_the_tokenizers_differ(recipe):
    found = read_json(recipe.folder.held_out)
    numbers = read_json(recipe.folder.report_files / "numbers.json")["held_out"]
    for model in ("base", "detour", "twin"):
        score, characters = found["models"][model], sum(found["characters"][model].values())
        loss = score["loss"] * score["predicted"] / characters
        assert numbers["models"][model]["total"]["loss"] == pytest.approx(loss, rel=1e-6)
    assert numbers["unit"] == "nats per character"
    general = found["general"]
    score, characters = general["models"]["base"], general["characters"]["base"]["general"]
    loss = numbers["general"]["models"]["base"]["total"]["loss"]
    assert loss == pytest.approx(score["loss"] * score["predicted"] / characters, rel=1e-6)
    page = recipe.folder.report.read_text()
    assert "nats per character" in page
    assert "Tokens per word" in page
    assert ">Perplexity<" not in page


def test_the_base_is_scored_on_the_same_text_in_its_own_tokens(recipe):
    before, after = load_tokenizer(recipe.original_tokenizer_path), recipe.tokenizer
    for name, source in recipe.open_sources(SOURCES, "held_out").items():
        divided = divide(source, after.added, len(source))
        shorter = 0
        for number in range(len(source)):
            row, old = source.row(number), divided.row(number)
            assert old.lengths.sum() == len(old.tokens)
            assert old.tokens.max() < before.vocab_size
            assert before.tokenizer.decode(old.tokens.tolist()) == after.tokenizer.decode(row.tokens.tolist())
            shorter += len(row.tokens) < len(old.tokens)
        assert shorter, name


def test_the_comparison_of_networks_starts_at_the_base_with_the_added_tokens(recipe):
    found = read_json(recipe.folder.analysis / "trajectory.json")
    assert "start" in str(found)
    assert read_json(recipe.folder.comparison)


def test_a_second_run_has_nothing_to_do_and_other_additions_are_refused(config):
    assert run_recipe(config, size_warnings=False) == 0
    config.tokenizer.add.tokens = 41
    try:
        with pytest.raises(UserError, match="tokens was 40, is now 41"):
            run_recipe(config, size_warnings=False)
    finally:
        config.tokenizer.add.tokens = 40


def test_the_extended_tokenizer_and_base_are_a_base_of_another_recipe(recipe, tiny_recipe, tmp_path):
    words = [
        f"model={{base: {recipe.start}, config: null}}",
        f"tokenizer={{path: {recipe.tokenizer_path}, train: null, add: null}}",
        f"data.dir={recipe.config.data.dir}",
        "arms={twin: [mlm]}",
    ]
    config = load_config(tiny_recipe(tmp_path / "next"), words)
    shutil.rmtree(tmp_path / "next", ignore_errors=True)
    prepare_data(config)
    other = Recipe(config)
    assert other.tokenizer.fingerprint == recipe.tokenizer.fingerprint
    network = starting_network(cross_boundary(other, other.arms["twin"][0]), config.model, other.tokenizer)
    assert network.config.vocab_size == 896


def test_debug_adds_a_few_tokens_to_the_small_tokenizer_and_trains(tmp_path):
    recipe = tmp_path / "mine.yaml"
    text = "extends: quickstart\ntokenizer: {path: nowhere, train: null, add: {tokens: 83}}\n"
    recipe.write_text(f"{text}run_dir: {tmp_path}/run\n")
    config = load_config(recipe, ["+debug"])
    prepare_data(config)
    small = Recipe(config)
    assert len(small.tokenizer.added.pieces) == config.tokenizer.add.tokens == 20
    assert train_phase(small, small.arms["base"][0])
