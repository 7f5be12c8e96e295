"""Checking that transformers' `AutoTokenizer`, which users of an exported model call, agrees with training.

Training reads `tokenizer.json`. `AutoTokenizer` also follows `tokenizer_config.json`: a tokenizer class,
`add_bos_token` or other special tokens there may override `tokenizer.json`, in some releases more than in
others.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from clm_detour.data.tokenizer import EXAMPLE, Tokenizer, copy_tokenizer
from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.files import write_json

SAMPLES = (EXAMPLE, "Fièvre à 38,5 °C\n\n  (p < 0.05); IL-6 UP.")
REMEDY = (
    "in its tokenizer_config.json, set tokenizer_class: PreTrainedTokenizerFast, which takes tokenizer.json "
    "unchanged"
)


def check_auto_tokenizer(path_or_hub_id: str, tokenizer: Tokenizer) -> None:
    """Check that `AutoTokenizer` of the installed transformers reads a tokenizer as training does.

    Args:
        path_or_hub_id: Folder or hub id that `tokenizer` was loaded from.

    Raises:
        UserError: If `AutoTokenizer` cannot open the tokenizer, or gives other ids for a text, the mask or
            the padding.
    """
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)  # with the files of an exported model
        copy_tokenizer(path_or_hub_id, folder)
        write_json(folder / "config.json", {"model_type": "modernbert"})
        try:
            theirs = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
        except Exception as error:  # its type differs between releases and tokenizers
            raise UserError(
                f"transformers cannot open the tokenizer {path_or_hub_id} ({on_one_line(error)}); {REMEDY}."
            ) from error
    for ours, text in zip(tokenizer.encode_batch(SAMPLES), SAMPLES, strict=True):
        found = theirs(text)["input_ids"]
        if found != ours.tolist():
            here, there = (
                " ".join(map(str, theirs.convert_ids_to_tokens(ids))) for ids in (ours.tolist(), found)
            )
            raise UserError(
                f"Training and transformers read the tokenizer {path_or_hub_id} differently: "
                f'"{here}" here, "{there}" there; {REMEDY}.'
            )
    for role in ("mask", "pad"):
        found = getattr(theirs, f"{role}_token_id")
        if found != getattr(tokenizer, role):
            raise UserError(
                f"The {role} token of {path_or_hub_id} has the id {getattr(tokenizer, role)} here and "
                f"{found} in transformers; name it as {role}_token in its tokenizer_config.json."
            )
