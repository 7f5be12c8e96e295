"""Choose the texts on which models are compared: distinct ones of a file, or held-out ones of a run."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clm_detour.config.schema import Source
from clm_detour.data.deduplicate import Seen, digest
from clm_detour.data.shards import TokenShards
from clm_detour.data.sources import read_documents
from clm_detour.recipe.recipe import Recipe
from clm_detour.utils.errors import UserError
from clm_detour.utils.files import writable

FEWEST = 20  # fewest texts of a sample: half of them must suffice for the U-statistic


class Samples(NamedTuple):
    """Samples of texts.

    Args:
        pool: Numbers of the texts that are in any sample, (N,).
        members: Indices in `pool` of the texts of each sample, (samples, texts of a sample).
    """

    pool: np.ndarray
    members: np.ndarray

    @property
    def overlap(self) -> bool:
        """Return whether a text is in more than one sample."""
        return self.members.size > len(self.pool)


class StoredTexts(Sequence[str]):
    """Texts in an unnamed temporary file. Memory holds 8 bytes of each.

    Raises:
        UserError: If the disk is full.
    """

    def __init__(self, texts: Iterable[str]):
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the texts are used
        self._ends = array("q", [0])
        for text in texts:
            with writable(Path(tempfile.gettempdir())):
                self._ends.append(self._ends[-1] + self._file.write(text.encode("utf-8", "surrogatepass")))
        with writable(Path(tempfile.gettempdir())):
            self._file.flush()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        place = range(len(self))[index]
        if isinstance(place, range):
            return [self[i] for i in place]
        start, end = self._ends[place : place + 2]
        self._file.seek(start)
        return self._file.read(end - start).decode("utf-8", "surrogatepass")


def read_texts(path: str, text_field: str = "text") -> Iterator[str]:
    """Yield the distinct texts of a file, folder or glob in any format of a source, in order.

    Memory holds a digest of each, 24 to 48 bytes.

    Raises:
        UserError: If it cannot be read or holds no text.
    """
    seen = Seen()
    for text in read_documents(Source(path=path, text=text_field)):
        if seen.add(digest(text)):
            yield text


def draw_samples(available: int, samples: int, size: int, seed: int) -> Samples:
    """Draw `samples` times `size` texts. No text is in two samples if there are enough.

    Raises:
        UserError: If there are too few texts, or a sample is too small.
    """
    if size < FEWEST:
        raise UserError(f"A sample of {size} texts says nothing; use {FEWEST} or more (the paper takes 500).")
    if available < size:
        raise UserError(
            f"There are {available} distinct texts and a sample takes {size}: give more, or ask for smaller "
            "samples."
        )
    rng = np.random.default_rng(seed)
    drawn: np.ndarray
    if available >= samples * size:
        drawn = rng.permutation(available)[: samples * size].reshape(samples, size)
    else:
        drawn = np.stack([rng.permutation(available)[:size] for _ in range(samples)])
    pool, members = np.unique(drawn, return_inverse=True)
    return Samples(pool, members.reshape(drawn.shape))


def held_out_texts(recipe: Recipe, most: int) -> list[str]:
    """Return distinct held-out texts of a recipe, from each domain source in turn, decoded from their tokens.

    Args:
        recipe: The recipe, with prepared data.
        most: Number of texts, at most.

    Raises:
        UserError: If a source is not prepared, is damaged, or was prepared with another tokenizer.
    """
    tokenizer, prepared = recipe.tokenizer, recipe.prepared
    special = set(tokenizer.special_ids)
    folders = [f"{prepared.folder(name)}/held_out" for name in recipe.domain_sources]
    shards = [TokenShards.open(folder, tokenizer.fingerprint, prepared.cache) for folder in folders]
    sources = [_documents(each) for each in shards]
    found: dict[str, None] = {}
    while sources and len(found) < most:
        for documents in list(sources):
            ids = next(documents, None)
            if ids is None:
                sources.remove(documents)
            elif len(found) < most:
                text = tokenizer.tokenizer.decode([int(i) for i in ids if int(i) not in special])
                found.setdefault(text)
    return list(found)


def _documents(shards: TokenShards) -> Iterator[np.ndarray]:
    """Yield the token ids of each document."""
    for shard in range(len(shards)):
        yield from np.split(shards.tokens(shard), np.cumsum(shards.lengths(shard).astype(np.int64))[:-1])
