"""The words of a row, found from its ids alone, for whole-word masking.

A packed row holds ids and no text. But a tokenizer marks words in the tokens themselves: WordPiece writes
`##` before a piece that continues a word, Metaspace writes `▁` before one that begins a word, and byte-level
BPE leaves a leading blank in the token and divides letters, digits and other characters from each other.
`word_marks` reads these marks once for each token, and `WordMarks.starts` divides a row by looking them up.
The words are those of the tokenizer's own pre-tokenizer, as `Encoding.word_ids` of the tokenizers library
gives them.

Two things cannot be told from ids. The class of a character whose bytes are divided over several tokens is
taken to be the commonest class of the characters that begin with the bytes in the first of them. And where
only the ends of words are marked, an unknown token is taken not to end one.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np
import tokenizers

from clm_detour.utils.errors import UserError

META = "▁"
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
PROBE = (
    "The patient's fever was 39.5 C (2 days), so he didn't take 1,200 mg/day of acetaminophen.\n\n"
    "Follow-up: don't stop;  ask for the E. coli-culture's result...   L'hôpital n'a rien trouvé\tici.\n- End"
)
NEEDED = "mask_unit: word and tokenizer.add need a tokenizer whose tokens show where a word begins"
MOST_WRONG = (
    0.02  # of the tokens of PROBE; for a tokenizer that divides text by another rule it is 0.05 or more
)


class Kind(IntEnum):
    """The beginning or the end of a token, as far as it decides where words begin."""

    ALONE = 0  # of an added token, which divides on both sides
    BEGIN = 1  # marked as the beginning of a word
    INNER = 2  # marked as inside a word; the end of a token that holds only later bytes of a character
    LETTER = 3  # also the end of every token that has a mark
    NUMBER = 4
    OTHER = 5
    SPACE = 6  # white characters only
    BLANK = 7  # a single blank, which belongs to the word after it
    END = 8  # the end of a word


Ends = tuple[Kind, Kind]
SPACES, CHARACTERS = (Kind.SPACE, Kind.BLANK), (Kind.LETTER, Kind.NUMBER, Kind.OTHER)


@dataclass(frozen=True)
class WordMarks:
    """The marks of a vocabulary of V tokens.

    Args:
        first, last: (V,) uint8, the `Kind` of the beginning and of the end of each token.
        divides: (kinds, kinds) bool, whether a word begins between an end and a beginning.
        leaves_space: (kinds,) bool, whether the last of several white characters is no part of the word with
            the others if a token of this kind follows.
        apostrophe: Id of the token "'" of byte-level BPE, -1 if there is none.
        suffixes: (V,) bool, whether a token makes a contraction with an apostrophe before it.
    """

    first: np.ndarray
    last: np.ndarray
    divides: np.ndarray
    leaves_space: np.ndarray
    apostrophe: int
    suffixes: np.ndarray

    def starts(self, tokens: np.ndarray) -> np.ndarray:
        """Return where words begin, (L,) bool, for ids (L,). The first position always begins a word."""
        first, last = self.first[tokens], self.last[tokens]
        last = last[np.maximum.accumulate(np.where(last == Kind.INNER, 0, np.arange(len(last))))]
        starts = np.ones(len(tokens), dtype=bool)
        starts[1:] = self.divides[last[:-1], first[1:]]
        space = (first == Kind.SPACE) | (first == Kind.BLANK)
        starts[1:-1] |= space[:-2] & space[1:-1] & self.leaves_space[first[2:]]
        contracted = (tokens[:-1] == self.apostrophe) & starts[:-1] & self.suffixes[tokens[1:]]
        starts[1:] &= ~contracted
        starts[2:] |= contracted[:-1]
        return starts


def word_marks(tokenizer: tokenizers.Tokenizer, special: Collection[int], unk: int, size: int) -> WordMarks:
    """Return the marks of a tokenizer's vocabulary.

    Args:
        special: Ids of special tokens. All but `unk`, which stands for a word or a part of one, are words of
            their own.
        size: Largest id plus one.

    Raises:
        UserError: If the tokens have no marks, or the marks tell other words than the tokenizer's own.
    """
    spec = json.loads(tokenizer.to_str())
    read = reader(spec)
    tokens = tokenizer.get_vocab(with_added_tokens=True)
    alone = ({token["id"] for token in spec["added_tokens"]} | set(special)) - {unk}
    kinds = np.full((2, size), Kind.ALONE, dtype=np.uint8)
    suffixes = np.zeros(size, dtype=bool)
    for token, id in tokens.items():
        if id not in alone:
            kinds[:, id] = read(token)
            suffixes[id] = f"'{token}" in CONTRACTIONS
    of_bytes = is_byte_level(spec)
    divides, leaves_space = divisions(tokenizer if of_bytes else None)
    marks = WordMarks(
        first=kinds[0],
        last=kinds[1],
        divides=divides,
        leaves_space=leaves_space,
        apostrophe=tokens.get("'", -1) if of_bytes else -1,
        suffixes=suffixes,
    )
    check_words(tokenizer, marks)
    return marks


def reader(spec: dict[str, Any]) -> Callable[[str], Ends]:
    """Return the function from a token to its kinds.

    Args:
        spec: Content of tokenizer.json.

    Raises:
        UserError: If the tokens have no marks.
    """
    model, before = spec["model"], [spec.get("pre_tokenizer"), spec.get("normalizer")]
    prefix, suffix = model.get("continuing_subword_prefix"), model.get("end_of_word_suffix")
    if is_byte_level(spec):
        return kinds_of_bytes
    if META in json.dumps(before, ensure_ascii=False):
        has_lines = "Metaspace" not in json.dumps(before)
        return lambda token: kinds_of_meta(token, has_lines)
    if prefix:
        return lambda token: (Kind.INNER if token.startswith(prefix) else Kind.BEGIN, Kind.LETTER)
    if suffix:
        return lambda token: (Kind.INNER, Kind.END if token.endswith(suffix) else Kind.LETTER)
    if model["type"] == "WordLevel":
        return lambda token: (Kind.BEGIN, Kind.END)
    raise UserError(
        f"{NEEDED} (byte-level, WordPiece, or with {META}), but those of this {model['type']} tokenizer do "
        "not; leave both out."
    )


def is_byte_level(spec: dict[str, Any]) -> bool:
    """Return whether tokens are written in the characters that stand for bytes."""
    return '"ByteLevel"' in json.dumps(spec.get("pre_tokenizer"))


def kinds_of_meta(token: str, has_lines: bool) -> Ends:
    """Return the kinds of a token in which ▁ stands for a blank.

    Args:
        has_lines: Whether tokens hold line breaks, because nothing divides a text before; each is then a word
            of its own.
    """
    if has_lines and token.isspace():
        return Kind.BEGIN, Kind.END
    return Kind.BEGIN if token.startswith(META) else Kind.INNER, Kind.LETTER


def kinds_of_bytes(token: str) -> Ends:
    """Return the kinds of a token of byte-level BPE."""
    raw = bytes(byte_of_character().get(character, ord("?")) for character in token)
    starts = [place for place, byte in enumerate(raw) if not is_later_byte(byte)]
    first = Kind.INNER if is_later_byte(raw[0]) else kind_of(raw[: [*starts, len(raw)][1]])
    last = kind_of(raw[starts[-1] :]) if starts else Kind.INNER
    if token in CONTRACTIONS:
        return Kind.OTHER, Kind.END
    if raw == b" ":
        return Kind.BLANK, Kind.BLANK
    if raw[:1] == b" " and last != Kind.SPACE:
        return Kind.BEGIN, last
    return first, last


def is_later_byte(byte: int) -> bool:
    """Return whether a byte of UTF-8 is not the first of its character."""
    return 0x80 <= byte < 0xC0


@cache
def byte_of_character() -> dict[str, int]:
    """Return the byte for which each character of byte-level BPE stands, as in GPT-2."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(shown)]
    return {chr(byte): byte for byte in shown} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


