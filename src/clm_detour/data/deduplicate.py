"""A set of texts that have been seen, as one hash of 16 bytes for each, in a table with open addressing.

It takes between 24 and 48 bytes for each document, and three times that for a moment when the table grows: 4
GB for 100 million documents. A look-up takes a few microseconds. The probability that two of 100 million
texts share a hash is one in 10^22.
"""

from __future__ import annotations

import hashlib

import numpy as np

SMALLEST_BITS = 10


def digest(text: str) -> bytes:
    """Return the 16 bytes of BLAKE2b that represent a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Seen:
    """A set of digests that can only grow.

    A digest is stored at the first free slot at or after its home slot, which its first bits give. Its very
    last bit is set, so that a slot of zeros is free. At most two thirds of the slots are taken.
    """

    def __init__(self) -> None:
        self.count = 0
        self._lay_out(SMALLEST_BITS, np.empty((0, 2), dtype=np.uint64))

    def add(self, key: bytes) -> bool:
        """Add a digest. Return whether it was new."""
        if not self._put(int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big") | 1):
            return False
        self.count += 1
        if 3 * self.count > 2 * len(self.table):
            self._lay_out(self.bits + 1, self.table[self.table[:, 1] != 0])
        return True

    def _put(self, high: int, low: int) -> bool:
        """Store a digest. Return whether it was new."""
        words, end = self._words, len(self._words)
        place = 2 * (high >> (64 - self.bits))
        while words[place + 1]:
            if words[place] == high and words[place + 1] == low:
                return False
            place = (place + 2) % end
        words[place], words[place + 1] = high, low
        return True

    def _lay_out(self, bits: int, digests: np.ndarray) -> None:
        """Make a table of 2**bits slots.

        Sorted by home slot, each digest goes to its home or to the slot after the previous digest.
        """
        digests = digests[np.argsort(digests[:, 0], kind="stable")]
        homes = (digests[:, 0] >> np.uint64(64 - bits)).astype(np.int64)
        order = np.arange(len(digests))
        places = order + np.maximum.accumulate(homes - order)
        fits = places < 1 << bits
        self.bits = bits
        self.table = np.zeros((1 << bits, 2), dtype=np.uint64)
        self.table[places[fits]] = digests[fits]
        self._words = memoryview(self.table.reshape(-1).data)
        for high, low in digests[~fits].tolist():  # the digests that would be past the end
            self._put(high, low)
