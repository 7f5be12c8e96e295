"""The models of an audit: the base, from which the arms start, and the end of every later phase."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from clm_detour.recipe.base import fills_masks
from clm_detour.recipe.phases import PhaseRun
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.audit import BASE, TWIN
from clm_detour.utils.errors import UserError
from clm_detour.utils.rules import one_of

Span = tuple[str, int, int]  # mixture, and the first and the next position of its stream


@dataclass(frozen=True)
class Subject:
    """A model that is audited.

    Args:
        id: Id of a phase, or `base` for `model.base`.
        path: Folder or hub id.
        run: The phase; None for `model.base`.
        own: The phases since the base, whose rows are the members. For the base they are those of the first
            arm, none of which it has read.
        reference: Id of the twin's model at the same place, if it read the same rows.
    """

    id: str
    path: str
    run: PhaseRun | None
    own: tuple[PhaseRun, ...]
    arms: tuple[str, ...] = ()
    last_of: tuple[str, ...] = ()
    reference: str | None = None


def subjects(recipe: Recipe) -> tuple[str | None, list[Subject]]:
    """Return the id of the base, None without one, and all models that can be audited, the base first."""
    path, shared, base = recipe.config.model.base, shared_phases(recipe.arms), None
    if path is not None:  # a decoder or a body alone cannot fill masks
        shared, base = [], BASE if fills_masks(path) else None
    elif shared:
        base = shared[-1].id
    own = {
        run.id: tuple(phase for phase in run.lineage if phase not in shared)
        for run in recipe.phases.values()
        if run not in shared
    }
    first = next((own[runs[-1].id] for runs in recipe.arms.values() if runs[-1].id in own), ())
    found = [subject(recipe, run, own[id]) for id, run in recipe.phases.items() if id in own]
    if base == BASE:
        assert recipe.start is not None
        found.insert(0, Subject(BASE, recipe.start, None, first))
    elif shared:
        found.insert(0, subject(recipe, shared[-1], first))
    return base, found


def shared_phases(arms: Mapping[str, Sequence[PhaseRun]]) -> list[PhaseRun]:
    """Return the phases with which all of several arms begin."""
    together = zip(*arms.values(), strict=False) if len(arms) > 1 else ()
    return [runs[0] for runs in together if len({run.id for run in runs}) == 1]


def subject(recipe: Recipe, run: PhaseRun, own: tuple[PhaseRun, ...]) -> Subject:
    """Return the model at the end of a phase."""
    return Subject(
        id=run.id,
        path=str(recipe.folder.phase(run.id).model),
        run=run,
        own=own,
        arms=tuple(arm for arm, runs in recipe.arms.items() if run in runs),
        last_of=tuple(arm for arm, runs in recipe.arms.items() if run == runs[-1]),
        reference=twin_of(recipe, run),
    )


def twin_of(recipe: Recipe, run: PhaseRun) -> str | None:
    """Return the id of the twin's phase at the same place, if it is another one and read the same rows."""
    twin, place = recipe.arms.get(TWIN, []), len(run.lineage) - 1
    other = twin[place] if place < len(twin) else None
    if other is None or other == run or spans(other.lineage) != spans(run.lineage):
        return None
    return other.id


def spans(runs: Collection[PhaseRun]) -> tuple[Span, ...]:
    """Return the rows that phases read."""
    return tuple((run.phase.mixture, run.first_row, run.next_row) for run in runs)


def wanted(recipe: Recipe, base: str | None, found: Sequence[Subject], arms: Sequence[str]) -> set[str]:
    """Return the ids of the models that are measured: those of some arms, and their finished references.

    Args:
        arms: Names of the arms; empty for all.

    Raises:
        UserError: If there is no such arm, or one of its phases has not finished.
    """
    for arm in arms:
        one_of(arm, recipe.arms, "arm")
    chosen = [each for each in found if not arms or set(arms) & set(each.arms) or each.id == base]
    for each in chosen:
        if each.run is not None and not recipe.is_finished(each.run):
            raise UserError(
                f"Phase {each.id} has not finished: run the recipe first, or name finished arms with --arm."
            )
    references = {each.reference for each in chosen if each.reference}
    return {each.id for each in chosen} | {id for id in references if recipe.is_finished(recipe.phases[id])}
