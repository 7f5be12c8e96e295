"""Draw docs/images/recipe.svg and recipe-dark.svg: the two arms of a recipe over the tokens of training.

python scripts/diagram.py
"""

from __future__ import annotations

from math import sqrt
from pathlib import Path

from clm_detour.figures.theme import ARMS, FONT, INK, LINE, SOFT, on_dark
from clm_detour.utils.files import atomic_write

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WIDTH, HEIGHT = 860, 440
DETOUR, TWIN = ARMS["detour"].light, ARMS["twin"].light
START, SWITCH, END = 168, 490, 690  # x of the first phase, of the second one and of its end; not to scale
TOP, BOTTOM = 34, 96  # y of the highest learning rate and of zero
LANES = {DETOUR: 152, TWIN: 272}  # y of an arm's upper edge
LANE = 92
DOCUMENTS = (5, 3)  # tokens of the two documents in the row that a mask shows
CELL = 7.5

Parts = list[str]


def text(
    x: float,
    y: float,
    words: str,
    size: float = 13,
    color: str = INK,
    anchor: str = "start",
    bold: bool = False,
) -> str:
    """Return a line of text."""
    weight = ' font-weight="600"' if bold else ""
    look = f'font-size="{size}" fill="{color}" text-anchor="{anchor}"{weight}'
    return f'<text x="{x}" y="{y}" {look}>{words}</text>'


