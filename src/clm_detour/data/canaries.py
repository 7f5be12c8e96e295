"""Canaries: made-up sentences with random secrets, which are added to the training documents of a source.

A model that gives a secret a higher probability than other random numbers has memorized it (Carlini et al.
2019, "The Secret Sharer", arXiv 1802.08232). Sentences and secrets follow from the seed, so the audit makes
them again and no file but the tokens holds them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from clm_detour.config.schema import Canaries
from clm_detour.data.sources.records import Unit
from clm_detour.data.sources.selection import Document, is_held_out

DIGITS = 6
UNIT = Unit("canaries", "canaries", 0)  # the unit of a source that consists of its canaries
STARTS = ["Al", "Be", "Cor", "Dar", "El", "Fer", "Gil", "Hel", "Is", "Jo", "Kar", "Lin", "Mar", "Nor", "Ol"]
ENDS = ["an", "bert", "da", "ette", "fa", "gard", "ina", "ko", "la", "mund", "na", "ric", "sel", "ton", "win"]
FAMILIES = ["Beck", "Dale", "Ford", "Grove", "Hill", "Lake", "Marsh", "Park", "Stone", "Wood"]


@dataclass(frozen=True)
class Canary:
    """A sentence with a secret.

    Args:
        before: Text before the secret.
        copies: Number of documents that consist of the sentence; 0 if it is not in the data.
    """

    before: str
    secret: str
    copies: int

    @property
    def text(self) -> str:
        """The sentence."""
        return self.with_secret(self.secret)

    def with_secret(self, secret: str) -> str:
        """Return the sentence with another secret."""
        return f"{self.before} {secret}."


def make_canaries(settings: Canaries, held_out: float) -> list[Canary]:
    """Return the canaries of a recipe: `each` for every number of copies, and `each` that are left out.

    Every canary has a name of its own, and none is a document that the held-out split would take.

    Args:
        held_out: Fraction of the documents that are held out.
    """
    names = sorted(
        (f"{start}{end} {family}" for start in STARTS for end in ENDS for family in FAMILIES),
        key=lambda name: drawn(f"{settings.seed}/{name}"),
    )
    copies = [number for number in (0, *settings.copies) for _ in range(settings.each)]
    return [
        make_canary(name, number, settings.seed, held_out)
        for name, number in zip(names, copies, strict=False)
    ]


def make_canary(name: str, copies: int, seed: int, held_out: float) -> Canary:
    """Return the canary of a name, with the first of its secrets whose sentence is not held out."""
    secrets = (secret(f"{seed}/{name}/{attempt}") for attempt in count())
    made = (Canary(f"The record number of {name} is", one, copies) for one in secrets)
    return next(canary for canary in made if not is_held_out(canary.text, held_out))


def random_secrets(number: int, seed: int) -> list[str]:
    """Return secrets that are drawn as those of canaries are."""
    return [secret(f"other/{seed}/{place}") for place in range(number)]


def secret(key: str) -> str:
    """Return digits that follow from a key, divided by blanks so that each is a token of its own."""
    return " ".join(f"{drawn(key) % 10**DIGITS:0{DIGITS}}")


def drawn(key: str) -> int:
    """Return a random number of 64 bits that follows from a key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8, person=b"canaries").digest(), "little")


def canary_documents(settings: Canaries, held_out: float) -> Iterator[Document]:
    """Yield the canaries as documents: every copy is a document of its own, far from the next one."""
    canaries = make_canaries(settings, held_out)
    for turn in range(max(settings.copies)):
        for canary in canaries:
            if canary.copies > turn:
                yield Document(canary.text, 1)
