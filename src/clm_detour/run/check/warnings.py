"""Warn of settings that work but may not be intended. No warning stops a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from clm_detour.analyze.texts import FEWEST
from clm_detour.config.schema import Evaluate
from clm_detour.data.deduplicate import digest
from clm_detour.data.mixture import exact_shares
from clm_detour.data.packing import PackedSource, is_packed
from clm_detour.data.shards import SPLITS
from clm_detour.data.sources.selection import is_held_out
from clm_detour.recipe.phases import PhaseRun
from clm_detour.run.check.sources import RecipeSource

MAX_ROUNDING = 0.05  # a phase may exceed its tokens by this share without a warning
FEWEST_MASKED = 20  # expected masked tokens in a step; with fewer, a step may have none


@dataclass(frozen=True)
class HeldOutText:
    """The held-out text of a source.

    Args:
        documents: Number of documents, held-out ones included.
        held_out: Number of held-out documents.
        rows: Number of held-out rows; None before the source is packed.
        digests: Digests of the distinct held-out texts; None if they were not read.
    """

    documents: int
    held_out: int
    rows: int | None
    digests: frozenset[bytes] | None = None


def share_warnings(mixtures: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Yield a warning for each mixture whose shares do not sum to 1, with the normalized shares."""
    for name, shares in mixtures.items():
        total = sum(shares.values())
        if abs(total - 1) > 1e-9:
            normalized = zip(shares, exact_shares(shares), strict=True)
            used = ", ".join(f"{source} {float(share):.4g}" for source, share in normalized)
            yield (
                f"data.mixtures.{name}: the shares sum to {total:.4g}, not to 1; they are normalized to "
                f"{used}."
            )


def step_warnings(phases: Iterable[PhaseRun]) -> Iterator[str]:
    """Yield a warning for each problem with the steps of phases, naming all phases that have it."""
    names: dict[str, list[str]] = {}
    for run in {run.name: run for run in phases}.values():
        for problem in step_problems(run):
            names.setdefault(problem, []).append(f"phases.{run.name}")
    for problem, affected in names.items():
        yield f"{', '.join(affected)}: {problem}"


def step_problems(run: PhaseRun) -> Iterator[str]:
    """Yield a sentence if a phase has a single step, too many tokens, or hardly a masked token in a step."""
    excess = run.tokens / run.duration - 1
    if run.steps == 1 or excess > MAX_ROUNDING:
        steps = "1 step" if run.steps == 1 else f"{run.steps:,} steps"
        more = f", {excess:.0%} more" if excess > MAX_ROUNDING else ""
        yield (
            f"{run.duration:,} tokens take {steps} of {run.step_rows.full} rows of {run.row_tokens:,} "
            f"tokens, which is {run.tokens:,} tokens{more}; lower train.batch_rows, or give the phase more "
            "tokens."
        )
    masked = (run.phase.mask_rate or 1) * run.step_rows.smallest * run.row_tokens
    if masked < FEWEST_MASKED:
        yield (
            f"mask_rate masks about {masked:.2g} tokens of a step, and a step without any ends the run; "
            "raise it, or train.batch_rows."
        )


def count_held_out(source: RecipeSource, has_tokenizer: bool) -> HeldOutText | None:
    """Count the held-out text of a source that is prepared or small; return None for others."""
    prepared = source.prepared
    rows, cache = prepared.settings.sequence_length, prepared.cache
    if has_tokenizer and is_packed(f"{source.folder}/held_out", rows, cache):
        train, held_out = (
            PackedSource.open(f"{source.folder}/{split}", rows, None, cache) for split in SPLITS
        )
        return HeldOutText(train.documents + held_out.documents, held_out.documents, len(held_out))
    if source.prepared_elsewhere or not source.is_small():
        return None
    share = prepared.settings.held_out
    digests = [digest(text) if is_held_out(text, share) else None for text in source.documents()]
    held_out_digests = [found for found in digests if found is not None]
    return HeldOutText(len(digests), len(held_out_digests), None, frozenset(held_out_digests))


def held_out_warnings(
    counts: Mapping[str, HeldOutText | None], domain: Sequence[str], settings: Evaluate
) -> Iterator[str]:
    """Yield a warning for each source with less held-out text than the evaluation asks for.

    Args:
        counts: Held-out text of each source that is measured; None if it is not known yet.
        domain: Names of the sources that are measured at the end of the run.
    """
    for name, count in counts.items():
        if count is not None and not count.held_out:
            yield (
                f"source {name}: none of its {count.documents:,} documents is held out, so nothing is "
                "measured on it; raise data.held_out, or give more documents."
            )
    known = {name: count for name in domain if (count := counts[name]) is not None and count.held_out}
    wanted = settings.fill_masks
    if few := [f"{name} {count.held_out}" for name, count in known.items() if count.held_out < wanted]:
        yield (
            f"evaluate.fill_masks: {wanted} sentences of each source are wanted, and there are at most "
            f"{', '.join(few)}."
        )
    wanted = settings.rows
    rows = {name: count.rows for name, count in known.items() if count.rows is not None}
    few = [f"{name} {found}" for name, found in rows.items() if found < wanted]
    if few and wanted != Evaluate.rows:
        yield (
            f"evaluate.rows: {wanted} of each source are wanted, and there are only {', '.join(few)}; all of "
            "these are scored."
        )


def comparison_warnings(
    counts: Sequence[HeldOutText | None], read_texts: Callable[[], Sequence[str]] | None
) -> Iterator[str]:
    """Yield a warning if there are too few distinct held-out texts to compare detour and twin.

    Args:
        counts: Held-out text of the sources of the domain.
        read_texts: Function that reads the first distinct texts; None if the sources are not prepared.
    """
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return
    texts = sum(count.held_out for count in known)
    digests = [count.digests for count in known if count.digests is not None]
    if len(digests) == len(known):
        texts = len(frozenset().union(*digests))
    elif read_texts is not None and texts <= 10 * FEWEST:  # copies are rare, so more documents are enough
        texts = len(read_texts())
    if texts < FEWEST:
        yield (
            f"There are {texts} distinct held-out texts, and comparing the networks of detour and twin (CKA) "
            f"takes {FEWEST}, so it will be left out; give more documents, or raise data.held_out."
        )
