"""Durations in tokens and sizes in bytes, written with their unit: `100_000_000tok`, `100Mtok`, `0.5Btok`; `500MB`, `2TB`; layers: `0-7,9`."""

from __future__ import annotations

import re

from clm_detour.utils.errors import UserError

SCALES = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
DURATION = re.compile(r"(\d[\d_]*(?:\.\d+)?)\s*([kMBT]?)tok")
BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_tokens(text: str, where: str) -> int:
    """Read a duration; `where` names the config key in the error.

    Raises:
        UserError: no unit, a unit other than tokens, or not a number.
    """
    match = DURATION.fullmatch(text.strip())
    if match:
        number, scale = match.groups()
        return round(float(number.replace("_", "")) * SCALES[scale])
    if re.fullmatch(r"\d[\d_]*", text.strip()):
        raise UserError(f"{where}: {text} has no unit; write {text}tok.")
    raise UserError(
        f"{where}: {text!r} is not a duration in tokens; write for example 50_000_000tok or 50Mtok."
    )


def parse_bytes(text: str, where: str) -> int:
    """Read a size; `where` names the config key in the error.

    Raises:
        UserError: not a number with one of the units MB, GB, TB.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT]B)", text.strip())
    if match is None:
        raise UserError(f"{where}: {text!r} is not a size; write for example 500MB, 100GB or 2TB.")
    return round(float(match[1]) * BYTES[match[2]])


def parse_layers(text: str, where: str, count: int | None = None) -> frozenset[int]:
    """Read numbers and inclusive ranges of layers, the first being 0; `where` names the config key in the error.

    Args:
        count: how many layers the model has, if it is known.

    Raises:
        UserError: neither numbers nor ranges, a range that ends before it starts, or layers that the model does not have.
    """
    layers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if match is None:
            raise UserError(f"{where}: {text!r} is not a range of layers; write for example 0-7 or 0-3,8.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"{where}: {part.strip()} ends before it starts; write {last}-{first}.")
        if count is not None and last >= count:
            raise UserError(
                f"{where}: {text} goes beyond the model's {count} layers, which are 0-{count - 1}."
            )
        layers.update(range(first, last + 1))
    return frozenset(layers)
