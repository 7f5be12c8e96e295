"""Read durations in tokens (`50Mtok`, `0.5Btok`), sizes in bytes (`500MB`) and ranges of layers (`0-7,9`)."""

from __future__ import annotations

import re

from clm_detour.utils.errors import UserError

SCALES = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
DURATION = re.compile(r"(\d[\d_]*(?:\.\d+)?)\s*([kMBT]?)tok")
BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_tokens(text: str, where: str = "") -> int:
    """Return the number of tokens in a duration.

    Args:
        where: The config key, for the error.

    Raises:
        UserError: If the text has no unit, has another unit than tokens, or is not a number.
    """
    match = DURATION.fullmatch(text.strip())
    if match:
        number, scale = match.groups()
        return round(float(number.replace("_", "")) * SCALES[scale])
    if re.fullmatch(r"\d[\d_]*", text.strip()):
        raise wrong(where, f"{text} has no unit; write {text}tok.")
    raise wrong(where, f"{text!r} is not a duration in tokens; write for example 50_000_000tok or 50Mtok.")


def parse_bytes(text: str, where: str = "") -> int:
    """Return the number of bytes in a size.

    Args:
        where: The config key, for the error.

    Raises:
        UserError: If the text is not a number with one of the units MB, GB and TB.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT]B)", text.strip())
    if match is None:
        raise wrong(where, f"{text!r} is not a size; write for example 500MB, 100GB or 2TB.")
    return round(float(match[1]) * BYTES[match[2]])


def parse_layers(text: str, where: str = "", count: int | None = None) -> frozenset[int]:
    """Return the layers in a list of numbers and inclusive ranges; the first layer is 0.

    Args:
        where: The config key or option, for the error.
        count: Number of layers of the model, if it is known.

    Raises:
        UserError: If the text is neither numbers nor ranges, a range ends before it starts, or the model has
            no such layer.
    """
    layers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if match is None:
            raise wrong(where, f"{text!r} is not a range of layers; write for example 0-7 or 0-3,8.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise wrong(where, f"{part.strip()} ends before it starts; write {last}-{first}.")
        if count is not None and last >= count:
            raise wrong(where, f"{text} goes beyond the model's {count} layers, which are 0-{count - 1}.")
        layers.update(range(first, last + 1))
    return frozenset(layers)


def layer_thirds(layers: int) -> dict[str, tuple[int, int]]:
    """Return the first and last layer of each third of the layers (low, mid, high), which are about equal."""
    cuts = [round(i * layers / 3) for i in range(4)]
    return {
        name: (cuts[i], cuts[i + 1] - 1)
        for i, name in enumerate(("low", "mid", "high"))
        if cuts[i + 1] > cuts[i]
    }


def wrong(where: str, sentence: str) -> UserError:
    """Return the error for a value, with its key if there is one."""
    return UserError(f"{where}: {sentence}" if where else sentence)
