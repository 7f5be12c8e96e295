"""The results of an audit, computed from what was measured of each model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from clm_detour.audit.inputs import Inputs
from clm_detour.audit.membership import membership
from clm_detour.audit.models import Subject
from clm_detour.audit.secrets import chance
from clm_detour.records.audit import (
    BASE,
    MASKS,
    NONE,
    TWIN,
    AuditedCanaries,
    AuditedModel,
    AuditRecord,
    Mask,
    MaskResult,
    MeasuredModel,
)

FEWEST_ROWS = 2  # of each kind


def make_record(inputs: Inputs, measured: Mapping[str, MeasuredModel]) -> AuditRecord:
    """Return the record of an audit.

    Args:
        inputs: What was measured on.
        measured: Id of a model -> what was measured.
    """
    base, models = inputs.models
    present = [each for each in models if each.id in measured]
    settings = inputs.canary_settings
    canaries = None
    if settings is not None:
        canaries = AuditedCanaries(
            source=settings.source,
            copies=[canary.copies for canary in inputs.canaries],
            chance=chance(inputs.settings.alternatives),
        )
    return AuditRecord(
        settings=inputs.settings,
        canaries=canaries,
        base=base if base in measured else None,
        models=[audited_model(inputs, each, base, measured) for each in present],
        notes=notes(inputs, base, present),
    )


def audited_model(
    inputs: Inputs, subject: Subject, base: str | None, measured: Mapping[str, MeasuredModel]
) -> AuditedModel:
    """Return the results of one model."""
    sample, subjects = inputs.sample(subject), {each.id: each for each in inputs.models[1]}
    others = {BASE: base, TWIN: subject.reference}
    references = {name: id for name, id in others.items() if id and id in measured and id != subject.id}

    def losses(id: str, mask: Mask) -> list[np.ndarray]:
        """Return the losses of a model on the members and on the non-members."""
        known = dict(zip(inputs.scored(subjects[id]), measured[id].losses[mask], strict=True))
        return [np.array([known[row] for row in rows]) for rows in (sample.members, sample.non_members)]

    enough = min(len(sample.members), len(sample.non_members)) >= FEWEST_ROWS
    masks = {}
    for mask in MASKS:
        own = losses(subject.id, mask)
        scores = {NONE: [-loss for loss in own]}
        for name, id in references.items():
            scores[name] = [other - loss for other, loss in zip(losses(id, mask), own, strict=True)]
        masks[mask] = MaskResult(
            ranks=measured[subject.id].ranks[mask],
            exposures=measured[subject.id].exposures[mask],
            member_loss=float(own[0].mean()) if enough else None,
            non_member_loss=float(own[1].mean()) if enough else None,
            membership={name: membership(*pair) for name, pair in scores.items()} if enough else {},
        )
    return AuditedModel(
        id=subject.id,
        arms=list(subject.arms),
        last_of=list(subject.last_of),
        reference=references.get(TWIN),
        copies_read=inputs.copies_read(subject),
        members=dict(Counter(row.source for row in sample.members)),
        non_members=dict(Counter(row.source for row in sample.non_members)),
        masks=masks,
    )


def notes(inputs: Inputs, base: str | None, subjects: Sequence[Subject]) -> list[str]:
    """Return what was not measured, and why."""
    found = []
    if inputs.canary_settings is None:
        found.append(
            "Exposure was not measured: the data that the phases read has no canaries (data.canaries)."
        )
    for source in [*inputs.sources_with_canaries][1:]:
        found.append(f"Source {source} has canaries too, whose exposure was not measured.")
    for each in subjects:
        if each.reference and each.reference not in {other.id for other in subjects}:
            found.append(f"{each.id} was not compared with its twin: {each.reference} was not measured.")
    samples = [inputs.sample(each) for each in subjects]
    if any(min(len(each.members), len(each.non_members)) < FEWEST_ROWS for each in samples):
        found.append(
            f"Membership was not measured everywhere: it takes {FEWEST_ROWS} rows that were read and hold no "
            "canary, and as many held-out ones; train on more text, or raise data.held_out."
        )
    for source in dict.fromkeys(source for sample in samples for source in sample.left_out):
        found.append(
            f"The membership of source {source} was not measured: it has no held-out rows, or each row that "
            "was read holds a canary."
        )
    if share := read_by_base(inputs):
        found.append(
            f"The base read {100 * share:.0f} % of these texts itself, so its own AUC is no control, and the "
            "AUC against it shows less than was learned."
        )
    if base is None:
        found.append(
            "There is no base to compare with: the arms start from new weights, or from a model that cannot "
            "fill masks."
        )
    return found


def read_by_base(inputs: Inputs) -> float:
    """Return the share of the members of its sample that the base read, 0 without a base."""
    base, models = inputs.models
    found = next((each for each in models if each.id == base), None)
    if found is None or found.run is None:
        return 0.0
    read, rows = inputs.readings.of(found.run.lineage), inputs.sample(found).members
    seen = [row.source in read and read[row.source][row.number] > 0 for row in rows]
    return sum(seen) / max(len(seen), 1)
