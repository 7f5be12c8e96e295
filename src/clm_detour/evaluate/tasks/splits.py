"""Splits as a whole: drawing those that a set lacks, its most frequent labels, and what two splits share."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

from clm_detour.evaluate.tasks.task import SPLITS, Counts, Document, Splits

UNNAMED = re.compile(r":\d+$")  # ids of a file's name and a number


def hold_out(shares: Mapping[str, float], splits: Splits) -> Splits:
    """Give the splits that a set lacks their share of its training documents: in the order of their ids, shuffled with seed 42; what is part of
    one longer document stays together.
    """
    if not shares:
        return splits
    whole = splits["train"]
    names = sorted({origin(document) for document in whole})
    random.Random(42).shuffle(names)
    end = int(len(names) * round(1 - sum(shares.values()), 9))
    place = dict.fromkeys(names[:end], "train")
    for number, (name, share) in enumerate(shares.items(), start=1):
        start, end = end, len(names) if number == len(shares) else end + int(len(names) * share)
        place |= dict.fromkeys(names[start:end], name)
    parts = {
        name: [document for document in whole if place[origin(document)] == name]
        for name in ("train", *shares)
    }
    return {name: parts[name] if name in parts else splits[name] for name in SPLITS}


def origin(document: Document) -> str:
    """The id of the longer document that this is a part of, or its own."""
    return document.id.partition("#")[0]


def most_frequent(splits: Splits, count: int) -> tuple[Splits, Counts]:
    """Keep only the labels that most documents have, of equally frequent ones the first by name, and the documents that have any of them.

    Returns:
        The splits, and how many labels and documents are left out.
    """
    frequency = Counter(label for documents in splits.values() for one in documents for label in one.labels)
    kept = set(sorted(frequency, key=lambda label: (-frequency[label], label))[:count])
    filtered = {
        name: [
            replace(one, labels=tuple(label for label in one.labels if label in kept)) for one in documents
        ]
        for name, documents in splits.items()
    }
    found = {name: [one for one in documents if one.labels] for name, documents in filtered.items()}
    skipped = {
        "labels that are not among the most frequent": sum(frequency.values())
        - sum(frequency[label] for label in kept),
        "documents without a frequent label": sum(map(len, splits.values())) - sum(map(len, found.values())),
    }
    return found, {reason: number for reason, number in skipped.items() if number}


def shared_ids(splits: Splits) -> dict[tuple[str, str], set[str]]:
    """Of each two splits, the documents (or longer ones that these are parts of) that are in both; rows that their files do not name are not compared."""
    named = {
        split: {origin(one) for one in documents if not UNNAMED.search(one.id)}
        for split, documents in splits.items()
    }
    return in_both(named)


def shared_texts(splits: Splits) -> dict[tuple[str, str], set[str]]:
    """Of each two splits, the texts that are in both, letter by letter."""
    return in_both({split: {one.text for one in documents} for split, documents in splits.items()})


def in_both(sets: Mapping[str, set[str]]) -> dict[tuple[str, str], set[str]]:
    """Every two that share something, and what."""
    found = {(one, other): sets[one] & sets[other] for one, other in combinations(sets, 2)}
    return {pair: both for pair, both in found.items() if both}
