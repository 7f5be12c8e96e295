"""Real documents as token ids, cut to what a workload asks for."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
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


def one_document(papers: Path, tokenizer: Tokenizer, tokens: int) -> Documents:
    """The first paper that has so many tokens, cut there."""
    return [next(ids[:tokens] for ids in _encoded(_texts(papers), tokenizer) if len(ids) >= tokens)]


def packed_row(papers: Path, tokenizer: Tokenizer, tokens: int) -> Documents:
    """The first papers that are shorter than a row of `tokens`; the last is cut where the row ends."""
    documents = _until(tokens, (ids for ids in _encoded(_texts(papers), tokenizer) if len(ids) < tokens))
    surplus = sum(map(len, documents)) - tokens
    return [*documents[:-1], documents[-1][: len(documents[-1]) - surplus]]


WORKLOADS: dict[str, Callable[[Path, Tokenizer, int], Documents]] = {
    "abstracts": abstracts,
    "document": one_document,
    "packed": packed_row,
}


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
