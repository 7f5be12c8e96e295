"""Load a ledger: read YAML, fill in the values of a scale, and check it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from clm_detour.config.loading import checked, merge, parse_override, plain, read_tree
from clm_detour.config.shipped import find_config
from clm_detour.config.validation import check_keys
from clm_detour.data.shards import checksum
from clm_detour.figures.wording import listing
from clm_detour.ledger.schema import Claim, Ledger, Reference, Scale
from clm_detour.ledger.statistics import STATISTICS
from clm_detour.utils.errors import UserError
from clm_detour.utils.rules import one_of, require


@dataclass(frozen=True)
class ScaledLedger:
    """A ledger at one of its scales.

    Args:
        file: The YAML file.
        scale_name: Name of the scale.
    """

    ledger: Ledger
    file: Path
    scale_name: str

    @property
    def scale(self) -> Scale:
        """The scale."""
        return self.ledger.scales[self.scale_name]

    @property
    def claims(self) -> dict[str, Claim]:
        """The claims that this scale has all variants for."""
        return {name: claim for name, claim in self.ledger.claims.items() if not self.lacks(claim)}

    def lacks(self, claim: Claim) -> list[str]:
        """Return the variants that a claim needs and this scale does not have."""
        needed = dict.fromkeys(each.variant for each in references(claim))
        return [name for name in needed if name and name not in self.scale.variants]

    @property
    def content(self) -> dict[str, Any]:
        """Everything that the runs and verdicts of this scale depend on, as values for JSON."""
        return {
            "name": self.ledger.name,
            "scale": {self.scale_name: asdict(self.scale)},
            "arms": {name: asdict(arm) for name, arm in self.ledger.arms.items()},
            "claims": {name: asdict(claim) for name, claim in self.claims.items()},
        }

    @property
    def hash(self) -> str:
        """Checksum of `content` (BLAKE2b, 16 bytes, in hex). Comments and other scales do not count."""
        return hash_of(self.content)


def hash_of(content: Any) -> str:
    """Return the BLAKE2b checksum (16 bytes, in hex) of JSON content; the order of keys does not count."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return checksum(text.encode())


def load_ledger(path: str | Path, scale: str | None = None) -> ScaledLedger:
    """Read and check a ledger.

    Args:
        path: A YAML file, or the name of a shipped ledger, like `ledgers/paper`.
        scale: Name of the scale; None takes the first one.

    Raises:
        UserError: If the file cannot be read or something in it is wrong; one sentence for the first mistake.
    """
    file = find_config(str(path))
    tree = read_tree(file)
    content = plain(tree)
    require("claims" in content, f"{file} is not a ledger: it has no claims; see docs/ledger.md.")
    check_keys(Ledger, content)
    scales = content.get("scales") or {}
    require(bool(scales), "scales is empty; name at least one scale with a recipe, a folder and seeds.")
    chosen = next(iter(scales)) if scale is None else scale
    one_of(chosen, scales, "--scale")
    values = (scales[chosen] or {}).get("values") or {}
    merged = merge(tree, OmegaConf.create({"values": values}))
    ledger = checked(Ledger, merged, on_command_line=False)
    check_ledger(ledger)
    return ScaledLedger(ledger, file, chosen)


def references(claim: Claim) -> list[Reference]:
    """Return all arms that a claim names."""
    return [*claim.plus, *claim.minus]


def check_ledger(ledger: Ledger) -> None:
    """Raise a UserError for the first rule that a ledger breaks."""
    variants = {name for scale in ledger.scales.values() for name in scale.variants}
    for name, scale in ledger.scales.items():
        check_overrides(scale.overrides, f"scales.{name}.overrides")
        for variant, overrides in scale.variants.items():
            check_overrides(overrides, f"scales.{name}.variants.{variant}")
    for name, claim in ledger.claims.items():
        check_claim(f"claims.{name}", claim, ledger.arms, sorted(variants))


def check_overrides(overrides: Iterable[str], where: str) -> None:
    """Check that changes to a recipe are of the form `key=value` and do not set what the ledger sets."""
    for text in overrides:
        parse_override(text)
        key = text.partition("=")[0]
        require(
            key not in ("run_dir", "seed", "data.dir", "data.shuffle_seed"),
            f"{where}: {key} is set by the ledger; remove it, and use the scale's folder and seeds.",
        )


def check_claim(where: str, claim: Claim, arms: Iterable[str], variants: list[str]) -> None:
    """Check that a claim's statistic, arms and variants exist and fit each other, and its bounds too."""
    one_of(claim.statistic, STATISTICS, f"{where}.statistic")
    compared = STATISTICS[claim.statistic].arms
    require(
        claim.equivalence <= claim.smallest,
        f"{where}.equivalence: {claim.equivalence:g} is above the smallest effect of interest, "
        f"{claim.smallest:g}, so an effect that matters would count as none; lower it.",
    )
    for key, named in (("of", claim.of), ("against", claim.against)):
        for text in [] if isinstance(named, float | int) else [named] if isinstance(named, str) else named:
            try:
                found = Reference.parse(text)
            except UserError as error:
                raise UserError(f"{where}.{key}: {error}") from None
            one_of(found.arm, arms, f"{where}.{key}")
            if found.variant:
                one_of(found.variant, variants, f"{where}.{key}, a variant of a scale")
            if compared and found.arm != compared[0]:
                raise UserError(
                    f"{where}.{key}: {claim.statistic} is a comparison of the arms {listing(compared)} of a "
                    f"run, not a value of {found.arm}; write {compared[0]} or VARIANT/{compared[0]}."
                )
    for arm in compared:
        one_of(arm, arms, f"{where}.statistic, which needs this arm")
    for key, named in (("of", claim.of), ("against", claim.against)):
        require(named != [], f"{where}.{key} is empty; name an arm.")
    subtracted = len(claim.minus) or 1
    require(
        len(claim.plus) == subtracted,
        f"{where}: of names {len(claim.plus)} arms and against {subtracted}; name as many, so that the "
        "effect is a difference.",
    )
