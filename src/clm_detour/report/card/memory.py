"""Name the canaries in the training data of an arm's model, and say what an audit found."""

from __future__ import annotations

from collections.abc import Sequence

from clm_detour.config.schema import Canaries
from clm_detour.data.origin import canaries_of
from clm_detour.figures import wording
from clm_detour.records.audit import BASE, OFTEN
from clm_detour.records.store import parse
from clm_detour.report.card.training import sources_of
from clm_detour.report.run import Phase, Run


def canaries(run: Run, phases: Sequence[Phase]) -> str:
    """Return a sentence on the canaries in the data of the phases, or an empty text if there are none."""
    parts = []
    for name in sources_of(run, phases):
        if found := prepared_canaries(run, name):
            sentences, copies = found.each * len(found.copies), found.each * sum(found.copies)
            parts.append(
                f"Among the documents of {name} are {wording.count(sentences)} made-up sentences with random "
                f"numbers as their secrets, in {wording.count(copies)} copies in all, to measure what the "
                "model remembers. Their names and numbers belong to nobody."
            )
    return f"**Canaries.** {' '.join(parts)}" if parts else ""


def prepared_canaries(run: Run, source: str) -> Canaries | None:
    """Return the canaries in a source: those of its data card, since another recipe may have prepared it."""
    card = run.sources.get(source)
    if card and (there := card.made_from.get("canaries")):
        return parse(Canaries, there)
    return canaries_of(run.config.data, source) if run.config else None


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
