"""Real documents as token ids, selected and cut for each workload."""

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
    """Return titles and abstracts of at least `tokens` tokens: the batch with the median share of padding.

    Args:
        batches: Number of batches from which it is chosen.
    """
    documents = _encoded((text.split("BODY.")[0] for text in _texts(papers)), tokenizer)
    taken = [_until(tokens, documents) for _ in range(batches)]
    taken.sort(key=lambda batch: len(batch) * max(map(len, batch)) / sum(map(len, batch)))
    return taken[batches // 2]


def long_documents(papers: Path, tokenizer: Tokenizer, tokens: int, rows: int) -> Documents:
    """Return the first `rows` papers of at least `tokens` tokens, cut to that length."""
    longer = (ids[:tokens] for ids in _encoded(_texts(papers), tokenizer) if len(ids) >= tokens)
    return list(itertools.islice(longer, rows))


def packed_rows(papers: Path, tokenizer: Tokenizer, tokens: int, rows: int) -> Documents:
    """Return the papers of `rows` rows of `tokens` tokens. Each paper is shorter than a row.

    The last paper of each row is cut to fit.
    """
    shorter = (ids for ids in _encoded(_texts(papers), tokenizer) if len(ids) < tokens)
    return [document for _ in range(rows) for document in _row(shorter, tokens)]


def _row(documents: Iterable[np.ndarray], tokens: int) -> Documents:
    taken = _until(tokens, documents)
    surplus = sum(map(len, taken)) - tokens
    return [*taken[:-1], taken[-1][: len(taken[-1]) - surplus]]


def documents_of(workload: str, papers: Path, tokenizer: Tokenizer, tokens: int, rows: int = 1) -> Documents:
    """Return the documents of a batch of `rows` times `tokens` tokens.

    Args:
        workload: `abstracts`, `document` or `packed`.
    """
    if workload == "abstracts":
        return abstracts(papers, tokenizer, rows * tokens)
    if workload == "document":
        return long_documents(papers, tokenizer, tokens, rows)
    if workload == "packed":
        return packed_rows(papers, tokenizer, tokens, rows)
    raise SystemExit(f"There is no workload {workload!r}; use abstracts, document or packed.")


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
    raise SystemExit(f"The papers have fewer than {tokens} tokens; give more papers, or lower --tokens.")
