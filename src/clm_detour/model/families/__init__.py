"""The families of encoders that the network computes, by the `model_type` of their configs."""

from __future__ import annotations

from typing import Any

from clm_detour.model.architecture import Architecture
from clm_detour.model.families import bert, modernbert, roberta
from clm_detour.model.families.family import Family
from clm_detour.utils.errors import UserError

FAMILIES = {
    "modernbert": Family(
        "ModernBert",
        "ModernBertConfig",
        modernbert.read,
        "ModernBertDecoderForCausalLM",
        modernbert.config_keys,
    ),
    "bert": Family("Bert", "BertConfig", bert.read, "BertLMHeadModel", names=bert.NAMES),
    **{
        model_type: Family(
            prefix, f"{prefix}Config", roberta.read, f"{prefix}ForCausalLM", names=roberta.NAMES
        )
        for model_type, prefix in (
            ("roberta", "Roberta"), ("camembert", "Camembert"), ("xlm-roberta", "XLMRoberta"),
        )
    },
}  # fmt: skip
WHY_NOT = {
    **dict.fromkeys(("deberta", "deberta-v2"), "its attention adds terms of relative positions"),
    "electra": "its pretraining is no masked language modeling",
    "albert": "its layers share their weights",
    "modernbert-decoder": "it is the causal form of a ModernBERT",
}
LISTED = ", ".join(list(FAMILIES)[:-1]) + f" and {list(FAMILIES)[-1]}"


def is_known(model_type: Any) -> bool:
    """Return whether the network computes models of this type."""
    return isinstance(model_type, str) and model_type in FAMILIES


def refusal(model_type: Any) -> str:
    """Return why models of a type cannot be trained, for a sentence whose subject is the model."""
    why = f" ({WHY_NOT[model_type]})" if isinstance(model_type, str) and model_type in WHY_NOT else ""
    return (
        f"is of a {model_type!r} model, which the packed network does not compute{why}; it computes {LISTED}"
    )


def family_of(config: Any) -> Family:
    """Return the family of a config.

    Raises:
        UserError: If the network does not compute models of its type.
    """
    if not is_known(config.model_type):
        raise UserError(f"The config {refusal(config.model_type)}.")
    return FAMILIES[config.model_type]


def architecture_of(config: Any) -> Architecture:
    """Read and check a config of any family.

    Raises:
        UserError: If it asks for something that the network does not compute exactly.
    """
    return family_of(config).read(config)