@cache
def kind_of(first_bytes: bytes) -> Kind:
    """Return the kind of a character, given by all its bytes or by the first of them."""
    lead = first_bytes[0]
    length = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    missing = max(length - len(first_bytes), 0)
    code = lead if length == 1 else lead & (0x7F >> length)
    for byte in first_bytes[1:length]:
        code = code << 6 | byte & 0x3F
    codes = range(code << 6 * missing, min((code + 1) << 6 * missing, 0x110000))
    kinds = Counter(kind for code in codes if (kind := kind_of_character(chr(code))) is not None)
    return kinds.most_common(1)[0][0] if kinds else Kind.OTHER


def kind_of_character(character: str) -> Kind | None:
    """Return the kind of a character, None if there is no such character."""
    category = unicodedata.category(character)
    if category in ("Cn", "Cs", "Co"):
        return None
    if character.isspace() and not "\x1c" <= character <= "\x1f":
        return Kind.SPACE
    return {"L": Kind.LETTER, "N": Kind.NUMBER}.get(category[0], Kind.OTHER)


def divisions(tokenizer: tokenizers.Tokenizer | None) -> tuple[np.ndarray, np.ndarray]:
    """Return between which kinds a word begins, and after which white characters.

    Args:
        tokenizer: A byte-level tokenizer, whose pre-tokenizer is asked; None if all tokens have marks.

    Returns:
        `divides` and `leaves_space` of `WordMarks`.
    """
    divides, leaves_space = np.ones((len(Kind), len(Kind)), dtype=bool), np.zeros(len(Kind), dtype=bool)
    divides[:, Kind.INNER] = False
    divides[np.ix_(SPACES, SPACES)] = False
    if tokenizer is not None:
        samples = {Kind.LETTER: "a", Kind.NUMBER: "1", Kind.OTHER: "-", Kind.BLANK: " "}
        for kind in CHARACTERS:
            for end, sample in samples.items():
                text = 7 * sample if end == kind else sample + samples[kind]
                divides[end, kind] = count_words(tokenizer, text) > 1
            leaves_space[kind] = count_words(tokenizer, f"a\n\n{samples[kind]}") > 3
    divides[[Kind.ALONE, Kind.END]] = True
    return divides, leaves_space


def count_words(tokenizer: tokenizers.Tokenizer, text: str) -> int:
    """Return the number of words into which the pre-tokenizer divides a text."""
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(text))


def check_words(tokenizer: tokenizers.Tokenizer, marks: WordMarks) -> None:
    """Check on a short text that the words are those of the tokenizer itself, if it divides texts at all.

    Raises:
        UserError: If more than a few differ.
    """
    encoding = tokenizer.encode(PROBE, add_special_tokens=False)
    words = np.array([-1 if word is None else word for word in encoding.word_ids])
    if len(np.unique(words)) < 2:
        return
    theirs = np.concatenate([[True], words[1:] != words[:-1]])
    wrong = float((marks.starts(np.array(encoding.ids)) != theirs).mean())
    if wrong > MOST_WRONG:
        raise UserError(
            f"{NEEDED}, but this one divides text into words by a rule of its own ({wrong:.0%} of the tokens "
            "of a short text would be wrong); leave both out."
        )