def box(x: float, y: float, width: float, height: float, color: str, fill: float = 0) -> str:
    """Return a rectangle; `fill` is the opacity of its inside."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{color}" '
        f'fill-opacity="{fill}" stroke="{color}" stroke-width="1.5"/>'
    )


def path(points: list[tuple[float, float]], color: str = SOFT, width: float = 1.5, end: str = "") -> str:
    """Return a line through points; `end` is "arrow" or empty."""
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    tip = ' marker-end="url(#tip)"' if end else ""
    return f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="{width}"{tip}/>'


def mask(x: float, y: float, color: str, causal: bool) -> Parts:
    """Return the attention mask of a row: a line for each token, with the tokens that it sees."""
    ends = [sum(DOCUMENTS[: place + 1]) for place in range(len(DOCUMENTS))]
    document = [next(i for i, end in enumerate(ends) if token < end) for token in range(ends[-1])]
    cells = []
    for row, own in enumerate(document):
        for column, other in enumerate(document):
            seen = own == other and (column <= row or not causal)
            look = f'fill="{color}" fill-opacity="0.8"' if seen else f'fill="{LINE}" fill-opacity="0.6"'
            place = f'x="{x + CELL * column:g}" y="{y + CELL * row:g}"'
            cells.append(f'<rect {place} width="{CELL - 1:g}" height="{CELL - 1:g}" {look}/>')
    return cells


def rates() -> Parts:
    """Return the learning rate over both phases."""
    warm, steps = START + 40, 150
    low = BOTTOM - 0.1 * (BOTTOM - TOP)
    fall = [
        (SWITCH + (END - SWITCH) * t, TOP + (low - TOP) * sqrt(t))
        for t in (i / steps for i in range(steps + 1))
    ]
    return [
        path([(START, BOTTOM), (END, BOTTOM)], LINE),
        path([(START, BOTTOM), (warm, TOP), (SWITCH, TOP), *fall], INK, 2),
        path([(SWITCH, TOP - 16), (SWITCH, 380)], LINE),
        text(START - 14, TOP + 4, "2e-4", 12, SOFT, "end"),
        text(START - 14, BOTTOM + 4, "0", 12, SOFT, "end"),
        text(START - 14, (TOP + BOTTOM) / 2 + 4, "learning rate", 12, SOFT, "end"),
        text(warm + 10, TOP + 18, "warm-up over 100M tokens, then constant", 12, SOFT),
        text(END + 10, low + 4, "1-sqrt decay to 2e-5", 12, SOFT),
        text((START + SWITCH) / 2, BOTTOM + 24, "10B to 50B tokens", 12, INK, "middle"),
        text((SWITCH + END) / 2, BOTTOM + 24, "a tenth of that", 12, INK, "middle"),
    ]


def phase(
    x: float, end: float, y: float, color: str, lines: tuple[str, ...], causal: bool, strong: bool
) -> Parts:
    """Return a phase: its mask and what it learns."""
    side = CELL * sum(DOCUMENTS)
    parts = [box(x + 4, y, end - x - 8, LANE, color, 0.12 if strong else 0.04)]
    parts += mask(x + 18, y + (LANE - side) / 2, color, causal)
    first = y + LANE / 2 + 4 - 9 * (len(lines) - 1)
    return parts + [
        text(
            x + side + 32,
            first + 18 * place,
            line,
            14 if not place else 12,
            INK if not place else SOFT,
            bold=not place,
        )
        for place, line in enumerate(lines)
    ]


def arms() -> Parts:
    """Return the two arms, where they come from and where they end."""
    detour, twin = LANES.values()
    middle = (detour + twin + LANE) / 2
    decay = ("Masked LM", "15 % of tokens")
    causal = (
        "Causal LM: the detour",
        "each token predicts the next one",
        "and sees only the tokens before it",
    )
    masked = ("Masked LM", "30 % of the tokens are predicted", "from the whole document")
    parts = [
        box(8, middle - 52, 112, 104, SOFT),
        text(64, middle - 26, "ModernBERT", 13, INK, "middle", bold=True),
        text(64, middle - 8, "pretrained", 12, SOFT, "middle"),
        text(64, middle + 18, "+ your text", 13, INK, "middle", bold=True),
        text(64, middle + 36, "rows of tokens", 12, SOFT, "middle"),
        *phase(START, SWITCH, detour, DETOUR, causal, True, True),
        *phase(SWITCH, END, detour, DETOUR, decay, False, False),
        *phase(START, SWITCH, twin, TWIN, masked, False, False),
        *phase(SWITCH, END, twin, TWIN, decay, False, False),
        text((START + SWITCH) / 2, middle + 4, "same rows, same order", 12, SOFT, "middle"),
    ]
    for (color, y), name in zip(LANES.items(), ("detour", "twin"), strict=True):
        center = y + LANE / 2
        parts += [
            path([(120, middle), (140, middle), (140, center), (START - 4, center)], SOFT, end="arrow"),
            path([(END - 4, center), (END + 24, center)], SOFT, end="arrow"),
            box(END + 32, center - 24, 100, 48, color),
            text(END + 82, center - 2, name, 14, INK, "middle", bold=True),
            text(END + 82, center + 15, "encoder", 12, SOFT, "middle"),
        ]
    for line, words in ((middle - 8, "compared on tasks,"), (middle + 8, "loss and layers")):
        parts.append(text(END + 82, line + 4, words, 12, SOFT, "middle"))
    return parts


def key() -> Parts:
    """Return what the masks mean."""
    words = (
        "The squares are the attention mask of a row with two documents: a line shows which tokens a token "
        "sees."
    )
    again = (
        "The mask is one switch of the network. Its weights and the optimizer's state go from phase to phase."
    )
    return [
        text(START, 404, words, 12, SOFT),
        text(START, 422, again, 12, SOFT),
    ]


def drawing() -> str:
    """Return the SVG on light paper."""
    tip = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{SOFT}"/></marker></defs>'
    )
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="{FONT}">'
    )
    return "\n".join([opening, tip, *rates(), *arms(), *key(), "</svg>"]) + "\n"


def main() -> None:
    """Write both files."""
    for name, content in (("recipe", drawing()), ("recipe-dark", on_dark(drawing()))):
        with atomic_write(IMAGES / f"{name}.svg", "w") as file:
            file.write(content)


if __name__ == "__main__":
    main()
