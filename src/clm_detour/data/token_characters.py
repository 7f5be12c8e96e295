"""The number of characters of each token, to compare the losses of models whose tokenizers differ."""

from __future__ import annotations

import json

import numpy as np

from clm_detour.data.tokenizer import Tokenizer
from clm_detour.data.word_marks import byte_of_character, is_byte_level, is_later_byte


def count_characters(tokenizer: Tokenizer) -> np.ndarray:
    """Return the number of characters of every token, (vocab_size,) int64; 0 for special tokens.

    A blank that a token holds counts. WordPiece drops blanks, so none counts there.
    """
    spec = json.loads(tokenizer.tokenizer.to_str())
    prefix = spec["model"].get("continuing_subword_prefix") or ""
    of_bytes, added = is_byte_level(spec), {token["content"] for token in spec["added_tokens"]}
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for token, id in tokenizer.tokenizer.get_vocab(with_added_tokens=True).items():
        if id in tokenizer.special_ids:
            continue
        if of_bytes and token not in added:
            raw = [byte_of_character().get(character, 0) for character in token]
            counts[id] = sum(not is_later_byte(byte) for byte in raw)
        else:
            counts[id] = len(token.removeprefix(prefix))
    return counts
