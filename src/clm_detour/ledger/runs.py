"""The runs that a ledger needs: one for each variant of the recipe and each seed.

All arms of a variant and a seed are arms of one recipe, so they share the phases with which they begin. A
phase that a ledger changes becomes a phase of its own, called `PHASE-ARM` after the first arm with that
change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clm_detour.analyze.run import CONTROL, can_be_analyzed
from clm_detour.config.loading import DEBUG, config_from, merge, parse_override, plain, read_tree
from clm_detour.config.shipped import find_config
from clm_detour.ledger.load import ScaledLedger, references
from clm_detour.ledger.schema import LedgerArm, Needles
from clm_detour.ledger.statistics import STATISTICS
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.settings import check_unchanged, recipe_settings
from clm_detour.records.analysis import NetworkComparison
from clm_detour.records.audit import AuditRecord
from clm_detour.records.evaluation import Summary
from clm_detour.records.needles import NeedlesRecord
from clm_detour.records.run import Arms, HeldOutRecord, StepRecord
from clm_detour.records.run_folder import RunFolder
from clm_detour.records.store import read, read_or_none
from clm_detour.utils.errors import UserError, on_one_line
from clm_detour.utils.rules import one_of, require

AUDIT = ("exposure", "membership")  # statistics of the audit
MAIN = "main"  # folder of the recipe without a variant


@dataclass(frozen=True)
class Need:
    """The arms of a variant that claims read, and those whose needles and whose audit they read."""

    arms: set[str]
    needles: set[str]
    audit: set[str]


@dataclass(frozen=True)
class LedgerRun:
    """A run of a recipe for one variant and one seed.

    Args:
        variant: Name of the variant; empty for the recipe itself.
        needles: Arms that are tested for needles.
        audit: Arms of which it is measured what they remember.
        needle_test: Settings of the test for needles.
    """

    variant: str
    seed: int
    recipe: Recipe
    needles: tuple[str, ...]
    audit: tuple[str, ...]
    needle_test: Needles

    @property
    def folder(self) -> RunFolder:
        """Paths of the run."""
        return self.recipe.folder

    @property
    def lock(self) -> Path:
        """File by which commands divide the runs of a ledger among them."""
        return self.folder.root / ".ledger.lock"

    @property
    def needles_record(self) -> Path:
        """The result of the needle test, where the page of the run reads it too."""
        return self.folder.analysis / "needles.json"

    @property
    def tokens(self) -> int:
        """Tokens of the phases that are not finished."""
        phases = self.recipe.phases.items()
        return sum(phase.tokens for id, phase in phases if not self.folder.phase(id).finished)

    def check_unchanged(self) -> None:
        """Check that phases which were started have the settings of the ledger.

        Raises:
            UserError: If a phase was started with other settings.
        """
        config = self.recipe.config
        remedy = "give a changed arm another name, or the scale another folder"
        for id, phase in self.recipe.phases.items():
            check_unchanged(self.folder.phase(id), config.data.dir, recipe_settings(config, phase), remedy)

    @property
    def with_needles(self) -> list[str]:
        """The arms that were tested for needles with the settings of the scale."""
        found, wanted = read_or_none(NeedlesRecord, self.needles_record), self.needle_test
        if found is None or (found.lengths, found.trials) != (wanted.lengths, wanted.trials):
            return []
        return [arm for arm in self.recipe.arms if arm in {Path(path).name for path in found.models}]

    @property
    def without_needles(self) -> list[str]:
        """The arms that are to be tested for needles and were not."""
        tested = self.with_needles
        return [arm for arm in self.needles if arm not in tested]

    @property
    def without_audit(self) -> list[str]:
        """The arms of which it is not measured what they remember."""
        found = read_or_none(AuditRecord, self.folder.audit)
        return [arm for arm in self.audit if found is None or found.final(arm) is None]

    @property
    def is_complete(self) -> bool:
        """True if all records of the recipe's arms are there, so that nothing has to run."""
        done = self.is_trained and self.is_measured
        return done and not self.without_needles and not self.without_audit

    @property
    def is_trained(self) -> bool:
        """True if all phases are finished."""
        return all(self.folder.phase(id).finished for id in self.recipe.phases)

    @property
    def is_measured(self) -> bool:
        """True if every arm has its scores, the analysis is there or cannot be made, and there is a page."""
        folder, arms = self.folder, self.recipe.arms
        summary = folder.tasks / "summary.json"
        files = [folder.arms, folder.report, folder.held_out, folder.steps]
        has_tasks = self.recipe.config.evaluate.tasks is not None
        if not all(path.exists() for path in [*files, *([summary] if has_tasks else [])]):
            return False
        scored = [arms.keys() <= read(HeldOutRecord, folder.held_out).models.keys()]
        if has_tasks:
            scored.append(arms.keys() <= read(Summary, summary).scores.keys())
        if can_be_analyzed(arms):
            left_out = {step.step for step in read(list[StepRecord], folder.steps) if step.left_out}
            scored.append(self.is_compared or "analysis" in left_out)
        return all(scored)

    @property
    def is_compared(self) -> bool:
        """True if the networks are compared, with the control if the run has one."""
        found = read_or_none(NetworkComparison, self.folder.comparison)
        return found is not None and (CONTROL not in self.recipe.arms or "control" in found.models)


