"""Tiny encoders of both ways: a ModernBERT, a BERT and a RoBERTa packed, an ERNIE through AutoModel."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ErnieConfig,
    ErnieForMaskedLM,
    ModernBertConfig,
    RobertaConfig,
    RobertaForMaskedLM,
)

from clm_detour.data.tokenizer import copy_tokenizer, load_tokenizer
from clm_detour.model import ModernBertForPretraining

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="session")
def encoders(tiny_data, tmp_path_factory) -> dict[str, str]:
    """Kind -> folder with weights and tokenizer."""
    tokenizer = load_tokenizer(str(tiny_data / "tokenizer"))
    ids = {"pad_token_id": tokenizer.pad, "bos_token_id": tokenizer.cls, "eos_token_id": tokenizer.sep}
    common = {**SIZES, "vocab_size": 832, **ids}
    torch.manual_seed(0)
    modern = ModernBertConfig(
        **common, cls_token_id=tokenizer.cls, sep_token_id=tokenizer.sep, local_attention=16
    )
    made = {
        "modernbert": ModernBertForPretraining(modern),
        "bert": BertForMaskedLM(BertConfig(**common, max_position_embeddings=64)),
        "ernie": ErnieForMaskedLM(ErnieConfig(**common, max_position_embeddings=64)),
        "roberta": RobertaForMaskedLM(RobertaConfig(**common, max_position_embeddings=70)),
    }
    folders = {}
    for kind, model in made.items():
        folder = tmp_path_factory.mktemp("encoders") / kind
        model.save_pretrained(folder)
        copy_tokenizer(str(tiny_data / "tokenizer"), Path(folder))
        folders[kind] = str(folder)
    return folders
