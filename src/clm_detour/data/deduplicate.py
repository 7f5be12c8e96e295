"""Which texts have been seen: one hash of 16 bytes each, in a table of open addressing.

Between 24 and 48 bytes a document, three times that for a moment when the table grows: 4 GB for 100 million.
A few microseconds a look-up. That two texts share a hash has a chance of one in 10^22 for 100 million of them.
"""

from __future__ import annotations

import hashlib

import numpy as np

SMALLEST_BITS = 10


def digest(text: str) -> bytes:
    """What stands for a text: 16 bytes of BLAKE2b."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Seen:
    """A set of digests that can only grow.

    A digest lies at the first free place from its home on, the home being its first bits; its very last bit is
    set, so that a place of zeros is free. At most two thirds of the places are taken.
    """

    def __init__(self) -> None:
        self.count = 0
        self._lay_out(SMALLEST_BITS, np.empty((0, 2), dtype=np.uint64))

    def add(self, key: bytes) -> bool:
        """Add a digest; whether it was new."""
        if not self._put(int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big") | 1):
            return False
        self.count += 1
        if 3 * self.count > 2 * len(self.table):
            self._lay_out(self.bits + 1, self.table[self.table[:, 1] != 0])
        return True

    def _put(self, high: int, low: int) -> bool:
        """Whether the digest was not there."""
        words, end = self._words, len(self._words)
        place = 2 * (high >> (64 - self.bits))
        while words[place + 1]:
            if words[place] == high and words[place + 1] == low:
                return False
            place = (place + 2) % end
        words[place], words[place + 1] = high, low
        return True

    def _lay_out(self, bits: int, digests: np.ndarray) -> None:
        """A new table of 2**bits places. In the order of the homes each digest goes to its home or right behind the last."""
        digests = digests[np.argsort(digests[:, 0], kind="stable")]
        homes = (digests[:, 0] >> np.uint64(64 - bits)).astype(np.int64)
        order = np.arange(len(digests))
        places = order + np.maximum.accumulate(homes - order)
        fits = places < 1 << bits
        self.bits = bits
        self.table = np.zeros((1 << bits, 2), dtype=np.uint64)
        self.table[places[fits]] = digests[fits]
        self._words = memoryview(self.table.reshape(-1).data)
        for high, low in digests[~fits].tolist():  # those that would lie behind the end start over
            self._put(high, low)
