"""The row at position i of a training stream, as a pure function of (seed, shares, i).

There are two steps, both O(1) in the position and in the size of the corpus:

1. *Interleave.* Shares are exact fractions, so the order of sources repeats after `period` rows (60/20/20
   after 5). One period is laid out by Tijdeman's rule for the chairman assignment problem (Discrete
   Mathematics 32, 1980), which keeps every prefix of the stream within one row of each source's share.
2. *Permute.* The k-th row drawn from a source of n rows is row `permute(k mod n)` in epoch `k div n`. The
   permutation is a keyed Feistel network with cycle walking, so it takes no memory and differs in every
   epoch. A source of many shards is permuted in two levels: the shards are randomly divided into windows of
   at most `WINDOW_SHARDS`, and rows are permuted within a window. So about a billion tokens of each source
   are in use at any time, not all of them; these can be cached and downloaded ahead.

Shares are counted in rows. Packed rows are full (99.9 % and more), so these are shares of tokens.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from clm_detour.utils.errors import UserError

MAX_PERIOD = 10_000  # shares with four decimals
WINDOW_SHARDS = 16
ROUNDS = 6


class Place(NamedTuple):
    """The source, epoch and row at a position."""

    source: str
    epoch: int
    row: int


def exact_shares(shares: Mapping[str, float]) -> list[Fraction]:
    """Return the shares as exact fractions of the decimals as written, scaled to sum to 1.

    Raises:
        UserError: If the shares have so many digits that their order would not repeat soon.
    """
    parts = [Fraction(str(share)) for share in shares.values()]
    exact = [part / sum(parts) for part in parts]
    if math.lcm(*(part.denominator for part in exact)) > MAX_PERIOD:
        raise UserError(
            f"The shares {dict(shares)} have too many digits; write them with at most four decimals, "
            "summing to 1."
        )
    return exact


def one_period(shares: Sequence[Fraction]) -> np.ndarray:
    """Return the index of the source at each position of one period.

    Tijdeman's rule: among the sources that are behind their share by 1/(2n-2) or more, take the one that
    would first fall behind by more than 1 - 1/(2n-2).
    """
    period = math.lcm(*(share.denominator for share in shares))
    per_period = [int(share * period) for share in shares]
    slack = 2 * max(len(shares) - 1, 1)  # everything below is in units of 1 / (period * slack)
    drawn, order = [0] * len(shares), np.empty(period, dtype=np.int64)
    for position in range(period):
        behind = [slack * (n * (position + 1) - d * period) for n, d in zip(per_period, drawn, strict=True)]
        urgent = [
            (((slack - 1) * period - lag) / n, index)
            for index, (lag, n) in enumerate(zip(behind, per_period, strict=True))
            if lag >= period
        ]
        chosen = min(urgent)[1]
        order[position] = chosen
        drawn[chosen] += 1
    return order


def permute(index: int, size: int, key: bytes) -> int:
    """Return the image of `index` under a permutation of range(size) chosen by `key` (16 bytes or more)."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    words = np.frombuffer(hashlib.blake2b(key, digest_size=4 * ROUNDS).digest(), dtype="<u4").tolist()
    while True:
        left, right = index >> half, index & mask
        for word in words:
            left, right = right, left ^ (scramble(right ^ word) & mask)
        index = (left << half) | right
        if index < size:
            return index


def scramble(x: int) -> int:
    """Return a 32-bit integer hash (the finalizer of murmur3)."""
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ (x >> 16)


class Window(NamedTuple):
    """Shards whose rows are permuted together in one epoch.

    Args:
        shards: Numbers of the shards, ascending.
        first: Place in the epoch of the first row drawn from them.
        ends: Cumulative numbers of rows of the shards.
        key: Key of the permutation.
    """

    shards: list[int]
    first: int
    ends: list[int]
    key: bytes


