"""Which documents are kept out of training: a hash of the text decides, so copies of a text are never on both sides."""

from __future__ import annotations

import hashlib

SPLITS = ("train", "held_out")


def is_held_out(text: str, held_out: float) -> bool:
    """Whether a document belongs to the held-out split: a matter of its text alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < held_out * 2**64
