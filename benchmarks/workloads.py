"""Real documents as token ids, cut to what a workload asks for."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from clm_detour.data.tokenizer import Tokenizer

Documents = list[np.ndarray]  # ids of each document, [CLS] ... [SEP]


def abstracts(papers: Path, tokenizer: Tokenizer, tokens: int, batches: int = 15) -> Documents:
    """Titles and abstracts, lengths as they come, in batches of at least `tokens`: the one with the median share of padding."""
    documents = _encoded((text.split("BODY.")[0] for text in _texts(papers)), tokenizer)
    taken = [_until(tokens, documents) for _ in range(batches)]
    return sorted(taken, key=lambda batch: len(batch) * max(map(len, batch)) / sum(map(len, batch)))[
        batches // 2
    ]


def long_documents(papers: Path, tokenizer: Tokenizer, tokens: int, rows: int) -> Documents:
    """The first `rows` papers that have so many tokens, cut there."""
    longer = (ids[:tokens] for ids in _encoded(_texts(papers), tokenizer) if len(ids) >= tokens)
    return list(itertools.islice(longer, rows))


def packed_rows(papers: Path, tokenizer: Tokenizer, tokens: int, rows: int) -> Documents:
    """`rows` rows of `tokens`, each of the next papers that are shorter than one; its last is cut where it ends."""
    shorter = (ids for ids in _encoded(_texts(papers), tokenizer) if len(ids) < tokens)
    return [document for _ in range(rows) for document in _row(shorter, tokens)]


def _row(documents: Iterable[np.ndarray], tokens: int) -> Documents:
    taken = _until(tokens, documents)
    surplus = sum(map(len, taken)) - tokens
    return [*taken[:-1], taken[-1][: len(taken[-1]) - surplus]]


def documents_of(workload: str, papers: Path, tokenizer: Tokenizer, tokens: int, rows: int = 1) -> Documents:
    """Those of a batch of `rows` times `tokens`.

    Args:
        workload: abstracts, document or packed.
    """
    if workload == "abstracts":
        return abstracts(papers, tokenizer, rows * tokens)
    if workload == "document":
        return long_documents(papers, tokenizer, tokens, rows)
    if workload == "packed":
        return packed_rows(papers, tokenizer, tokens, rows)
    raise SystemExit(f"No workload {workload!r}; give abstracts, document or packed.")


def _texts(papers: Path) -> Iterator[str]:
    with gzip.open(papers, "rt", encoding="utf-8") as file:
        yield from (json.loads(line)["text"] for line in file)


def _encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    texts = iter(texts)
    while batch := list(itertools.islice(texts, 32)):
        yield from (ids.astype(np.int64) for ids in tokenizer.encode_batch(batch))


def _until(tokens: int, documents: Iterable[np.ndarray]) -> Documents:
    taken: Documents = []
    for ids in documents:
        taken.append(ids)
        if sum(map(len, taken)) >= tokens:
            return taken
    raise SystemExit(f"The papers have fewer than {tokens} tokens.")
