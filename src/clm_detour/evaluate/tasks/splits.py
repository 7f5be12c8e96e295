"""Draw missing splits, keep the most frequent labels, and find what two splits share."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

from clm_detour.evaluate.tasks.task import SPLITS, Counts, Document, Splits

NUMBERED_ID = re.compile(r":\d+$")  # an id of a file's name and a number


def hold_out(shares: Mapping[str, float], splits: Splits) -> Splits:
    """Draw the splits that a data set lacks from its training documents.

    Documents are sorted by id and shuffled with seed 42. The parts of one longer document stay together.

    Args:
        shares: Split -> share of the training documents.
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
    """Return the id of the longer document that this one is a part of, or its own id."""
    return document.id.partition("#")[0]


def most_frequent(splits: Splits, count: int) -> tuple[Splits, Counts]:
    """Keep the labels that most documents have, and the documents that have any of them.

    Equally frequent labels are ordered by name.

    Returns:
        The splits, and the numbers of labels and documents that are left out.
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
    """Return the documents that two splits share, for each pair of splits that shares any.

    Parts count as the longer document that they belong to. Documents that their files do not name are not
    compared.
    """
    named = {
        split: {origin(one) for one in documents if not NUMBERED_ID.search(one.id)}
        for split, documents in splits.items()
    }
    return intersections(named)


def shared_texts(splits: Splits) -> dict[tuple[str, str], set[str]]:
    """Return the identical texts that two splits share, for each pair of splits that shares any."""
    return intersections({split: {one.text for one in documents} for split, documents in splits.items()})


def intersections(sets: Mapping[str, set[str]]) -> dict[tuple[str, str], set[str]]:
    """Return the intersection of each pair of sets if it is not empty."""
    found = {(one, other): sets[one] & sets[other] for one, other in combinations(sets, 2)}
    return {pair: both for pair, both in found.items() if both}
