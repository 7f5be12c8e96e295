"""Describe the training of an arm's model: its phases, its data, and what all phases share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clm_detour.config.schema import Config, Source
from clm_detour.config.units import parse_tokens
from clm_detour.figures import wording
from clm_detour.records.phase import FreezeRecord, PhaseRecord, ScheduleRecord
from clm_detour.report.card.metadata import hub_base, is_of_hub
from clm_detour.report.generated import generated_sources
from clm_detour.report.run import Phase, Run

SHAPES = {
    "warmup_constant": "constant",
    "one_minus_sqrt": "1-sqrt decay",
    "cosine": "cosine decay",
    "linear": "linear decay",
}
GENERATED = "synthetic text, written by the program of the bundled sample"


def phase_rows(run: Run, phases: Sequence[Phase]) -> list[list[str]]:
    """Return a row for each setting and a column for each phase, without rows in which nothing is known."""
    ends = [phase.end for phase in phases]
    rows: list[list[Any]] = [
        ["objective", *map(objective, phases)],
        ["tokens", *(wording.count(phase.tokens) for phase in phases)],
        ["steps", *(end and wording.count(end.steps) for end in ends)],
        ["tokens in a step", *(end and wording.count(end.batch_tokens) for end in ends)],
        ["mixture", *(end and end.mixture for end in ends)],
        ["learning rate", *(end and rate(end.schedule) for end in ends)],
        ["optimizer state at the start", *(moments(run, phase) for phase in phases)],
        ["not trained", *(end and frozen(end.freeze) for end in ends)],
        ["prediction head", *(end and head(end) for end in ends)],
        ["precision", *(end and end.precision for end in ends)],
        ["devices", *(end and devices(run, end) for end in ends)],
        ["time", *(end and wording.duration(end.seconds).replace(wording.NARROW, " ") for end in ends)],
        ["floating-point operations", *(operations(run, [phase]) for phase in phases)],
    ]
    return [[cell or "" for cell in row] for row in rows if any(row[1:])]


def objective(phase: Phase) -> str:
    """Return the objective in words: `masked, 15 %`."""
    if phase.objective == "clm":
        return "causal: each token from those before it"
    rate = phase.end.mask_rate if phase.end else None
    unit = phase.end.mask_unit if phase.end else "token"
    return "masked" if rate is None else f"masked: {100 * rate:g} % of the {unit}s"


def rate(schedule: ScheduleRecord) -> str:
    """Return the learning rate over a phase in words."""
    warmup, decay = (parse_tokens(text, "schedule") for text in (schedule.warmup, schedule.decay))
    start = f"warm-up over {wording.tokens(warmup)}, " if warmup else ""
    end = f"{schedule.peak:g} to {schedule.peak * schedule.floor:g}"
    if schedule.name == "warmup_constant":
        return f"{start}then constant {schedule.peak:g}" if start else f"constant {schedule.peak:g}"
    if schedule.name == "wsd":
        return f"{start}constant, 1-sqrt decay from {end} over the last {wording.tokens(decay)}"
    return f"{start}{SHAPES.get(schedule.name, schedule.name)} from {end}"


def moments(run: Run, phase: Phase) -> str:
    """Return whether a phase kept the optimizer state of the phase before; empty for a first phase."""
    settings = run.config.phases.get(phase.name) if run.config else None
    if not settings or "." not in phase.id:
        return ""
    return "kept" if settings.moments == "keep" else "new"


def head(end: PhaseRecord) -> str:
    """Return the prediction head with which a phase started; empty if it is that of the phase before."""
    return "new" if end.reset_head else "one for each objective" if end.separate_head else ""


def frozen(freeze: FreezeRecord | None) -> str:
    """Return the parts of the network that were not trained."""
    if not freeze:
        return ""
    parts = [f"layers {freeze.layers}" if freeze.layers is not None else ""]
    parts += [name for name in ("embeddings", "head") if getattr(freeze, name)]
    return wording.listing([part for part in parts if part])


def devices(run: Run, end: PhaseRecord) -> str:
    """Return the processes of a phase and the kind of their devices."""
    environment = run.environment or {}
    if end.device == "cpu":
        return f"CPU, {environment['cores']} cores" if environment.get("cores") else "CPU"
    return f"{end.world_size} x {end.device}"


def operations(run: Run, phases: Sequence[Phase]) -> str:
    """Return the floating-point operations of phases, or an empty text if those of one are not known."""
    if not all(phase.end and phase.id in run.operations for phase in phases):
        return ""
    return f"{sum(run.operations[phase.id] for phase in phases):.2e}"


def recipe_notes(run: Run, phases: Sequence[Phase]) -> list[str]:
    """Return sentences on what all phases share."""
    ends = [phase.end for phase in phases if phase.end]
    found = []
    if len(ends) == len(phases):
        seconds = wording.duration(sum(end.seconds for end in ends)).replace(wording.NARROW, " ")
        counted = operations(run, phases)
        found.append(
            f"In all {wording.tokens(sum(end.tokens for end in ends))} in {seconds}"
            + (f" and {counted} floating-point operations, counted from the shapes." if counted else ".")
        )
    if run.config:
        found += config_notes(run.config)
    if any(phase.objective == "mlm" for phase in phases):
        found.append(
            "In masked phases 80 % of the chosen tokens become the mask token, 10 % another token, and 10 % "
            "stay. The loss is computed on the chosen tokens only."
        )
    environment = run.environment or {}
    versions = [
        f"{name} {environment[key]}"
        for name, key in (
            ("clm-detour", "clm_detour"), ("torch", "torch"), ("transformers", "transformers"),
            ("Composer", "composer"),
        )
        if environment.get(key)
    ]  # fmt: skip
    if versions:
        found.append(f"Software: {', '.join(versions)}.")
    return found


def config_notes(config: Config) -> list[str]:
    """Return sentences on optimizer and rows."""
    optimizer = config.optimizer
    clip = "" if optimizer.clip_norm is None else f", gradients clipped at a norm of {optimizer.clip_norm:g}"
    low, high = optimizer.betas
    return [
        f"Optimizer: AdamW with decoupled weight decay; betas {low:g} and {high:g}, epsilon "
        f"{optimizer.eps:g}, weight decay {optimizer.weight_decay:g}{clip}. Seed {config.seed}.",
        f"Documents are packed into rows of {wording.count(config.data.sequence_length)} tokens; attention "
        "never crosses from one document to another.",
    ]


def data_head(phases: Sequence[Phase]) -> list[str]:
    """Return the head of the table of `data_rows`."""
    shares = [f"share in {phase.name}" for phase in phases if phase.end]
    return ["source", "documents", "tokens", *shares, "passes"]


def data_rows(run: Run, phases: Sequence[Phase]) -> list[list[str]]:
    """Return a row for each source that the phases read, and one of all of them.

    A pass is one reading of all tokens of the source's training split.
    """
    ends = [phase.end for phase in phases if phase.end]
    names = list(dict.fromkeys(name for end in ends for name in end.shares))
    if not names:
        return []
    splits = {name: run.sources[name].splits.get("train") for name in names if name in run.sources}
    rows = []
    for name in names:
        split = splits.get(name)
        shares = [end.shares[name].observed if name in end.shares else 0.0 for end in ends]
        read = sum(share * end.tokens for share, end in zip(shares, ends, strict=True))
        counts = (
            [wording.count(split.documents), wording.count(split.tokens)] if split else [wording.ABSENT] * 2
        )
        passes = f"{read / split.tokens:.2f}" if split and split.tokens else wording.ABSENT
        rows.append([name, *counts, *(f"{100 * share:.1f} %" if share else "" for share in shares), passes])
    if len(names) > 1 and all(splits.get(name) for name in names):
        known = [split for split in splits.values() if split]
        totals = [sum(split.documents for split in known), sum(split.tokens for split in known)]
        rows.append(["all", *map(wording.count, totals), *[""] * len(ends), ""])
    return rows


def sources_of(run: Run, phases: Sequence[Phase]) -> dict[str, Source]:
    """Return the sources of the recipe that the phases read."""
    names = dict.fromkeys(name for phase in phases if phase.end for name in phase.end.shares)
    sources = run.config.data.sources if run.config else {}
    return {name: sources[name] for name in names if name in sources}


def data_notes(run: Run, arm: str, phases: Sequence[Phase]) -> list[str]:
    """Return an item for each source of the phases, and the base model, of which something is known."""
    generated, base = generated_sources(run), hub_base(run, arm)
    notes = {
        name: source_note(run, arm, source, name in generated)
        for name, source in sources_of(run, phases).items()
    }
    items = [f"**{name}**: {note}." for name, note in notes.items() if note]
    if base:
        items.append(f"The data of the base model is described at [{base}](https://huggingface.co/{base}).")
    return items


def source_note(run: Run, arm: str, source: Source, generated: bool) -> str:
    """Return description, origin and license of a source, as far as they are known."""
    hub = source.format == "hub" and is_of_hub(run, arm, source.path)
    parts = [
        source.description.rstrip(".") if source.description else GENERATED if generated else "",
        f"[{source.path}](https://huggingface.co/datasets/{source.path})" if hub else "",
        f"license {source.license}" if source.license else "",
    ]
    return "; ".join(part for part in parts if part)
