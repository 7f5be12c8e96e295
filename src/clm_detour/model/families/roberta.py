"""Read the config of a RoBERTa, and name its weights. CamemBERT and XLM-RoBERTa have the same network."""

from __future__ import annotations

from typing import Any

from clm_detour.model.architecture import Architecture, Positions
from clm_detour.model.families import bert
from clm_detour.model.families.family import Names
from clm_detour.utils.errors import UserError

NAMES = Names(
    body="roberta.",
    parts=bert.PARTS,
    qkv=bert.QKV,
    heads={
        "ForMaskedLM": {
            "lm_head.dense.": "head.dense.",
            "lm_head.layer_norm.": "head.norm.",
            "lm_head.decoder.weight": "decoder.weight",
            "lm_head.bias": "decoder.bias",
        },
        "ForSequenceClassification": {
            "classifier.dense.": "head.dense.",
            "classifier.out_proj.": "classifier.",
        },
    },
    second_bias="lm_head.decoder.bias",
    unused=("roberta.pooler.", "roberta.embeddings.position_ids"),
)


def read(config: Any) -> Architecture:
    """Read and check a config. The table of positions begins after the padding id.

    Raises:
        UserError: If it asks for something that the network does not compute exactly.
    """
    if config.pad_token_id is None:
        raise UserError("pad_token_id is missing, after which the positions of a RoBERTa begin; set it to 1.")
    positions = Positions(config.max_position_embeddings, first=config.pad_token_id + 1)
    return bert.with_positions(config, positions, head_activation="gelu")
