"""Durations carry their unit."""

from __future__ import annotations

import pytest

from clm_detour.config.units import parse_tokens
from clm_detour.utils.errors import UserError


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("50_000_000_000tok", 50_000_000_000),
        ("50Btok", 50_000_000_000),
        ("2.5Mtok", 2_500_000),
        ("7tok", 7),
        ("3ktok", 3000),
    ],
)
def test_tokens_are_read_exactly(text, tokens):
    assert parse_tokens(text, "here") == tokens


@pytest.mark.parametrize("text", ["", "tok", "1e9tok", "-5tok", "5 tokens", "5ba", "five"])
def test_anything_else_is_refused_naming_the_key(text):
    with pytest.raises(UserError, match="here"):
        parse_tokens(text, "here")