class EpochOrder:
    """The order of one source's rows in one epoch. It takes a few bytes of memory for each shard.

    Args:
        shard_rows: Number of rows in each shard.
        name: Name of this source and epoch, which determines the order.
    """

    def __init__(self, shard_rows: Sequence[int], name: str):
        self._first_rows = [0, *accumulate(shard_rows)]
        shards = len(shard_rows)
        shuffled = [permute(place, shards, f"{name}/shards".encode()) for place in range(shards)]
        count = -(-shards // WINDOW_SHARDS)
        self.windows: list[Window] = []
        first = 0
        for number in range(count):
            members = sorted(shuffled[number * shards // count : (number + 1) * shards // count])
            ends = list(accumulate(shard_rows[shard] for shard in members))
            self.windows.append(
                Window(members, first, ends, (f"{name}/{number}" if number else name).encode())
            )
            first += ends[-1]

    def window(self, index: int) -> int:
        """Return the number of the window that holds the row at place `index`."""
        return bisect.bisect_right(self.windows, index, key=lambda window: window.first) - 1

    def row(self, index: int) -> int:
        """Return the number in the source of the row at place `index`."""
        window = self.windows[self.window(index)]
        drawn = permute(index - window.first, window.ends[-1], window.key)
        place = bisect.bisect_right(window.ends, drawn)
        before = window.ends[place - 1] if place else 0
        return self._first_rows[window.shards[place]] + drawn - before


class Mixture:
    """An endless stream of rows from several sources in fixed proportions.

    Args:
        shares: Share of each source (any positive numbers; they are normalized).
        shard_rows: Number of rows in each shard, for each source.
        seed: Seed of the order; the same seed gives the same stream.

    Raises:
        UserError: If a source has no rows.
    """

    def __init__(self, shares: Mapping[str, float], shard_rows: Mapping[str, Sequence[int]], seed: int):
        for name in shares:
            if sum(shard_rows[name]) < 1:
                raise UserError(f"Source {name} has no row of training text; give it more documents.")
        exact = exact_shares(shares)
        self.names = list(shares)
        self.shares = {name: float(share) for name, share in zip(self.names, exact, strict=True)}
        self.shard_rows = {name: shard_rows[name] for name in self.names}
        self.rows = {name: sum(shard_rows[name]) for name in self.names}
        self.seed = seed
        self._order = one_period(exact)
        hits = self._order[:, None] == np.arange(len(self.names))
        self._before = np.concatenate([np.zeros((1, len(self.names)), np.int64), np.cumsum(hits, axis=0)])
        self._epochs: dict[tuple[str, int], EpochOrder] = {}

    def locate(self, position: int) -> Place:
        """Return the place of the row at `position`."""
        source = int(self._order[position % len(self._order)])
        name = self.names[source]
        epoch, index = divmod(self._drawn(position, source), self.rows[name])
        return Place(name, epoch, self._epoch(name, epoch).row(index))

    def counts(self, first: int, end: int) -> dict[str, int]:
        """Return the number of rows of each source at positions first ... end - 1."""
        return {name: self._drawn(end, i) - self._drawn(first, i) for i, name in enumerate(self.names)}

    def observed_shares(self, first: int, end: int) -> dict[str, float]:
        """Return the share of each source in the rows at positions first ... end - 1."""
        return {name: count / (end - first) for name, count in self.counts(first, end).items()}

    def shards_at(self, position: int) -> dict[str, tuple[list[int], list[int]]]:
        """Return, for each source, the shards in use at `position` and the shards that come next."""
        shards = {}
        for source, name in enumerate(self.names):
            epoch, index = divmod(self._drawn(position, source), self.rows[name])
            windows, number = self._epoch(name, epoch).windows, self._epoch(name, epoch).window(index)
            last = number + 1 == len(windows)
            after = self._epoch(name, epoch + 1).windows[0] if last else windows[number + 1]
            shards[name] = (windows[number].shards, after.shards)
        return shards

    def _epoch(self, name: str, epoch: int) -> EpochOrder:
        """Return the order of an epoch. A stream passes the epochs one by one, so two of each source are
        kept.
        """
        order = self._epochs.get((name, epoch))
        if order is None:
            order = EpochOrder(self.shard_rows[name], f"{self.seed}/{name}/{epoch}")
            kept = [key for key in self._epochs if key[0] == name]
            if len(kept) > 1:
                del self._epochs[kept[0]]
            self._epochs[name, epoch] = order
        return order

    def _drawn(self, position: int, source: int) -> int:
        """Return the number of rows of one source before `position`."""
        periods, within = divmod(position, len(self._order))
        return int(periods * self._before[-1, source] + self._before[within, source])
