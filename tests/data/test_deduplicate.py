"""The table of digests is a set."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clm_detour.data.deduplicate import Seen, digest


def key(number: int, same_home: bool) -> bytes:
    """A digest; those of one home differ in their last bytes only."""
    hashed = hashlib.blake2b(str(number).encode(), digest_size=16).digest()
    return bytes(6) + hashed[6:15] + b"\0" if same_home else hashed


@given(st.lists(st.integers(0, 3000), max_size=4000), st.booleans())
def test_a_digest_is_new_once(numbers, same_home):
    seen, expected = Seen(), set()
    for number in numbers:
        assert seen.add(key(number, same_home)) == (number not in expected)
        expected.add(number)
    assert seen.count == len(expected)


def test_many_digests_are_found_again_after_the_table_has_grown():
    seen = Seen()
    keys = [digest(str(number)) for number in range(20_000)]
    assert all(seen.add(key) for key in keys)
    assert not any(seen.add(key) for key in keys)
    assert 16 * 20_000 < seen.table.nbytes <= 48 * 20_000


def test_digests_that_all_belong_at_the_very_end_find_a_place():
    seen = Seen()
    keys = [b"\xff" * 7 + np.uint64(number).tobytes() + b"\1" for number in range(1000)]
    assert all(seen.add(key) for key in keys)
    assert not any(seen.add(key) for key in keys)
