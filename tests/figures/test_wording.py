"""Names on pages and in tables."""

from __future__ import annotations

from clm_detour.figures.wording import short_names


def test_models_are_shown_by_what_tells_them_apart():
    assert list(short_names(["runs/a/models/detour", "runs/a/models/twin/"]).values()) == ["detour", "twin"]
    assert list(short_names(["a/model", "b/model", "b/other"]).values()) == ["a/model", "b/model", "b/other"]
    assert short_names(["one"]) == {"one": "one"}
