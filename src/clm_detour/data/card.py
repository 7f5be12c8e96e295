"""The data card of a prepared source, as numbers (card.json) and as a figure (card.svg). It holds no text of
a document.

Both depend on the folder alone: preparing the same source anywhere gives the same card.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from clm_detour.data.added_tokens import AddedTokens
from clm_detour.data.packing import PackedSource
from clm_detour.data.shards import SPLITS, TokenShards
from clm_detour.data.tokenization import RECORD
from clm_detour.records.data import CARD, DataCard, SplitCard
from clm_detour.records.store import write
from clm_detour.utils.files import atomic_write, read_json

PICTURE = "card.svg"
LONGEST_COUNTED = 2**17  # lengths above this count as this much in quantiles
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def write_card(name: str, folder: Path, row_length: int, added: AddedTokens) -> DataCard:
    """Describe what `prepare_source` wrote into `folder`. Write and return the card.

    Args:
        added: Tokens that were added to the tokenizer.
    """
    sources = {split: PackedSource.open(folder / split, row_length) for split in SPLITS}
    index = sources["train"].shards.index
    groups = records_of_groups(folder)
    card = DataCard(
        name=name,
        splits={split: describe_split(split, source, groups, added) for split, source in sources.items()},
        dropped=index["dropped"],
        packing={key: sources["train"].index[key] for key in ("row_length", "seed")},
        tokenizer=index["tokenizer"],
        made_from=index["made_from"],
    )
    draw(card, folder / PICTURE)
    write(card, folder / CARD)
    return card


def is_card_of(folder: Path, row_length: int) -> bool:
    """Return whether the card in a folder describes the rows in it."""
    if not (folder / CARD).is_file() or not (folder / PICTURE).is_file():
        return False
    splits = read_json(folder / CARD).get("splits", {})
    fingerprints = {split: PackedSource.open(folder / split, row_length).fingerprint for split in SPLITS}
    return {split: of.get("fingerprints", {}).get("rows") for split, of in splits.items()} == fingerprints


def records_of_groups(folder: Path) -> list[dict[str, Any]]:
    """Return the records of the groups from which the shards were joined."""
    return [read_json(path) for path in sorted((folder / "parts").glob(f"*/{RECORD}"))]


def describe_split(
    split: str, source: PackedSource, groups: list[dict[str, Any]], added: AddedTokens
) -> SplitCard:
    """Return the numbers of one split."""
    counted = count_lengths(source.shards)
    texts, characters = (sum(group[key][split] for group in groups) for key in ("texts", "characters"))
    with_words = all("words" in group for group in groups)  # 0.2.0 did not count them
    words = sum(group["words"][split] for group in groups) if with_words else None
    tokens, documents = source.num_tokens, source.documents
    before = count_before(source.shards, added) - 2 * documents if added and words else None
    longest = [shard_longest(source.shards, shard) for shard in range(len(source.shards))]
    return SplitCard(
        documents=documents,
        texts=texts,
        tokens=tokens,
        characters=characters,
        words=words,
        tokens_per_word=None if words is None else ratio(tokens - 2 * documents, words),
        tokens_per_word_before=None if before is None or words is None else ratio(before, words),
        tokens_per_document=ratio(tokens, documents),
        tokens_per_character=ratio(tokens - 2 * documents, characters),  # [CLS] and [SEP] apart
        longest=max(longest, default=0),
        quantiles={f"{share:g}": quantile(counted, share) for share in QUANTILES},
        lengths=histogram(counted),
        longer_than_a_row=int(counted[source.row_length + 1 :].sum()),
        rows=len(source),
        fullness=round(source.fullness, 6),
        cut=source.cut,
        shards=len(source.shards),
        fingerprints={"documents": source.shards.fingerprint, "rows": source.fingerprint},
    )


def count_before(shards: TokenShards, added: AddedTokens) -> int:
    """Return the number of tokens that the documents had without the added tokens."""
    return sum(added.count_before(shards.tokens(shard)) for shard in range(len(shards)))


def count_lengths(shards: TokenShards) -> np.ndarray:
    """Return how many documents have 0, 1, ... LONGEST_COUNTED tokens."""
    counted = np.zeros(LONGEST_COUNTED + 1, dtype=np.int64)
    for shard in range(len(shards)):
        lengths = np.minimum(shards.lengths(shard), LONGEST_COUNTED)
        counted += np.bincount(lengths, minlength=len(counted))
    return counted


def shard_longest(shards: TokenShards, shard: int) -> int:
    """Return the number of tokens in the longest document of a shard."""
    return int(shards.lengths(shard).max())


def quantile(counted: np.ndarray, share: float) -> int:
    """Return the smallest length that at least a share of the documents does not exceed."""
    below = np.cumsum(counted)
    return int(np.searchsorted(below, share * below[-1])) if below[-1] else 0


def histogram(counted: np.ndarray) -> list[dict[str, int]]:
    """Return the number of documents by powers of two of their tokens, from `from` (inclusive) to `below`.

    The last bin holds all longer documents.
    """
    edges = [0, *(2**power for power in range(1, LONGEST_COUNTED.bit_length())), LONGEST_COUNTED + 1]
    counts = np.add.reduceat(counted, edges[:-1])
    bins = [
        {"from": start, "below": end, "documents": int(count)}
        for (start, end), count in zip(pairwise(edges), counts, strict=True)
    ]
    used = [place for place, one in enumerate(bins) if one["documents"]]
    return bins[used[0] : used[-1] + 1] if used else []


def ratio(above: int, below: int) -> float:
    """Return a ratio to four digits, or 0 if `below` is 0."""
    return float(f"{above / below:.4g}") if below else 0.0


def draw(card: DataCard, file: Path) -> None:
    """Write the picture: the lengths of the training documents, and facts about the source."""
    from clm_detour.figures.figure import Figure  # altair is slow to import
    from clm_detour.figures.histogram import histogram

    train = card.splits["train"]
    row_length, median = card.packing["row_length"], train.quantiles["0.5"]
    chart = histogram(card.name, train.lengths, row_length, median, facts(card))
    with atomic_write(file, "w") as out:
        out.write(Figure(file.stem, chart).svg())


def words_of(train: SplitCard) -> list[tuple[str, str]]:
    """Return tokens per word with and without added tokens, if any were added."""
    if train.tokens_per_word_before is None:
        return []
    text = f"{train.tokens_per_word:.3f}, {train.tokens_per_word_before:.3f} without added tokens"
    return [("tokens per word", text)]


def facts(card: DataCard) -> list[tuple[str, str]]:
    """Return what stands beside the histogram."""
    train, held_out = card.splits["train"], card.splits["held_out"]
    copies = train.documents - (train.texts or 0)
    canaries = card.made_from.get("canaries")
    dropped = sorted(card.dropped.items(), key=lambda item: -item[1])
    return [
        ("documents, training", f"{train.documents:,}"),
        *([("of them copies", f"{copies:,}")] if copies else []),
        ("documents, held out", f"{held_out.documents:,}"),
        ("tokens, training", f"{train.tokens:,}"),
        ("tokens per document", f"{train.tokens_per_document:,.0f}"),
        ("tokens per character", f"{train.tokens_per_character:.3f}"),
        *words_of(train),
        ("rows", f"{train.rows:,}"),
        ("share of rows that holds text", f"{train.fullness:.2%}"),
        ("documents cut needlessly", f"{train.cut:,}"),
        *([("canaries", f"{sum(canaries['copies']) * canaries['each']:,}")] if canaries else []),
        *((f"left out: {reason}", f"{count:,}") for reason, count in dropped[:5]),
        ("files", f"{len(card.made_from['files']):,}"),
    ]
