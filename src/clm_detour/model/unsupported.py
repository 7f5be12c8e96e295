"""Refuse keywords of transformers' methods that have no effect here, in one place for all classes.

A keyword is accepted if it asks for nothing: if it is None or its default, mostly False. Otherwise an error
names it and says what to do instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from clm_detour.model.documents import Unpadded
from clm_detour.model.input_checks import check_shape, check_tensor
from clm_detour.utils.errors import UserError, nearest

Reasons = Mapping[str, str]

_NO_CACHE = "nothing is cached here; generate text with model.to_decoder().generate(...)"
_PACKED = "texts that share a row are told apart by document_ids or document_lengths"
_LOADED_ELSEWHERE = "weights are loaded whole onto one device; leave it out"
_CONFIG = (
    "it stands in the folder's config.json; change it there, or start a fresh classifier with from_encoder"
)
_SAFETENSORS = "weights are read and written as safetensors only"

FORWARD: Reasons = {
    "output_attentions": "attention weights are never held; use transformers' class to look at them",
    "head_mask": "no head can be masked",
    "past_key_values": _NO_CACHE,
    "use_cache": _NO_CACHE,
    "cache_position": _NO_CACHE,
    "encoder_hidden_states": "the network has no cross-attention",
    "encoder_attention_mask": "the network has no cross-attention",
    "shift_labels": "pass labels that are shifted already as labels, or those of the inputs with shift=True",
    "sliding_window_mask": "the window of local layers is local_attention of the config",
    **dict.fromkeys(("indices", "cu_seqlens", "max_seqlen", "batch_size", "seq_len"), _PACKED),
    **dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"), _PACKED),
}
FROM_PRETRAINED: Reasons = {
    "config": _CONFIG,
    **dict.fromkeys(("num_labels", "id2label", "label2id", "problem_type", "classifier_dropout"), _CONFIG),
    "attn_implementation": "choose the kernels with attention_backend",
    "ignore_mismatched_sizes": "weights must fit exactly; start a fresh classifier with from_encoder",
    "output_loading_info": "weights must fit exactly, so there is nothing to tell",
    "state_dict": "call load_state_dict on the model",
    "subfolder": "give the path of the folder itself",
    "use_auth_token": "it is called token",
    "use_safetensors": _SAFETENSORS,
    **dict.fromkeys(("from_tf", "from_flax", "variant", "gguf_file"), _SAFETENSORS),
    **dict.fromkeys(("quantization_config", "load_in_8bit", "load_in_4bit"), "the weights are not quantised"),
    **dict.fromkeys(("max_memory", "offload_folder", "offload_state_dict", "tp_plan"), _LOADED_ELSEWHERE),
    **dict.fromkeys(("resume_download", "proxies", "mirror"), "huggingface_hub has no such option any more"),
}
SAVE_PRETRAINED: Reasons = {
    "push_to_hub": "call model.push_to_hub(...)",
    "repo_id": "call model.push_to_hub(...)",
    "safe_serialization": _SAFETENSORS,
    "variant": "the weights are always model.safetensors",
}
DEFAULTS = {"use_safetensors": True, "safe_serialization": True, "subfolder": ""}  # False for all others
# With any value: no code of a folder is run, nothing is allocated twice, and safetensors writes the file.
WITHOUT_EFFECT = {
    "trust_remote_code", "low_cpu_mem_usage", "_fast_init", "weights_only",
    "save_function", "save_peft_format", "save_original_format", "token",
}  # fmt: skip


def check_keywords(cls: type, method: str, given: Mapping[str, Any], known: Reasons) -> None:
    """Check the keywords for which a method of `cls` has no parameter.

    Args:
        cls: The class.
        method: Name of the method.
        given: The keywords and their values.
        known: Keywords of transformers' method, and why they are refused.

    Raises:
        UserError: If a keyword is unknown, or asks for something.
    """
    for name, value in given.items():
        if name in known:
            default = isinstance(value, bool | str) and value == DEFAULTS.get(name, False)
            if value is not None and not default:
                raise UserError(f"{cls.__name__}.{method} does not support {name}: {known[name]}.")
        elif name not in WITHOUT_EFFECT:
            likely = nearest(name, [*inspect.signature(getattr(cls, method)).parameters, *known])
            raise UserError(
                f"{cls.__name__}.{method} has no keyword {name!r}; "
                f"{f'did you mean {likely}?' if likely else 'leave it out.'}"
            )


def check_positions(position_ids: Tensor, rows: Unpadded) -> None:
    """Check that positions count up by one inside each document; they may start anywhere.

    Raises:
        UserError: If they do not, or have another shape than (1, L) or (B, L).
    """
    check_tensor("position_ids", position_ids)
    if position_ids.shape == (1, rows.shape[1]):
        position_ids = position_ids.expand(rows.shape)
    check_shape("position_ids", position_ids, rows.shape)
    documents = rows.documents
    offset_T = rows.take(position_ids) - documents.positions
    if not offset_T.equal(offset_T[documents.cu_seqlens[:-1].long()][documents.index]):
        raise UserError(
            "position_ids do not count up by one from token to token of a document; positions are made "
            "here, so leave them out, and tell texts that share a row apart by document_ids."
        )


def check_token_types(token_type_ids: Tensor) -> None:
    """Check that token types are all 0: ModernBERT has none, and of a BERT's only the first is used.

    Raises:
        UserError: If one is not 0.
    """
    check_tensor("token_type_ids", token_type_ids)
    if token_type_ids.any():
        raise UserError(
            "The network has no token types but 0, and token_type_ids are not all 0; leave them out."
        )
