"""What is said of any model of the Hugging Face kind is true of transformers' own class."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel
from transformers.models.auto import modeling_auto as auto

from clm_detour.model.pretrained import AFTER_PADDING, longest_input

POSITIONS, PAD = 40, 3
SIZES = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "attention_window": 8,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": PAD,
    "position_embedding_type": "absolute",
}
SPECIAL = {  # what some need beside
    "layoutlmv3": {"visual_embed": False, "coordinate_size": 4, "shape_size": 4},
    "longformer": {"attention_window": [8]},
    "mpnet": {"pad_token_id": 1},  # which its class takes for granted
    "luke": {"entity_vocab_size": 5, "entity_emb_size": 8},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}


@pytest.mark.parametrize("kind", [*AFTER_PADDING, "bert", "distilbert", "electra", "nystromformer"])
def test_a_model_reads_as_many_tokens_as_is_said_and_no_more(kind):
    config = AutoConfig.for_model(kind, **{**SIZES, **SPECIAL.get(kind, {})})
    model, longest = AutoModel.from_config(config).eval(), longest_input(config)
    read(model, longest)
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        read(model, longest + 1)


def read(model: torch.nn.Module, tokens: int) -> None:
    with torch.no_grad():
        model(input_ids=torch.full((1, tokens), 7))


def test_every_masked_model_that_numbers_positions_from_the_padding_id_is_known():
    mapping = auto.MODEL_FOR_MASKED_LM_MAPPING
    sources = {
        kind: Path(inspect.getfile(mapping[CONFIG_MAPPING[kind]])).read_text()
        for kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    }
    found = {kind for kind, source in sources.items() if "create_position_ids_from_input_ids" in source}
    assert "mpnet" in found
    assert found <= set(AFTER_PADDING)
