"""Arms have looks of their own, which can be seen on light and on dark paper."""

from __future__ import annotations

import re

import pytest

from clm_detour.figures.theme import (
    ARMS,
    DARK,
    DARK_SHADES,
    LIGHT,
    LOOKS,
    PAPERS,
    SHADES,
    on_dark,
    on_page,
    variables,
)


def luminance(color: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast of WCAG 2.2, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("slot", LOOKS)
def test_each_look_has_a_contrast_of_three_on_both_papers(slot):
    assert contrast(LOOKS[slot].light, PAPERS["light"]) >= 3
    assert contrast(LOOKS[slot].light, "#ffffff") >= 3
    assert contrast(LOOKS[slot].dark, PAPERS["dark"]) >= 3


@pytest.mark.parametrize(("name", "least"), [("ink", 7), ("soft", 4.5)])
def test_text_is_readable_on_both_papers(name, least):
    assert contrast(LIGHT[name], PAPERS["light"]) >= least
    assert contrast(DARK[name], PAPERS["dark"]) >= least


def test_each_arm_has_a_color_a_marker_and_a_dash_of_its_own():
    for part in ("light", "dark", "shape", "dash"):
        assert len({getattr(look, part) for look in ARMS.values()}) == len(ARMS), part


def test_shades_of_heat_maps_have_no_hue_of_an_arm_and_go_one_way():
    for shades in (SHADES, DARK_SHADES):
        found = [luminance(shade) for shade in shades]
        assert found in (sorted(found), sorted(found, reverse=True))
        for shade in shades:
            channels = [int(shade[place : place + 2], 16) for place in (1, 3, 5)]
            assert max(channels) - min(channels) < 16


def test_every_color_is_a_variable_with_a_value_for_light_and_for_dark():
    assert len(set(LIGHT.values())) == len(LIGHT)
    assert LIGHT.keys() == DARK.keys()
    spec = {"range": [*LIGHT.values()], "text": 'stroke="#123456"', "size": 3}
    names = re.findall(r"^var\(--([a-z0-9-]+)\)$", "\n".join(on_page(spec)["range"]), re.MULTILINE)
    assert names == [*LIGHT]
    assert all(variables().count(f"--{name}: #") == 2 for name in names)
    assert on_dark(spec) == {"range": [*DARK.values()], "text": 'stroke="#123456"', "size": 3}
