"""Name the canaries in the training data of an arm's model, and say what an audit found."""

from __future__ import annotations

from collections.abc import Sequence

from clm_detour.config.schema import Canaries
from clm_detour.figures import wording
from clm_detour.records.audit import BASE, OFTEN
from clm_detour.report.run import Phase, Run


def canaries(run: Run, phases: Sequence[Phase]) -> str:
    """Return a sentence on the canaries in the data of the phases, or an empty text if there are none."""
    config = run.config
    if config is None:
        return ""
    mixtures = {config.phases[phase.name].mixture for phase in phases if phase.name in config.phases}
    names = dict.fromkeys(name for mixture in sorted(mixtures) for name in config.data.mixtures[mixture])
    return " ".join(
        f"**Canaries.** Among the documents of {name} are {wording.count(found.each * len(found.copies))} "
        "made-up sentences with random numbers as their secrets, in "
        f"{wording.count(found.each * sum(found.copies))} copies in all, to measure what the model "
        "remembers. Their names and numbers belong to nobody."
        for name in names
        if (found := canaries_of(run, name))
    )


def canaries_of(run: Run, source: str) -> Canaries | None:
    """Return the canaries of a source, which may have been prepared by another recipe; None without any."""
    made = run.sources[source].made_from.get("canaries") if source in run.sources else None
    if made:
        return Canaries(**made)
    wanted = run.config.data.canaries if run.config else None
    return wanted if wanted and wanted.source == source else None


def audit_result(run: Run, arm: str) -> str:
    """Return what an audit found of the model, or an empty text if nothing was measured."""
    found = run.audit
    parts = []
    exposure, told = (found.exposure(arm), found.membership(arm)) if found else (None, None)
    if found and found.canaries and exposure is not None:
        parts.append(
            f"secrets that stand {OFTEN} or more times in the data have an exposure of {exposure:.1f} bits "
            f"(chance {found.canaries.chance:.1f}, at most {found.most:.1f})"
        )
    if told is not None:
        between = "" if told.interval is None else " [{:.2f}, {:.2f}]".format(*told.interval)
        parts.append(
            f"texts that were read are told from others with an AUC of {told.auc:.2f}{between} against the "
            f"{BASE} (chance 0.50)"
        )
    if not parts:
        return ""
    return f"Audit: {'; '.join(parts)}. Of both attention masks the one that gives more counts."
