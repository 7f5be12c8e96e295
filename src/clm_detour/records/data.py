"""`card.json`: what a prepared source holds and was made from. No text of a document is in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from clm_detour.records.store import left_out_if_none

CARD = "card.json"


@dataclass(frozen=True, kw_only=True)
class SplitCard:
    """One split of a prepared source.

    Args:
        documents: Number of documents, including the copies that `repeat` makes.
        texts: Number of documents without these copies.
        tokens: Number of tokens of all documents.
        characters: Number of characters of all texts.
        words: Number of words of all texts, divided at white space; None in a card of 0.2.0.
        tokens_per_word_before: Tokens per word without the tokens that the run added to the tokenizer; only
            if it added any.
        longest: Number of tokens of the longest document.
        quantiles: Share of documents -> the number of tokens that they do not exceed.
        lengths: Documents by powers of two of their tokens: {from, below, documents}; `from` is inclusive.
        rows: Number of packed rows.
        fullness: Share of the rows' positions that hold text.
        cut: Number of documents that packing cut although they fit into a row.
        fingerprints: Checksums of documents and rows.
    """

    documents: int
    texts: int | None = None
    tokens: int
    characters: int | None = None
    words: int | None = None
    tokens_per_word: float | None = None
    tokens_per_word_before: Annotated[float | None, left_out_if_none] = None
    tokens_per_document: float | None = None
    tokens_per_character: float | None = None
    longest: int | None = None
    quantiles: dict[str, int] = field(default_factory=dict)
    lengths: list[dict[str, int]] = field(default_factory=list)
    longer_than_a_row: int | None = None
    rows: int
    fullness: float
    cut: int | None = None
    shards: int | None = None
    fingerprints: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """A prepared source.

    Args:
        name: The source's name in the recipe.
        dropped: Number of documents, or of near duplicate paragraphs, that were left out, by reason.
        packing: Length of a row, and the seed of the packing.
        tokenizer: Fingerprint of the tokenizer.
        made_from: Files and settings from which the source was prepared.
    """

    name: str
    splits: dict[str, SplitCard]
    dropped: dict[str, int]
    packing: dict[str, int] = field(default_factory=dict)
    tokenizer: Any = None
    made_from: dict[str, Any] = field(default_factory=dict)
    format: Literal[1] = 1
