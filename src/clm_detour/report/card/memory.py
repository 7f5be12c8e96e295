"""Name the canaries in the training data of an arm's model, and say what an audit found."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clm_detour.figures import wording
from clm_detour.records.audit import BASE, OFTEN
from clm_detour.report.run import Phase, Run


def canaries(run: Run, phases: Sequence[Phase]) -> str:
    """Return a sentence on the canaries in the data of the phases, or an empty text if there are none."""
    config = run.config
    wanted = config.data.canaries if config else None
    if config is None or wanted is None:
        return ""
    mixtures = {config.phases[phase.name].mixture for phase in phases if phase.name in config.phases}
    if not any(wanted.source in config.data.mixtures[mixture] for mixture in mixtures):
        return ""
    sentences, copies = wanted.each * len(wanted.copies), wanted.each * sum(wanted.copies)
    return (
        f"**Canaries.** Among the documents of {wanted.source} are {wording.count(sentences)} made-up "
        f"sentences with random numbers as their secrets, in {wording.count(copies)} copies in all, to "
        "measure what the model remembers. Their names and numbers belong to nobody."
    )


def audit_result(run: Run, arm: str) -> str:
    """Return what an audit found of the model, or an empty text if nothing was measured."""
    found = run.audit
    parts = []
    exposure, auc = (found.exposure(arm), found.membership_auc(arm)) if found else (None, None)
    if found and found.canaries and exposure is not None:
        most = math.log2(1 + found.settings.alternatives)
        parts.append(
            f"secrets that stand {OFTEN} or more times in the data have an exposure of {exposure:.1f} bits "
            f"(chance {found.canaries.chance:.1f}, at most {most:.1f})"
        )
    if auc is not None:
        parts.append(
            f"texts that were read are told from others with an AUC of {auc / 100:.2f} against the {BASE} "
            "(chance 0.50)"
        )
    if not parts:
        return ""
    return f"Audit: {'; '.join(parts)}. Of both attention masks the one that gives more counts."
