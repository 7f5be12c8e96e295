"""Held-out sentences with one masked word, filled by each model through transformers' pipeline."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from transformers import pipeline
from transformers.utils import logging

from clm_detour.data.packing import PackedSource
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.records.run import FilledMask, Guess
from clm_detour.utils.progress import Advance

WINDOW = 40  # tokens shown of a document
NO_TOKENIZERS: Mapping[str, str] = MappingProxyType({})
WORD = re.compile(r" [A-Za-z]{6,}")  # long enough to carry meaning


def masked_sentences(
    source: PackedSource, tokenizer: Tokenizer, count: int, seed: int
) -> list[dict[str, str]]:
    """Return the beginnings of `count` held-out documents, each with one masked word that is a single token.

    Returns:
        A `text`, which contains the tokenizer's mask token, and an `answer`, the word with its leading space,
        for each.
    """
    rng = np.random.default_rng(seed)
    found: list[dict[str, str]] = []
    for index in range(len(source)):
        if len(found) == count:
            break
        row = source.row(index)
        sentence = mask_one_word(np.asarray(row.tokens[: row.lengths[0]]), tokenizer, rng)
        if sentence is not None:
            found.append(sentence)
    return found


def mask_one_word(
    tokens: np.ndarray, tokenizer: Tokenizer, rng: np.random.Generator
) -> dict[str, str] | None:
    """Return the beginning of a document with one masked word, or None if no word is a single token.

    Also return None if the text spells a special token, as "the [MASK] token" does: the pipeline would read
    it as the token.
    """
    decode, added = tokenizer.tokenizer.decode, tokenizer.added.pieces
    ids = [int(token) for token in tokens[: WINDOW + 1] if token not in tokenizer.special_ids]
    pieces = [decode([token]) for token in ids]
    whole = [
        position
        for position in range(WINDOW // 4, len(ids) - 1)
        if ids[position] not in added  # which the base model does not know
        and WORD.fullmatch(pieces[position])
        and not pieces[position + 1][:1].isalnum()
    ]
    if not whole or tokenizer.spells_special(decode(ids)):
        return None
    position = int(rng.choice(whole))
    mask = tokenizer.tokenizer.id_to_token(tokenizer.mask)
    return {
        "text": f"{decode(ids[:position])} {mask}{decode(ids[position + 1 :])}",
        "answer": pieces[position],
    }


def fill(
    sentences: Sequence[FilledMask],
    models: Mapping[str, str],
    tokenizer: str,
    advance: Advance,
    own: Mapping[str, str] = NO_TOKENIZERS,
    top: int = 5,
) -> list[FilledMask]:
    """Return the sentences with the guesses of each model.

    Args:
        models: Hugging Face folder or hub id of each model by its name.
        tokenizer: Folder or hub id of the tokenizer of the sentences. It is used for all models that have
            none in `own`, as on held-out rows.
        advance: Function that is called once a sentence and model.
        own: Tokenizers of models that do not know all tokens of that one.
        top: Number of guesses to return.
    """
    logging.disable_progress_bar()  # that of transformers, for loading weights
    filled = [replace(sentence, models={}) for sentence in sentences]
    for name, path in models.items():
        guess = pipeline("fill-mask", model=path, tokenizer=own.get(name, tokenizer), device="cpu", top_k=top)
        for sentence in filled:
            answers = guess(sentence.text)
            sentence.models[name] = [Guess(answer["token_str"], answer["score"]) for answer in answers]
            advance(1)
    return filled