def needed_arms(loaded: ScaledLedger, claims: Iterable[str]) -> dict[str, Need]:
    """Return what claims need of each variant; the recipe itself has an empty name."""
    needed: dict[str, Need] = {}
    for name in claims:
        claim = loaded.claims[name]
        for each in references(claim):
            need = needed.setdefault(each.variant, Need(set(), set(), set()))
            need.arms.update({each.arm, *STATISTICS[claim.statistic].arms})
            need.needles.update({each.arm} if claim.statistic == "needles" else ())
            need.audit.update({each.arm} if claim.statistic in AUDIT else ())
    return needed


def ledger_runs(
    loaded: ScaledLedger, claims: Iterable[str], overrides: Sequence[str] = ()
) -> list[LedgerRun]:
    """Return the runs that claims need, seed by seed, so that early seeds are complete first.

    A run keeps the arms that it has from earlier claims.

    Args:
        claims: Names of claims of this scale.
        overrides: Changes to every recipe, like those of `clm-detour run`; they win over those of the ledger.

    Raises:
        UserError: If a recipe is wrong, or has no such arm or phase.
    """
    needed = needed_arms(loaded, claims)
    return [
        make_run(loaded, variant, seed, need, overrides)
        for seed in loaded.scale.seeds
        for variant, need in needed.items()
    ]


def run_folder(loaded: ScaledLedger, variant: str, seed: int, overrides: Sequence[str] = ()) -> RunFolder:
    """Return the folder of a run."""
    return RunFolder(result_folder(loaded, overrides) / (variant or MAIN) / f"seed-{seed}")


def result_folder(loaded: ScaledLedger, overrides: Sequence[str] = ()) -> Path:
    """Return the folder of the runs and the result of a scale."""
    return Path(f"{loaded.scale.folder}{'-debug' if DEBUG in overrides else ''}")


def make_run(
    loaded: ScaledLedger, variant: str, seed: int, need: Need, overrides: Sequence[str]
) -> LedgerRun:
    """Return the run of a variant and a seed with the needed arms, and those that it has already."""
    folder, scale = run_folder(loaded, variant, seed, overrides), loaded.scale
    there = read_or_none(Arms, folder.arms) or {}
    arms = [name for name in loaded.ledger.arms if name in need.arms or name in there]
    changes = [*scale.overrides, *(scale.variants[variant] if variant else ())]
    content = recipe_content(find_config(scale.recipe, loaded.file), [*changes, *overrides])
    content = with_arms(content, loaded.ledger.arms)
    content["arms"] = {name: content["arms"][name] for name in arms}
    fixed = [f"run_dir={folder.root}", f"data.dir={folder.root}/data"]
    fixed += [f"seed={seed}", f"data.shuffle_seed={seed}"]
    debug = [DEBUG] if DEBUG in overrides else []
    config = config_from(OmegaConf.create(content), [*fixed, *debug])
    needles, audit = (tuple(arm for arm in arms if arm in some) for some in (need.needles, need.audit))
    return LedgerRun(variant, seed, Recipe(config), needles, audit, scale.needles)


def recipe_content(file: Path, overrides: Iterable[str]) -> dict[str, Any]:
    """Return a recipe with changes as plain values, with the `${...}` of its phases resolved.

    Raises:
        UserError: If the recipe cannot be read, or a `${...}` of a phase leads nowhere.
    """
    tree = merge(read_tree(file), *(parse_override(text) for text in overrides if text != DEBUG))
    require("arms" in tree and "phases" in tree, f"{file} is not a recipe: it has no arms or no phases.")
    try:
        phases = OmegaConf.to_container(tree.phases, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{file}: a phase cannot be resolved: {on_one_line(error)}.") from None
    return {**plain(tree), "phases": phases}


def with_arms(content: Mapping[str, Any], arms: Mapping[str, LedgerArm]) -> dict[str, Any]:
    """Return a recipe with the arms of a ledger in place of its own, and a phase for each changed one.

    Raises:
        UserError: If the recipe has no such arm, or the arm has no such phase.
    """
    phases, own = dict(content["phases"]), content["arms"]
    names: dict[str, str] = {}  # a changed phase as JSON -> its name
    lines: dict[str, list[str]] = {}
    for name, arm in arms.items():
        one_of(arm.of, own, f"arms.{name}.of")
        for phase in arm.phases:
            one_of(phase, own[arm.of], f"arms.{name}.phases (of {arm.of})")
        lines[name] = []
        for phase in own[arm.of]:
            changed = phase
            settings = merged(content["phases"][phase], arm.phases.get(phase, {}))
            if settings != content["phases"][phase]:
                key = json.dumps([phase, settings], sort_keys=True)
                changed = names.setdefault(key, f"{phase}-{name}")
                require(
                    phases.setdefault(changed, settings) == settings,
                    f"arms.{name}.phases: the changed phase {phase} would be called {changed}, as another "
                    "phase is; give the arm another name.",
                )
            lines[name].append(changed)
    return {**content, "phases": phases, "arms": lines}


def merged(there: Any, changes: Any) -> Any:
    """Return nested dictionaries with changes; a value that is no dictionary is replaced."""
    if not isinstance(there, Mapping) or not isinstance(changes, Mapping):
        return changes
    return {**there, **{key: merged(there.get(key), value) for key, value in changes.items()}}
