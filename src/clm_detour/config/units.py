"""Durations in tokens, written with their unit: `100_000_000tok`, `100Mtok`, `0.5Btok`."""

from __future__ import annotations

import re

from clm_detour.errors import UserError

SCALES = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
PATTERN = re.compile(r"(\d[\d_]*(?:\.\d+)?)\s*([kMBT]?)tok")


def parse_tokens(text: str, where: str) -> int:
    """Read a duration; `where` names the config key in the error.

    Raises:
        UserError: no unit, a unit other than tokens, or not a number.
    """
    match = PATTERN.fullmatch(text.strip())
    if match:
        number, scale = match.groups()
        return round(float(number.replace("_", "")) * SCALES[scale])
    if re.fullmatch(r"\d[\d_]*", text.strip()):
        raise UserError(f"{where}: {text} has no unit; write {text}tok.")
    raise UserError(
        f"{where}: {text!r} is not a duration in tokens; write for example 50_000_000tok or 50Mtok."
    )
