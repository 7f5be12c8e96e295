"""Types of values that several sections of a config have. Bounds are checked when a config is loaded."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from clm_detour.config.units import parse_bytes, parse_layers, parse_tokens
from clm_detour.utils.errors import UserError

Items = TypeVar("Items", bound=Sequence[Hashable])


def as_text(value: Any) -> Any:
    """Return an integer as text, which YAML makes of `3000` and of `7`; return anything else as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def check_tokens(text: str) -> str:
    """Return a duration or raise a UserError."""
    parse_tokens(text)
    return text


def check_positive_tokens(text: str) -> str:
    """Return a duration of one token or more, or raise a UserError."""
    if parse_tokens(text) == 0:
        raise UserError(f"{text} is not positive; write for example 50Mtok.")
    return text


def check_bytes(text: str) -> str:
    """Return a size above 0, or raise a UserError."""
    if parse_bytes(text) == 0:
        raise UserError(f"{text} is not positive; write for example 100GB.")
    return text


def check_layers(text: str) -> str:
    """Return a range of layers or raise a UserError."""
    parse_layers(text)
    return text


def check_distinct(items: Items) -> Items:
    """Return items of which no two are equal, or raise a UserError."""
    for item in items:
        if list(items).count(item) > 1:
            raise UserError(f"{item} is listed twice; remove one of them.")
    return items


PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what the generators of NumPy and Composer take
PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeNumber = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_-]+$", description="a name of letters, digits, - and _ (it becomes a folder)"
    ),
]
PhaseName = Annotated[str, Field(pattern=r"^[^.]+$", description="a name without a dot")]
Seeds = Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(check_distinct)]

TOKENS = "a number of tokens with its unit, like 50Mtok"
Tokens = Annotated[str, BeforeValidator(as_text), AfterValidator(check_tokens), Field(description=TOKENS)]
PositiveTokens = Annotated[
    str, BeforeValidator(as_text), AfterValidator(check_positive_tokens), Field(description=TOKENS)
]
Bytes = Annotated[
    str,
    BeforeValidator(as_text),
    AfterValidator(check_bytes),
    Field(description="a size like 500MB, 100GB or 2TB"),
]
Layers = Annotated[
    str, BeforeValidator(as_text), AfterValidator(check_layers), Field(description="layers like 0-7 or 0-3,8")
]
