"""The keys of a ledger: claims, the arms that they compare, and the scales at which they are tried.

A ledger is written before its runs. It says for each claim what is measured, which effect is large enough to
matter, and which result would refute the claim. See docs/ledger.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from clm_detour.config.values import Name, PositiveInt, PositiveNumber, Seeds
from clm_detour.utils.errors import UserError

Expectation = Literal["more", "less", "equal", "not_less", "not_more"]
REFERENCE = re.compile(r"(?:(?P<variant>[A-Za-z0-9_-]+)/)?(?P<arm>[A-Za-z0-9_-]+)")


@dataclass
class Needles:
    """The needle test without training, for claims whose statistic is `needles`."""

    lengths: Annotated[list[Annotated[int, Field(ge=64)]], Field(min_length=1)] = field(
        default_factory=lambda: [128, 512, 2048]
    )  # tokens of the texts; the claim is about the longest
    trials: PositiveInt = 50  # texts for each length and position


@dataclass
class Scale:
    """A size at which the claims are tried: a recipe, changes to it, and seeds."""

    recipe: str  # a file, relative to the ledger, or the name of a shipped config
    folder: str  # folder of the runs and of the result
    # Seeds of the runs. Each seed sets `seed` and `data.shuffle_seed`, so the arms of a seed share their rows
    # and their order.
    seeds: Seeds
    overrides: list[str] = field(default_factory=list)  # changes to the recipe, like `data.root=DIR`
    # Name -> further changes to the whole recipe, such as another model. A claim refers to `VARIANT/ARM`.
    variants: dict[Name, list[str]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)  # what `${values.NAME}` is at this scale
    needles: Needles = field(default_factory=Needles)


@dataclass
class LedgerArm:
    """An arm: an arm of the recipe, with changes to its phases."""

    of: str  # name of the arm in the recipe
    # Phase of that arm -> changes to the keys of `phases.PHASE`.
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Claim:
    """A claim: the effect is the statistic of `of` minus that of `against`."""

    claim: str  # the claim in a sentence
    source: str  # where it is made: a table, figure or section, or that it is a control of this ledger
    statistic: str  # a name in `ledger.statistics.STATISTICS`
    of: str | list[str]  # an arm, or several, whose values are added
    against: str | float | list[str]  # as many arms, or a number
    # more, less: the effect has this sign; equal: it is within the bound of equivalence; not_less, not_more:
    # it is not beyond that bound on this side.
    expect: Expectation
    smallest: PositiveNumber  # the smallest effect of interest, in the unit of the statistic
    equivalence: PositiveNumber  # effects within plus and minus this bound count as none
    refuted_if: str  # which result would refute the claim, in a sentence

    @property
    def plus(self) -> list[Reference]:
        """The arms whose values are added."""
        return [Reference.parse(text) for text in ([self.of] if isinstance(self.of, str) else self.of)]

    @property
    def minus(self) -> list[Reference]:
        """The arms whose values are subtracted; empty if the claim is against a number."""
        if isinstance(self.against, float | int):
            return []
        texts = [self.against] if isinstance(self.against, str) else self.against
        return [Reference.parse(text) for text in texts]

    @property
    def number(self) -> float:
        """The number that is subtracted; 0 if the claim is against arms."""
        return float(self.against) if isinstance(self.against, float | int) else 0.0


@dataclass
class Ledger:
    """A whole ledger."""

    name: str  # title of the tables
    scales: Annotated[dict[Name, Scale], Field(min_length=1)]  # name -> scale
    arms: Annotated[dict[Name, LedgerArm], Field(min_length=1)]  # name -> arm
    claims: Annotated[dict[Name, Claim], Field(min_length=1)]  # name -> claim
    # Name -> what `${values.NAME}` stands for, where the scale does not say.
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class Reference:
    """An arm, in a variant of the recipe or, with an empty name, in the recipe itself."""

    variant: str
    arm: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return the arm that `ARM` or `VARIANT/ARM` names.

        Raises:
            UserError: If the text has another form.
        """
        found = REFERENCE.fullmatch(text)
        if found is None:
            raise UserError(f"{text!r} is not the name of an arm; write ARM or VARIANT/ARM.")
        return cls(found["variant"] or "", found["arm"])

    def __str__(self) -> str:
        return f"{self.variant}/{self.arm}" if self.variant else self.arm
