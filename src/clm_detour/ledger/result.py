"""The result of a ledger: values of the statistics for each seed, verdicts, and where they come from."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from clm_detour.config.loading import load_config
from clm_detour.figures.wording import listing
from clm_detour.ledger.load import ScaledLedger, hash_of
from clm_detour.ledger.runs import needed_arms, result_folder, run_folder
from clm_detour.ledger.schema import Claim
from clm_detour.ledger.statistics import STATISTICS
from clm_detour.ledger.verdict import MOST_SEEDS, Rule, Verdict, decide, margin_of, seeds_to_decide
from clm_detour.recipe.prepared import PreparedData
from clm_detour.recipe.recipe import without_folders
from clm_detour.records.data import CARD, DataCard
from clm_detour.records.ledger import ClaimResult, LedgerRecord, RunOrigin, SeedEffect, StartedLedger
from clm_detour.records.run import Arms
from clm_detour.records.run_folder import RunFolder
from clm_detour.records.store import read, write
from clm_detour.utils.environment import PACKAGES, VERSION, commit, version_of
from clm_detour.utils.files import read_json
from clm_detour.utils.started_with import changes

VERDICTS: dict[int, Verdict] = {1: "supported", 0: "undecided", -1: "refuted"}


def started(loaded: ScaledLedger, folder: Path) -> StartedLedger:
    """Return the ledger as it was before the first run, and write it if this is before the first run."""
    path = folder / "ledger.started.json"
    if not path.exists():
        write(StartedLedger(loaded.hash, now(), loaded.content), path)
    return read(StartedLedger, path)


def make_result(loaded: ScaledLedger, overrides: Sequence[str] = ()) -> LedgerRecord:
    """Return the verdicts on all claims of a scale, from the runs that are there.

    Args:
        overrides: Those of `ledger_runs`.
    """
    first = started(loaded, result_folder(loaded, overrides))
    scale, lacking = loaded.scale_name, {}
    for name, claim in loaded.ledger.claims.items():
        if variants := loaded.lacks(claim):
            lacking[name] = f"The scale {scale} does not have the variant {listing(variants)}."
    folders = {
        (variant, seed): run_folder(loaded, variant, seed, overrides)
        for seed in loaded.scale.seeds
        for variant in needed_arms(loaded, loaded.claims)
    }
    return LedgerRecord(
        name=loaded.ledger.name,
        scale=scale,
        hash=loaded.hash,
        hash_at_start=first.hash,
        changes=[f"{change}." for change in changes(first.content, loaded.content)],
        date=now(),
        claims={name: judge(claim, loaded.scale.seeds, folders) for name, claim in loaded.claims.items()},
        not_tried=lacking,
        runs=[origin(folder, *key) for key, folder in folders.items() if folder.arms.exists()],
        commit=commit(),
        versions={"clm_detour": VERSION, **{name: version_of(package) for name, package in PACKAGES.items()}},
    )


def judge(claim: Claim, seeds: Sequence[int], folders: Mapping[tuple[str, int], RunFolder]) -> ClaimResult:
    """Return a claim with its verdict.

    Args:
        folders: Variant and seed -> folder of the run, finished or not.
    """
    found = {str(seed): seed_effect(claim, seed, folders) for seed in seeds}
    effects = [each.effect for each in found.values() if each.effect is not None]
    statistic, rule = STATISTICS[claim.statistic], Rule(claim.expect, claim.smallest, claim.equivalence)
    mean = float(np.mean(effects)) if effects else None
    deviation = float(np.std(effects, ddof=1)) if len(effects) > 1 else None
    margin = float(margin_of(effects)) if effects else np.inf
    verdict = int(decide(effects, rule)) if effects else 0
    more = None
    if verdict == 0 and mean is not None and deviation is not None and np.isfinite(margin):
        enough = seeds_to_decide(len(effects), mean, deviation, rule)
        more = None if enough is None else enough - len(effects)
    interval = (mean - margin, mean + margin) if mean is not None and np.isfinite(margin) else None
    return ClaimResult(
        claim=claim.claim,
        source=claim.source,
        statistic=claim.statistic,
        title=statistic.title,
        unit=statistic.unit,
        better=statistic.better,
        of=[str(each) for each in claim.plus],
        against=[str(each) for each in claim.minus] or claim.number,
        expect=claim.expect,
        smallest=claim.smallest,
        equivalence=claim.equivalence,
        refuted_if=claim.refuted_if,
        verdict=VERDICTS[verdict],
        reason=reason(verdict, rule, statistic.unit, mean, interval, len(effects), more),
        seeds=found,
        effect=mean,
        interval=interval,
        deviation=deviation,
        more_seeds=more,
    )


def seed_effect(claim: Claim, seed: int, folders: Mapping[tuple[str, int], RunFolder]) -> SeedEffect:
    """Return the values of a claim's arms in the runs of one seed, and their difference."""
    statistic = STATISTICS[claim.statistic]
    values = {
        str(each): statistic.read(folders[each.variant, seed], each.arm)
        for each in dict.fromkeys([*claim.plus, *claim.minus])
    }
    plus, minus = ([values[str(each)] for each in arms] for arms in (claim.plus, claim.minus))
    known = [value for value in (*plus, *minus) if value is not None]
    if len(known) < len(plus) + len(minus):
        return SeedEffect(values=values, effect=None)
    effect = sum(known[: len(plus)]) - sum(known[len(plus) :]) - claim.number
    return SeedEffect(values=values, effect=effect)


