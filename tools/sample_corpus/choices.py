"""Random choices that are the same on every Python version.

Everything is built on `random.Random.random`, the one method whose sequence Python promises never to change.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """A stream of random choices that depends on its key alone."""

    def __init__(self, *key: object):
        self.random = Random(":".join(map(str, key))).random

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.random() < probability

    def between(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return low + int(self.random() * (high - low + 1))

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + self.random() * (high - low)

    def normal(self, mean: float = 0.0, spread: float = 1.0) -> float:
        """Return nearly a normal deviate, never beyond 3.5 spreads: the sum of four uniform ones."""
        draw = self.random
        return mean + spread * 1.732 * (draw() + draw() + draw() + draw() - 2.0)

    def pick(self, items: Sequence[T]) -> T:
        """Return one item, all equally likely."""
        return items[int(self.random() * len(items))]

    def common(self, items: Sequence[T]) -> T:
        """Return one item, early ones more likely (the density falls as the cube root of the position)."""
        share = self.random()
        return items[int(share * share**0.5 * len(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Return at most `count` different items in random order."""
        rest = list(items)
        return [rest.pop(int(self.random() * len(rest))) for _ in range(min(count, len(rest)))]
