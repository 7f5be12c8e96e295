"""Adding tokens to a tokenizer, and writing the folder of the extended one.

`token_choice` chooses the tokens. They take the unused entries of the vocabulary first (`[unused0]` and so
on, of which ModernBERT has 83) and then ids after the largest. They are entries of the model itself and not
added tokens, so encoding, offsets and decoding treat them like all others.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import models

from clm_detour.data.added_tokens import ADDED, AddedTokens, write_added
from clm_detour.data.token_choice import Word, best_pairs, best_words, count_words
from clm_detour.data.tokenizer import Tokenizer, copy_tokenizer, load_tokenizer, read_object
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import write_json

UNUSED = re.compile(r"\[unused\d+\]")
BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # stands for a byte, so its name must not be joined
CHECKED = 200  # texts
PREFERENCE = 1e-6  # by which the score of a joined token exceeds the sum of its parts, in nats


@dataclass(frozen=True)
class NewToken:
    """A token to add.

    Args:
        name: The token as the vocabulary has it.
        parts: The names of the two tokens of which it is joined; none for a whole word of WordPiece.
        pieces: Its ids in the tokenizer as it is.
    """

    name: str
    parts: tuple[str, ...]
    pieces: Word


def extend_tokenizer(path: str, folder: Path, texts: Iterable[str], wanted: int) -> AddedTokens:
    """Write a tokenizer with further tokens, for `AutoTokenizer.from_pretrained(folder)`.

    Fewer tokens are added if the texts do not have enough that occur twice.

    Args:
        path: Folder or hub id of the tokenizer.
        texts: Texts for which the tokens are chosen.
        wanted: Number of tokens to add.

    Raises:
        UserError: If the tokenizer cannot be extended, or nothing in the texts is worth a token.
    """
    before = load_tokenizer(path)
    check_extensible(before)
    with tempfile.TemporaryDirectory() as name:
        copy_tokenizer(path, Path(name))
        files = {file.name: read_object(file) for file in Path(name).iterdir()}
    spec, texts = files.pop("tokenizer.json"), iter(texts)
    first = list(islice(texts, CHECKED))
    new = choose_tokens(before, spec, chain(first, texts), wanted)
    if not new:
        raise UserError("tokenizer.add: no word of the sources is divided into several tokens twice or more.")
    ids = list(islice(free_ids(spec, before.vocab_size), len(new)))
    added = AddedTokens({id: token.pieces for id, token in zip(ids, new, strict=True)})
    for name, config in files.items():
        write_json(folder / name, without_added(config, ids))
    write_added(added, {id: token.name for id, token in zip(ids, new, strict=True)}, folder / ADDED)
    file = folder / "tokenizer.json"  # last: where it is, the folder is whole
    write_json(file, extended(spec, dict(zip(ids, new, strict=True))))
    try:
        check_extension(before, load_tokenizer(str(folder)), first, spec["model"]["type"] != "WordPiece")
    except UserError:
        file.unlink()
        raise
    return added


def check_extensible(tokenizer: Tokenizer) -> None:
    """Check that tokens can be added to a model of this type, and that words can be told apart.

    Raises:
        UserError: If they cannot.
    """
    kind = type(tokenizer.tokenizer.model).__name__
    if kind not in ("BPE", "Unigram", "WordPiece"):
        raise UserError(f"tokenizer.add: tokens cannot be added to a {kind} tokenizer; remove tokenizer.add.")
    _ = tokenizer.vocabulary_of_words


def choose_tokens(
    tokenizer: Tokenizer, spec: dict[str, Any], texts: Iterable[str], wanted: int
) -> list[NewToken]:
    """Return the tokens that save most on the texts, in the order in which they are added."""
    model = spec["model"]
    names = {id: name for name, id in tokenizer.tokenizer.get_vocab(with_added_tokens=True).items()}
    prefix = model.get("continuing_subword_prefix") or ""
    words = count_words(tokenizer, texts)

    def join_names(left: str, right: str) -> str | None:
        return None if BYTE.fullmatch(left) or BYTE.fullmatch(right) else left + right.removeprefix(prefix)

    if model["type"] == "WordPiece":
        return whole_words(words, wanted, names, tokenizer.tokenizer.model)
    new: list[NewToken] = []
    known = dict(names)
    pieces: dict[int, Word] = {id: (id,) for id in names}
    for left, right in best_pairs(words, wanted, names, join_names):
        token = NewToken(
            str(join_names(known[left], known[right])),
            (known[left], known[right]),
            (*pieces[left], *pieces[right]),
        )
        joined = max(names) + 1 + len(new)
        known[joined], pieces[joined] = token.name, token.pieces
        new.append(token)
    return new


def whole_words(
    words: Mapping[Word, int], wanted: int, names: Mapping[int, str], model: models.WordPiece
) -> list[NewToken]:
    """Return words to add to a WordPiece model."""
    prefix = model.continuing_subword_prefix
    vocabulary = {name: id for id, name in names.items()}

    def text_of(word: Word) -> str:
        return names[word[0]] + "".join(names[id].removeprefix(prefix) for id in word[1:])

    def with_tokens(more: Iterable[str]) -> models.WordPiece:
        entries = {**vocabulary, **dict(zip(more, count(max(names) + 1), strict=False))}
        larger = models.WordPiece(
            entries, unk_token=model.unk_token, max_input_chars_per_word=model.max_input_chars_per_word
        )
        larger.continuing_subword_prefix = prefix
        return larger

    chosen = best_words(words, wanted, text_of, with_tokens)
    return [NewToken(text_of(word), (), word) for word in chosen]


def free_ids(spec: dict[str, Any], vocab_size: int) -> Iterable[int]:
    """Return the ids of unused entries of a vocabulary, and then all ids after the largest."""
    entries = spec["model"]["vocab"]
    if isinstance(entries, list):  # of a unigram model, in which the place is the id
        entries = {name: id for id, (name, _) in enumerate(entries)}
    found = {id for name, id in entries.items() if UNUSED.fullmatch(name)}
    found |= {token["id"] for token in spec["added_tokens"] if UNUSED.fullmatch(token["content"])}
    return chain(sorted(found), count(vocab_size))


def extended(spec: dict[str, Any], new: Mapping[int, NewToken]) -> dict[str, Any]:
    """Return the content of tokenizer.json with new tokens, by id.

    Raises:
        UserError: If the ids after a unigram model's own are taken.
    """
    kept = [token for token in spec["added_tokens"] if token["id"] not in new]
    add = with_scores if spec["model"]["type"] == "Unigram" else with_entries
    return {**spec, "added_tokens": kept, "model": {**spec["model"], **add(spec["model"], kept, new)}}


def with_entries(
    model: dict[str, Any], kept: list[dict[str, Any]], new: Mapping[int, NewToken]
) -> dict[str, Any]:
    """Return the vocabulary of a BPE or WordPiece model with new tokens, and the merges of BPE.

    The model lists added tokens too: the library numbers those that it does not list by counting entries.
    """
    vocabulary = {name: id for name, id in model["vocab"].items() if id not in new}
    vocabulary |= {token["content"]: token["id"] for token in kept}
    vocabulary |= {token.name: id for id, token in new.items()}
    if model["type"] == "WordPiece":
        return {"vocab": vocabulary}
    merges, pairs = model["merges"], [token.parts for token in new.values()]
    joined = bool(merges) and isinstance(merges[0], str)
    return {
        "vocab": vocabulary,
        "merges": [*merges, *(" ".join(pair) if joined else list(pair) for pair in pairs)],
    }


def with_scores(
    model: dict[str, Any], kept: list[dict[str, Any]], new: Mapping[int, NewToken]
) -> dict[str, Any]:
    """Return the vocabulary of a unigram model with new tokens, whose id is their place in it."""
    entries = [list(entry) for entry in model["vocab"]]
    scores = dict(entries)
    for id, token in new.items():
        scores[token.name] = sum(scores[part] for part in token.parts) + PREFERENCE
        if id > len(entries):
            raise UserError(
                "tokenizer.add: tokens cannot be added to this unigram tokenizer, since it has special "
                "tokens after its vocabulary; remove tokenizer.add."
            )
        entries[id : id + 1] = [[token.name, scores[token.name]]]
    return {"vocab": entries}


def without_added(config: dict[str, Any], ids: Iterable[int]) -> dict[str, Any]:
    """Return a tokenizer's configuration without the unused tokens whose ids are taken."""
    key = "added_tokens_decoder"
    if key not in config:
        return config
    taken = {str(id) for id in ids}
    return {**config, key: {id: token for id, token in config[key].items() if id not in taken}}


def check_extension(before: Tokenizer, after: Tokenizer, texts: list[str], joins: bool) -> None:
    """Check on some texts that the extended tokenizer gives the same text back.

    Args:
        joins: Whether new tokens only join tokens that were there.

    Raises:
        UserError: If it does not, or divides a text otherwise than by joining tokens.
    """
    for text, old, new in zip(texts, before.encode_batch(texts), after.encode_batch(texts), strict=True):
        same = after.tokenizer.decode(new.tolist()) == before.tokenizer.decode(old.tolist())
        if not same or (joins and not np.array_equal(after.added.divide(new), old)):
            raise UserError(
                "tokenizer.add: this tokenizer cannot be extended, since with new tokens it would read "
                f"{text[:40]!r} in another way; remove tokenizer.add."
            )