def reason(
    verdict: int,
    rule: Rule,
    unit: str,
    mean: float | None,
    interval: tuple[float, float] | None,
    seeds: int,
    more: int | None,
) -> str:
    """Return why a claim has its verdict, in a sentence.

    Args:
        verdict: 1 for supported, -1 for refuted, 0 for undecided.
        seeds: Number of seeds that have an effect.
        more: Number of seeds that would decide, if it was counted.
    """
    if mean is None:
        return "It was not measured: no seed has a value for each of its arms."
    if interval is None:
        few = "One seed says nothing about noise" if seeds == 1 else "All seeds have the same effect"
        return f"{few}, so there is no interval."
    smallest, bound = f"{rule.smallest:g} {unit}", f"±{rule.equivalence:g} {unit}"
    low, high = (end * rule.sign for end in interval[:: rule.sign])
    one_sided = rule.expect in ("not_less", "not_more")
    if verdict == 1 and rule.expect == "equal":
        return f"The interval lies within {bound}."
    if verdict == 1 and one_sided:
        return f"The interval excludes a difference of {rule.equivalence:g} {unit} in the other direction."
    if verdict == 1:
        return f"The interval excludes zero, and the effect is at least {smallest}."
    if verdict == -1 and (rule.expect == "equal" or one_sided):
        return f"The interval lies outside {bound}."
    if verdict == -1:
        if high < 0:
            return "The effect has the other sign."
        if -rule.equivalence < low and high < rule.equivalence:
            return f"The interval lies within {bound}: there is no effect of interest."
        return f"The interval excludes an effect of {smallest}."
    if more is None:
        return f"The effect is so close to a bound that more than {MOST_SEEDS:,} seeds would be needed."
    return "The interval allows both."


def origin(folder: RunFolder, variant: str, seed: int) -> RunOrigin:
    """Return where the values of a run come from, as far as its records tell."""
    arms, config = list(read(Arms, folder.arms)), None
    data: dict[str, dict[str, dict[str, str]]] = {}
    if folder.config.exists():
        content = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
        config = hash_of(without_folders(content))
        prepared = PreparedData(load_config(folder.config).data)
        for source in prepared.settings.sources:
            if (path := Path(prepared.folder(source)) / CARD).exists():
                splits = read(DataCard, path).splits
                data[source] = {split: card.fingerprints for split, card in splits.items()}
    environment = read_json(folder.environment) if folder.environment.exists() else {}
    return RunOrigin(
        folder=str(folder.root), variant=variant, seed=seed, arms=arms, config=config, data=data,
        environment=environment,
    )  # fmt: skip


def now() -> str:
    """Return the time in UTC as text."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
