"""What works but may not be what is meant: a warning each. None of these stops a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from clm_detour.analyze.run import can_be_analyzed
from clm_detour.analyze.texts import FEWEST, held_out_texts
from clm_detour.config.schema import Config, Evaluate
from clm_detour.data.deduplicate import digest
from clm_detour.data.mixture import exact_shares
from clm_detour.data.packing import PackedSource, is_packed
from clm_detour.data.sources import OnError, read_documents
from clm_detour.data.tokenization import is_held_out
from clm_detour.data.tokenizer import Tokenizer
from clm_detour.recipe.phases import PhaseRun, domain_sources, plan_recipe
from clm_detour.recipe.recipe import Recipe
from clm_detour.recipe.stream import is_prepared_elsewhere, prepared_folder, shard_cache
from clm_detour.run.check.data import is_of_sample, is_quickly_read

ROUNDED = 0.05  # of a phase's tokens: more than this is said
FEWEST_MASKED = 20  # tokens of a step: of fewer there may be none


@dataclass(frozen=True)
class HeldOutText:
    """What of a source is kept out of training.

    Args:
        documents: of both splits.
        rows: of held-out text; None before it is packed.
        digests: of the distinct held-out texts; None where they are not read.
    """

    documents: int
    held_out: int
    rows: int | None
    digests: frozenset[bytes] | None = None


def doubts(config: Config, tokenizer: Tokenizer | None, sizes: bool = True) -> list[str]:
    """Everything doubtful that can be seen now.

    Args:
        tokenizer: None where the run has yet to train it.
        sizes: whether steps, rounding and amounts of held-out text count, which are small by intention under `+debug`.
    """
    found = [*share_doubts(config)]
    if sizes:
        found += [*step_doubts(config), *held_out_doubts(config, tokenizer)]
    return found


def share_doubts(config: Config) -> Iterator[str]:
    """Shares that do not sum to 1, with what they are taken for."""
    for name in dict.fromkeys(run.phase.mixture for run in plan_recipe(config).values()):
        shares = config.data.mixtures[name]
        total = sum(shares.values())
        if abs(total - 1) > 1e-9:
            normalised = zip(shares, exact_shares(shares), strict=True)
            taken = ", ".join(f"{source} {float(share):.4g}" for source, share in normalised)
            yield f"data.mixtures.{name}: the shares sum to {total:.4g}, not to 1; they are normalised to {taken}."


def step_doubts(config: Config) -> Iterator[str]:
    """Phases of few or other steps than meant; phases of which the same holds share a sentence."""
    named: dict[str, list[str]] = {}
    for run in {run.name: run for run in plan_recipe(config).values()}.values():
        for doubt in doubts_of_steps(run):
            named.setdefault(doubt, []).append(f"phases.{run.name}")
    for doubt, names in named.items():
        yield f"{', '.join(names)}: {doubt}"


def doubts_of_steps(run: PhaseRun) -> Iterator[str]:
    """One step, many more tokens than asked for, since a step is the least that there is, or hardly a masked token in a step."""
    over = run.tokens / run.duration - 1
    if run.steps == 1 or over > ROUNDED:
        yield f"{rounding(run, over)}; lower train.batch_rows, or give the phase more tokens."
    masked = (run.phase.mask_rate or 1) * run.step_rows.smallest * run.row_tokens
    if masked < FEWEST_MASKED:
        yield (
            f"mask_rate masks about {masked:.2g} tokens of a step, and a step without any ends the run; "
            "raise it, or train.batch_rows."
        )


def rounding(run: PhaseRun, over: float) -> str:
    """How a phase's tokens become steps."""
    steps = "1 step" if run.steps == 1 else f"{run.steps:,} steps"
    more = f", {over:.0%} more" if over > ROUNDED else ""
    size = f"{run.step_rows.full} rows of {run.row_tokens:,} tokens"
    return f"{run.duration:,} tokens take {steps} of {size}, which is {run.tokens:,} tokens{more}"


def held_out_doubts(config: Config, tokenizer: Tokenizer | None) -> Iterator[str]:
    """Too little held-out text for what is asked of it, as far as it can be counted."""
    names = domain_sources(config)
    watched = names if config.train.evaluate_every is None else trained_sources(config)
    counts = {name: count_held_out(config, name, tokenizer) for name in watched}
    for name, count in counts.items():
        if count is not None and not count.held_out:
            yield (
                f"source {name}: none of its {count.documents:,} documents is held out, so nothing is measured on it; "
                "raise data.held_out, or give more documents."
            )
    known = {
        name: count
        for name, count in counts.items()
        if name in names and count is not None and count.held_out
    }
    wanted = config.evaluate
    if few := [
        f"{name} {count.held_out}" for name, count in known.items() if count.held_out < wanted.fill_masks
    ]:
        yield f"evaluate.fill_masks: {wanted.fill_masks} sentences of each source are wanted, and there are at most {', '.join(few)}."
    few = [
        f"{name} {count.rows}"
        for name, count in known.items()
        if count.rows is not None and count.rows < wanted.rows
    ]
    if few and wanted.rows != Evaluate.rows:
        yield f"evaluate.rows: {wanted.rows} of each source are wanted, and there are only {', '.join(few)}; all of these are scored."
    of_domain = [count for count in map(counts.get, names) if count is not None]
    if can_be_analyzed(Recipe(config).arms) and len(of_domain) == len(names):
        texts = count_texts(config, of_domain, tokenizer)
        if texts < FEWEST:
            yield (
                f"There are {texts} distinct held-out texts, and comparing the networks of detour and twin (CKA) takes {FEWEST}, so it will be "
                "left out; give more documents, or raise data.held_out."
            )


def trained_sources(config: Config) -> list[str]:
    """The sources that any phase trains on."""
    mixtures = (config.data.mixtures[run.phase.mixture] for run in plan_recipe(config).values())
    return list(dict.fromkeys(name for shares in mixtures for name in shares))


def count_held_out(config: Config, name: str, tokenizer: Tokenizer | None) -> HeldOutText | None:
    """Count what of a source is held out: as it is prepared, or by reading a small one; None where that would take long."""
    folder, rows, cache = prepared_folder(config, name), config.data.sequence_length, shard_cache(config)
    if tokenizer is not None and is_packed(f"{folder}/held_out", rows, cache):
        train, held_out = (
            PackedSource.open(f"{folder}/{split}", rows, None, cache) for split in ("train", "held_out")
        )
        return HeldOutText(train.documents + held_out.documents, held_out.documents, len(held_out))
    source = config.data.sources[name]
    if is_prepared_elsewhere(config, name) or is_of_sample(config, source) or not is_quickly_read(source):
        return None
    texts = read_documents(source, on_error=cast(OnError, config.data.on_error))
    kept_out = [digest(text) if is_held_out(text, config.data.held_out) else None for text in texts]
    digests = [found for found in kept_out if found is not None]
    return HeldOutText(len(kept_out), len(digests), None, frozenset(digests))


def count_texts(config: Config, counts: list[HeldOutText], tokenizer: Tokenizer | None) -> int:
    """Count distinct held-out texts, of few prepared documents at least; copies are rare, so many documents are as many texts."""
    read = [count.digests for count in counts if count.digests is not None]
    if len(read) == len(counts):
        return len(frozenset().union(*read))
    names, documents = domain_sources(config), sum(count.held_out for count in counts)
    prepared = all(Path(prepared_folder(config, name), "held_out", "index.json").exists() for name in names)
    if tokenizer is None or not prepared or documents > 10 * FEWEST:
        return documents
    return len(held_out_texts(Recipe(config), FEWEST))
