"""An exported config says how long the inputs were that the model was trained on."""

from __future__ import annotations

import json

import pytest

from clm_detour.config import load_config
from clm_detour.data.tokenizer import load_tokenizer
from clm_detour.recipe.boundary import cross_boundary, starting_network
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.start import fresh_config


@pytest.fixture
def start(tiny_recipe, tiny_data, tmp_path):
    """Return a function from overrides of a recipe with rows of 64 tokens to the positions of its network."""
    tokenizer = load_tokenizer(str(tiny_data / "tokenizer"))

    def positions(*overrides: str) -> int:
        config = load_config(tiny_recipe(tmp_path / "run"), overrides)
        recipe = Recipe(config)
        network = starting_network(cross_boundary(recipe, recipe.arm("base")[0]), config.model, tokenizer)
        network.save_pretrained(tmp_path / "saved")
        return json.loads((tmp_path / "saved" / "config.json").read_text())["max_position_embeddings"]

    return positions


def test_a_fresh_model_has_those_of_its_rows(start):
    assert start() == 64
    assert start("data.sequence_length=128") == 128


def test_a_fresh_model_may_be_told_more_and_not_less(start):
    assert start("model.config.max_position_embeddings=512") == 512
    assert start("model.config.max_position_embeddings=16") == 64


@pytest.mark.parametrize(("said", "expected"), [(8192, 8192), (32, 64)])
def test_a_base_keeps_its_own_unless_it_is_trained_on_longer_rows(start, said, expected, tiny_data, tmp_path):
    from clm_detour.model import ModernBertForPretraining

    keys = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = load_tokenizer(str(tiny_data / "tokenizer"))
    config = fresh_config({**keys, "max_position_embeddings": said}, tokenizer)
    ModernBertForPretraining(config).save_pretrained(tmp_path / "base")
    assert start(f"model={{base: {tmp_path / 'base'}, config: null}}") == expected
